//! One call, as a line of text: `METHOD AUTHORITY/PATH [WORD]... [=> EXPECTATION]...`.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::Problem;

/// How the client speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.0.
    Http10,
    /// HTTP/2 with prior knowledge, or by ALPN over TLS.
    Http2,
    /// Bytes.
    Tcp,
}

/// One call and what is to come of it.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The line, for reports.
    pub(crate) text: String,
    /// The method.
    pub(crate) method: String,
    /// Host, with its port where one is written.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// Headers in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Option<String>,
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// TLS, with this server name (none when empty).
    pub(crate) tls: Option<String>,
    /// A client certificate of this name.
    pub(crate) certificate: Option<String>,
    /// The only TLS version to offer, `1.2` or `1.3`.
    pub(crate) version: Option<String>,
    /// The only cipher suite to offer, as rustls calls it.
    pub(crate) cipher: Option<String>,
    /// The application protocol to offer in the place of the protocol's own.
    pub(crate) alpn: Option<String>,
    /// The port to connect to, when it is not the authority's.
    pub(crate) port: Option<u16>,
    /// The service address to connect to, when it is not the wildcard.
    pub(crate) address: Option<String>,
    /// The client's source address: the last part of it.
    pub(crate) source: Option<u8>,
    /// How often.
    pub(crate) times: usize,
    /// How many at a time.
    pub(crate) at_once: usize,
    /// All on one connection.
    pub(crate) keep: bool,
    /// How many answers there are to what is sent at once.
    pub(crate) answers: usize,
    /// Trailers of a body in chunks.
    pub(crate) trailers: Vec<(String, String)>,
    /// Flags that change how the client behaves: `fin` (half-close after the last byte), `hold` (read to the end),
    /// `expect` (wait for 100 Continue), `chunked`, `raw`.
    pub(crate) ways: Vec<String>,
    /// What is to come of it: status counts, and `KEY=VALUE`.
    pub(crate) expected: Vec<Expected>,
}

/// One expectation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// That outcome, that often (always, when no number is given).
    Outcome(String, Option<usize>),
    /// A part of what is observed has that value.
    Part(String, String),
    /// Shares of workloads, in percent.
    Shares(BTreeMap<String, u32>),
}

impl FromStr for Call {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let words = words(text)?;
        let (asked, expected) = match words.iter().position(|word| word == "=>") {
            Some(at) => (&words[..at], &words[at + 1..]),
            None => (&words[..], &[][..]),
        };
        let [method, target, rest @ ..] = asked else { return Err("expected METHOD AUTHORITY/PATH".into()) };
        let (authority, path) = match target.find('/') {
            Some(at) => target.split_at(at),
            None => (target.as_str(), "/"),
        };
        let tcp = method == "TCP" || method == "TLS";
        let mut call = Self {
            text: text.to_owned(),
            method: method.clone(),
            authority: authority.to_owned(),
            path: if method == "CONNECT" || path == "/*" {
                path.trim_start_matches('/').to_owned()
            } else {
                path.to_owned()
            },
            headers: Vec::new(),
            body: None,
            protocol: if tcp { Protocol::Tcp } else { Protocol::Http1 },
            tls: (method == "TLS").then(String::new),
            certificate: None,
            version: None,
            cipher: None,
            alpn: None,
            port: None,
            address: None,
            source: None,
            times: 1,
            at_once: 1,
            keep: false,
            answers: 1,
            trailers: Vec::new(),
            ways: Vec::new(),
            expected: Vec::new(),
        };
        rest.iter().try_for_each(|word| call.take(word))?;
        call.expected = expected.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
        Ok(call)
    }
}

