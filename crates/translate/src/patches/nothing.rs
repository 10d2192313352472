//! Why a patch matched nothing: the first of its conditions that nothing meets, and what there is instead.

use std::collections::BTreeSet;
use std::fmt::Display;

use lateen_api::kinds::envoy_filter::{ApplyTo, PatchContext};
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::listener::v3::{FilterChain, Listener};
use lateen_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

use super::report::Made;
use super::routes::{PortMap, Side};
use super::{Patch, listeners, matches};
use crate::{Proxy, names};

/// How many names are listed of what there is.
const LISTED: usize = 8;

/// Why a patch matched nothing of what a proxy gets.
pub(super) fn why(patch: &Patch, proxy: &Proxy, made: &Made<'_>) -> String {
    let context = patch.condition.context;
    let gateways = context == PatchContext::Gateway;
    if context != PatchContext::Any && gateways != proxy.is_router() {
        let is = if proxy.is_router() { "a gateway" } else { "a sidecar" };
        return format!("its context is {context}, the proxy is {is}");
    }
    match patch.apply_to {
        ApplyTo::Cluster => of_clusters(patch, proxy, made),
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => {
            of_routes(patch, proxy, made)
        }
        ApplyTo::Bootstrap => "the proxy's agent has not got it".into(),
        _ => of_listeners(patch, proxy, made),
    }
}

fn of_clusters(patch: &Patch, proxy: &Proxy, made: &Made<'_>) -> String {
    let clusters = made.clusters.iter().filter_map(|made| made.any.unpack::<Cluster>().ok());
    let clusters: Vec<Cluster> =
        clusters.filter(|c| patch.is_for(matches::side_of_cluster(proxy.is_router(), c))).collect();
    let Some(wanted) = &patch.condition.cluster else {
        return "the proxy has no cluster of that side".into();
    };
    let host = match (names::parse_cluster(&wanted.name), wanted.service.as_str()) {
        (Some((_, _, _, host)), _) => host.as_str().to_owned(),
        (None, service) => service.to_owned(),
    };
    let near =
        clusters.iter().map(|cluster| &cluster.name).filter(|name| name.ends_with(&format!("|{host}")));
    let near: Vec<&String> = if host.is_empty() { Vec::new() } else { near.collect() };
    let mut conditions = Vec::new();
    let mut say = |name: &str, value: &dyn Display, given: bool| {
        if given {
            conditions.push(format!("{name} {value}"));
        }
    };
    say("name", &wanted.name, !wanted.name.is_empty());
    say("service", &wanted.service, !wanted.service.is_empty());
    say("subset", &wanted.subset, !wanted.subset.is_empty());
    say("port", &wanted.port_number, wanted.port_number != 0);
    let there = match near.is_empty() {
        true => format!("none of the {} clusters is for {host:?}", clusters.len()),
        false => listed("that host has", near),
    };
    format!("no cluster has {}; {there}", conditions.join(", "))
}

fn of_listeners(patch: &Patch, proxy: &Proxy, made: &Made<'_>) -> String {
    let listeners = made.listeners.iter().filter_map(|made| made.any.unpack::<Listener>().ok());
    let mut left: Vec<Listener> = listeners.filter(|l| patch.is_for(matches::side(proxy, l))).collect();
    if left.is_empty() {
        return format!("the proxy has no listener of the context {}", patch.condition.context);
    }
    let Some(wanted) = &patch.condition.listener else { return filters(patch, &left) };
    let names = |listeners: &[Listener]| {
        listed("there are", listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>())
    };
    let all = names(&left);
    left.retain(|listener| matches::has_name(wanted, proxy, listener));
    if left.is_empty() {
        return format!("no listener is named {}; {all}", wanted.name);
    }
    let all = names(&left);
    left.retain(|listener| matches::has_port(wanted, patch.apply_to, listener));
    if left.is_empty() {
        return format!("no listener has the port {}; {all}", wanted.port_number);
    }
    filters(patch, &left)
}

