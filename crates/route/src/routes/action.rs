//! What a route does with a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;
use lateen_proto::envoy::config::route::v3 as proto;
use lateen_proto::envoy::config::route::v3::route_action::{HostRewriteSpecifier, RequestMirrorPolicy};

use super::destination::Destination;
use super::hash::HashPolicy;
use super::matching::RouteMatcher;
use super::redirect::{Redirect, matched_length};
use super::retry::RetryPolicy;
use crate::entropy::{Entropy, Fraction};
use crate::error::{Cx, Result};
use crate::format::Format;
use crate::rate_limit::RateLimitRule;
use crate::request::RequestView;
use crate::string_match::Substitution;

/// What a route does with a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends it to a cluster.
    Forward(Box<Forward>),
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers it.
    Direct(Box<DirectResponse>),
    /// Nothing that a proxy does (inbound gRPC without proxy); a 404 here.
    NonForwarding,
}

/// An answer of our own.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Bytes,
    /// A body made per request, in place of `body`.
    pub format: Option<Format>,
}

/// How a request is forwarded.
#[derive(Clone, Debug)]
pub struct Forward {
    /// To which cluster.
    pub destination: Destination,
    /// The answer when there is no such cluster.
    pub missing_cluster_status: u16,
    /// How the path changes.
    pub path_rewrite: Option<PathRewrite>,
    /// How the host changes.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether the old host goes along in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// Until the whole response has come, counted from the end of the request; `None` is for ever. 15 s unless set.
    pub timeout: Option<Duration>,
    /// Silence on the stream; `None` is as the manager says, zero is for ever.
    pub idle_timeout: Option<Duration>,
    /// In place of `timeout` for gRPC requests: what they ask for themselves.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Limits on the stream's life, in place of `timeout`; `None` is as the manager says.
    pub max_stream: Option<MaxStream>,
    /// Retries; `None` is as the virtual host says.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Copies to other clusters.
    pub mirrors: Box<[Mirror]>,
    /// What the load balancer's hash is made of, in order.
    pub hash_policies: Box<[HashPolicy]>,
    /// Whether it counts against the high-priority circuit breakers.
    pub high_priority: bool,
    /// What requests are counted by for rate limits.
    pub rate_limits: Box<[RateLimitRule]>,
    /// Upgrades, where they differ from the manager's.
    pub upgrades: Box<[RouteUpgrade]>,
}

/// How a path changes.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// What the route matched, `matched` bytes long, is replaced.
    Prefix {
        /// The replacement.
        with: Arc<str>,
        /// How many bytes are replaced.
        matched: usize,
    },
    /// Search and replace, outside the query.
    Regex(Substitution),
}

impl PathRewrite {
    /// The new `:path`, query included.
    pub fn apply(&self, request: &RequestView<'_>) -> String {
        let path = request.path_only();
        let query = &request.path[path.len()..];
        match self {
            Self::Prefix { with, matched } => {
                let rest = path.get(*matched..).unwrap_or_default();
                let mut out = String::with_capacity(with.len() + rest.len() + query.len());
                out.push_str(with);
                out.push_str(rest);
                out.push_str(query);
                out
            }
            Self::Regex(substitution) => {
                let new = substitution.apply(path.as_bytes());
                let mut out = String::from_utf8_lossy(&new).into_owned();
                out.push_str(query);
                out
            }
        }
    }
}

/// How a host changes.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// To this.
    Literal(Arc<str>),
    /// To the endpoint's host name, for clusters that have one.
    Auto,
    /// To a request header's value.
    Header(HeaderName),
    /// To the path after search and replace.
    PathRegex(Substitution),
}

/// Limits on a stream's life (Envoy's `max_stream_duration`). A route that has them has no other timeout: Envoy then
/// leaves `timeout` aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxStream {
    /// The most of it; `None` is as the manager says, zero is for ever.
    pub duration: Option<Duration>,
    /// How a caller's `grpc-timeout` is heard; `None` ignores the header.
    pub grpc: Option<GrpcTimeout>,
}

impl MaxStream {
    /// The limit for a request with this `grpc-timeout`; `manager` is the connection manager's. `None` is for ever.
    pub fn limit(&self, grpc_timeout: Option<Duration>, manager: Option<Duration>) -> Option<Duration> {
        match (grpc_timeout, self.grpc) {
            (Some(asked), Some(rules)) => Some(rules.limit(asked)),
            _ => match self.duration {
                None => manager,
                Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
            },
        }
    }
}

/// How a caller's `grpc-timeout` is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// The most that it may ask for; zero takes any.
    pub max: Duration,
    /// How much shorter than asked for the limit is.
    pub offset: Duration,
}

