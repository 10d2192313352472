//! Actions: what becomes of a request that a route matched.

use std::collections::BTreeMap;

use lateen_api::kinds::virtual_service::{
    Destination, HttpBody, HttpDirectResponse, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    RedirectPortSelection,
};
use lateen_base::Namespace;
use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use lateen_proto::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy,
};
use lateen_proto::envoy::config::route::v3::weighted_cluster::{self, ClusterWeight};
use lateen_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::cors::{CORS, cors};
use super::destinations::Destinations;
use super::fault::{FAULT, http_fault, share};
use super::headers::HeaderEdits;
use super::matches::{Semantics, regex_matcher};
use super::retry;
use crate::filters::extensions::{self, FILTER_STATE};
use crate::filters::wire::{duration, per_hundred, zero};

/// What is offered to the upstream of a route by proxies without `istio.alpn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum UpstreamAlpn {
    /// What the connection manager says.
    #[default]
    Inherited,
    /// Mesh HTTP/2: the cluster speaks nothing else.
    MeshHttp2,
    /// What the cluster's own TLS settings say.
    Cluster,
}

/// A destination, resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Target {
    /// The cluster.
    pub(crate) cluster: String,
    /// How requests are hashed onto its endpoints.
    pub(crate) hash: Vec<HashPolicy>,
    /// What it is offered.
    pub(crate) alpn: UpstreamAlpn,
}

/// What translating a route needs besides the route.
pub(crate) struct ActionInputs<'a> {
    /// What destinations stand for.
    pub(crate) destinations: &'a Destinations<'a>,
    /// The namespace of the object that is translated, in which short names are read.
    pub(crate) owner: &'a Namespace,
    /// The listener's port.
    pub(crate) port: u16,
    /// How prefixes are read.
    pub(crate) semantics: Semantics,
}

impl ActionInputs<'_> {
    fn target(&self, destination: &Destination) -> Target {
        self.destinations.target(destination, self.owner, self.port)
    }
}

/// Gives a route its action, header edits and filter overrides.
pub(crate) fn apply(http: &HttpRoute, out: &mut route::Route, inputs: &ActionInputs<'_>) {
    let mut edits = HeaderEdits::of(http.headers.as_ref());
    let action = if let Some(given) = &http.redirect {
        route::route::Action::Redirect(redirect(given, inputs.port))
    } else if let Some(given) = &http.direct_response {
        route::route::Action::DirectResponse(direct_response(given))
    } else {
        let (action, more) = forward(http, out, edits.authority.take(), inputs);
        edits = edits.and(more);
        route::route::Action::Route(action)
    };
    out.action = Some(action);
    out.request_headers_to_add = edits.request_add;
    out.request_headers_to_remove = edits.request_remove;
    out.response_headers_to_add = edits.response_add;
    out.response_headers_to_remove = edits.response_remove;
    let overrides = &mut out.typed_per_filter_config;
    if let Some(fault) = http.fault.as_ref().and_then(http_fault) {
        overrides.insert(FAULT.into(), Any::pack(&fault));
    }
    if let Some(policy) = &http.cors_policy {
        overrides.insert(CORS.into(), Any::pack(&cors(policy)));
    }
}

/// A plain action to one cluster, as routes have that nobody wrote.
// `max_grpc_timeout` is deprecated, and what Istio sends.
#[allow(deprecated)]
pub(crate) fn to_cluster(target: Target, mesh_retry: Option<&HttpRetry>) -> route::RouteAction {
    let sticky = !target.hash.is_empty();
    route::RouteAction {
        timeout: Some(zero()),
        max_grpc_timeout: Some(zero()),
        retry_policy: retry::outbound(None, mesh_retry, sticky),
        hash_policy: target.hash,
        cluster_specifier: Some(ClusterSpecifier::Cluster(target.cluster)),
        ..Default::default()
    }
}

/// The overrides by which a route offers its cluster what it speaks.
pub(crate) fn alpn_overrides(alpn: UpstreamAlpn, has_alpn_filter: bool) -> BTreeMap<String, Any> {
    let config = match alpn {
        _ if has_alpn_filter => return BTreeMap::new(),
        UpstreamAlpn::Inherited => return BTreeMap::new(),
        UpstreamAlpn::MeshHttp2 => Any::pack(&extensions::alpn_state(extensions::MESH_HTTP2)),
        UpstreamAlpn::Cluster => Any::pack(&route::FilterConfig { disabled: true, ..Default::default() }),
    };
    [(FILTER_STATE.to_owned(), config)].into()
}

// `max_grpc_timeout` is deprecated, and what Istio sends.
#[allow(deprecated)]
fn forward(
    http: &HttpRoute,
    out: &mut route::Route,
    authority: Option<String>,
    inputs: &ActionInputs<'_>,
) -> (route::RouteAction, HeaderEdits) {
    let timeout = http.timeout.map_or_else(zero, duration);
    let mut action = route::RouteAction {
        timeout: Some(timeout),
        max_grpc_timeout: Some(timeout),
        request_mirror_policies: mirrors(http, inputs),
        ..Default::default()
    };
    if let Some(authority) = authority {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority));
    }
    if let Some(rewriting) = &http.rewrite {
        rewrite(rewriting, out, &mut action, inputs.semantics);
    }
    let edits = clusters(http, out, &mut action, inputs);
    let sticky = !action.hash_policy.is_empty();
    action.retry_policy = retry::outbound(http.retries.as_ref(), inputs.destinations.mesh_retry(), sticky);
    (action, edits)
}

