//! Heads that the codec of HTTP/1 refuses. It answers them itself, with a status alone, and ends the connection; what
//! Envoy's codec says goes out in the place of that.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

/// What a connection knows of its refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    server: Box<str>,
    /// Whether bytes of a response's body may be among what is written next: nothing is changed then.
    body: AtomicBool,
    /// Whether HTTP is over on the connection, after an upgrade.
    over: AtomicBool,
    /// Bytes read since the last request began.
    read: AtomicU64,
}

/// The answers that hyper makes of its own, and the words for them.
const ANSWERS: [(&str, &str, &str); 3] = [
    ("400 Bad Request", "Bad Request", "400"),
    ("431 Request Header Fields Too Large", "Request Header Fields Too Large", "431"),
    ("414 URI Too Long", "URI Too Long", "414"),
];

/// The length of the words for a status.
pub(crate) fn body_length(status: u16) -> u64 {
    let words = ANSWERS.iter().find(|(_, _, code)| code.parse() == Ok(status));
    words.map_or(0, |(_, body, _)| body.len() as u64)
}

impl Refusals {
    /// Of a connection whose server calls itself so.
    pub(crate) fn new(server: &str) -> Self {
        Self {
            server: server.into(),
            body: AtomicBool::new(false),
            over: AtomicBool::new(false),
            read: AtomicU64::new(0),
        }
    }

    /// Bytes of a response's body are about to be written.
    pub(crate) fn body_goes(&self) {
        self.body.store(true, Ordering::Relaxed);
    }

    /// What is written from now on is not the codec's.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// A request has begun: what comes next is of another one.
    pub(crate) fn request_began(&self) {
        self.read.store(0, Ordering::Relaxed);
    }

    /// Bytes of heads that were read since.
    pub(crate) fn head_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Everything that was to be written is.
    pub(super) fn flushed(&self) {
        self.body.store(false, Ordering::Relaxed);
    }

    /// What goes out in the place of `written`, where that is an answer of the codec's own: all of ours have a date.
    pub(super) fn instead(&self, written: &[u8]) -> Option<Bytes> {
        if written.len() > 128 || self.body.load(Ordering::Relaxed) || self.over.load(Ordering::Relaxed) {
            return None;
        }
        let rest = written.strip_prefix(b"HTTP/1.1 ")?;
        let (line, body, _) = ANSWERS.iter().find(|(line, _, _)| {
            rest.strip_prefix(line.as_bytes()).is_some_and(|rest| {
                rest.eq_ignore_ascii_case(b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            })
        })?;
        let date = httpdate::fmt_http_date(SystemTime::now());
        let text = format!(
            "HTTP/1.1 {line}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\ndate: {date}\r\nserver: {}\r\nconnection: \
             close\r\n\r\n{body}",
            body.len(),
            self.server,
        );
        Some(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_codecs_own_answers_are_replaced() {
        let refusals = Refusals::new("envoy");
        let own =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let text = refusals.instead(own).unwrap();
        let text = std::str::from_utf8(&text).unwrap();
        assert!(
            text.contains("server: envoy\r\n") && text.ends_with("\r\n\r\nRequest Header Fields Too Large")
        );
        for other in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            &own[..40],
            b"hello",
            b"HTTP/1.1 400 Bad Request\r\ndate: x\r\n\r\n",
        ] {
            assert_eq!(refusals.instead(other), None);
        }
        // A body that looks like it goes as it is.
        refusals.body_goes();
        assert_eq!(refusals.instead(own), None);
        refusals.flushed();
        assert!(refusals.instead(own).is_some());
        refusals.end();
        assert_eq!(refusals.instead(own), None);
    }
}
