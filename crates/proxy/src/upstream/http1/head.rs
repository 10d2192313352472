//! Heads of HTTP/1.1 (RFC 9112): a request's written, a response's read. Bytes in, decisions out; no sockets.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRAILER, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use super::body::Decoder;

/// Headers that a response may have at most.
const MAX_HEADERS: usize = 100;

/// Room for headers that most responses do with.
const FEW_HEADERS: usize = 32;

/// A request's head on its way to a host. `more` takes the place of the headers of the same names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The request target, as its line has it.
    pub target: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Headers that only this attempt has.
    pub more: &'a [(HeaderName, HeaderValue)],
}

/// How the end of a request's body is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks; the trailers that may follow.
    Chunked(Vec<HeaderName>),
}

impl RequestHead<'_> {
    fn all(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let kept = self.headers.iter().filter(|(name, _)| !self.more.iter().any(|(other, _)| other == *name));
        self.more.iter().map(|(name, value)| (name, value)).chain(kept)
    }

    /// Writes the head; `size` is the body's, where it is known. A header that tells the length is believed.
    pub(super) fn write(&self, size: Option<u64>, title_case: bool, out: &mut Vec<u8>) -> Encoding {
        out.reserve(128 + self.headers.len() * 48);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for (name, value) in self.all().filter(|(name, _)| **name != TRANSFER_ENCODING) {
            write_line(name, value.as_bytes(), title_case, out);
        }
        let declared =
            length(self.all().filter(|(name, _)| **name == CONTENT_LENGTH).map(|(_, value)| value));
        let encoding = match (declared, size) {
            (Ok(Some(length)), _) => Encoding::Length(length),
            (_, Some(0)) => Encoding::Length(0),
            (_, Some(length)) => {
                let text = itoa::Buffer::new().format(length).to_owned();
                write_line(&CONTENT_LENGTH, text.as_bytes(), title_case, out);
                Encoding::Length(length)
            }
            (_, None) => {
                write_line(&TRANSFER_ENCODING, b"chunked", title_case, out);
                Encoding::Chunked(announced(self.headers))
            }
        };
        out.extend_from_slice(b"\r\n");
        encoding
    }
}

/// The trailers that a head announces; others are not sent (RFC 9110, 6.5.1).
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(TRAILER).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|text| text.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| ![TRANSFER_ENCODING, CONTENT_LENGTH, TRAILER, CONNECTION].contains(name))
        .collect()
}

/// Writes `name: value`.
pub(super) fn write_line(name: &HeaderName, value: &[u8], title_case: bool, out: &mut Vec<u8>) {
    if title_case {
        let mut upper = true;
        out.extend(name.as_str().bytes().map(|byte| {
            let written = if upper { byte.to_ascii_uppercase() } else { byte };
            upper = byte == b'-';
            written
        }));
    } else {
        out.extend_from_slice(name.as_str().as_bytes());
    }
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A response's head and what it says about the message and its connection.
#[derive(Debug)]
pub(super) struct ResponseHead {
    /// Status and headers.
    pub response: Response<()>,
    /// How the body ends.
    pub decoder: Decoder,
    /// Whether another request may follow.
    pub keep_alive: bool,
}

/// What is asked, as far as the response's meaning hangs on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// By HEAD: there is no body whatever the headers say.
    pub head: bool,
    /// By CONNECT: after a success come bytes.
    pub connect: bool,
}

/// What the host sent is no HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes a response's head from the front of `input` once all of it is there. Interim responses are passed over.
///
/// # Errors
/// When it is none.
pub(super) fn read(input: &mut BytesMut, asked: Asked) -> Result<Option<ResponseHead>, Malformed> {
    let mut fields = Fields::new();
    while !input.is_empty() {
        let mut few = [httparse::EMPTY_HEADER; FEW_HEADERS];
        let found = match parse(input, &mut few, &mut fields) {
            Err(httparse::Error::TooManyHeaders) => {
                let mut many = [httparse::EMPTY_HEADER; MAX_HEADERS];
                parse(input, &mut many, &mut fields).map_err(|_| Malformed)?
            }
            found => found.map_err(|_| Malformed)?,
        };
        let Some(lines) = found else { return Ok(None) };
        let bytes = input.split_to(lines.length).freeze();
        if matches!(lines.status.as_u16(), 100 | 102..=199) {
            continue;
        }
        return lines.finish(&bytes, &mut fields, asked).map(Some);
    }
    Ok(None)
}

/// Headers whose values are ranges of the bytes that they were read from.
type Fields = smallvec::SmallVec<[(HeaderName, std::ops::Range<usize>); FEW_HEADERS]>;

/// A head but for its headers.
struct Lines {
    length: usize,
    status: StatusCode,
    version: u8,
}

fn parse<'b>(
    input: &'b [u8],
    headers: &mut [httparse::Header<'b>],
    fields: &mut Fields,
) -> Result<Option<Lines>, httparse::Error> {
    let mut response = httparse::Response::new(headers);
    let httparse::Status::Complete(length) = response.parse(input)? else { return Ok(None) };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let start = input.as_ptr() as usize;
    fields.clear();
    for header in &*response.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| httparse::Error::HeaderName)?;
        // Without a value there is nowhere for it to point to.
        let at = if header.value.is_empty() { 0 } else { header.value.as_ptr() as usize - start };
        fields.push((name, at..at + header.value.len()));
    }
    Ok(Some(Lines {
        length,
        status: status.ok_or(httparse::Error::Status)?,
        version: response.version.unwrap_or(1),
    }))
}

