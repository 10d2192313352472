//! External authorization: a service is asked whether a request or a connection may pass.
//!
//! Compiling is here, what is asked in [`check`], what an answer means in [`answer`]. The semantics are those of Envoy's
//! `envoy.filters.http.ext_authz` and `envoy.filters.network.ext_authz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::grpc_service::TargetSpecifier;
use lateen_proto::envoy::config::core::v3::http_uri::HttpUpstreamType;
use lateen_proto::envoy::extensions::filters::http::ext_authz::v3 as http_filter;
use lateen_proto::envoy::extensions::filters::network::ext_authz::v3 as network_filter;
use lateen_proto::envoy::r#type::matcher::v3::ListStringMatcher;

use crate::entropy::{Entropy, Fraction};
use crate::error::{Cx, Result};
use crate::format::Format;
use crate::metadata_match::MetadataMatcher;
use crate::string_match::StringMatcher;

pub mod answer;
pub mod check;

/// Under which name the HTTP filter keeps what a service says about a request.
pub const HTTP_METADATA: &str = "envoy.filters.http.ext_authz";

/// How long a service may take when nothing is said.
const TIMEOUT: Duration = Duration::from_millis(200);

/// A compiled filter for requests.
#[derive(Clone, Debug)]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: Service,
    /// Whether requests pass that it cannot be asked about.
    pub failure_allows: bool,
    /// Whether such a request is marked by `x-envoy-auth-failure-mode-allowed`.
    pub marks_failure: bool,
    /// How much of the body it gets.
    pub body: Option<BodyRules>,
    /// Whether the route is chosen anew after it changed the request.
    pub clear_route_cache: bool,
    /// The status of requests that it could not be asked about.
    pub status_on_error: u16,
    /// Which requests it is asked about.
    pub enabled: Enabled,
    /// Whether all others are turned away.
    pub deny_when_disabled: bool,
    /// What of the connection it is told.
    pub tells: Tells,
    /// Whether a denial counts as a response of the route's cluster.
    pub charges_cluster: bool,
    /// What precedes the names of the metrics, below `ext_authz.`.
    pub stat_prefix: Arc<str>,
    /// Which headers of the request it is told.
    pub headers: HeaderRules,
}

/// A compiled filter for connections.
#[derive(Clone, Debug)]
pub struct NetworkExtAuthz {
    /// Who is asked.
    pub service: GrpcService,
    /// Whether connections pass that it cannot be asked about.
    pub failure_allows: bool,
    /// Which connections it is asked about; all unless set.
    pub enabled: Option<MetadataMatcher>,
    /// What of the connection it is told.
    pub tells: Tells,
    /// What precedes the names of the metrics, below `ext_authz.`.
    pub stat_prefix: Arc<str>,
}

/// What of a connection a service is told, apart from the addresses and names at its ends.
#[derive(Clone, Debug, Default)]
pub struct Tells {
    /// The client's certificate.
    pub certificate: bool,
    /// The server name that the client asked for.
    pub tls_session: bool,
    /// What filters of these names learned.
    pub metadata: Box<[Box<str>]>,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Service {
    /// A service of `envoy.service.auth.v3.Authorization`.
    Grpc(GrpcService),
    /// A server that gets the request's head.
    Http(HttpService),
}

/// A gRPC service.
#[derive(Clone, Debug)]
pub struct GrpcService {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// `:authority`; the cluster's name unless set.
    pub authority: Arc<str>,
    /// How long it may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// More headers.
    pub metadata: Box<[(HeaderName, HeaderValue)]>,
}

/// An HTTP service.
#[derive(Clone, Debug)]
pub struct HttpService {
    /// Its cluster.
    pub cluster: Arc<str>,
    /// How long it may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// What precedes the request's path.
    pub path_prefix: Arc<str>,
    /// More headers.
    pub add: Box<[(HeaderName, Format)]>,
    /// What becomes of the headers of its answers.
    pub answer: AnswerRules,
}

/// Which headers of an HTTP service's answer go where.
#[derive(Clone, Debug, Default)]
pub struct AnswerRules {
    /// Into the request, in the place of what is there.
    pub to_upstream: Names,
    /// Into the request, after what is there; only where something is.
    pub append_to_upstream: Names,
    /// To the client with a denial; all unless set.
    pub to_client: Option<Names>,
    /// To the client with the response to what was allowed.
    pub to_client_on_success: Names,
}

/// How much of a body is sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRules {
    /// The most bytes.
    pub max: usize,
    /// Whether the first bytes of a longer body suffice; otherwise it is refused (413).
    pub partial: bool,
    /// Whether it is sent as bytes rather than as text.
    pub as_bytes: bool,
}