impl GrpcTimeout {
    /// The limit for a caller that asks for `asked`.
    pub fn limit(&self, asked: Duration) -> Duration {
        let capped = if self.max.is_zero() { asked } else { asked.min(self.max) };
        capped.saturating_sub(self.offset)
    }
}

/// A copy of requests to another cluster.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// To which cluster; the header is looked at when this is `None`.
    pub cluster: Option<Arc<str>>,
    /// The header that names the cluster.
    pub cluster_header: Option<HeaderName>,
    /// Share of requests.
    pub share: Fraction,
    /// Whether `-shadow` is appended to the host.
    pub append_shadow_to_host: bool,
}

impl Mirror {
    /// Whether this request is copied; `index` is the mirror's place in its route.
    pub fn hits(&self, index: usize, entropy: Entropy) -> bool {
        self.share.hits(entropy.draw(0x6d_6972_726f ^ ((index as u64) << 40)))
    }

    fn compile(cx: &mut Cx<'_>, message: &RequestMirrorPolicy) -> Result<Self> {
        cx.check(message)?;
        let cluster_header = match message.cluster_header.as_str() {
            "" => None,
            name => Some(cx.header_name("cluster_header", name)?),
        };
        if message.cluster.is_empty() == cluster_header.is_none() {
            return Err(cx.refuse("needs cluster or cluster_header, and not both"));
        }
        Ok(Self {
            cluster: (!message.cluster.is_empty()).then(|| message.cluster.as_str().into()),
            cluster_header,
            share: Fraction::of_runtime(&message.runtime_fraction, Fraction::ALL),
            append_shadow_to_host: !message.disable_shadow_host_suffix_append,
        })
    }
}

/// An upgrade of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteUpgrade {
    /// Its name in lower case.
    pub name: Arc<str>,
    /// Whether it is on.
    pub enabled: bool,
    /// Whether a CONNECT is ended here and its bytes go upstream as they are.
    pub terminate_connect: bool,
}

impl Forward {
    /// The load balancer's hash for a request.
    pub fn hash(&self, request: &RequestView<'_>) -> Option<u64> {
        HashPolicy::all(&self.hash_policies, request, &mut |_| None)
    }

    /// The upgrade's state by this route: `None` when it is not listed.
    pub fn upgrade(&self, name: &str) -> Option<&RouteUpgrade> {
        self.upgrades.iter().find(|upgrade| upgrade.name.eq_ignore_ascii_case(name))
    }

    fn compile(
        cx: &mut Cx<'_>,
        message: &proto::RouteAction,
        matcher: &RouteMatcher,
        mirrors: &[RequestMirrorPolicy],
    ) -> Result<Self> {
        use proto::route_action::ClusterNotFoundResponseCode as C;
        cx.check(message)?;
        let specifier = cx.required("cluster", &message.cluster_specifier)?;
        let own = &message.request_mirror_policies;
        let mirrors = if own.is_empty() { mirrors } else { own };
        let retry = match &message.retry_policy {
            None => None,
            Some(policy) => Some(Arc::new(cx.field("retry_policy", |cx| RetryPolicy::compile(cx, policy))?)),
        };
        let timeout = cx.duration("timeout", &message.timeout)?.unwrap_or(Duration::from_secs(15));
        Ok(Self {
            destination: Destination::compile(cx, specifier)?,
            missing_cluster_status: match message.cluster_not_found_response_code() {
                C::ServiceUnavailable => 503,
                C::NotFound => 404,
                C::InternalServerError => 500,
            },
            path_rewrite: path_rewrite(cx, message, matcher)?,
            host_rewrite: host_rewrite(cx, message)?,
            append_x_forwarded_host: message.append_x_forwarded_host,
            timeout: Some(timeout).filter(|timeout| !timeout.is_zero()),
            idle_timeout: cx.duration("idle_timeout", &message.idle_timeout)?,
            grpc_timeout: grpc_timeout(cx, message)?,
            max_stream: max_stream(cx, message)?,
            retry,
            mirrors: cx.each("request_mirror_policies", mirrors, Mirror::compile)?.into(),
            hash_policies: cx.each("hash_policy", &message.hash_policy, HashPolicy::compile)?.into(),
            high_priority: message.priority == 1,
            rate_limits: RateLimitRule::compile_all(cx, "rate_limits", &message.rate_limits)?.into(),
            upgrades: cx
                .each("upgrade_configs", &message.upgrade_configs, |cx, upgrade| {
                    cx.check(upgrade)?;
                    Ok(RouteUpgrade {
                        name: upgrade.upgrade_type.to_ascii_lowercase().into(),
                        enabled: upgrade.enabled.unwrap_or(true),
                        terminate_connect: upgrade.connect_config.is_some(),
                    })
                })?
                .into(),
        })
    }
}

