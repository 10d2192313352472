//! HTTP connection managers: codec, filters, where routes come from, how heads are cleaned and completed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_proto::envoy::r#type::v3::Percent;

use crate::access_log::{AccessLog, LogFilter};
use crate::entropy::Fraction;
use crate::error::{Cx, Result};
use crate::format::Format;
use crate::header_edits::HeaderEdits;
use crate::routes::RouteTable;

mod filters;

pub use filters::{
    Abort, AbortStatus, CorsPolicy, Delay, FaultPolicy, FilterOverride, HttpFilter, HttpFilterKind,
    Overrides, RouterSettings,
};

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
    /// Whether a `100 Continue` of the upstream is passed on rather than answered here.
    pub proxy_100_continue: bool,
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
    pub scheme_overwrite: Option<Arc<str>>,
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

/// How the client's address is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Whether the peer is the client (an edge proxy), rather than what `x-forwarded-for` says.
    pub use_remote_address: bool,
    /// How many proxies in front are trusted.
    pub trusted_hops: u32,
    /// Whether nothing is appended to `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// Ranges that count as internal; unset is none (tried on stock Envoy 1.40).
    pub internal: Option<Box<[IpNet]>>,
}

impl ClientAddress {
    /// Whether an address counts as internal.
    pub fn is_internal(&self, ip: IpAddr) -> bool {
        self.internal.iter().flatten().any(|range| range.contains(&ip))
    }
}

/// How `x-request-id` is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Whether one is made where it is missing.
    pub generate: bool,
    /// Whether a client's own is kept at the edge.
    pub preserve_external: bool,
    /// Whether it is in every response.
    pub in_response: bool,
    /// Whether the trace decision is packed into it.
    pub pack_trace_reason: bool,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertHeader {
    /// What happens to the one that came.
    pub mode: ClientCertMode,
    /// Whether the subject is written.
    pub subject: bool,
    /// Whether the certificate is written, URL-encoded PEM.
    pub cert: bool,
    /// Whether the chain is written.
    pub chain: bool,
    /// Whether the DNS names are written.
    pub dns: bool,
    /// Whether the URI name is written.
    pub uri: bool,
}

/// What happens to an `x-forwarded-client-cert` header that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertMode {
    /// It is removed.
    Sanitize,
    /// It is forwarded if the connection is mutual TLS.
    ForwardOnly,
    /// Ours is appended if the connection is mutual TLS.
    AppendForward,
    /// Ours replaces it if the connection is mutual TLS.
    SanitizeSet,
    /// It is forwarded always.
    AlwaysForwardOnly,
}

/// An upgrade that is allowed, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Its name in lower case, as `websocket` or `connect`.
    pub name: Arc<str>,
    /// Whether it is on.
    pub enabled: bool,
}

/// How paths are cleaned before anything looks at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCleaning {
    /// RFC 3986: dots and percent-encoded unreserved characters.
    pub normalize: bool,
    /// Adjacent slashes become one.
    pub merge_slashes: bool,
    /// What happens to `%2f` and `%5c`.
    pub escaped_slashes: EscapedSlashes,
}

/// What happens to escaped slashes in paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They stay.
    Keep,
    /// The request is answered with 400.
    Reject,
    /// They are unescaped and the client is redirected.
    UnescapeAndRedirect,
    /// They are unescaped and the request goes on.
    UnescapeAndForward,
}

/// How the host header is cleaned before anything looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostCleaning {
    /// The port is removed if it is the listener's.
    pub strip_matching_port: bool,
    /// Any port is removed.
    pub strip_any_port: bool,
    /// A trailing dot is removed.
    pub strip_trailing_dot: bool,
}

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
    /// Between the first GOAWAY and the last; five seconds unless set.
    pub drain: Duration,
    /// How long a closed connection's peer may take to read; one second unless set.
    pub delayed_close: Duration,
}

/// HTTP/1 settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http1 {
    /// Whether absolute URLs are read.
    pub allow_absolute_url: bool,
    /// Whether HTTP/1.0 is accepted.
    pub accept_http_10: bool,
    /// The host of HTTP/1.0 requests without one.
    pub default_host: Option<Arc<str>>,
    /// Whether trailers are passed.
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
    /// As they came.
    Preserve,
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

