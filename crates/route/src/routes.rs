//! Route configurations: virtual host by host, route by request, and what to do then.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_proto::envoy::config::route::v3 as proto;
use smallvec::SmallVec;

use crate::entropy::Entropy;
use crate::error::{CompileError, Compiled, Cx, Result};
use crate::header_edits::HeaderEdits;
use crate::http_manager::FilterOverride;
use crate::rate_limit::RateLimitRule;
use crate::request::RequestView;
use crate::trail::Trail;
use changes::changes;

mod action;
mod changes;
mod destination;
mod domains;
mod hash;
mod matching;
mod redirect;
mod retry;

pub use action::{
    Action, DirectResponse, Forward, GrpcTimeout, HostRewrite, MaxStream, Mirror, PathRewrite, RouteUpgrade,
};
pub use changes::Changes;
pub use destination::{ClusterPick, Destination, WeightedCluster, WeightedNames};
pub use hash::{HashCookie, HashPolicy, HashSource, address_hash};
pub use matching::{PathMatch, RouteMatcher};
pub use redirect::{PathRedirect, Redirect};
pub use retry::{BackOff, ResetHeaders, RetryOn, RetryPolicy};

/// A compiled `RouteConfiguration`.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// Its resource name.
    pub name: Arc<str>,
    /// The virtual hosts, in order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// What it changes.
    pub changes: Changes,
    /// Whether the route's header changes come after the virtual host's and the configuration's, so that they win.
    pub most_specific_header_wins: bool,
    /// Request headers that only internal clients may send.
    pub internal_only_headers: Vec<http::HeaderName>,
    domains: domains::Domains,
    ignore_port: bool,
}

/// A compiled `VirtualHost`.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// The routes, in order.
    pub routes: Vec<Arc<Route>>,
    /// Whether plain-text requests are redirected to HTTPS.
    pub require_tls: RequireTls,
    /// What it changes.
    pub changes: Changes,
    /// Whether `x-envoy-attempt-count` goes to the upstream.
    pub attempt_count_in_request: bool,
    /// Whether `x-envoy-attempt-count` goes to the client.
    pub attempt_count_in_response: bool,
    /// Retries where the route has no policy.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Whether `x-envoy-is-timeout-retry` goes to the upstream.
    pub is_timeout_retry_header: bool,
    /// The Istio object it was made from.
    pub config: Option<Arc<str>>,
    /// What requests are counted by for rate limits, where routes do not say.
    pub rate_limits: Box<[RateLimitRule]>,
}

/// Which requests a virtual host redirects to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequireTls {
    /// None.
    None,
    /// Those of external clients.
    External,
    /// All.
    All,
}

/// A compiled `Route`.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matcher: RouteMatcher,
    /// What it does with them.
    pub action: Action,
    /// What it changes.
    pub changes: Changes,
    /// The name of its own metrics; none are kept without one.
    pub stat_prefix: Option<Arc<str>>,
    /// The name of its spans.
    pub operation: Option<Arc<str>>,
    /// The most bytes of a body that are kept for retries.
    pub buffer_limit: Option<u64>,
    /// The Istio object it was made from.
    pub config: Option<Arc<str>>,
}

/// What a request met.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'t> {
    /// The virtual host.
    pub virtual_host: &'t Arc<VirtualHost>,
    /// The route; `None` is a 404.
    pub route: Option<&'t Arc<Route>>,
    /// Whether the virtual host redirects the request to HTTPS before any route is looked at.
    pub redirect_to_tls: bool,
}

/// Compiles a `RouteConfiguration`.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub fn compile_routes(message: &proto::RouteConfiguration) -> Result<Compiled<RouteTable>, CompileError> {
    Cx::run(&message.name, |cx| RouteTable::compile(cx, message))
}