fn filters(patch: &Patch, left: &[Listener]) -> String {
    if patch.apply_to == ApplyTo::ListenerFilter {
        let there =
            left.iter().flat_map(|listener| &listener.listener_filters).map(|filter| filter.name.clone());
        let name = matches::listener_filter(&patch.condition).unwrap_or_default();
        return format!(
            "no listener filter is named {name:?}; {}",
            listed("there are", there.collect::<Vec<_>>())
        );
    }
    let chains: Vec<&FilterChain> = left
        .iter()
        .flat_map(|listener| {
            let all = listener.filter_chains.iter().chain(&listener.default_filter_chain);
            all.filter(move |chain| matches::chain(patch, listener, chain))
        })
        .collect();
    if chains.is_empty() {
        let all = left
            .iter()
            .flat_map(|listener| listener.filter_chains.iter().chain(&listener.default_filter_chain));
        let named = all.map(|chain| chain.name.clone()).filter(|name| !name.is_empty()).collect::<Vec<_>>();
        return format!("no filter chain meets match.listener; {}", listed("there are", named));
    }
    let outer = matches::filter(&patch.condition).map(|filter| filter.name.as_str());
    let filters: Vec<_> = chains.iter().flat_map(|chain| &chain.filters).collect();
    if let Some(name) = outer.filter(|name| !filters.iter().any(|filter| filter.name == **name)) {
        let there = filters.iter().map(|filter| filter.name.clone()).collect::<Vec<_>>();
        return format!("no network filter is named {name}; {}", listed("there are", there));
    }
    let managers = filters.iter().filter_map(|filter| listeners::manager_of(filter));
    let inner: Vec<String> =
        managers.flat_map(|manager| manager.http_filters).map(|filter| filter.name).collect();
    match matches::sub_filter(&patch.condition) {
        Some(name) => format!("no HTTP filter is named {name}; {}", listed("there are", inner)),
        None if patch.apply_to == ApplyTo::HttpFilter => {
            "no filter chain has an HTTP connection manager".into()
        }
        None => "nothing is left to change".into(),
    }
}

fn of_routes(patch: &Patch, proxy: &Proxy, made: &Made<'_>) -> String {
    let routes: Vec<RouteConfiguration> =
        made.routes.iter().filter_map(|made| made.any.unpack().ok()).collect();
    let all = listed("there are", routes.iter().map(|routes| routes.name.clone()).collect::<Vec<_>>());
    let ports = PortMap::default();
    let side = Side::outward(proxy.is_router(), &ports);
    let left: Vec<&RouteConfiguration> =
        routes.iter().filter(|routes| side.means(&patch.condition, &routes.name)).collect();
    if left.is_empty() {
        return format!("no route configuration meets match.routeConfiguration; {all}");
    }
    let all = left.iter().flat_map(|routes| &routes.virtual_hosts).map(|host| host.name.clone());
    let all = listed("there are", all.collect::<Vec<_>>());
    let hosts: Vec<&VirtualHost> = left
        .iter()
        .flat_map(|routes| &routes.virtual_hosts)
        .filter(|host| matches::virtual_host(patch, host))
        .collect();
    if hosts.is_empty() {
        return format!("no virtual host meets match.routeConfiguration.vhost; {all}");
    }
    let named =
        hosts.iter().flat_map(|host| &host.routes).map(|route| route.name.clone()).collect::<Vec<_>>();
    format!("no route meets match.routeConfiguration.vhost.route; {}", listed("there are", named))
}

fn listed<S: Into<String>>(head: &str, names: Vec<S>) -> String {
    let names: BTreeSet<String> =
        names.into_iter().map(Into::into).filter(|name: &String| !name.is_empty()).collect();
    let first: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
    match (first.is_empty(), names.len().saturating_sub(first.len())) {
        (true, _) => "there is none".into(),
        (false, 0) => format!("{head} {}", first.join(", ")),
        (false, more) => format!("{head} {} and {more} more", first.join(", ")),
    }
}
