//! HTTP connection managers: codec, filters, where routes come from, how heads are cleaned and completed.

use std::sync::Arc;

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use crate::access_log::AccessLog;
use crate::error::{Cx, Result};
use crate::format::Format;
use crate::routes::RouteTable;

mod cleaning;
mod client;
mod compressor;
mod filters;
mod header_metadata;
mod local_reply;
mod on_demand;
mod protocol;
mod timeouts;
mod tracing;

pub use cleaning::{EscapedSlashes, HostCleaning, PathCleaning, Underscores};
pub use client::{ClientAddress, ClientCertHeader, ClientCertMode, RequestId};
pub use compressor::Compressor;
pub use filters::{
    Abort, AbortStatus, CorsPolicy, Delay, FaultPolicy, FilterOverride, HttpFilter, HttpFilterKind,
    Overrides, RouterSettings,
};
pub use header_metadata::HeaderMetadata;
pub use local_reply::{BodyFormat, LocalReply, ReplyMapper};
pub use on_demand::OnDemand;
pub use protocol::{HeaderCase, Http1, Http2};
pub use timeouts::HttpTimeouts;
pub use tracing::Tracing;

/// A compiled `HttpConnectionManager`.
#[derive(Clone, Debug)]
pub struct HttpManager {
    /// Which HTTP it speaks.
    pub codec: Codec,
    /// The prefix of its metrics.
    pub stat_prefix: Arc<str>,
    /// The HTTP filters, in order; the last is the router.
    pub filters: Vec<HttpFilter>,
    /// Where its routes are.
    pub routes: RouteSource,
    /// The `server` header's value.
    pub server_name: Arc<str>,
    /// What happens to an upstream's `server` header.
    pub server_header: ServerHeader,
    /// How the client's address is found.
    pub client_address: ClientAddress,
    /// The `via` header to append; empty is none.
    pub via: Arc<str>,
    /// How request identifiers are made.
    pub request_id: RequestId,
    /// What happens to `x-forwarded-client-cert`.
    pub client_cert: ClientCertHeader,
    /// Upgrades allowed, unless a route says otherwise; lower case.
    pub upgrades: Vec<Upgrade>,
    /// How paths are cleaned.
    pub path: PathCleaning,
    /// How the host header is cleaned.
    pub host: HostCleaning,
    /// Time limits.
    pub timeouts: HttpTimeouts,
    /// HTTP/1 settings.
    pub http1: Http1,
    /// HTTP/2 settings.
    pub http2: Http2,
    /// The largest request head, in KiB.
    pub max_request_headers_kb: u32,
    /// The most headers of a request.
    pub max_headers: u32,
    /// The most requests of a connection; `None` is no limit.
    pub max_requests: Option<u32>,
    /// What happens to header names with underscores.
    pub underscores: Underscores,
    /// Its logs.
    pub access_logs: Vec<AccessLog>,
    /// Tracing, if it is on.
    pub tracing: Option<Tracing>,
    /// How answers of our own are changed.
    pub local_reply: LocalReply,
    /// Whether `x-forwarded-port` is appended.
    pub append_x_forwarded_port: bool,
    /// The scheme that requests are forwarded with, whatever they came with.
    pub scheme_overwrite: Option<&'static str>,
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    Auto,
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where a manager's routes are.
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// By route discovery, under this name.
    Rds(Arc<str>),
    /// In the listener itself.
    Inline(Arc<RouteTable>),
}

/// What happens to the `server` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerHeader {
    /// Ours replaces it.
    Overwrite,
    /// Ours is set where it is missing.
    AppendIfAbsent,
    /// It is passed as it is.
    PassThrough,
}

/// An upgrade that is allowed, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Its name in lower case, as `websocket` or `connect`.
    pub name: Arc<str>,
    /// Whether it is on.
    pub enabled: bool,
}