impl RouteTable {
    /// The virtual host and route of a request. `None`: no virtual host takes its host, which is a 404, too.
    ///
    /// `internal` says whether the client is internal (for virtual hosts that require TLS of external ones).
    pub fn route(
        &self,
        request: &RequestView<'_>,
        internal: bool,
        entropy: Entropy,
        trail: &mut impl Trail,
    ) -> Option<Selected<'_>> {
        let virtual_host = self.virtual_host(request.authority)?;
        trail
            .step(|| format!("host {:?} belongs to virtual host {:?}", request.authority, virtual_host.name));
        let plain = request.scheme != "https";
        let redirect_to_tls = plain
            && match virtual_host.require_tls {
                RequireTls::None => false,
                RequireTls::External => !internal,
                RequireTls::All => true,
            };
        let route = if redirect_to_tls { None } else { virtual_host.route(request, entropy, trail) };
        Some(Selected { virtual_host, route, redirect_to_tls })
    }

    /// The virtual host of a host header.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let host = if self.ignore_port { without_port(authority) } else { authority };
        let index = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            let mut lower: SmallVec<[u8; 128]> = SmallVec::from_slice(host.as_bytes());
            lower.make_ascii_lowercase();
            self.domains.find(std::str::from_utf8(&lower).ok()?)
        } else {
            self.domains.find(host)
        };
        self.virtual_hosts.get(index?)
    }

    /// The header changes for a request, in the order in which they are made.
    pub fn request_edits<'t>(
        &'t self,
        virtual_host: &'t VirtualHost,
        route: &'t Route,
        pick: Option<&'t WeightedCluster>,
    ) -> impl Iterator<Item = &'t HeaderEdits> {
        self.in_order(virtual_host, route, pick, |changes| &changes.request_headers)
    }

    /// The header changes for a response, in the order in which they are made.
    pub fn response_edits<'t>(
        &'t self,
        virtual_host: &'t VirtualHost,
        route: &'t Route,
        pick: Option<&'t WeightedCluster>,
    ) -> impl Iterator<Item = &'t HeaderEdits> {
        self.in_order(virtual_host, route, pick, |changes| &changes.response_headers)
    }

    /// The override of a filter: the most specific one.
    #[inline]
    pub fn filter_override<'t>(
        &'t self,
        filter: &str,
        virtual_host: &'t VirtualHost,
        route: Option<&'t Route>,
        pick: Option<&'t WeightedCluster>,
    ) -> Option<&'t FilterOverride> {
        let levels = [
            pick.map(|pick| &pick.changes),
            route.map(|route| &route.changes),
            Some(&virtual_host.changes),
            Some(&self.changes),
        ];
        levels.into_iter().flatten().find_map(|changes| changes.overrides.of(filter))
    }

    fn in_order<'t>(
        &'t self,
        virtual_host: &'t VirtualHost,
        route: &'t Route,
        pick: Option<&'t WeightedCluster>,
        edits: impl Fn(&'t Changes) -> &'t HeaderEdits,
    ) -> impl Iterator<Item = &'t HeaderEdits> {
        let mut levels = [
            pick.map(|pick| &pick.changes),
            Some(&route.changes),
            Some(&virtual_host.changes),
            Some(&self.changes),
        ];
        if self.most_specific_header_wins {
            levels.reverse();
        }
        levels.into_iter().flatten().map(edits).filter(|edits| !edits.is_empty())
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::RouteConfiguration) -> Result<Self> {
        cx.check(message)?;
        let mut matchers = matching::Interned::default();
        let virtual_hosts = cx.each("virtual_hosts", &message.virtual_hosts, |cx, host| {
            VirtualHost::compile(cx, host, &message.request_mirror_policies, &mut matchers).map(Arc::new)
        })?;
        let mut names = HashMap::new();
        for (index, host) in virtual_hosts.iter().enumerate() {
            if names.insert(host.name.clone(), index).is_some() {
                let reason = format!("two virtual hosts are named {:?}", host.name);
                return Err(cx.refuse_at("virtual_hosts", reason));
            }
        }
        let domains = domains::Domains::build(cx, &message.virtual_hosts)?;
        Ok(Self {
            name: message.name.as_str().into(),
            domains,
            ignore_port: message.ignore_port_in_host_matching,
            virtual_hosts,
            changes: changes!(cx, message)?,
            most_specific_header_wins: message.most_specific_header_mutations_wins,
            internal_only_headers: cx.each(
                "internal_only_headers",
                &message.internal_only_headers,
                |cx, name| {
                    http::HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| cx.refuse(format!("{name:?} is no header name")))
                },
            )?,
        })
    }
}