/// Which requests a service is asked about.
#[derive(Clone, Debug)]
pub struct Enabled {
    /// A share of them,
    pub share: Fraction,
    /// of which filters before have learned this.
    pub metadata: Option<MetadataMatcher>,
}

impl Enabled {
    /// Whether it is asked about a request of this metadata.
    pub fn admits(&self, metadata: Option<&core::Metadata>, entropy: Entropy) -> bool {
        self.share.hits(entropy.draw(0x6175_7468))
            && self.metadata.as_ref().is_none_or(|matcher| matcher.matches(metadata))
    }
}

/// Patterns of header names.
#[derive(Clone, Debug, Default)]
pub struct Names(Box<[StringMatcher]>);

impl Names {
    /// Whether one of them takes a name in lower case.
    pub fn take(&self, name: &str) -> bool {
        self.0.iter().any(|matcher| matcher.matches(name.as_bytes()))
    }

    fn compile(cx: &mut Cx<'_>, field: &str, list: &Option<ListStringMatcher>) -> Result<Option<Self>> {
        let Some(list) = list else { return Ok(None) };
        let patterns = cx.field(field, |cx| cx.each("patterns", &list.patterns, StringMatcher::compile))?;
        Ok(Some(Self(patterns.into())))
    }
}

/// Which headers of a request a service is told.
#[derive(Clone, Debug, Default)]
pub struct HeaderRules {
    allowed: Option<Names>,
    disallowed: Option<Names>,
    /// Whether it gets the head itself, of which some headers are indispensable.
    http: bool,
}

impl HeaderRules {
    /// Whether a header of this name, in lower case, is told.
    pub fn tell(&self, name: &str) -> bool {
        if self.disallowed.as_ref().is_some_and(|names| names.take(name)) {
            return false;
        }
        match &self.allowed {
            _ if self.http && matches!(name, "authorization" | ":method" | ":path" | ":authority") => true,
            Some(names) => names.take(name),
            None => !self.http,
        }
    }
}

/// What a route says about the filter.
#[derive(Clone, Debug, Default)]
pub struct RouteSettings {
    /// What a gRPC service is told of the route.
    pub extensions: BTreeMap<String, String>,
    /// Whether no body is sent along.
    pub without_body: bool,
    /// How much of the body, in place of the filter's own.
    pub body: Option<BodyRules>,
}