impl HttpManager {
    /// The upgrade's state by this manager: `None` when it is not listed.
    pub fn upgrade(&self, name: &str) -> Option<bool> {
        self.upgrades.iter().find(|u| u.name.eq_ignore_ascii_case(name)).map(|u| u.enabled)
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<Self> {
        cx.check(message)?;
        let common = message.common_http_protocol_options.unwrap_or_default();
        cx.field("common_http_protocol_options", |cx| cx.check(&common))?;
        let filters = cx.each("http_filters", &message.http_filters, HttpFilter::compile)?;
        let filters: Vec<HttpFilter> = filters.into_iter().flatten().collect();
        filters::check_order(cx, &filters)?;
        let one_request = common.max_requests_per_connection.filter(|max| *max > 0);
        Ok(Self {
            codec: codec(cx, message)?,
            stat_prefix: message.stat_prefix.as_str().into(),
            filters,
            routes: routes(cx, message)?,
            server_name: if message.server_name.is_empty() { "envoy" } else { &message.server_name }.into(),
            server_header: match message.server_header_transformation() {
                hcm::http_connection_manager::ServerHeaderTransformation::Overwrite => {
                    ServerHeader::Overwrite
                }
                hcm::http_connection_manager::ServerHeaderTransformation::AppendIfAbsent => {
                    ServerHeader::AppendIfAbsent
                }
                hcm::http_connection_manager::ServerHeaderTransformation::PassThrough => {
                    ServerHeader::PassThrough
                }
            },
            client_address: ClientAddress::compile(cx, message)?,
            via: message.via.as_str().into(),
            request_id: RequestId::compile(cx, message)?,
            client_cert: ClientCertHeader::compile(cx, message)?,
            upgrades: cx.each("upgrade_configs", &message.upgrade_configs, |cx, upgrade| {
                cx.check(upgrade)?;
                Ok(Upgrade {
                    name: upgrade.upgrade_type.to_ascii_lowercase().into(),
                    enabled: upgrade.enabled.unwrap_or(true),
                })
            })?,
            path: PathCleaning::of(message),
            host: HostCleaning::of(message),
            timeouts: HttpTimeouts::compile(cx, message, &common)?,
            http1: cx
                .field("http_protocol_options", |cx| Http1::compile(cx, &message.http_protocol_options))?,
            http2: cx
                .field("http2_protocol_options", |cx| Http2::compile(cx, &message.http2_protocol_options))?,
            max_request_headers_kb: message.max_request_headers_kb.unwrap_or(60),
            max_headers: common.max_headers_count.unwrap_or(100),
            max_requests: one_request,
            underscores: Underscores::of(&common),
            access_logs: cx.each("access_log", &message.access_log, AccessLog::compile)?,
            tracing: match &message.tracing {
                None => None,
                Some(tracing) => Some(cx.field("tracing", |cx| Tracing::compile(cx, tracing))?),
            },
            local_reply: match &message.local_reply_config {
                None => LocalReply::default(),
                Some(config) => cx.field("local_reply_config", |cx| LocalReply::compile(cx, config))?,
            },
            append_x_forwarded_port: message.append_x_forwarded_port,
            scheme_overwrite: scheme(cx, message)?,
        })
    }
}

fn scheme(cx: &Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<Option<&'static str>> {
    use core::scheme_header_transformation::Transformation;
    let Some(transformation) = &message.scheme_header_transformation else { return Ok(None) };
    if transformation.match_upstream {
        return Err(cx.refuse_at("scheme_header_transformation.match_upstream", "is not supported"));
    }
    match &transformation.transformation {
        None => Ok(None),
        Some(Transformation::SchemeToOverwrite(scheme)) => match scheme.as_str() {
            "http" => Ok(Some("http")),
            "https" => Ok(Some("https")),
            other => Err(cx.refuse_at(
                "scheme_header_transformation.scheme_to_overwrite",
                format!("{other:?} is neither http nor https"),
            )),
        },
    }
}

fn codec(cx: &Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<Codec> {
    use hcm::http_connection_manager::CodecType;
    match message.codec_type() {
        CodecType::Auto => Ok(Codec::Auto),
        CodecType::Http1 => Ok(Codec::Http1),
        CodecType::Http2 => Ok(Codec::Http2),
        CodecType::Http3 => Err(cx.refuse_at("codec_type", "HTTP3 is not supported")),
    }
}

fn routes(cx: &mut Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<RouteSource> {
    use hcm::http_connection_manager::RouteSpecifier;
    match &message.route_specifier {
        Some(RouteSpecifier::Rds(rds)) if rds.route_config_name.is_empty() => {
            Err(cx.refuse_at("rds.route_config_name", "must not be empty"))
        }
        Some(RouteSpecifier::Rds(rds)) => Ok(RouteSource::Rds(rds.route_config_name.as_str().into())),
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = cx.field("route_config", |cx| RouteTable::compile(cx, config))?;
            Ok(RouteSource::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => Err(cx.refuse_at("scoped_routes", "is not supported")),
        None => Err(cx.refuse("needs rds or route_config")),
    }
}

/// Reads a text format, or says which field is wrong.
pub(crate) fn text_format(cx: &Cx<'_>, field: &str, text: &str) -> Result<Format> {
    Format::parse(text).map_err(|reason| cx.refuse_at(field, reason))
}
