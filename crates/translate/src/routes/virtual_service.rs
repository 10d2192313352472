//! The routes of one VirtualService for one port.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::kinds::virtual_service::{HttpMatchRequest, HttpRoute};
use lateen_base::{Labels, Namespace};
use lateen_proto::envoy::config::route::v3 as route;

use super::action::{self, ActionInputs};
use super::matches::{Semantics, is_catch_all, route_match};
use crate::filters::wire::provenance;
use crate::snapshot::VirtualServiceConfig;

/// Who asks for routes: matches may be limited to some clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'a> {
    /// The gateway that the routes are for: `mesh`, or `NAMESPACE/NAME`.
    pub(crate) gateway: &'a str,
    /// The proxy's namespace.
    pub(crate) namespace: &'a Namespace,
    /// The labels of the proxy's workload.
    pub(crate) labels: &'a Labels,
}

/// A VirtualService, ready to be translated.
#[derive(Clone, Debug)]
pub(crate) struct Rule<'a> {
    /// The VirtualService, its names completed.
    pub(crate) config: &'a Arc<VirtualServiceConfig>,
    /// Its HTTP routes, with those of delegates in the places that they are for.
    pub(crate) http: Cow<'a, [HttpRoute]>,
    /// How its prefixes are read.
    pub(crate) semantics: Semantics,
}

/// The routes, in order, up to the first that takes everything; and how many came after that one.
pub(crate) fn routes(
    rule: &Rule<'_>,
    client: Client<'_>,
    inputs: &ActionInputs<'_>,
) -> (Vec<route::Route>, usize) {
    let mut out: Vec<route::Route> = Vec::new();
    let mut unreachable = 0;
    for (http, wanted) in rule.http.iter().flat_map(branches) {
        if !wanted.is_none_or(|wanted| applies(wanted, client, inputs.port)) {
            continue;
        }
        if out.last().is_some_and(is_catch_all) {
            unreachable += 1;
            continue;
        }
        out.push(one(rule, http, wanted, inputs));
    }
    (out, unreachable)
}

/// A route with each of its matches; without any it is for every request.
fn branches(http: &HttpRoute) -> impl Iterator<Item = (&HttpRoute, Option<&HttpMatchRequest>)> {
    let bare = http.r#match.is_empty().then_some((http, None));
    bare.into_iter().chain(http.r#match.iter().map(move |wanted| (http, Some(wanted))))
}

fn one(
    rule: &Rule<'_>,
    http: &HttpRoute,
    wanted: Option<&HttpMatchRequest>,
    inputs: &ActionInputs<'_>,
) -> route::Route {
    let name = wanted.map(|wanted| wanted.name.as_str()).unwrap_or_default();
    let mut out = route::Route {
        name: match (http.name.is_empty(), name.is_empty()) {
            (false, false) => format!("{}.{name}", http.name),
            (false, true) => http.name.clone(),
            (true, _) => name.to_owned(),
        },
        r#match: Some(route_match(wanted, inputs.semantics)),
        metadata: Some(provenance(&rule.config.object)),
        stat_prefix: wanted.map(|wanted| wanted.stat_prefix.clone()).unwrap_or_default(),
        ..Default::default()
    };
    action::apply(http, &mut out, inputs);
    out.decorator = Some(route::Decorator {
        operation: operation(&out, &rule.config.name, inputs.port),
        propagate: None,
    });
    out
}

/// Whether a match is meant for this client and port.
fn applies(wanted: &HttpMatchRequest, client: Client<'_>, port: u16) -> bool {
    port_applies(wanted.port, port)
        && client.is_among(&wanted.gateways, &wanted.source_labels, &wanted.source_namespace)
}

/// Whether a match's port, 0 for any, is this one.
pub(crate) fn port_applies(wanted: u32, port: u16) -> bool {
    wanted == 0 || wanted == u32::from(port)
}

impl Client<'_> {
    /// Whether the conditions on the source that HTTP, TLS and TCP matches share hold for it.
    pub(crate) fn is_among(
        &self,
        gateways: &[String],
        labels: &BTreeMap<String, String>,
        namespace: &str,
    ) -> bool {
        (gateways.is_empty() || gateways.iter().any(|name| name == self.gateway))
            && labels.iter().all(|(key, value)| self.labels.value(key) == Some(value))
            && (namespace.is_empty() || namespace == self.namespace.as_str())
    }
}

/// What spans are named: the one destination, else the VirtualService, and the path.
fn operation(out: &route::Route, rule: &str, port: u16) -> String {
    use route::route_match::PathSpecifier;
    let path = match out.r#match.as_ref().and_then(|wanted| wanted.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => format!("{prefix}/*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let cluster = match &out.action {
        Some(route::route::Action::Route(route::RouteAction {
            cluster_specifier: Some(route::route_action::ClusterSpecifier::Cluster(cluster)),
            ..
        })) => Some(cluster),
        _ => None,
    };
    let destination = cluster.and_then(|cluster| {
        let mut parts = cluster.splitn(4, '|').skip(1);
        let (port, _, host) = (parts.next()?, parts.next()?, parts.next()?);
        Some(format!("{host}:{port}"))
    });
    let named = destination.unwrap_or_else(|| format!("{rule}:{port}"));
    format!("{named}{path}")
}
