//! HTTP filters and what routes may override of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_proto::Any;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::extensions::filters::common::fault::v3 as common_fault;
use lateen_proto::envoy::extensions::filters::http as filters;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use super::compressor::Compressor;
use super::header_metadata::HeaderMetadata;
use super::on_demand::OnDemand;
use crate::entropy::Fraction;
use crate::error::{Cx, Result};
use crate::ext_authz::{self, ExtAuthz, RouteSettings};
use crate::header_match::HeaderMatcher;
use crate::istio::{AlpnOverride, Extension};
use crate::jwt::JwtFilter;
use crate::network::FilterStateValue;
use crate::rate_limit::LocalRateLimit;
use crate::rbac::RbacFilter;
use crate::string_match::StringMatcher;

/// A compiled HTTP filter.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// Its name, under which routes override it.
    pub name: Arc<str>,
    /// Whether it is off unless a route turns it on.
    pub disabled: bool,
    /// What it does.
    pub kind: HttpFilterKind,
}

/// What an HTTP filter does.
#[derive(Clone, Debug)]
pub enum HttpFilterKind {
    /// Forwards; always the last.
    Router(RouterSettings),
    /// Delays and aborts; routes say which.
    Fault(Arc<FaultPolicy>),
    /// Answers preflights; routes say how.
    Cors,
    /// Decides who may ask.
    Rbac(Arc<RbacFilter>),
    /// Validates tokens.
    Jwt(Arc<JwtFilter>),
    /// Asks a service who may ask.
    ExtAuthz(Arc<ExtAuthz>),
    /// Puts values into the filter state.
    SetFilterState(Arc<[FilterStateValue]>),
    /// Lets so many requests through.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Fetches clusters that are not there yet; `None` is off.
    OnDemand(Option<OnDemand>),
    /// Looks up the request's host for a cluster that forwards by DNS.
    DynamicForwardProxy,
    /// Counts gRPC messages.
    GrpcStats,
    /// Translates gRPC-Web.
    GrpcWeb,
    /// Compresses responses.
    Compressor(Arc<Compressor>),
    /// Makes metadata of headers.
    HeaderMetadata(Arc<HeaderMetadata>),
    /// Istio's exchange of workload metadata by headers.
    IstioPeerMetadata(Any),
    /// Istio's choice of application protocols towards upstream.
    IstioAlpn(Arc<AlpnOverride>),
    /// Istio's metrics.
    IstioStats(Any),
}

/// Settings of the router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouterSettings {
    /// Whether `x-envoy-*` headers are left alone and not added.
    pub suppress_envoy_headers: bool,
    /// Whether `x-envoy-expected-rq-timeout-ms` of a caller is kept.
    pub respect_expected_timeout: bool,
}

/// A compiled fault policy.
#[derive(Clone, Debug, Default)]
pub struct FaultPolicy {
    /// A delay before anything else.
    pub delay: Option<Delay>,
    /// An answer in the upstream's place.
    pub abort: Option<Abort>,
    /// Only requests with these headers.
    pub headers: Vec<HeaderMatcher>,
    /// Only requests to this cluster.
    pub upstream_cluster: Option<Arc<str>>,
    /// The most delays and aborts at a time.
    pub max_active: Option<u32>,
}

/// A delay of a share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// How many.
    pub share: Fraction,
}

/// An abort of a share of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abort {
    /// With which answer.
    pub status: AbortStatus,
    /// How many.
    pub share: Fraction,
    /// Its body, in place of the usual one.
    pub body: Option<Arc<str>>,
}

/// An abort's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}

/// A compiled CORS policy.
#[derive(Clone, Debug)]
pub struct CorsPolicy {
    /// Origins allowed.
    pub origins: Vec<StringMatcher>,
    /// `access-control-allow-methods`
    pub allow_methods: Arc<str>,
    /// `access-control-allow-headers`
    pub allow_headers: Arc<str>,
    /// `access-control-expose-headers`
    pub expose_headers: Arc<str>,
    /// `access-control-max-age`
    pub max_age: Arc<str>,
    /// `access-control-allow-credentials`
    pub allow_credentials: bool,
    /// Whether a preflight of another origin goes to the upstream.
    pub forward_not_matching_preflights: bool,
    /// Share of requests it holds for.
    pub enabled: Fraction,
}

/// What routes, virtual hosts and weighted clusters override, by filter name.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Box<[(Arc<str>, FilterOverride)]>);

