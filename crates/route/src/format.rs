//! Substitution format strings: text with `%COMMAND(argument):length%` in it, of headers and access logs.

use std::fmt;

use http::HeaderName;

use crate::request::HeaderRef;

/// A compiled format string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Format {
    parts: Box<[Part]>,
}

/// A piece of a [`Format`].
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text as it stands.
    Text(Box<str>),
    /// A value of the request.
    Value {
        /// Which one.
        variable: Variable,
        /// The most bytes of it that are written.
        limit: Option<usize>,
    },
}

impl Format {
    /// Reads a format string.
    ///
    /// # Errors
    /// A text that says which command is unknown or malformed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('%') {
            literal.push_str(&rest[..start]);
            rest = &rest[start + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                literal.push('%');
                rest = after;
                continue;
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into()));
            }
            let (part, after) = command(rest)?;
            parts.push(part);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// The pieces, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text, when it holds no variable.
    pub fn as_text(&self) -> Option<&str> {
        match &*self.parts {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Writes the format to `out`; `value` writes a variable, and returns false when there is none: then a dash is
    /// written, unless `omit_empty`.
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        omit_empty: bool,
        mut value: impl FnMut(&Variable, &mut Vec<u8>) -> bool,
    ) {
        for part in &*self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Value { variable, limit } => {
                    let start = out.len();
                    if !value(variable, out) {
                        out.truncate(start);
                        if !omit_empty {
                            out.push(b'-');
                        }
                    } else if let Some(limit) = limit {
                        out.truncate((start + limit).min(out.len()));
                    }
                }
            }
        }
    }
}

/// `COMMAND(argument):length%` at the start of `text`, and what follows it.
fn command(text: &str) -> Result<(Part, &str), String> {
    let name_end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .ok_or_else(|| format!("%{text}: the closing % is missing"))?;
    let (name, mut rest) = text.split_at(name_end);
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let close = inner.find(')').ok_or_else(|| format!("%{name}(: the closing ) is missing"))?;
        argument = Some(&inner[..close]);
        rest = &inner[close + 1..];
    }
    let mut limit = None;
    if let Some(number) = rest.strip_prefix(':') {
        let end = number.find('%').ok_or_else(|| format!("%{name}: the closing % is missing"))?;
        limit =
            Some(number[..end].parse().map_err(|_| format!("%{name}: {:?} is no length", &number[..end]))?);
        rest = &number[end..];
    }
    let rest = rest.strip_prefix('%').ok_or_else(|| format!("%{name}: the closing % is missing"))?;
    Ok((Part::Value { variable: Variable::parse(name, argument)?, limit }, rest))
}

/// A header that a format names, with the one to take when it is missing: `REQ(X?Y)`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderChoice {
    /// The header.
    pub first: HeaderRef,
    /// The other one.
    pub second: Option<HeaderRef>,
}

