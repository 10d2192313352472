//! A request's head as the proxy works with it: pseudo-headers apart, whichever codec it came by.

use std::time::Duration;

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Version};
use lateen_proto::envoy::config::core::v3::Metadata;
use lateen_route::http_manager::Http1;
use lateen_route::{ConnectionView, RequestView};

use crate::failure::Failure;

/// The head.
#[derive(Debug)]
pub(crate) struct Head {
    /// `:method`
    pub method: Method,
    /// `:scheme`
    pub scheme: &'static str,
    /// What the client spoke.
    pub version: Version,
    /// All headers but `host`.
    pub headers: HeaderMap,
    /// What filters learned of the request, by filter.
    pub metadata: Option<Box<Metadata>>,
    authority: HeaderValue,
    path: Option<PathAndQuery>,
}

impl Head {
    /// Takes a request's head over.
    ///
    /// # Errors
    /// When it names no host, or several (RFC 9112, 3.2); the head is for the log.
    pub(crate) fn new(parts: Parts, tls: bool, settings: &Http1) -> Result<Self, Box<(Failure, Self)>> {
        let Parts { method, uri, version, mut headers, .. } = parts;
        let scheme = match uri.scheme_str() {
            Some("https") => "https",
            Some(_) => "http",
            None if tls => "https",
            None => "http",
        };
        let several = headers.get_all(HOST).iter().nth(1).is_some();
        let host = headers.remove(HOST);
        let authority = match uri.authority() {
            // An absolute URL beats the header (RFC 9112, 3.2.2); HTTP/2 has `:authority`.
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None if version == Version::HTTP_10 => {
                let default = settings.default_host.as_deref();
                host.or_else(|| default.and_then(|host| HeaderValue::from_str(host).ok()))
            }
            None => host,
        };
        let authority = match authority {
            Some(authority) if !authority.is_empty() && !several => authority,
            _ => {
                let path = uri.into_parts().path_and_query;
                let authority = HeaderValue::from_static("");
                let head = Self { method, scheme, version, headers, metadata: None, authority, path };
                let failure = if several { Failure::SeveralHosts } else { Failure::MissingHost };
                return Err(Box::new((failure, head)));
            }
        };
        join_cookies(&mut headers, version);
        let connect = method == Method::CONNECT;
        let path = uri.into_parts().path_and_query.filter(|_| !connect);
        Ok(Self { method, scheme, version, headers, metadata: None, authority, path })
    }

    /// `:authority`
    pub(crate) fn authority(&self) -> &str {
        std::str::from_utf8(self.authority.as_bytes()).unwrap_or_default()
    }

    /// `:authority` as a header's value.
    pub(crate) fn authority_value(&self) -> &HeaderValue {
        &self.authority
    }

    /// Replaces `:authority`; what cannot be one is left as it was.
    pub(crate) fn set_authority(&mut self, authority: &str) {
        if let Ok(value) = HeaderValue::from_str(authority) {
            self.authority = value;
        }
    }

    /// `:path`; empty for a CONNECT.
    pub(crate) fn path(&self) -> &str {
        self.path.as_ref().map_or("", PathAndQuery::as_str)
    }

    /// `:path`, parsed.
    pub(crate) fn path_and_query(&self) -> Option<&PathAndQuery> {
        self.path.as_ref()
    }

    /// Replaces `:path`.
    ///
    /// # Errors
    /// When the text is no path.
    pub(crate) fn set_path(&mut self, path: &str) -> Result<(), Failure> {
        self.path = Some(PathAndQuery::try_from(path).map_err(|_| Failure::BadPath)?);
        Ok(())
    }

    /// Keeps what a filter learned.
    pub(crate) fn keep(
        &mut self,
        filter: &str,
        facts: impl IntoIterator<Item = (String, lateen_proto::Value)>,
    ) {
        let metadata = self.metadata.get_or_insert_default();
        metadata.filter_metadata.entry(filter.to_owned()).or_default().fields.extend(facts);
    }

    /// The head as decisions see it.
    #[inline]
    pub(crate) fn view<'a>(
        &'a self,
        connection: &'a ConnectionView<'a>,
        remote: Option<std::net::IpAddr>,
    ) -> RequestView<'a> {
        RequestView {
            method: self.method.as_str(),
            scheme: self.scheme,
            authority: self.authority(),
            path: self.path(),
            headers: &self.headers,
            connection,
            metadata: self.metadata.as_deref(),
            remote,
        }
    }

    /// Whether it is a gRPC request.
    pub(crate) fn is_grpc(&self) -> bool {
        let content_type = self.headers.get(http::header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        content_type.is_some_and(|value| {
            value
                .strip_prefix(b"application/grpc")
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
        })
    }

    /// How long a gRPC caller waits, by its `grpc-timeout`.
    pub(crate) fn grpc_timeout(&self) -> Option<Duration> {
        grpc_timeout(self.headers.get("grpc-timeout")?.to_str().ok()?)
    }

    /// The protocol as logs write it.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        }
    }
}

/// HTTP/2 may send the pieces of a cookie header each for itself (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap, version: Version) {
    if version != Version::HTTP_2 || headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    for piece in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeouts() {
        assert_eq!(grpc_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout("5S"), Some(Duration::from_secs(5)));
        for text in ["", "5", "S", "123456789S", "1x", "é"] {
            assert_eq!(grpc_timeout(text), None, "{text}");
        }
    }
}