impl ExtAuthz {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &http_filter::ExtAuthz) -> Result<Self> {
        use http_filter::ext_authz::Services;
        cx.check(message)?;
        let service = match cx.required("grpc_service", &message.services)? {
            Services::GrpcService(grpc) => {
                Service::Grpc(cx.field("grpc_service", |cx| GrpcService::compile(cx, grpc))?)
            }
            Services::HttpService(http) => {
                Service::Http(cx.field("http_service", |cx| HttpService::compile(cx, http))?)
            }
        };
        let own = match &message.services {
            Some(Services::HttpService(http)) => http.authorization_request.as_ref(),
            _ => None,
        };
        let allowed = match Names::compile(cx, "allowed_headers", &message.allowed_headers)? {
            None => {
                let own = own.and_then(|request| request.allowed_headers.clone());
                Names::compile(cx, "http_service.authorization_request.allowed_headers", &own)?
            }
            some => some,
        };
        let matcher = message.filter_enabled_metadata.as_ref();
        let metadata = matcher
            .map(|matcher| cx.field("filter_enabled_metadata", |cx| MetadataMatcher::compile(cx, matcher)))
            .transpose()?;
        let flag = message.deny_at_disable.as_ref().and_then(|flag| flag.default_value);
        Ok(Self {
            headers: HeaderRules {
                allowed,
                disallowed: Names::compile(cx, "disallowed_headers", &message.disallowed_headers)?,
                http: matches!(service, Service::Http(_)),
            },
            service,
            failure_allows: message.failure_mode_allow,
            marks_failure: message.failure_mode_allow_header_add,
            body: BodyRules::compile(cx, "with_request_body", &message.with_request_body)?,
            clear_route_cache: message.clear_route_cache,
            status_on_error: status(cx, "status_on_error.code", message.status_on_error)?,
            enabled: Enabled {
                share: Fraction::of_runtime(&message.filter_enabled, Fraction::ALL),
                metadata,
            },
            deny_when_disabled: flag.unwrap_or(false),
            tells: Tells {
                certificate: message.include_peer_certificate,
                tls_session: message.include_tls_session,
                metadata: boxed(&message.metadata_context_namespaces),
            },
            charges_cluster: message.charge_cluster_response_stats.unwrap_or(true),
            stat_prefix: prefix(&message.stat_prefix),
        })
    }
}

impl NetworkExtAuthz {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &network_filter::ExtAuthz) -> Result<Self> {
        cx.check(message)?;
        let grpc = cx.required("grpc_service", &message.grpc_service)?;
        let matcher = message.filter_enabled_metadata.as_ref();
        Ok(Self {
            service: cx.field("grpc_service", |cx| GrpcService::compile(cx, grpc))?,
            failure_allows: message.failure_mode_allow,
            enabled: matcher
                .map(|matcher| {
                    cx.field("filter_enabled_metadata", |cx| MetadataMatcher::compile(cx, matcher))
                })
                .transpose()?,
            tells: Tells {
                certificate: message.include_peer_certificate,
                tls_session: message.include_tls_session,
                metadata: boxed(&message.metadata_context_namespaces),
            },
            stat_prefix: prefix(&message.stat_prefix),
        })
    }
}

impl GrpcService {
    fn compile(cx: &mut Cx<'_>, message: &core::GrpcService) -> Result<Self> {
        cx.check(message)?;
        let TargetSpecifier::EnvoyGrpc(target) = cx.required("envoy_grpc", &message.target_specifier)? else {
            return Err(cx.refuse_at("google_grpc", "is not supported: use envoy_grpc"));
        };
        cx.field("envoy_grpc", |cx| cx.check(target))?;
        if target.cluster_name.is_empty() {
            return Err(cx.refuse_at("envoy_grpc.cluster_name", "must not be empty"));
        }
        let authority = if target.authority.is_empty() { &target.cluster_name } else { &target.authority };
        Ok(Self {
            cluster: target.cluster_name.as_str().into(),
            authority: authority.as_str().into(),
            timeout: timeout(cx, "timeout", &message.timeout)?,
            metadata: cx
                .each("initial_metadata", &message.initial_metadata, |cx, header| {
                    let value = HeaderValue::from_str(&header.value).map_err(|_| {
                        cx.refuse_at("value", format!("{:?} cannot be sent in a header", header.value))
                    })?;
                    Ok((cx.header_name("key", &header.key)?, value))
                })?
                .into(),
        })
    }
}