macro_rules! variables {
    ($( $(#[$doc:meta])* $name:ident = $text:literal ),* $(,)?) => {
        /// A value that a format string can name. Those with an argument carry it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Variable {
            $( #[doc = concat!("`%", $text, "%`")] $name, )*
            /// `%REQ(X?Y)%`
            Request(HeaderChoice),
            /// `%RESP(X?Y)%`
            Response(HeaderChoice),
            /// `%TRAILER(X?Y)%`
            Trailer(HeaderChoice),
            /// `%START_TIME(format)%`; the argument is strftime's, with Envoy's %3f; none is ISO 8601 in milliseconds.
            StartTime(Option<Box<str>>),
            /// `%DYNAMIC_METADATA(filter:key:key)%`
            DynamicMetadata(Box<[Box<str>]>),
            /// `%CLUSTER_METADATA(filter:key:key)%`
            ClusterMetadata(Box<[Box<str>]>),
            /// `%UPSTREAM_METADATA(filter:key:key)%`
            UpstreamMetadata(Box<[Box<str>]>),
            /// `%FILTER_STATE(key:TYPE)%`: the key and the rest.
            FilterState(Box<[Box<str>]>),
            /// `%ENVIRONMENT(NAME)%`
            Environment(Box<str>),
            /// `%GRPC_STATUS(format)%`: true for the number, false for the name.
            GrpcStatus {
                /// `NUMBER` rather than a name.
                number: bool,
            },
        }

        impl Variable {
            fn plain(name: &str) -> Option<Self> {
                match name {
                    $( $text => Some(Self::$name), )*
                    _ => None,
                }
            }
        }
    };
}

variables! {
    BytesReceived = "BYTES_RECEIVED",
    BytesSent = "BYTES_SENT",
    ConnectionId = "CONNECTION_ID",
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    DownstreamLocalSubject = "DOWNSTREAM_LOCAL_SUBJECT",
    DownstreamLocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
    DownstreamPeerCert = "DOWNSTREAM_PEER_CERT",
    DownstreamPeerFingerprint256 = "DOWNSTREAM_PEER_FINGERPRINT_256",
    DownstreamPeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    DownstreamPeerSerial = "DOWNSTREAM_PEER_SERIAL",
    DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    DownstreamTlsSessionId = "DOWNSTREAM_TLS_SESSION_ID",
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    DownstreamTransportFailureReason = "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    DownstreamWireBytesReceived = "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    DownstreamWireBytesSent = "DOWNSTREAM_WIRE_BYTES_SENT",
    Duration = "DURATION",
    FilterChainName = "FILTER_CHAIN_NAME",
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    Hostname = "HOSTNAME",
    LocalReplyBody = "LOCAL_REPLY_BODY",
    Protocol = "PROTOCOL",
    RequestDuration = "REQUEST_DURATION",
    RequestedServerName = "REQUESTED_SERVER_NAME",
    RequestHeadersBytes = "REQUEST_HEADERS_BYTES",
    RequestTxDuration = "REQUEST_TX_DURATION",
    ResponseCode = "RESPONSE_CODE",
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    ResponseDuration = "RESPONSE_DURATION",
    ResponseFlags = "RESPONSE_FLAGS",
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    ResponseHeadersBytes = "RESPONSE_HEADERS_BYTES",
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    RouteName = "ROUTE_NAME",
    StreamId = "STREAM_ID",
    UniqueId = "UNIQUE_ID",
    UpstreamCluster = "UPSTREAM_CLUSTER",
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    UpstreamHost = "UPSTREAM_HOST",
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamPeerUriSan = "UPSTREAM_PEER_URI_SAN",
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER",
    UpstreamTlsVersion = "UPSTREAM_TLS_VERSION",
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    UpstreamWireBytesReceived = "UPSTREAM_WIRE_BYTES_RECEIVED",
    UpstreamWireBytesSent = "UPSTREAM_WIRE_BYTES_SENT",
    VirtualClusterName = "VIRTUAL_CLUSTER_NAME",
}

impl Variable {
    fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        let needed = || argument.ok_or_else(|| format!("%{name}% needs an argument in parentheses"));
        Ok(match name {
            "REQ" => Self::Request(HeaderChoice::parse(needed()?)?),
            "RESP" => Self::Response(HeaderChoice::parse(needed()?)?),
            "TRAILER" => Self::Trailer(HeaderChoice::parse(needed()?)?),
            "START_TIME" => Self::StartTime(argument.filter(|text| !text.is_empty()).map(Into::into)),
            "DYNAMIC_METADATA" => Self::DynamicMetadata(path(needed()?)),
            "CLUSTER_METADATA" => Self::ClusterMetadata(path(needed()?)),
            "UPSTREAM_METADATA" => Self::UpstreamMetadata(path(needed()?)),
            "FILTER_STATE" => Self::FilterState(path(needed()?)),
            "ENVIRONMENT" => Self::Environment(needed()?.into()),
            "GRPC_STATUS" => Self::GrpcStatus { number: argument == Some("NUMBER") },
            _ => match (Self::plain(name), argument) {
                (Some(variable), None) => variable,
                (Some(_), Some(_)) => return Err(format!("%{name}% takes no argument")),
                (None, _) => return Err(format!("%{name}% is not supported")),
            },
        })
    }
}

impl HeaderChoice {
    fn parse(text: &str) -> Result<Self, String> {
        let header = |name: &str| HeaderRef::parse(name).ok_or_else(|| format!("{name:?} is no header name"));
        Ok(match text.split_once('?') {
            Some((first, second)) => Self { first: header(first)?, second: Some(header(second)?) },
            None => Self { first: header(text)?, second: None },
        })
    }

    /// The header's name, if it is no pseudo-header.
    pub fn name(&self) -> Option<&HeaderName> {
        match &self.first {
            HeaderRef::Named(name) => Some(name),
            _ => None,
        }
    }
}

fn path(text: &str) -> Box<[Box<str>]> {
    text.split(':').map(Into::into).collect()
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &*self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Value { variable, .. } => write!(f, "%{variable:?}%")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_text_and_commands() {
        let format = Format::parse("a%%b %REQ(X-A?:PATH):3%[%PROTOCOL%] %START_TIME%").unwrap();
        let mut out = Vec::new();
        format.write(&mut out, false, |variable, out| match variable {
            Variable::Request(choice) => {
                assert_eq!(choice.second, Some(HeaderRef::Path));
                out.extend_from_slice(b"abcdef");
                true
            }
            Variable::Protocol => false,
            _ => true,
        });
        assert_eq!(out, b"a%b abc[-] ");
        assert_eq!(Format::parse("100%%").unwrap().as_text(), Some("100%"));
    }

    #[test]
    fn names_what_is_wrong() {
        for (text, word) in [
            ("%REQ%", "needs an argument"),
            ("%NOPE%", "not supported"),
            ("%REQ(a", "closing )"),
            ("%REQ(a):x%", "no length"),
            ("100%", "closing %"),
            ("%PROTOCOL(x)%", "no argument"),
            ("%REQ(a b)%", "no header name"),
        ] {
            let error = Format::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
