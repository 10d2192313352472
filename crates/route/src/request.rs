//! What a decision may look at: the connection and the request, borrowed from whoever holds them.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use lateen_proto::envoy::config::core::v3::Metadata;

/// A downstream connection, as far as decisions look at it.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionView<'a> {
    /// Where the connection was going: the original destination when a listener filter restored it.
    pub destination: SocketAddr,
    /// Who opened it: what PROXY protocol says, else the peer.
    pub source: SocketAddr,
    /// The peer of the socket itself.
    pub direct_source: SocketAddr,
    /// Whether it speaks TLS, by the TLS inspector.
    pub transport: Transport,
    /// The server name that the client asked for, by the TLS inspector, in lower case.
    pub server_name: Option<&'a str>,
    /// The application protocols: ALPN by the TLS inspector, or `http/1.0`, `http/1.1`, `h2c` by the HTTP inspector.
    pub application_protocols: &'a [&'a [u8]],
    /// The client's certificate, once the handshake is over.
    pub peer: Option<PeerCertificate<'a>>,
}

impl Default for ConnectionView<'_> {
    fn default() -> Self {
        let nowhere = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), 0);
        Self {
            destination: nowhere,
            source: nowhere,
            direct_source: nowhere,
            transport: Transport::RawBuffer,
            server_name: None,
            application_protocols: &[],
            peer: None,
        }
    }
}

/// Envoy's transport protocols of a filter chain match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Plain text, or nothing known.
    RawBuffer,
    /// A TLS client hello was seen.
    Tls,
}

impl Transport {
    /// Envoy's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RawBuffer => "raw_buffer",
            Self::Tls => "tls",
        }
    }
}

/// What is known of a client's certificate.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerCertificate<'a> {
    /// Whether it was checked against a validation context.
    pub validated: bool,
    /// The URI subject alternative names.
    pub uris: &'a [&'a str],
    /// The DNS subject alternative names.
    pub dns_names: &'a [&'a str],
    /// The subject, in RFC 2253 form.
    pub subject: &'a str,
}

/// A request, as far as decisions look at it.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// `:method`.
    pub method: &'a str,
    /// `:scheme`.
    pub scheme: &'a str,
    /// `:authority`, or the `Host` header of HTTP/1.
    pub authority: &'a str,
    /// `:path` with its query; empty for a CONNECT without one.
    pub path: &'a str,
    /// All other headers.
    pub headers: &'a HeaderMap,
    /// The connection it came by.
    pub connection: &'a ConnectionView<'a>,
    /// What filters learned about it, by filter name (JWT claims, for instance).
    pub metadata: Option<&'a Metadata>,
    /// The client's address by the rules of `x-forwarded-for`; the connection's source when unset.
    pub remote: Option<IpAddr>,
}

impl<'a> RequestView<'a> {
    /// The path without query and fragment.
    #[inline]
    pub fn path_only(&self) -> &'a str {
        match memchr::memchr2(b'?', b'#', self.path.as_bytes()) {
            Some(end) => &self.path[..end],
            None => self.path,
        }
    }

    /// The query, without its question mark; empty when there is none.
    pub fn query(&self) -> &'a str {
        let path = self.path.split('#').next().unwrap_or_default();
        path.split_once('?').map_or("", |(_, query)| query)
    }

    /// Whether the header is there, and whether a value of it passes the test: each is looked at on its own.
    #[inline]
    pub fn header(&self, header: &HeaderRef, mut test: impl FnMut(&[u8]) -> bool) -> HeaderFinding {
        let mut one =
            |value: &str| if test(value.as_bytes()) { HeaderFinding::Passes } else { HeaderFinding::Fails };
        match header {
            HeaderRef::Method => one(self.method),
            HeaderRef::Scheme => one(self.scheme),
            HeaderRef::Authority => one(self.authority),
            HeaderRef::Path if self.path.is_empty() => HeaderFinding::Missing,
            HeaderRef::Path => one(self.path),
            HeaderRef::Named(name) => {
                let mut finding = HeaderFinding::Missing;
                for value in self.headers.get_all(name) {
                    if test(value.as_bytes()) {
                        return HeaderFinding::Passes;
                    }
                    finding = HeaderFinding::Fails;
                }
                finding
            }
        }
    }

    /// The client's address, by `x-forwarded-for` where trusted.
    pub fn remote_ip(&self) -> IpAddr {
        self.remote.unwrap_or_else(|| self.connection.source.ip())
    }
}

/// What a test finds out about a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFinding {
    /// It is not there.
    Missing,
    /// It is there; no value of it passes.
    Fails,
    /// A value of it passes.
    Passes,
}

/// A header that a matcher names, pseudo-headers included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderRef {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority` and `host`
    Authority,
    /// `:path`
    Path,
    /// Any other.
    Named(HeaderName),
}

impl HeaderRef {
    /// Reads a name; `None` when it cannot be a header's.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":scheme" => Self::Scheme,
            ":authority" | "host" => Self::Authority,
            ":path" => Self::Path,
            other => Self::Named(HeaderName::from_bytes(other.as_bytes()).ok()?),
        })
    }
}

impl std::fmt::Display for HeaderRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Named(name) => name.as_str(),
        })
    }
}