impl HttpService {
    fn compile(cx: &mut Cx<'_>, message: &http_filter::HttpService) -> Result<Self> {
        cx.check(message)?;
        let uri = cx.required("server_uri", &message.server_uri)?;
        let HttpUpstreamType::Cluster(cluster) =
            cx.required("server_uri.cluster", &uri.http_upstream_type)?;
        if !message.path_prefix.is_empty() && !message.path_prefix.starts_with('/') {
            return Err(cx.refuse_at("path_prefix", "has to begin with a slash"));
        }
        let add = message.authorization_request.as_ref().map_or(&[][..], |request| &request.headers_to_add);
        let add = cx.each("authorization_request.headers_to_add", add, |cx, header| {
            let value = Format::parse(&header.value).map_err(|reason| cx.refuse_at("value", reason))?;
            Ok((cx.header_name("key", &header.key)?, value))
        })?;
        let answer = message.authorization_response.clone().unwrap_or_default();
        let answer = cx.field("authorization_response", |cx| AnswerRules::compile(cx, &answer))?;
        Ok(Self {
            cluster: cluster.as_str().into(),
            timeout: timeout(cx, "server_uri.timeout", &uri.timeout)?,
            path_prefix: message.path_prefix.as_str().into(),
            add: add.into(),
            answer,
        })
    }
}

impl AnswerRules {
    fn compile(cx: &mut Cx<'_>, message: &http_filter::AuthorizationResponse) -> Result<Self> {
        cx.check(message)?;
        let append = &message.allowed_upstream_headers_to_append;
        let success = &message.allowed_client_headers_on_success;
        Ok(Self {
            to_upstream: Names::compile(cx, "allowed_upstream_headers", &message.allowed_upstream_headers)?
                .unwrap_or_default(),
            append_to_upstream: Names::compile(cx, "allowed_upstream_headers_to_append", append)?
                .unwrap_or_default(),
            to_client: Names::compile(cx, "allowed_client_headers", &message.allowed_client_headers)?,
            to_client_on_success: Names::compile(cx, "allowed_client_headers_on_success", success)?
                .unwrap_or_default(),
        })
    }
}

impl BodyRules {
    fn compile(
        cx: &mut Cx<'_>,
        field: &str,
        message: &Option<http_filter::BufferSettings>,
    ) -> Result<Option<Self>> {
        let Some(given) = message else { return Ok(None) };
        let max = usize::try_from(given.max_request_bytes).unwrap_or(usize::MAX);
        if max == 0 {
            return Err(cx.refuse_at(&format!("{field}.max_request_bytes"), "has to be greater than 0"));
        }
        Ok(Some(Self { max, partial: given.allow_partial_message, as_bytes: given.pack_as_bytes }))
    }
}

/// What a route says: `None` turns the filter off.
pub(crate) fn per_route(
    cx: &mut Cx<'_>,
    message: &http_filter::ExtAuthzPerRoute,
) -> Result<Option<RouteSettings>> {
    use http_filter::ext_authz_per_route::Override;
    match cx.required("override", &message.r#override)? {
        Override::Disabled(true) => Ok(None),
        Override::Disabled(false) => Err(cx.refuse_at("disabled", "has to be true where it is set")),
        Override::CheckSettings(given) => cx.field("check_settings", |cx| {
            cx.check(given)?;
            Ok(Some(RouteSettings {
                extensions: given.context_extensions.clone(),
                without_body: given.disable_request_body_buffering,
                body: BodyRules::compile(cx, "with_request_body", &given.with_request_body)?,
            }))
        }),
    }
}

/// A time; nothing said is Envoy's 200 ms, zero is for ever.
fn timeout(cx: &Cx<'_>, field: &str, given: &Option<lateen_proto::Duration>) -> Result<Option<Duration>> {
    let given = cx.duration(field, given)?.unwrap_or(TIMEOUT);
    Ok(Some(given).filter(|limit| !limit.is_zero()))
}

fn status(
    cx: &Cx<'_>,
    field: &str,
    given: Option<lateen_proto::envoy::r#type::v3::HttpStatus>,
) -> Result<u16> {
    let Some(given) = given else { return Ok(403) };
    let code = u16::try_from(given.code).ok().filter(|code| (200..600).contains(code));
    code.ok_or_else(|| cx.refuse_at(field, "has to be 200 to 599"))
}

fn prefix(given: &str) -> Arc<str> {
    if given.is_empty() { "".into() } else { format!("{given}.").into() }
}

fn boxed(names: &[String]) -> Box<[Box<str>]> {
    names.iter().map(|name| name.as_str().into()).collect()
}