impl Action {
    pub(super) fn compile(
        cx: &mut Cx<'_>,
        message: &proto::Route,
        matcher: &RouteMatcher,
        mirrors: &[RequestMirrorPolicy],
    ) -> Result<Self> {
        use proto::route::Action as A;
        Ok(match cx.required("action", &message.action)? {
            A::Route(action) => Self::Forward(Box::new(
                cx.field("route", |cx| Forward::compile(cx, action, matcher, mirrors))?,
            )),
            A::Redirect(action) => {
                Self::Redirect(Box::new(cx.field("redirect", |cx| Redirect::compile(cx, action, matcher))?))
            }
            A::DirectResponse(action) => {
                Self::Direct(Box::new(cx.field("direct_response", |cx| DirectResponse::compile(cx, action))?))
            }
            A::NonForwardingAction(_) => Self::NonForwarding,
            A::FilterAction(_) => return Err(cx.refuse_at("filter_action", "is not supported")),
        })
    }
}

impl DirectResponse {
    fn compile(cx: &mut Cx<'_>, message: &proto::DirectResponseAction) -> Result<Self> {
        use lateen_proto::envoy::config::core::v3::substitution_format_string::Format as F;
        let status = match message.status {
            status @ 200..=599 => status as u16,
            other => {
                return Err(cx.refuse_at("status", format!("{other} is no final HTTP status: 200 to 599")));
            }
        };
        let format = match message.body_format.as_ref().and_then(|f| f.format.as_ref()) {
            None => None,
            Some(F::TextFormat(text)) => Some(crate::http_manager::text_format(cx, "body_format", text)?),
            Some(_) => return Err(cx.refuse_at("body_format", "only text_format is supported")),
        };
        let body = message.body.as_ref().map(|body| cx.inline("body", body)).transpose()?;
        Ok(Self { status, body: body.unwrap_or_default(), format })
    }
}

fn path_rewrite(
    cx: &mut Cx<'_>,
    message: &proto::RouteAction,
    matcher: &RouteMatcher,
) -> Result<Option<PathRewrite>> {
    if let Some(rewrite) = &message.regex_rewrite {
        if !message.prefix_rewrite.is_empty() {
            return Err(cx.refuse_at("regex_rewrite", "cannot be set along with prefix_rewrite"));
        }
        let substitution = cx.field("regex_rewrite", |cx| Substitution::compile(cx, rewrite))?;
        return Ok(Some(PathRewrite::Regex(substitution)));
    }
    if message.prefix_rewrite.is_empty() {
        return Ok(None);
    }
    let matched = matched_length(matcher);
    Ok(Some(PathRewrite::Prefix { with: message.prefix_rewrite.as_str().into(), matched }))
}

fn host_rewrite(cx: &mut Cx<'_>, message: &proto::RouteAction) -> Result<Option<HostRewrite>> {
    Ok(match &message.host_rewrite_specifier {
        None | Some(HostRewriteSpecifier::AutoHostRewrite(false)) => None,
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            Some(HostRewrite::Literal(host.as_str().into()))
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            Some(HostRewrite::Header(cx.header_name("host_rewrite_header", name)?))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => Some(HostRewrite::PathRegex(
            cx.field("host_rewrite_path_regex", |cx| Substitution::compile(cx, rewrite))?,
        )),
        Some(HostRewriteSpecifier::HostRewrite(_)) => {
            return Err(cx.refuse_at("host_rewrite", "is not supported: use host_rewrite_literal"));
        }
    })
}

/// `max_stream_duration`, if the route has it.
fn max_stream(cx: &Cx<'_>, message: &proto::RouteAction) -> Result<Option<MaxStream>> {
    let Some(limits) = &message.max_stream_duration else { return Ok(None) };
    let at = |field: &str| format!("max_stream_duration.{field}");
    let max = cx.duration(&at("grpc_timeout_header_max"), &limits.grpc_timeout_header_max)?;
    let offset = cx.duration(&at("grpc_timeout_header_offset"), &limits.grpc_timeout_header_offset)?;
    Ok(Some(MaxStream {
        duration: cx.duration(&at("max_stream_duration"), &limits.max_stream_duration)?,
        grpc: max.map(|max| GrpcTimeout { max, offset: offset.unwrap_or_default() }),
    }))
}

/// The deprecated pair `max_grpc_timeout` and `grpc_timeout_offset`, which Istio writes.
fn grpc_timeout(cx: &Cx<'_>, message: &proto::RouteAction) -> Result<Option<GrpcTimeout>> {
    let max = cx.duration("max_grpc_timeout", &message.max_grpc_timeout)?;
    let offset = cx.duration("grpc_timeout_offset", &message.grpc_timeout_offset)?;
    Ok(max.map(|max| GrpcTimeout { max, offset: offset.unwrap_or_default() }))
}