/// The destinations: one cluster, or several by weight. Destinations of weight 0 are no destinations, unless all are.
fn clusters(
    http: &HttpRoute,
    out: &mut route::Route,
    action: &mut route::RouteAction,
    inputs: &ActionInputs<'_>,
) -> HeaderEdits {
    let single = http.route.len() == 1;
    let live = http.route.iter().filter(|to| single || to.weight > 0);
    let mut targets: Vec<_> = live.map(|to| (to, inputs.target(&to.destination))).collect();
    if let Some((_, target)) = targets.iter().find(|(_, target)| !target.hash.is_empty()) {
        action.hash_policy = target.hash.clone();
    }
    if targets.len() == 1
        && let Some((to, target)) = targets.pop()
    {
        let mut edits = HeaderEdits::of(to.headers.as_ref());
        if let Some(authority) = edits.authority.take() {
            action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority));
        }
        out.typed_per_filter_config
            .extend(alpn_overrides(target.alpn, inputs.destinations.has_alpn_filter()));
        action.cluster_specifier = Some(ClusterSpecifier::Cluster(target.cluster));
        return edits;
    }
    let weigh = |(to, target): (&lateen_api::kinds::virtual_service::HttpRouteDestination, Target)| {
        let edits = HeaderEdits::of(to.headers.as_ref());
        ClusterWeight {
            name: target.cluster,
            weight: Some(u32::try_from(to.weight).unwrap_or(0)),
            request_headers_to_add: edits.request_add,
            request_headers_to_remove: edits.request_remove,
            response_headers_to_add: edits.response_add,
            response_headers_to_remove: edits.response_remove,
            host_rewrite_specifier: edits
                .authority
                .map(weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            typed_per_filter_config: alpn_overrides(target.alpn, inputs.destinations.has_alpn_filter()),
            ..Default::default()
        }
    };
    action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(route::WeightedCluster {
        clusters: targets.into_iter().map(weigh).collect(),
        ..Default::default()
    }));
    HeaderEdits::default()
}

fn rewrite(rewrite: &HttpRewrite, out: &route::Route, action: &mut route::RouteAction, semantics: Semantics) {
    if !rewrite.authority.is_empty() {
        action.host_rewrite_specifier =
            Some(HostRewriteSpecifier::HostRewriteLiteral(rewrite.authority.clone()));
    }
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(substitution(&regex.r#match, &regex.rewrite));
        return;
    }
    if rewrite.uri.is_empty() {
        return;
    }
    let segments = match out.r#match.as_ref().and_then(|wanted| wanted.path_specifier.as_ref()) {
        Some(route::route_match::PathSpecifier::PathSeparatedPrefix(prefix)) => Some(prefix),
        _ => None,
    };
    match segments {
        // Replacing all of a matched prefix by `/` must not leave two slashes, nor none.
        Some(prefix) if semantics == Semantics::Segments && rewrite.uri == "/" => {
            action.regex_rewrite = Some(substitution(&format!("^{}(/?)(.*)", escaped(prefix)), r"/\2"));
        }
        _ => action.prefix_rewrite = rewrite.uri.clone(),
    }
}

fn substitution(pattern: &str, by: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex_matcher(pattern)), substitution: by.to_owned() }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn mirrors(http: &HttpRoute, inputs: &ActionInputs<'_>) -> Vec<RequestMirrorPolicy> {
    let old_share = match (&http.mirror_percentage, http.mirror_percent) {
        (Some(precise), _) => share(Some(precise), 0),
        (None, Some(old)) => per_hundred(old),
        (None, None) => per_hundred(100),
    };
    let old = http.mirror.as_ref().map(|to| (to, old_share));
    let more = http.mirrors.iter().map(|mirror| {
        let whole = || per_hundred(100);
        let part = mirror.percentage.as_ref().map_or_else(whole, |percent| share(Some(percent), 0));
        (&mirror.destination, part)
    });
    old.into_iter()
        .chain(more)
        .filter(|(_, part)| part.numerator > 0)
        .map(|(to, part)| RequestMirrorPolicy {
            cluster: inputs.target(to).cluster,
            runtime_fraction: Some(core::RuntimeFractionalPercent {
                default_value: Some(part),
                ..Default::default()
            }),
            trace_sampled: Some(false),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
        .collect()
}

fn redirect(given: &HttpRedirect, port: u16) -> route::RedirectAction {
    const PREFIX: &str = "%PREFIX()%";
    let path = match given.uri.strip_prefix(PREFIX) {
        Some(rest) => Some(PathRewriteSpecifier::PrefixRewrite(rest.to_owned())),
        None if !given.prefix_rewrite.is_empty() => {
            Some(PathRewriteSpecifier::PrefixRewrite(given.prefix_rewrite.clone()))
        }
        None if given.uri.is_empty() => None,
        None => Some(PathRewriteSpecifier::PathRedirect(given.uri.clone())),
    };
    let code = match given.redirect_code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let port_redirect = match (given.port, given.derive_port) {
        (Some(port), _) => port,
        (None, Some(RedirectPortSelection::FromRequestPort)) => port.into(),
        (None, _) => 0,
    };
    route::RedirectAction {
        host_redirect: given.authority.clone(),
        port_redirect,
        response_code: code.into(),
        scheme_rewrite_specifier: (!given.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(given.scheme.clone())),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

fn direct_response(given: &HttpDirectResponse) -> route::DirectResponseAction {
    use core::data_source::Specifier;
    let specifier = given.body.as_ref().and_then(|body| match body {
        HttpBody::String(text) => Some(Specifier::InlineString(text.clone())),
        HttpBody::Bytes(bytes) => Some(Specifier::InlineBytes(bytes.0.clone().into())),
        HttpBody::Unset => None,
    });
    route::DirectResponseAction {
        status: given.status,
        body: specifier
            .map(|specifier| core::DataSource { specifier: Some(specifier), watched_directory: None }),
        ..Default::default()
    }
}