/// What happens to header names with underscores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underscores {
    /// They pass.
    Allow,
    /// The request is answered with 400.
    Reject,
    /// The header is dropped.
    Drop,
}

/// Tracing of a manager.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Share of requests with `x-client-trace-id` that are traced.
    pub client_sampling: Fraction,
    /// Share of requests that are traced by chance.
    pub random_sampling: Fraction,
    /// Limit of all of it.
    pub overall_sampling: Fraction,
    /// The longest path in a tag.
    pub max_path_length: u32,
    /// The exporter; none is as the bootstrap says.
    pub provider: Option<Any>,
    /// Tags of every span.
    pub tags: Vec<TraceTag>,
}

/// A tag of spans.
#[derive(Clone, Debug)]
pub struct TraceTag {
    /// Its name.
    pub name: Arc<str>,
    /// Where its value comes from.
    pub value: TagValue,
}

/// Where a tag's value comes from.
#[derive(Clone, Debug)]
pub enum TagValue {
    /// Always the same.
    Literal(Arc<str>),
    /// An environment variable, with a default.
    Environment(Arc<str>, Arc<str>),
    /// A request header, with a default.
    Header(http::HeaderName, Arc<str>),
}

/// How answers of our own are changed.
#[derive(Clone, Debug, Default)]
pub struct LocalReply {
    /// Tried in order; the first whose filter admits the answer changes it.
    pub mappers: Vec<ReplyMapper>,
    /// The body's format, where no mapper has one.
    pub body: Option<BodyFormat>,
}

/// One change to answers of our own.
#[derive(Clone, Debug)]
pub struct ReplyMapper {
    /// Which answers.
    pub filter: LogFilter,
    /// The new status.
    pub status: Option<u16>,
    /// The new body.
    pub body: Option<bytes::Bytes>,
    /// The body's format.
    pub format: Option<BodyFormat>,
    /// Headers to add.
    pub headers: HeaderEdits,
}

/// A body's format.
#[derive(Clone, Debug)]
pub struct BodyFormat {
    /// The text or JSON.
    pub format: crate::access_log::LogFormat,
    /// The content type; `text/plain` or `application/json` unless set.
    pub content_type: Option<Arc<str>>,
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
            client_address: client_address(cx, message)?,
            via: message.via.as_str().into(),
            request_id: request_id(cx, message)?,
            client_cert: client_cert(message),
            proxy_100_continue: message.proxy_100_continue,
            upgrades: cx.each("upgrade_configs", &message.upgrade_configs, |cx, upgrade| {
                cx.check(upgrade)?;
                Ok(Upgrade {
                    name: upgrade.upgrade_type.to_ascii_lowercase().into(),
                    enabled: upgrade.enabled.unwrap_or(true),
                })
            })?,
            path: path_cleaning(message),
            host: HostCleaning {
                strip_matching_port: message.strip_matching_host_port,
                strip_any_port: matches!(
                    message.strip_port_mode,
                    Some(hcm::http_connection_manager::StripPortMode::StripAnyHostPort(true))
                ),
                strip_trailing_dot: message.strip_trailing_host_dot,
            },
            timeouts: timeouts(cx, message, &common)?,
            http1: cx
                .field("http_protocol_options", |cx| Http1::compile(cx, &message.http_protocol_options))?,
            http2: cx
                .field("http2_protocol_options", |cx| Http2::compile(cx, &message.http2_protocol_options))?,
            max_request_headers_kb: message.max_request_headers_kb.unwrap_or(60),
            max_headers: common.max_headers_count.unwrap_or(100),
            max_requests: one_request,
            underscores: match common.headers_with_underscores_action() {
                core::http_protocol_options::HeadersWithUnderscoresAction::Allow => Underscores::Allow,
                core::http_protocol_options::HeadersWithUnderscoresAction::RejectRequest => {
                    Underscores::Reject
                }
                core::http_protocol_options::HeadersWithUnderscoresAction::DropHeader => Underscores::Drop,
            },
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
            scheme_overwrite: message.scheme_header_transformation.as_ref().and_then(|t| {
                use core::scheme_header_transformation::Transformation;
                t.transformation
                    .as_ref()
                    .map(|Transformation::SchemeToOverwrite(scheme)| scheme.as_str().into())
            }),
        })
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