/// An override of one filter.
#[derive(Clone, Debug)]
pub enum FilterOverride {
    /// It is off.
    Disabled,
    /// It is on as configured in the manager.
    Enabled,
    /// Another fault policy.
    Fault(Arc<FaultPolicy>),
    /// Another CORS policy.
    Cors(Arc<CorsPolicy>),
    /// Other rules; none lets everything pass.
    Rbac(Option<Arc<RbacFilter>>),
    /// The requirement of this name for tokens.
    Jwt(Arc<str>),
    /// What an authorization service is told of the route, and how much of the body.
    ExtAuthz(Arc<RouteSettings>),
    /// Other values for the filter state.
    SetFilterState(Arc<[FilterStateValue]>),
    /// Other limits.
    LocalRateLimit(Arc<LocalRateLimit>),
    /// Other rules for clusters that are not there yet.
    OnDemand(Option<OnDemand>),
    /// Other headers that become metadata.
    HeaderMetadata(Arc<HeaderMetadata>),
}

impl Overrides {
    /// The override of a filter.
    #[inline]
    pub fn of(&self, filter: &str) -> Option<&FilterOverride> {
        self.0.iter().find(|(name, _)| **name == *filter).map(|(_, value)| value)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, map: &BTreeMap<String, Any>) -> Result<Self> {
        let mut out = Vec::new();
        for (name, any) in map {
            let value = cx.field(format_args!("typed_per_filter_config[{name}]"), |cx| {
                FilterOverride::compile(cx, any, false)
            })?;
            if let Some(value) = value {
                out.push((name.as_str().into(), value));
            }
        }
        Ok(Self(out.into()))
    }
}

impl FilterOverride {
    fn compile(cx: &mut Cx<'_>, any: &Any, optional: bool) -> Result<Option<Self>> {
        if any.is::<route::FilterConfig>() {
            let message: route::FilterConfig = cx.unpack(any)?;
            if message.disabled {
                return Ok(Some(Self::Disabled));
            }
            return match &message.config {
                None => Ok(Some(Self::Enabled)),
                Some(inner) if inner.is::<route::FilterConfig>() => {
                    Err(cx.refuse("FilterConfig within FilterConfig"))
                }
                Some(inner) => cx.field("config", |cx| Self::compile(cx, inner, message.is_optional)),
            };
        }
        if any.is::<filters::fault::v3::HttpFault>() {
            let message = cx.unpack(any)?;
            return Ok(Some(Self::Fault(Arc::new(FaultPolicy::compile(cx, &message)?))));
        }
        if any.is::<filters::cors::v3::CorsPolicy>() {
            let message = cx.unpack(any)?;
            return Ok(Some(Self::Cors(Arc::new(CorsPolicy::compile(cx, &message)?))));
        }
        if any.is::<filters::rbac::v3::RbacPerRoute>() {
            let message: filters::rbac::v3::RbacPerRoute = cx.unpack(any)?;
            let rbac = message
                .rbac
                .as_ref()
                .map(|rbac| cx.field("rbac", |cx| RbacFilter::compile_http(cx, rbac)))
                .transpose()?;
            return Ok(Some(Self::Rbac(rbac.map(Arc::new))));
        }
        if any.is::<filters::jwt_authn::v3::PerRouteConfig>() {
            use filters::jwt_authn::v3::per_route_config::RequirementSpecifier;
            let message: filters::jwt_authn::v3::PerRouteConfig = cx.unpack(any)?;
            return match message.requirement_specifier {
                Some(RequirementSpecifier::Disabled(true)) => Ok(Some(Self::Disabled)),
                Some(RequirementSpecifier::RequirementName(name)) => Ok(Some(Self::Jwt(name.into()))),
                _ => Err(cx.refuse("needs disabled: true, or requirement_name")),
            };
        }
        if any.is::<filters::ext_authz::v3::ExtAuthzPerRoute>() {
            let settings = ext_authz::per_route(cx, &cx.unpack(any)?)?;
            return Ok(Some(settings.map_or(Self::Disabled, |settings| Self::ExtAuthz(Arc::new(settings)))));
        }
        if any.is::<filters::set_filter_state::v3::Config>() {
            return Ok(Some(Self::SetFilterState(filter_state(cx, any)?)));
        }
        if any.is::<filters::local_ratelimit::v3::LocalRateLimit>() {
            let message: filters::local_ratelimit::v3::LocalRateLimit = cx.unpack(any)?;
            cx.required("token_bucket", &message.token_bucket)?;
            return Ok(Some(Self::LocalRateLimit(Arc::new(LocalRateLimit::compile(cx, &message)?))));
        }
        if any.is::<filters::header_to_metadata::v3::Config>() {
            let message = cx.unpack(any)?;
            return Ok(Some(Self::HeaderMetadata(Arc::new(HeaderMetadata::compile(cx, &message)?))));
        }
        if any.is::<filters::compressor::v3::CompressorPerRoute>() {
            use filters::compressor::v3::compressor_per_route::Override;
            let message: filters::compressor::v3::CompressorPerRoute = cx.unpack(any)?;
            return match message.r#override {
                Some(Override::Disabled(true)) => Ok(Some(Self::Disabled)),
                _ => Err(cx.refuse("only disabled: true is supported")),
            };
        }
        if any.is::<filters::on_demand::v3::PerRouteConfig>() {
            let message: filters::on_demand::v3::PerRouteConfig = cx.unpack(any)?;
            return Ok(Some(Self::OnDemand(OnDemand::compile(cx, &message.odcds)?)));
        }
        if optional {
            cx.note_at("typed_config", "is of an unknown type and marked optional, so it is left out");
            return Ok(None);
        }
        Err(cx.refuse(format!("override {} is not supported", any.type_url)))
    }
}

