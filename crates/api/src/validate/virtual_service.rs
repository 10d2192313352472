//! `VirtualService`.

use std::collections::BTreeMap;

use lateen_base::Host;

use super::names::{self, overlap};
use super::path::Path;
use super::{Problems, delegation, http};
use crate::kinds::VirtualService;
use crate::kinds::virtual_service::{
    Destination, HttpMatchRequest, L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes,
    TlsRoute,
};

pub(super) fn check(spec: &VirtualService, at: &Path<'_>, out: &mut Problems) {
    let delegate = spec.hosts.is_empty();
    let mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|gateway| gateway == "mesh");
    let gateway = spec.gateways.iter().any(|gateway| gateway != "mesh");
    gateways(&spec.gateways, &at.field("gateways"), out);
    if delegate {
        delegation::delegate(spec, at, out);
    }
    hosts(spec, mesh, gateway, &at.field("hosts"), out);
    let nothing = spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty();
    out.error_if(nothing, at, "http, tcp or tls must be provided in virtual service");
    let kind = match delegate {
        true => http::RouteKind::Delegate,
        false => http::RouteKind::Independent,
    };
    for (i, route) in spec.http.iter().enumerate() {
        http::route(route, kind, gateway, &at.field("http").item(i), out);
    }
    for (i, route) in spec.tls.iter().enumerate() {
        tls_route(route, &spec.hosts, &at.field("tls").item(i), out);
    }
    for (i, route) in spec.tcp.iter().enumerate() {
        tcp_route(route, &at.field("tcp").item(i), out);
    }
    names::export_to(&spec.export_to, false, &at.field("exportTo"), out);
    unreachable(spec, at, out);
}

fn hosts(spec: &VirtualService, mesh: bool, gateway: bool, at: &Path<'_>, out: &mut Problems) {
    let mut valid = true;
    for (i, host) in spec.hosts.iter().enumerate() {
        let checked = match gateway {
            true => names::gateway_domain(host, !spec.tls.is_empty()),
            false => names::wildcard_domain(host),
        };
        if let (Err(message), Err(_)) = (checked, names::ip(host)) {
            out.error(&at.item(i), message);
            valid = false;
        }
        if mesh && host == "*" {
            out.error(
                &at.item(i),
                "wildcard host * is not allowed for virtual services bound to the mesh gateway",
            );
            valid = false;
        }
    }
    for (i, host) in spec.hosts.iter().enumerate().filter(|_| valid) {
        for other in spec.hosts[..i].iter().filter(|other| overlap(host, other)) {
            out.error(&at.item(i), format!("duplicate hosts in virtual service: {other} & {host}"));
        }
    }
}

/// Names of gateways: `mesh`, a name, or a namespace and a name.
pub(super) fn gateways(gateways: &[String], at: &Path<'_>, out: &mut Problems) {
    for (i, gateway) in gateways.iter().enumerate() {
        let parts: Vec<&str> = gateway.split('/').collect();
        let checked = match parts[..] {
            [name] => names::fqdn(name),
            [namespace, name] => {
                let place = if namespace == "." { Ok(()) } else { names::dns_label(namespace) };
                place.and_then(|()| names::fqdn(name))
            }
            _ => Err(format!("config namespace and gateway name cannot be split: {gateway:?}")),
        };
        out.check(&at.item(i), checked.map_err(|why| format!("invalid gateway {gateway:?}: {why}")));
    }
}

/// A destination's host, subset and port.
pub(super) fn destination(destination: &Destination, at: &Path<'_>, out: &mut Problems) {
    let host = &at.field("host");
    match destination.host.as_str() {
        "" => out.error(host, "destination host is required"),
        "*" => out.error(host, "invalid destination host *"),
        name => out.check(host, names::wildcard_domain(name).or_else(|why| names::ip(name).map_err(|_| why))),
    }
    if !destination.subset.is_empty() {
        out.check(&at.field("subset"), names::label("subset name", &destination.subset));
    }
    if let Some(selector) = &destination.port {
        out.check(&at.field("port").field("number"), names::port(selector.number.into()));
    }
}

/// Weights of a route: none below zero, and not all zero when there is a choice.
pub(super) fn weights(weights: impl ExactSizeIterator<Item = i32>, at: &Path<'_>, out: &mut Problems) {
    let several = weights.len() > 1;
    let mut total = 0i64;
    for (i, weight) in weights.enumerate() {
        out.error_if(weight < 0, &at.item(i).field("weight"), format!("weight {weight} < 0"));
        total += i64::from(weight.max(0));
    }
    out.error_if(several && total == 0, at, "total destination weight = 0");
}

fn route_destinations(routes: &[RouteDestination], at: &Path<'_>, out: &mut Problems) {
    for (i, route) in routes.iter().enumerate() {
        destination(&route.destination, &at.item(i).field("destination"), out);
    }
    weights(routes.iter().map(|route| route.weight), at, out);
}