impl Lines {
    fn finish(self, bytes: &Bytes, fields: &mut Fields, asked: Asked) -> Result<ResponseHead, Malformed> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        *response.version_mut() = if self.version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
        let headers = response.headers_mut();
        headers.reserve(fields.len() + 4);
        for (name, range) in fields.drain(..) {
            let value = HeaderValue::from_maybe_shared(bytes.slice(range)).map_err(|_| Malformed)?;
            headers.append(name, value);
        }
        let decoder = decoder(self.status, self.version, headers, asked)?;
        let keep_alive = keeps_alive(headers, self.version) && decoder != Decoder::UntilClose;
        Ok(ResponseHead { response, decoder, keep_alive })
    }
}

fn keeps_alive(headers: &HeaderMap, version: u8) -> bool {
    let has = |wanted: &str| {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|text| text.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    if version == 0 { has("keep-alive") && !has("close") } else { !has("close") }
}

/// Where a response ends (RFC 9112, 6.3).
fn decoder(
    status: StatusCode,
    version: u8,
    headers: &mut HeaderMap,
    asked: Asked,
) -> Result<Decoder, Malformed> {
    if asked.head
        || matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        )
        || (asked.connect && status.is_success())
    {
        return Ok(Decoder::Length(0));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        if version == 0 {
            return Err(Malformed);
        }
        // Both at once is how responses are smuggled: the encoding holds, and the length goes no further.
        headers.remove(CONTENT_LENGTH);
        let last = headers.get_all(TRANSFER_ENCODING).iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next());
        return Ok(match last.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked")) {
            true => Decoder::chunked(),
            false => Decoder::UntilClose,
        });
    }
    match length(headers.get_all(CONTENT_LENGTH).iter())? {
        Some(length) => Ok(Decoder::Length(length)),
        None => Ok(Decoder::UntilClose),
    }
}

/// What lengths say, where they agree.
fn length<'v>(values: impl Iterator<Item = &'v HeaderValue>) -> Result<Option<u64>, Malformed> {
    let mut found = None;
    for value in values {
        for text in value.as_bytes().split(|byte| *byte == b',') {
            let text = text.trim_ascii();
            let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(text).ok().filter(|_| digits).and_then(|text| text.parse().ok());
            match (number, found) {
                (None, _) => return Err(Malformed),
                (Some(new), Some(old)) if new != old => return Err(Malformed),
                (number, _) => found = number,
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, asked: Asked) -> Result<Option<ResponseHead>, Malformed> {
        read(&mut BytesMut::from(text), asked)
    }

    #[test]
    fn ends_of_responses_are_those_of_rfc_9112() {
        let plain = Asked::default();
        let head = Asked { head: true, ..plain };
        let connect = Asked { connect: true, ..plain };
        for (text, asked, want) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", plain, (Decoder::Length(5), true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", plain, (Decoder::Length(5), true)),
            (
                "HTTP/1.1 200\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n",
                plain,
                (Decoder::Length(5), false),
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", plain, (Decoder::UntilClose, false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", plain, (Decoder::Length(1), false)),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 1\r\nconnection: keep-alive\r\n\r\n",
                plain,
                (Decoder::Length(1), true),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
                plain,
                (Decoder::chunked(), true),
            ),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", plain, (Decoder::UntilClose, false)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", head, (Decoder::Length(0), true)),
            ("HTTP/1.1 200 OK\r\n\r\n", connect, (Decoder::Length(0), true)),
            ("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\n", connect, (Decoder::Length(2), true)),
            ("HTTP/1.1 204 No Content\r\n\r\n", plain, (Decoder::Length(0), true)),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", plain, (Decoder::Length(0), true)),
            (
                "HTTP/1.1 103 Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 204 None\r\n\r\n",
                plain,
                (Decoder::Length(0), true),
            ),
        ] {
            let head = read_text(text, asked).expect(text).expect(text);
            assert_eq!((head.decoder, head.keep_alive), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused_and_half_of_one_waited_for() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "SSH-2.0-x\r\n",
        ] {
            assert_eq!(read_text(text, Asked::default()).err(), Some(Malformed), "{text}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(read_text(&many, Asked::default()).err(), Some(Malformed));
        let whole =
            format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{}\r\n", "x: y\r\n".repeat(FEW_HEADERS + 9));
        for end in 0..whole.len() {
            assert!(read_text(&whole[..end], Asked::default()).is_ok_and(|head| head.is_none()), "{end}");
        }
        let head = read_text(&whole, Asked::default()).ok().flatten().expect("whole");
        assert_eq!(head.response.headers().get_all("x").iter().count(), FEW_HEADERS + 9);
    }

    #[test]
    fn both_length_and_encoding_are_the_encoding() {
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
        let head = read_text(text, Asked::default()).ok().flatten().expect("a head");
        assert_eq!(head.decoder, Decoder::chunked());
        assert!(!head.response.headers().contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn heads_are_written_with_what_the_attempt_adds() {
        let mut headers = HeaderMap::new();
        headers.insert("x-one", HeaderValue::from_static("1"));
        headers.insert("x-two", HeaderValue::from_static("old"));
        headers.insert(TRAILER, HeaderValue::from_static("x-sum, content-length"));
        let more = [("x-two", "2"), ("host", "h")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let head = RequestHead { method: &Method::PUT, target: "/a?b", headers: &headers, more: &more };
        let mut out = Vec::new();
        let encoding = head.write(None, true, &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "PUT /a?b HTTP/1.1\r\nX-Two: 2\r\nHost: h\r\nX-One: 1\r\nTrailer: x-sum, content-length\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(encoding, Encoding::Chunked(vec![HeaderName::from_static("x-sum")]));
        out.clear();
        assert_eq!(head.write(Some(7), false, &mut out), Encoding::Length(7));
        assert!(String::from_utf8_lossy(&out).ends_with("content-length: 7\r\n\r\n"));
    }
}