impl HttpFilter {
    /// `None` when the filter is optional and unknown.
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &hcm::HttpFilter) -> Result<Option<Self>> {
        let any = match &message.config_type {
            Some(hcm::http_filter::ConfigType::TypedConfig(any)) => any,
            Some(hcm::http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(cx.refuse_at("config_discovery", "is not supported: give typed_config"));
            }
            None => return Err(cx.refuse_at("typed_config", "is required")),
        };
        let kind = match cx.field("typed_config", |cx| HttpFilterKind::compile(cx, any)) {
            Ok(kind) => kind,
            Err(error) if message.is_optional => {
                cx.note_at("typed_config", &format!("the optional filter is left out: {}", error.reason));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Self { name: message.name.as_str().into(), disabled: message.disabled, kind }))
    }
}

impl HttpFilterKind {
    fn compile(cx: &mut Cx<'_>, any: &Any) -> Result<Self> {
        if any.is::<filters::router::v3::Router>() {
            let message: filters::router::v3::Router = cx.unpack(any)?;
            cx.check(&message)?;
            return Ok(Self::Router(RouterSettings {
                suppress_envoy_headers: message.suppress_envoy_headers,
                respect_expected_timeout: message.respect_expected_rq_timeout,
            }));
        }
        if any.is::<filters::fault::v3::HttpFault>() {
            let message = cx.unpack(any)?;
            return Ok(Self::Fault(Arc::new(FaultPolicy::compile(cx, &message)?)));
        }
        if any.is::<filters::cors::v3::Cors>() {
            return Ok(Self::Cors);
        }
        if any.is::<filters::rbac::v3::Rbac>() {
            let message = cx.unpack(any)?;
            return Ok(Self::Rbac(Arc::new(RbacFilter::compile_http(cx, &message)?)));
        }
        if any.is::<filters::jwt_authn::v3::JwtAuthentication>() {
            let message = cx.unpack(any)?;
            return Ok(Self::Jwt(Arc::new(JwtFilter::compile(cx, &message)?)));
        }
        if any.is::<filters::ext_authz::v3::ExtAuthz>() {
            let message = cx.unpack(any)?;
            return Ok(Self::ExtAuthz(Arc::new(ExtAuthz::compile(cx, &message)?)));
        }
        if any.is::<filters::set_filter_state::v3::Config>() {
            return Ok(Self::SetFilterState(filter_state(cx, any)?));
        }
        if any.is::<filters::local_ratelimit::v3::LocalRateLimit>() {
            let message = cx.unpack(any)?;
            return Ok(Self::LocalRateLimit(Arc::new(LocalRateLimit::compile(cx, &message)?)));
        }
        if any.is::<filters::on_demand::v3::OnDemand>() {
            let message: filters::on_demand::v3::OnDemand = cx.unpack(any)?;
            return Ok(Self::OnDemand(OnDemand::compile(cx, &message.odcds)?));
        }
        if any.is::<filters::dynamic_forward_proxy::v3::FilterConfig>() {
            return Ok(Self::DynamicForwardProxy);
        }
        if any.is::<filters::grpc_stats::v3::FilterConfig>() {
            cx.note("messages are not counted");
            return Ok(Self::GrpcStats);
        }
        if any.is::<filters::grpc_web::v3::GrpcWeb>() {
            return Ok(Self::GrpcWeb);
        }
        if any.is::<filters::compressor::v3::Compressor>() {
            let message = cx.unpack(any)?;
            return Ok(Self::Compressor(Arc::new(Compressor::compile(cx, &message)?)));
        }
        if any.is::<filters::header_to_metadata::v3::Config>() {
            let message = cx.unpack(any)?;
            return Ok(Self::HeaderMetadata(Arc::new(HeaderMetadata::compile(cx, &message)?)));
        }
        let extension = Extension::open(cx, any)?;
        match extension.kind.as_str() {
            "io.istio.http.peer_metadata.Config" => Ok(Self::IstioPeerMetadata(any.clone())),
            "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig" => {
                Ok(Self::IstioAlpn(Arc::new(AlpnOverride::compile(cx, &extension)?)))
            }
            "stats.PluginConfig" => Ok(Self::IstioStats(any.clone())),
            other => Err(cx.refuse(format!("HTTP filter {other} is not supported"))),
        }
    }
}

