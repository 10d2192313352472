//! Load: what is sent, sending it, and the report.

pub(crate) mod report;
pub(crate) mod run;

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use lateen_base::parse_duration;

/// What fortio's flags say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Where requests go.
    pub(crate) url: Uri,
    /// Connections that send at the same time.
    pub(crate) connections: usize,
    /// Requests per second over all connections; none: as fast as it goes.
    pub(crate) rate: Option<f64>,
    /// When to stop.
    pub(crate) until: Until,
    /// The method.
    pub(crate) method: Method,
    /// Headers of every request.
    pub(crate) headers: HeaderMap,
    /// The body of every request.
    pub(crate) body: Vec<u8>,
    /// How long one request may take.
    pub(crate) timeout: Duration,
    /// One request, its answer printed.
    pub(crate) curl: bool,
    /// The report as JSON.
    pub(crate) json: bool,
}

/// When a run stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Until {
    /// After this many calls.
    Calls(u64),
    /// After this time.
    Elapsed(Duration),
}

/// What is wrong with the flags.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OptionsError {
    #[error("no URL; write lateen load [flags] http://host:port/path")]
    NoUrl,
    #[error("{0:?} is no http:// URL")]
    Url(String),
    #[error("flag {0} needs a value")]
    NoValue(String),
    #[error("flag {flag}: {value:?}: {expected}")]
    Value { flag: String, value: String, expected: &'static str },
    #[error(
        "unknown flag {0}; there are: -c -qps -n -t -H -X -payload -timeout -curl -quiet -loglevel -o json"
    )]
    Unknown(String),
}

impl Options {
    /// Reads fortio's flags; two dashes do as well as one, and `-flag=value` as `-flag value`.
    pub(crate) fn parse(args: &[String]) -> Result<Self, OptionsError> {
        let mut url = None;
        let mut options = Self {
            url: Uri::from_static("/"),
            connections: 4,
            rate: Some(8.0),
            until: Until::Elapsed(Duration::from_secs(5)),
            method: Method::GET,
            headers: HeaderMap::new(),
            body: Vec::new(),
            timeout: Duration::from_secs(30),
            curl: false,
            json: false,
        };
        let agent = concat!("fortio.org/fortio-1.60.0-lateen-", env!("CARGO_PKG_VERSION"));
        options.headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if !arg.starts_with('-') {
                url = Some(arg.clone());
                continue;
            }
            let (flag, inline) = match arg.split_once('=') {
                Some((flag, value)) => (flag, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let name = flag.trim_start_matches('-');
            match name {
                "curl" => options.curl = true,
                "quiet" | "a" | "nocatchup" | "uniform" | "jitter" => {}
                _ => {
                    let value = inline
                        .or_else(|| args.next().cloned())
                        .ok_or_else(|| OptionsError::NoValue(arg.clone()))?;
                    options.set(name, &value)?;
                }
            }
        }
        let url = url.ok_or(OptionsError::NoUrl)?;
        let with_scheme = if url.contains("://") { url.clone() } else { format!("http://{url}") };
        options.url = with_scheme
            .parse()
            .ok()
            .filter(|uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some())
            .ok_or(OptionsError::Url(url))?;
        Ok(options)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), OptionsError> {
        let bad =
            |expected| OptionsError::Value { flag: format!("-{flag}"), value: value.to_owned(), expected };
        match flag {
            "c" => self.connections = positive(value).ok_or_else(|| bad("write a number from 1"))?,
            "n" => {
                let calls: usize = positive(value).ok_or_else(|| bad("write a number from 1"))?;
                self.until = Until::Calls(calls as u64);
            }
            "t" => {
                let time = parse_duration(value).map_err(|_| bad("write a duration such as 5s"))?;
                self.until = Until::Elapsed(time);
            }
            "timeout" => {
                self.timeout = parse_duration(value).map_err(|_| bad("write a duration such as 5s"))?
            }
            "qps" => {
                let rate: f64 = value.parse().map_err(|_| bad("write a number"))?;
                self.rate = (rate > 0.0 && rate.is_finite()).then_some(rate);
            }
            "X" => self.method = value.parse().map_err(|_| bad("write a method such as POST"))?,
            "payload" => {
                self.body = value.as_bytes().to_vec();
                if self.method == Method::GET {
                    self.method = Method::POST;
                }
            }
            "H" => {
                let (name, text) = value.split_once(':').ok_or_else(|| bad("write Name: value"))?;
                let name: HeaderName =
                    name.trim().parse().map_err(|_| bad("the name is none of a header"))?;
                let text =
                    HeaderValue::from_str(text.trim()).map_err(|_| bad("the value is none of a header"))?;
                self.headers.insert(name, text);
            }
            "loglevel" | "p" | "r" | "labels" => {}
            "o" if value == "json" => self.json = true,
            "o" => return Err(bad("write json")),
            other => return Err(OptionsError::Unknown(format!("-{other}"))),
        }
        Ok(())
    }
}

fn positive(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, OptionsError> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_labs_lines_are_understood() {
        let options = parse("-c 2 -qps 0 -n 20 -loglevel Warning http://httpbin:8000/get").unwrap();
        assert_eq!((options.connections, options.rate, options.until), (2, None, Until::Calls(20)));
        assert_eq!(options.url.host(), Some("httpbin"));
        assert!(parse("-curl http://httpbin:8000/get").unwrap().curl);
        assert_eq!(parse("--t=2s host:80/x").unwrap().until, Until::Elapsed(Duration::from_secs(2)));
    }

    #[test]
    fn wrong_flags_are_named() {
        assert_eq!(parse("-c 2"), Err(OptionsError::NoUrl));
        assert_eq!(parse("-bogus 1 http://a/"), Err(OptionsError::Unknown("-bogus".into())));
        assert!(matches!(parse("-c 0 http://a/"), Err(OptionsError::Value { .. })));
        assert!(matches!(parse("https://a/"), Err(OptionsError::Url(_))));
    }
}