impl VirtualHost {
    /// The first route that takes a request.
    pub fn route(
        &self,
        request: &RequestView<'_>,
        entropy: Entropy,
        trail: &mut impl Trail,
    ) -> Option<&Arc<Route>> {
        for (index, route) in self.routes.iter().enumerate() {
            match route.matcher.mismatch(request, entropy.draw(index as u64)) {
                None => {
                    trail.step(|| format!("route {index} {:?} takes it ({})", route.name, route.matcher));
                    return Some(route);
                }
                Some(why) => trail.step(|| format!("route {index} {:?} does not: {why}", route.name)),
            }
        }
        trail.step(|| format!("none of the {} routes of {:?} takes it", self.routes.len(), self.name));
        None
    }

    fn compile(
        cx: &mut Cx<'_>,
        message: &proto::VirtualHost,
        mirrors: &[proto::route_action::RequestMirrorPolicy],
        matchers: &mut matching::Interned,
    ) -> Result<Self> {
        cx.check(message)?;
        let mirrors = if message.request_mirror_policies.is_empty() {
            mirrors
        } else {
            &message.request_mirror_policies
        };
        let retry = match &message.retry_policy {
            None => None,
            Some(policy) => Some(Arc::new(cx.field("retry_policy", |cx| RetryPolicy::compile(cx, policy))?)),
        };
        let routes = cx.each("routes", &message.routes, |cx, route| {
            Route::compile(cx, route, mirrors, matchers).map(Arc::new)
        })?;
        matching::build_shared(routes.iter().map(|route| &route.matcher));
        Ok(Self {
            name: message.name.as_str().into(),
            routes,
            require_tls: match message.require_tls() {
                proto::virtual_host::TlsRequirementType::None => RequireTls::None,
                proto::virtual_host::TlsRequirementType::ExternalOnly => RequireTls::External,
                proto::virtual_host::TlsRequirementType::All => RequireTls::All,
            },
            changes: changes!(cx, message)?,
            attempt_count_in_request: message.include_request_attempt_count,
            attempt_count_in_response: message.include_attempt_count_in_response,
            retry,
            is_timeout_retry_header: message.include_is_timeout_retry_header,
            config: crate::listener::config_of(&message.metadata),
            rate_limits: RateLimitRule::compile_all(cx, "rate_limits", &message.rate_limits)?.into(),
        })
    }
}

impl Route {
    fn compile(
        cx: &mut Cx<'_>,
        message: &proto::Route,
        mirrors: &[proto::route_action::RequestMirrorPolicy],
        matchers: &mut matching::Interned,
    ) -> Result<Self> {
        cx.check(message)?;
        let rules = cx.required("match", &message.r#match)?;
        let matcher = cx.field("match", |cx| RouteMatcher::compile(cx, rules, matchers))?;
        let action = Action::compile(cx, message, &matcher, mirrors)?;
        Ok(Self {
            name: message.name.as_str().into(),
            matcher,
            action,
            changes: changes!(cx, message)?,
            stat_prefix: (!message.stat_prefix.is_empty()).then(|| message.stat_prefix.as_str().into()),
            operation: message.decorator.as_ref().map(|d| d.operation.as_str().into()),
            buffer_limit: message
                .request_body_buffer_limit
                .or(message.per_request_buffer_limit_bytes.map(u64::from)),
            config: crate::listener::config_of(&message.metadata),
        })
    }

    /// The cluster, for routes that forward: `None` when a header has to name it and does not.
    pub fn cluster<'t>(&'t self, request: &RequestView<'t>, entropy: Entropy) -> Option<ClusterPick<'t>> {
        match &self.action {
            Action::Forward(forward) => forward.destination.pick(request, entropy),
            _ => None,
        }
    }
}

/// A host without its port; an IPv6 address keeps its brackets.
pub fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon)
            if authority[colon + 1..].bytes().all(|b| b.is_ascii_digit())
                && (authority.starts_with('[') == authority[..colon].ends_with(']'))
                && (authority.starts_with('[') || !authority[..colon].contains(':')) =>
        {
            &authority[..colon]
        }
        _ => authority,
    }
}
