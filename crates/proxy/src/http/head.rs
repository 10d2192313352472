//! A request's head as the proxy works with it: pseudo-headers apart, whichever codec it came by.

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Version};
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
    authority: HeaderValue,
    path: Option<PathAndQuery>,
}

impl Head {
    /// Takes a request's head over.
    ///
    /// # Errors
    /// When it names no host; the head is for the log.
    pub(crate) fn new(parts: Parts, tls: bool) -> Result<Self, Box<(Failure, Self)>> {
        let Parts { method, uri, version, mut headers, .. } = parts;
        let scheme = match uri.scheme_str() {
            Some("https") => "https",
            Some(_) => "http",
            None if tls => "https",
            None => "http",
        };
        let host = headers.remove(HOST);
        let authority = match uri.authority() {
            // An absolute URL beats the header (RFC 9112, 3.2.2); HTTP/2 has `:authority`.
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => host,
        };
        let authority = match authority {
            Some(authority) if !authority.is_empty() => authority,
            _ => {
                let path = uri.into_parts().path_and_query;
                let authority = HeaderValue::from_static("");
                let head = Self { method, scheme, version, headers, authority, path };
                return Err(Box::new((Failure::MissingHost, head)));
            }
        };
        let connect = method == Method::CONNECT;
        let path = uri.into_parts().path_and_query.filter(|_| !connect);
        Ok(Self { method, scheme, version, headers, authority, path })
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
            metadata: None,
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

    /// The protocol as logs write it.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        }
    }
}
