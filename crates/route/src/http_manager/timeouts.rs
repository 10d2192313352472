//! Time limits of HTTP.

use std::time::Duration;

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use crate::error::{Cx, Result};

/// Time limits of HTTP; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// Silence on a stream; five minutes unless set.
    pub stream_idle: Option<Duration>,
    /// Until a whole request has come.
    pub request: Option<Duration>,
    /// Until a request's head has come.
    pub request_headers: Option<Duration>,
    /// A connection without requests; an hour unless set.
    pub idle: Option<Duration>,
    /// A connection's life.
    pub max_connection: Option<Duration>,
    /// A stream's life.
    pub max_stream: Option<Duration>,
}

impl HttpTimeouts {
    pub(super) fn compile(
        cx: &Cx<'_>,
        message: &hcm::HttpConnectionManager,
        common: &core::HttpProtocolOptions,
    ) -> Result<Self> {
        let some = |d: Option<Duration>| d.filter(|d| !d.is_zero());
        let or = |d: Option<Duration>, secs: u64| some(Some(d.unwrap_or(Duration::from_secs(secs))));
        Ok(Self {
            stream_idle: or(cx.duration("stream_idle_timeout", &message.stream_idle_timeout)?, 300),
            request: some(cx.duration("request_timeout", &message.request_timeout)?),
            request_headers: some(cx.duration("request_headers_timeout", &message.request_headers_timeout)?),
            idle: or(cx.duration("common_http_protocol_options.idle_timeout", &common.idle_timeout)?, 3600),
            max_connection: some(cx.duration(
                "common_http_protocol_options.max_connection_duration",
                &common.max_connection_duration,
            )?),
            max_stream: some(
                cx.duration("common_http_protocol_options.max_stream_duration", &common.max_stream_duration)?,
            ),
        })
    }
}