fn client_address(cx: &mut Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<ClientAddress> {
    let internal = match &message.internal_address_config {
        None => None,
        Some(config) => {
            Some(cx.each("internal_address_config.cidr_ranges", &config.cidr_ranges, |cx, range| {
                cx.cidr(range)
            })?)
        }
    };
    Ok(ClientAddress {
        use_remote_address: message.use_remote_address.unwrap_or(false),
        trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        internal: internal.map(Into::into),
    })
}

fn request_id(cx: &mut Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<RequestId> {
    use lateen_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
    let mut pack_trace_reason = true;
    if let Some(any) = message.request_id_extension.as_ref().and_then(|e| e.typed_config.as_ref()) {
        let config: UuidRequestIdConfig =
            cx.field("request_id_extension.typed_config", |cx| cx.unpack(any))?;
        pack_trace_reason = config.pack_trace_reason.unwrap_or(true);
    }
    Ok(RequestId {
        generate: message.generate_request_id.unwrap_or(true),
        preserve_external: message.preserve_external_request_id,
        in_response: message.always_set_request_id_in_response,
        pack_trace_reason,
    })
}

fn client_cert(message: &hcm::HttpConnectionManager) -> ClientCertHeader {
    use hcm::http_connection_manager::ForwardClientCertDetails as D;
    let details = message.set_current_client_cert_details.unwrap_or_default();
    ClientCertHeader {
        mode: match message.forward_client_cert_details() {
            D::Sanitize => ClientCertMode::Sanitize,
            D::ForwardOnly => ClientCertMode::ForwardOnly,
            D::AppendForward => ClientCertMode::AppendForward,
            D::SanitizeSet => ClientCertMode::SanitizeSet,
            D::AlwaysForwardOnly => ClientCertMode::AlwaysForwardOnly,
        },
        subject: details.subject.unwrap_or(false),
        cert: details.cert,
        chain: details.chain,
        dns: details.dns,
        uri: details.uri,
    }
}

fn path_cleaning(message: &hcm::HttpConnectionManager) -> PathCleaning {
    use hcm::http_connection_manager::PathWithEscapedSlashesAction as A;
    PathCleaning {
        normalize: message.normalize_path.unwrap_or(false),
        merge_slashes: message.merge_slashes,
        escaped_slashes: match message.path_with_escaped_slashes_action() {
            A::ImplementationSpecificDefault | A::KeepUnchanged => EscapedSlashes::Keep,
            A::RejectRequest => EscapedSlashes::Reject,
            A::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            A::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    }
}

fn timeouts(
    cx: &Cx<'_>,
    message: &hcm::HttpConnectionManager,
    common: &core::HttpProtocolOptions,
) -> Result<HttpTimeouts> {
    let some = |d: Option<Duration>| d.filter(|d| !d.is_zero());
    let or = |d: Option<Duration>, secs: u64| some(Some(d.unwrap_or(Duration::from_secs(secs))));
    Ok(HttpTimeouts {
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
        drain: cx.duration("drain_timeout", &message.drain_timeout)?.unwrap_or(Duration::from_secs(5)),
        delayed_close: cx
            .duration("delayed_close_timeout", &message.delayed_close_timeout)?
            .unwrap_or(Duration::from_secs(1)),
    })
}

impl Http1 {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &Option<core::Http1ProtocolOptions>) -> Result<Self> {
        use core::http1_protocol_options::header_key_format::HeaderFormat;
        let Some(message) = message else {
            return Ok(Self { allow_absolute_url: true, ..Self::default() });
        };
        cx.check(message)?;
        let header_case = match message.header_key_format.as_ref().and_then(|f| f.header_format.as_ref()) {
            None => HeaderCase::Lower,
            Some(HeaderFormat::ProperCaseWords(_)) => HeaderCase::Proper,
            Some(HeaderFormat::StatefulFormatter(formatter)) if formatter.name.contains("preserve_case") => {
                HeaderCase::Preserve
            }
            Some(HeaderFormat::StatefulFormatter(formatter)) => {
                return Err(cx.refuse_at("header_key_format", format!("{} is not supported", formatter.name)));
            }
        };
        Ok(Self {
            allow_absolute_url: message.allow_absolute_url.unwrap_or(true),
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

impl Tracing {
    fn compile(cx: &mut Cx<'_>, message: &hcm::http_connection_manager::Tracing) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            client_sampling: percent(&message.client_sampling, 100.0),
            random_sampling: percent(&message.random_sampling, 100.0),
            overall_sampling: percent(&message.overall_sampling, 100.0),
            max_path_length: message.max_path_tag_length.unwrap_or(256),
            provider: message.provider.as_ref().and_then(|provider| {
                use lateen_proto::envoy::config::trace::v3::tracing::http::ConfigType;
                provider.config_type.as_ref().map(|ConfigType::TypedConfig(any)| any.clone())
            }),
            tags: cx.each("custom_tags", &message.custom_tags, TraceTag::compile)?,
        })
    }
}

impl TraceTag {
    pub(crate) fn compile(
        cx: &mut Cx<'_>,
        message: &lateen_proto::envoy::r#type::tracing::v3::CustomTag,
    ) -> Result<Self> {
        use lateen_proto::envoy::r#type::tracing::v3::custom_tag::Type;
        let value = match &message.r#type {
            Some(Type::Literal(literal)) => TagValue::Literal(literal.value.as_str().into()),
            Some(Type::Environment(env)) => {
                TagValue::Environment(env.name.as_str().into(), env.default_value.as_str().into())
            }
            Some(Type::RequestHeader(header)) => TagValue::Header(
                cx.header_name("request_header.name", &header.name)?,
                header.default_value.as_str().into(),
            ),
            Some(_) => {
                return Err(cx.refuse("only literal, environment and request_header are supported"));
            }
            None => return Err(cx.refuse("needs literal, environment or request_header")),
        };
        Ok(Self { name: message.tag.as_str().into(), value })
    }
}

impl LocalReply {
    fn compile(cx: &mut Cx<'_>, message: &hcm::LocalReplyConfig) -> Result<Self> {
        let mappers = cx.each("mappers", &message.mappers, |cx, mapper| {
            let filter = cx.required("filter", &mapper.filter)?;
            let status = mapper
                .status_code
                .map(|status| {
                    u16::try_from(status).map_err(|_| cx.refuse_at("status_code", "is no HTTP status"))
                })
                .transpose()?;
            Ok(ReplyMapper {
                filter: cx.field("filter", |cx| LogFilter::compile(cx, filter, 0))?,
                status,
                body: mapper.body.as_ref().map(|body| cx.inline("body", body)).transpose()?,
                format: body_format(cx, "body_format_override", &mapper.body_format_override)?,
                headers: HeaderEdits::compile(cx, ("headers_to_add", &mapper.headers_to_add), ("", &[]))?,
            })
        })?;
        Ok(Self { mappers, body: body_format(cx, "body_format", &message.body_format)? })
    }
}

fn body_format(
    cx: &mut Cx<'_>,
    field: &str,
    message: &Option<core::SubstitutionFormatString>,
) -> Result<Option<BodyFormat>> {
    let Some(message) = message else { return Ok(None) };
    let format = cx.field(field, |cx| crate::access_log::LogFormat::compile(cx, message))?;
    let content_type = (!message.content_type.is_empty()).then(|| message.content_type.as_str().into());
    Ok(Some(BodyFormat { format, content_type }))
}

/// A percentage as a share of a million, so that 0.01 % is exact.
pub(crate) fn percent(message: &Option<Percent>, unset: f64) -> Fraction {
    let value = message.as_ref().map_or(unset, |percent| percent.value).clamp(0.0, 100.0);
    Fraction { numerator: (value * 10_000.0).round() as u32, denominator: 1_000_000 }
}

/// Reads a text format, or says which field is wrong.
pub(crate) fn text_format(cx: &Cx<'_>, field: &str, text: &str) -> Result<Format> {
    Format::parse(text).map_err(|reason| cx.refuse_at(field, reason))
}
