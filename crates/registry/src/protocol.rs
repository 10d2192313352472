//! What a port speaks.

use std::fmt;
use std::str::FromStr;

/// The protocol of a service port, as Istio classes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in plain text.
    Http2,
    /// gRPC.
    Grpc,
    /// gRPC as browsers speak it.
    GrpcWeb,
    /// HTTP over TLS, which the proxy passes through.
    Https,
    /// TLS, which the proxy passes through.
    Tls,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
    /// MongoDB: bytes that share no port with others.
    Mongo,
    /// MySQL: bytes that share no port with others.
    MySql,
    /// Redis: bytes.
    Redis,
    /// HBONE, the tunnel of ambient meshes.
    Hbone,
    /// Found out per connection.
    Auto,
}

impl Protocol {
    /// Whether requests can be told apart: HTTP in any version, or gRPC.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether it is HTTP/2 from the first byte.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether it is gRPC in one of its two forms.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the application itself does TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// Whether only bytes are seen, TLS included.
    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql | Self::Hbone
        )
    }

    /// Whether it is found out per connection.
    pub fn is_auto(self) -> bool {
        self == Self::Auto
    }

    /// The protocol of a Kubernetes service port (Istio's protocol selection): datagrams are datagrams; then
    /// `appProtocol`, then the name up to its first dash, then the ports whose servers speak first.
    pub fn of_service_port(transport: &str, number: u16, name: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        let named = match app_protocol {
            Some("kubernetes.io/h2c") => Some(Self::Http2),
            Some("kubernetes.io/ws") => Some(Self::Http),
            Some("kubernetes.io/wss") => Some(Self::Https),
            Some(text) => Self::of_prefix(text),
            None => Self::of_prefix(name),
        };
        named.unwrap_or(match number {
            25 | 53 | 3306 | 27017 => Self::Tcp,
            _ => Self::Auto,
        })
    }

    fn of_prefix(name: &str) -> Option<Self> {
        let is_web = name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("grpc-web"));
        if is_web && name[8..].chars().next().is_none_or(|next| next == '-') {
            return Some(Self::GrpcWeb);
        }
        name.split('-').next().unwrap_or_default().parse().ok().filter(|p| *p != Self::Auto)
    }

    /// The name that Istio prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Mongo => "Mongo",
            Self::MySql => "MySQL",
            Self::Redis => "Redis",
            Self::Hbone => "HBONE",
            Self::Auto => "UnsupportedProtocol",
        }
    }
}

/// A text that names no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no protocol: use HTTP, HTTP2, GRPC, GRPC-Web, HTTPS, TLS, TCP, UDP, MONGO, MYSQL or REDIS")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "mongo" => Self::Mongo,
            "mysql" => Self::MySql,
            "redis" => Self::Redis,
            "hbone" => Self::Hbone,
            _ => return Err(UnknownProtocol(text.to_owned())),
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection_reads_app_protocol_then_name_then_number() {
        let of = Protocol::of_service_port;
        assert_eq!(of("TCP", 80, "http-web", None), Protocol::Http);
        assert_eq!(of("TCP", 80, "HTTP2", None), Protocol::Http2);
        assert_eq!(of("", 80, "grpc-web-x", None), Protocol::GrpcWeb);
        assert_eq!(of("", 80, "grpc-website", None), Protocol::Grpc);
        assert_eq!(of("", 80, "httpbin", None), Protocol::Auto);
        assert_eq!(of("", 3306, "db", None), Protocol::Tcp);
        assert_eq!(of("", 3306, "http", None), Protocol::Http);
        assert_eq!(of("UDP", 53, "http", None), Protocol::Udp);
        assert_eq!(of("", 80, "tcp", Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(of("", 80, "tcp", Some("unknown")), Protocol::Auto);
    }
}
