//! Settings of HTTP/1 and HTTP/2, for clients and for endpoints.

use std::sync::Arc;
use std::time::Duration;

use lateen_proto::envoy::config::core::v3 as core;

use crate::error::{Cx, Result};

/// HTTP/1 settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http1 {
    /// Whether HTTP/1.0 is accepted.
    pub accept_http_10: bool,
    /// The host of HTTP/1.0 requests without one.
    pub default_host: Option<Arc<str>>,
    /// Whether trailers are read.
    pub trailers: bool,
    /// How header names are written.
    pub header_case: HeaderCase,
}

/// How HTTP/1 header names are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderCase {
    /// `content-type`
    #[default]
    Lower,
    /// `Content-Type`
    Proper,
}

/// HTTP/2 settings; unset is Envoy's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Streams at once.
    pub max_streams: u32,
    /// A stream's window, in bytes.
    pub stream_window: u32,
    /// A connection's window, in bytes.
    pub connection_window: u32,
    /// Whether extended CONNECT (RFC 8441) is on.
    pub allow_connect: bool,
    /// Between keep-alive pings; `None` is none.
    pub ping_interval: Option<Duration>,
    /// How long a ping may take.
    pub ping_timeout: Duration,
}

impl Http1 {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &Option<core::Http1ProtocolOptions>) -> Result<Self> {
        use core::http1_protocol_options::header_key_format::HeaderFormat;
        let Some(message) = message else {
            return Ok(Self::default());
        };
        cx.check(message)?;
        let header_case = match message.header_key_format.as_ref().and_then(|f| f.header_format.as_ref()) {
            None => HeaderCase::Lower,
            Some(HeaderFormat::ProperCaseWords(_)) => HeaderCase::Proper,
            Some(HeaderFormat::StatefulFormatter(formatter)) => {
                return Err(cx.refuse_at("header_key_format", format!("{} is not supported", formatter.name)));
            }
        };
        Ok(Self {
            accept_http_10: message.accept_http_10,
            default_host: (!message.default_host_for_http_10.is_empty())
                .then(|| message.default_host_for_http_10.as_str().into()),
            trailers: message.enable_trailers,
            header_case,
        })
    }
}

impl Http2 {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &Option<core::Http2ProtocolOptions>) -> Result<Self> {
        let message = message.clone().unwrap_or_default();
        cx.check(&message)?;
        let keepalive = message.connection_keepalive.unwrap_or_default();
        Ok(Self {
            max_streams: message.max_concurrent_streams.unwrap_or(1024),
            stream_window: message.initial_stream_window_size.unwrap_or(16 << 20),
            connection_window: message.initial_connection_window_size.unwrap_or(24 << 20),
            allow_connect: message.allow_connect,
            ping_interval: cx.duration("connection_keepalive.interval", &keepalive.interval)?,
            ping_timeout: cx
                .duration("connection_keepalive.timeout", &keepalive.timeout)?
                .unwrap_or(Duration::from_secs(20)),
        })
    }
}
