//! The routes of one VirtualService for one port.

use lateen_api::kinds::virtual_service::{HttpMatchRequest, HttpRoute, VirtualService};
use lateen_base::{Host, Labels, Namespace, ObjectRef};
use lateen_proto::envoy::config::route::v3 as route;

use super::action::{self, ActionInputs};
use super::matches::{Semantics, is_catch_all, route_match};
use crate::filters::wire::provenance;

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

/// A VirtualService with what it says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule<'a> {
    /// The object.
    pub(crate) object: &'a ObjectRef,
    /// What it says.
    pub(crate) spec: &'a VirtualService,
    /// Its hosts, in full.
    pub(crate) hosts: &'a [Host],
    /// How its prefixes are read.
    pub(crate) semantics: Semantics,
    /// Its HTTP routes, delegates merged in.
    pub(crate) http: &'a [HttpRoute],
}

/// The routes, in order, up to the first that takes everything; and how many came after that one.
pub(crate) fn routes(
    rule: Rule<'_>,
    client: Client<'_>,
    inputs: &ActionInputs<'_>,
) -> (Vec<route::Route>, usize) {
    let mut out: Vec<route::Route> = Vec::new();
    let mut unreachable = 0;
    for (http, wanted) in rule.http.iter().flat_map(branches) {
        if !wanted.is_none_or(|wanted| applies(wanted, client, inputs.port, rule.object)) {
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
    rule: Rule<'_>,
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
        metadata: Some(provenance(rule.object)),
        stat_prefix: wanted.map(|wanted| wanted.stat_prefix.clone()).unwrap_or_default(),
        ..Default::default()
    };
    action::apply(http, &mut out, inputs);
    out.decorator = Some(route::Decorator {
        operation: operation(&out, &rule.object.name, inputs.port),
        propagate: None,
    });
    out
}

/// Whether a match is meant for this client and port.
pub(crate) fn applies(
    wanted: &HttpMatchRequest,
    client: Client<'_>,
    port: u16,
    object: &ObjectRef,
) -> bool {
    (wanted.port == 0 || wanted.port == u32::from(port))
        && source_applies(
            &wanted.gateways,
            &wanted.source_labels,
            &wanted.source_namespace,
            client,
            &object.namespace,
        )
}

/// Whether the conditions on the source that HTTP, TLS and TCP matches share hold for a client.
pub(crate) fn source_applies(
    gateways: &[String],
    labels: &std::collections::BTreeMap<String, String>,
    namespace: &str,
    client: Client<'_>,
    owner: &Namespace,
) -> bool {
    let gateway = |name: &String| gateway_name(name, owner) == client.gateway;
    (gateways.is_empty() || gateways.iter().any(gateway))
        && labels.iter().all(|(key, value)| client.labels.value(key) == Some(value))
        && (namespace.is_empty() || namespace == client.namespace.as_str())
}

/// The full name of a gateway that an object of `owner` names: `mesh`, or `NAMESPACE/NAME`.
pub(crate) fn gateway_name(name: &str, owner: &Namespace) -> String {
    match name.split_once('/') {
        _ if name == "mesh" => name.to_owned(),
        Some((".", name)) => format!("{owner}/{name}"),
        Some(_) => name.to_owned(),
        None => format!("{owner}/{name}"),
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