fn tls_route(route: &TlsRoute, hosts: &[String], at: &Path<'_>, out: &mut Problems) {
    out.error_if(route.r#match.is_empty(), &at.field("match"), "TLS match is required");
    for (i, condition) in route.r#match.iter().enumerate() {
        tls_match(condition, hosts, &at.field("match").item(i), out);
    }
    out.error_if(route.route.is_empty(), &at.field("route"), "TLS route is required");
    route_destinations(&route.route, &at.field("route"), out);
}

fn tls_match(condition: &TlsMatchAttributes, hosts: &[String], at: &Path<'_>, out: &mut Problems) {
    let sni = &at.field("sniHosts");
    out.error_if(condition.sni_hosts.is_empty(), sni, "TLS match must have at least one SNI host");
    for (i, host) in condition.sni_hosts.iter().enumerate() {
        sni_host(host, hosts, &sni.item(i), out);
    }
    l4(
        &condition.destination_subnets,
        condition.port,
        &condition.source_labels,
        &condition.gateways,
        &condition.source_namespace,
        at,
        out,
    );
}

fn sni_host(sni: &str, hosts: &[String], at: &Path<'_>, out: &mut Problems) {
    if let Err(message) = names::gateway_domain(sni, true) {
        if names::ip(sni).is_ok() {
            let message = format!(
                "using an IP address ({sni:?}) goes against SNI spec and most clients do not support this"
            );
            return out.warn(at, message);
        }
        return out.error(at, message);
    }
    let sni_host = Host::new(sni);
    if !hosts.iter().any(|host| Host::new(host).contains(&sni_host)) {
        let hosts = hosts.join(", ");
        out.error(
            at,
            format!(
                "SNI host {sni:?} is not a compatible subset of any of the virtual service hosts: [{hosts}]"
            ),
        );
    }
}

fn tcp_route(route: &TcpRoute, at: &Path<'_>, out: &mut Problems) {
    for (i, condition) in route.r#match.iter().enumerate() {
        tcp_match(condition, &at.field("match").item(i), out);
    }
    out.error_if(route.route.is_empty(), &at.field("route"), "TCP route is required");
    route_destinations(&route.route, &at.field("route"), out);
}

fn tcp_match(condition: &L4MatchAttributes, at: &Path<'_>, out: &mut Problems) {
    if !condition.source_subnet.is_empty() {
        out.check(&at.field("sourceSubnet"), names::subnet(&condition.source_subnet));
        out.warn(
            &at.field("sourceSubnet"),
            "sourceSubnet has no effect: use sourceLabels or an AuthorizationPolicy",
        );
    }
    l4(
        &condition.destination_subnets,
        condition.port,
        &condition.source_labels,
        &condition.gateways,
        &condition.source_namespace,
        at,
        out,
    );
}

fn l4(
    subnets: &[String],
    port: u32,
    labels: &BTreeMap<String, String>,
    gateway_names: &[String],
    namespace: &str,
    at: &Path<'_>,
    out: &mut Problems,
) {
    for (i, subnet) in subnets.iter().enumerate() {
        out.check(&at.field("destinationSubnets").item(i), names::subnet(subnet));
    }
    if port != 0 {
        out.check(&at.field("port"), names::port(port.into()));
    }
    names::labels(labels, &at.field("sourceLabels"), out);
    gateways(gateway_names, &at.field("gateways"), out);
    if !namespace.is_empty() {
        out.check(&at.field("sourceNamespace"), names::dns_label(namespace));
    }
}

/// Warns of routes that a route before them takes everything from.
fn unreachable(spec: &VirtualService, at: &Path<'_>, out: &mut Problems) {
    let label = |i: usize, name: &str| match name.is_empty() {
        true => format!("#{i}"),
        false => format!("{name:?}"),
    };
    let mut all_taken = false;
    for (i, route) in spec.http.iter().enumerate() {
        let at = &at.field("http");
        let at = &at.item(i);
        let name = label(i, &route.name);
        if all_taken {
            out.warn(
                at,
                format!("virtualService rule {name} not used (only the last rule can have no matches)"),
            );
        }
        all_taken |= route.r#match.is_empty();
        let before = || spec.http[..i].iter().flat_map(|route| &route.r#match);
        let taken = |m: &HttpMatchRequest| before().any(|other| same_condition(other, m));
        if !route.r#match.is_empty() && route.r#match.iter().all(taken) {
            out.warn(at, format!("virtualService rule {name} not used (all matches used by prior rules)"));
        }
    }
}

fn same_condition(a: &HttpMatchRequest, b: &HttpMatchRequest) -> bool {
    let anonymous = |m: &HttpMatchRequest| HttpMatchRequest { name: String::new(), ..m.clone() };
    anonymous(a) == anonymous(b)
}