impl Call {
    fn take(&mut self, word: &str) -> Result<(), Problem> {
        let number = |text: &str| text.parse().map_err(|_| format!("{word:?}: {text:?} is no number"));
        if let Some((key, value)) = word.split_once('=').filter(|(key, _)| key.bytes().all(is_token)) {
            self.headers.push((key.to_owned(), value.to_owned()));
        } else if let Some((key, value)) = word.split_once(':') {
            match key {
                "do" => self.headers.push(("x-do".to_owned(), value.to_owned())),
                "body" | "send" => self.body = Some(value.replace("\\n", "\n").replace("\\r", "\r")),
                "body-size" => self.body = Some("x".repeat(number(value)?)),
                "header-size" => self.headers.push(("x-large".to_owned(), "x".repeat(number(value)?))),
                "header-count" => {
                    let one = |at| (format!("x-{at}"), "x".to_owned());
                    self.headers.extend((0..number(value)?).map(one));
                }
                "answers" => self.answers = number(value)?,
                "trailer" => {
                    let (name, value) =
                        value.split_once('=').ok_or_else(|| format!("{word:?}: expected NAME=VALUE"))?;
                    self.trailers.push((name.to_owned(), value.to_owned()));
                }
                "sni" => self.tls = Some(value.to_owned()),
                "alpn" => self.alpn = Some(value.to_owned()),
                "cert" => self.certificate = Some(value.to_owned()),
                "tls" => self.version = Some(value.to_owned()),
                "cipher" => self.cipher = Some(value.to_owned()),
                "bearer" => self.headers.push(("authorization".to_owned(), format!("Bearer {value}"))),
                "port" => self.port = Some(value.parse().map_err(|_| format!("{word:?} is no port"))?),
                "to" => self.address = Some(value.to_owned()),
                "source" => {
                    self.source = Some(value.parse().map_err(|_| format!("{word:?} is no byte"))?);
                }
                _ => return Err(format!("unknown word {word:?}")),
            }
        } else if let Some(times) =
            word.strip_prefix('x').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        {
            let (times, at_once) = times.split_once('/').unwrap_or((times, "1"));
            (self.times, self.at_once) = (number(times)?, number(at_once)?);
        } else {
            match word {
                "@h1" => self.protocol = Protocol::Http1,
                "@h2" => self.protocol = Protocol::Http2,
                "@h10" => self.protocol = Protocol::Http10,
                "@tls" => self.tls = Some(String::new()),
                "keep" => self.keep = true,
                "fin" | "hold" | "expect" | "chunked" | "raw" | "case" | "any" | "resume" => {
                    self.ways.push(word.to_owned())
                }
                _ => return Err(format!("unknown word {word:?}")),
            }
        }
        Ok(())
    }

    /// Whether the client behaves so.
    pub(crate) fn is(&self, way: &str) -> bool {
        self.ways.iter().any(|other| other == way)
    }

    /// The port to connect to.
    pub(crate) fn connects_to(&self) -> Option<u16> {
        self.port.or_else(|| self.authority.rsplit_once(':')?.1.parse().ok())
    }

    /// The host without its port.
    pub(crate) fn host(&self) -> &str {
        self.authority.split(':').next().unwrap_or_default()
    }
}

impl FromStr for Expected {
    type Err = Problem;

    fn from_str(word: &str) -> Result<Self, Problem> {
        if let Some((key, value)) = word.split_once('=') {
            if key == "from" && value.contains('%') {
                let share = |part: &str| {
                    let (who, share) = part.split_once(':')?;
                    Some((who.to_owned(), share.trim_end_matches('%').parse().ok()?))
                };
                let shares: Option<_> = value.split(',').map(share).collect();
                return shares
                    .map(Self::Shares)
                    .ok_or_else(|| format!("{word:?}: expected from=POD:50%,POD:50%"));
            }
            return Ok(Self::Part(key.to_owned(), value.replace("\\n", "\n")));
        }
        match word.split_once('*') {
            Some((outcome, times)) => {
                let times = times.parse().map_err(|_| format!("{word:?}: expected OUTCOME*TIMES"))?;
                Ok(Self::Outcome(outcome.to_owned(), Some(times)))
            }
            None => Ok(Self::Outcome(word.to_owned(), None)),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Splits at blanks that are outside of double quotes, which go away.
fn words(text: &str) -> Result<Vec<String>, Problem> {
    let (mut out, mut word, mut quoted, mut some) = (Vec::new(), String::new(), false, false);
    for c in text.chars() {
        match c {
            '"' => (quoted, some) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if some {
                    out.push(std::mem::take(&mut word));
                }
                some = false;
            }
            c => {
                word.push(c);
                some = true;
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    if some {
        out.push(word);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_call() {
        let call: Call =
            r#"POST a:8000/x?y=1 x-user="j d" do:status=503;until=2 body:hi x20/5 @h2 => 200*18 503*2 from=a-v1"#.parse().unwrap();
        assert_eq!(
            (call.authority.as_str(), call.path.as_str(), call.times, call.at_once),
            ("a:8000", "/x?y=1", 20, 5)
        );
        assert_eq!(
            call.headers,
            [("x-user".into(), "j d".into()), ("x-do".into(), "status=503;until=2".into())]
        );
        assert_eq!(call.protocol, Protocol::Http2);
        assert_eq!(call.expected[1], Expected::Outcome("503".into(), Some(2)));
        assert_eq!(call.expected[2], Expected::Part("from".into(), "a-v1".into()));
        for bad in ["", "GET", "GET a what", "GET a => x*y", "GET a \"b"] {
            assert!(bad.parse::<Call>().is_err(), "{bad}");
        }
    }
}
