//! HTTP towards endpoints.

use std::time::Duration;

use lateen_proto::envoy::config::cluster::v3 as proto;
use lateen_proto::envoy::extensions::upstreams::http::v3 as http_options;
use lateen_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::UpstreamProtocolOptions;
use lateen_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;

use crate::error::{Cx, Result};
use crate::http_manager::{Http1, Http2};
use crate::response_match::ResponseMatcher;

/// HTTP towards a cluster's endpoints.
#[derive(Clone, Debug)]
pub struct UpstreamHttp {
    /// Which HTTP.
    pub protocol: HttpProtocol,
    /// HTTP/1 settings.
    pub http1: Http1,
    /// HTTP/2 settings.
    pub http2: Http2,
    /// How long a connection may be without requests; `None` is for ever. One hour unless set.
    pub idle_timeout: Option<Duration>,
    /// A connection's life.
    pub max_connection: Option<Duration>,
    /// A stream's life.
    pub max_stream: Option<Duration>,
    /// The most requests of a connection; `None` is no limit.
    pub max_requests: Option<u32>,
    /// The most headers of a response.
    pub max_headers: u32,
    /// Which responses count as failures of the endpoint; by their status where it is not said.
    pub errors: Option<ResponseMatcher>,
    /// Whether the server name of TLS is the request's host.
    pub auto_sni: bool,
    /// Whether the certificate has to be for the request's host.
    pub auto_san_validation: bool,
}

/// Which HTTP is spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge or by ALPN.
    Http2,
    /// What the client speaks.
    Downstream,
    /// What ALPN says; HTTP/1.1 without.
    Auto,
}

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

impl UpstreamHttp {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Self> {
        for name in message.typed_extension_protocol_options.keys() {
            if name != OPTIONS {
                return Err(
                    cx.refuse_at("typed_extension_protocol_options", format!("{name} is not supported"))
                );
            }
        }
        let options = match message.typed_extension_protocol_options.get(OPTIONS) {
            Some(any) => {
                return cx.field(format_args!("typed_extension_protocol_options[{OPTIONS}]"), |cx| {
                    let options = cx.unpack(any)?;
                    Self::of_options(cx, &options, message.max_requests_per_connection)
                });
            }
            None => old_style(message),
        };
        Self::of_options(cx, &options, message.max_requests_per_connection)
    }

    fn of_options(
        cx: &mut Cx<'_>,
        options: &http_options::HttpProtocolOptions,
        max_requests: Option<u32>,
    ) -> Result<Self> {
        cx.check(options)?;
        let (protocol, h1, h2) = match &options.upstream_protocol_options {
            None => (HttpProtocol::Http1, None, None),
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(config)) => match &config.protocol_config {
                None => (HttpProtocol::Http1, None, None),
                Some(ProtocolConfig::HttpProtocolOptions(h1)) => {
                    (HttpProtocol::Http1, Some(h1.clone()), None)
                }
                Some(ProtocolConfig::Http2ProtocolOptions(h2)) => {
                    (HttpProtocol::Http2, None, Some(h2.clone()))
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    return Err(cx.refuse_at("explicit_http_config", "HTTP/3 is not supported"));
                }
            },
            Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(config)) => {
                if config.http3_protocol_options.is_some() {
                    cx.note_at(
                        "use_downstream_protocol_config.http3_protocol_options",
                        "HTTP/3 is never downstream",
                    );
                }
                let (h1, h2) = (config.http_protocol_options.clone(), config.http2_protocol_options.clone());
                (HttpProtocol::Downstream, h1, h2)
            }
            Some(UpstreamProtocolOptions::AutoConfig(config)) => {
                if config.http3_protocol_options.is_some() {
                    return Err(cx.refuse_at("auto_config.http3_protocol_options", "HTTP/3 is not supported"));
                }
                let (h1, h2) = (config.http_protocol_options.clone(), config.http2_protocol_options.clone());
                (HttpProtocol::Auto, h1, h2)
            }
        };
        let common = options.common_http_protocol_options.unwrap_or_default();
        let upstream = options.upstream_http_protocol_options.clone().unwrap_or_default();
        cx.field("common_http_protocol_options", |cx| cx.check(&common))?;
        cx.field("upstream_http_protocol_options", |cx| cx.check(&upstream))?;
        let some = |d: Option<Duration>| d.filter(|d| !d.is_zero());
        let idle = cx.duration("common_http_protocol_options.idle_timeout", &common.idle_timeout)?;
        Ok(Self {
            protocol,
            http1: Http1::compile(cx, &h1)?,
            http2: Http2::compile(cx, &h2)?,
            idle_timeout: some(Some(idle.unwrap_or(Duration::from_secs(3600)))),
            max_connection: some(cx.duration("max_connection_duration", &common.max_connection_duration)?),
            max_stream: some(cx.duration("max_stream_duration", &common.max_stream_duration)?),
            max_requests: common.max_requests_per_connection.or(max_requests).filter(|max| *max > 0),
            max_headers: common.max_headers_count.unwrap_or(100),
            errors: match options.outlier_detection.as_ref().and_then(|rules| rules.error_matcher.as_ref()) {
                None => None,
                Some(matcher) => {
                    Some(cx.field("outlier_detection.error_matcher", |cx| {
                        ResponseMatcher::compile(cx, matcher)
                    })?)
                }
            },
            auto_sni: upstream.auto_sni,
            auto_san_validation: upstream.auto_san_validation,
        })
    }
}

/// The cluster's own fields of older versions as the options of today.
fn old_style(message: &proto::Cluster) -> http_options::HttpProtocolOptions {
    use http_options::http_protocol_options::{ExplicitHttpConfig, UseDownstreamHttpConfig};
    let downstream = message.protocol_selection == 1;
    let (h1, h2) = (message.http_protocol_options.clone(), message.http2_protocol_options.clone());
    let options = if downstream {
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: h1,
            http2_protocol_options: h2,
            http3_protocol_options: None,
        })
    } else {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: match h2 {
                Some(h2) => Some(ProtocolConfig::Http2ProtocolOptions(h2)),
                None => h1.map(ProtocolConfig::HttpProtocolOptions),
            },
        })
    };
    http_options::HttpProtocolOptions {
        common_http_protocol_options: message.common_http_protocol_options,
        upstream_http_protocol_options: message.upstream_http_protocol_options.clone(),
        upstream_protocol_options: Some(options),
        ..Default::default()
    }
}