fn filter_state(cx: &mut Cx<'_>, any: &Any) -> Result<Arc<[FilterStateValue]>> {
    let message: filters::set_filter_state::v3::Config = cx.unpack(any)?;
    cx.check(&message)?;
    let values = cx.each("on_request_headers", &message.on_request_headers, FilterStateValue::compile)?;
    Ok(values.into())
}

/// The router comes last, and only last.
pub(super) fn check_order(cx: &Cx<'_>, filters: &[HttpFilter]) -> Result<()> {
    let routers = filters.iter().filter(|filter| matches!(filter.kind, HttpFilterKind::Router(_))).count();
    let last = filters.last().map(|filter| &filter.kind);
    if routers != 1 || !matches!(last, Some(HttpFilterKind::Router(_))) {
        return Err(cx.refuse_at("http_filters", "the last one, and only the last, has to be the router"));
    }
    Ok(())
}

impl FaultPolicy {
    fn compile(cx: &mut Cx<'_>, message: &filters::fault::v3::HttpFault) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            delay: match &message.delay {
                None => None,
                Some(delay) => Some(cx.field("delay", |cx| Delay::compile(cx, delay))?),
            },
            abort: match &message.abort {
                None => None,
                Some(abort) => Some(cx.field("abort", |cx| Abort::compile(cx, abort))?),
            },
            headers: cx.each("headers", &message.headers, HeaderMatcher::compile)?,
            upstream_cluster: (!message.upstream_cluster.is_empty())
                .then(|| message.upstream_cluster.as_str().into()),
            max_active: message.max_active_faults,
        })
    }
}

impl Delay {
    fn compile(cx: &Cx<'_>, message: &common_fault::FaultDelay) -> Result<Self> {
        use common_fault::fault_delay::FaultDelaySecifier as S;
        let duration = match &message.fault_delay_secifier {
            Some(S::FixedDelay(duration)) => {
                cx.duration("fixed_delay", &Some(*duration))?.unwrap_or_default()
            }
            Some(S::HeaderDelay(_)) => return Err(cx.refuse_at("header_delay", "is not supported")),
            None => return Err(cx.refuse_at("fixed_delay", "is required")),
        };
        Ok(Self { duration, share: message.percentage.as_ref().map_or(Fraction::NONE, Fraction::of) })
    }
}

impl Abort {
    fn compile(cx: &mut Cx<'_>, message: &filters::fault::v3::FaultAbort) -> Result<Self> {
        use filters::fault::v3::fault_abort::ErrorType;
        cx.check(message)?;
        let status = match &message.error_type {
            Some(ErrorType::HttpStatus(status @ 200..=599)) => AbortStatus::Http(*status as u16),
            Some(ErrorType::HttpStatus(_)) => return Err(cx.refuse_at("http_status", "has to be 200 to 599")),
            Some(ErrorType::GrpcStatus(status)) => AbortStatus::Grpc(*status),
            Some(ErrorType::HeaderAbort(_)) => return Err(cx.refuse_at("header_abort", "is not supported")),
            None => return Err(cx.refuse("needs http_status or grpc_status")),
        };
        Ok(Self {
            status,
            share: message.percentage.as_ref().map_or(Fraction::NONE, Fraction::of),
            body: (!message.response_body.is_empty()).then(|| message.response_body.as_str().into()),
        })
    }
}

impl CorsPolicy {
    fn compile(cx: &mut Cx<'_>, message: &filters::cors::v3::CorsPolicy) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            origins: cx.each(
                "allow_origin_string_match",
                &message.allow_origin_string_match,
                StringMatcher::compile,
            )?,
            allow_methods: message.allow_methods.as_str().into(),
            allow_headers: message.allow_headers.as_str().into(),
            expose_headers: message.expose_headers.as_str().into(),
            max_age: message.max_age.as_str().into(),
            allow_credentials: message.allow_credentials.unwrap_or(false),
            forward_not_matching_preflights: message.forward_not_matching_preflights.unwrap_or(true),
            enabled: Fraction::of_runtime(&message.filter_enabled, Fraction::ALL),
        })
    }
}
