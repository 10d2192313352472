//! Route configurations of gateways.

use std::collections::{BTreeMap, BTreeSet};

use lateen_base::{Host, Labels, Namespace};
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;

use super::action::ActionInputs;
use super::destinations::Destinations;
use super::fallback::configuration;
use super::matches::is_catch_all;
use super::virtual_service::{self, Client, Rule};
use crate::edge::EdgeObjects;
use crate::gateways::Running;
use crate::snapshot::ServiceTarget;
use crate::{Built, Note, Proxy, Snapshot, sidecar};

/// What a route configuration of a gateway is made from.
pub(crate) struct GatewayHosts<'a> {
    /// The servers that share it, oldest Gateway first.
    pub(crate) servers: &'a [Running<'a>],
    /// The VirtualServices of each Gateway, in order of precedence.
    pub(crate) rules: &'a BTreeMap<String, Vec<Rule<'a>>>,
    /// What destinations stand for.
    pub(crate) destinations: &'a Destinations<'a>,
    /// The proxy's namespace.
    pub(crate) namespace: &'a Namespace,
    /// The proxy's labels.
    pub(crate) labels: &'a Labels,
}

impl GatewayHosts<'_> {
    /// The route configuration of this name, and what is to be said.
    pub(crate) fn build(&self, name: &str) -> (route::RouteConfiguration, Vec<Note>) {
        let mut notes = Vec::new();
        let mut hosts: BTreeMap<Host, route::VirtualHost> = BTreeMap::new();
        for server in self.servers {
            for rule in self.rules.get(&server.gateway_name()).into_iter().flatten() {
                self.add_rule(server, rule, &mut hosts, &mut notes);
            }
            if server.redirects() {
                for host in server.hosts() {
                    let entry = hosts.entry(host.clone());
                    let virtual_host = entry.or_insert_with(|| empty(&host, server.port));
                    virtual_host.require_tls = TlsRequirementType::All.into();
                }
            }
        }
        let mut hosts: Vec<_> = hosts.into_values().collect();
        for host in &mut hosts {
            host.routes.sort_by_key(is_catch_all);
            host.include_request_attempt_count = true;
        }
        let mut hosts = collapsed(hosts);
        if hosts.is_empty() {
            let port = self.servers.first().map_or(0, |server| server.target);
            hosts.push(route::VirtualHost {
                name: format!("blackhole:{port}"),
                domains: vec!["*".into()],
                ..Default::default()
            });
        }
        (configuration(name, hosts, true), notes)
    }

    fn add_rule(
        &self,
        server: &Running<'_>,
        rule: &Rule<'_>,
        hosts: &mut BTreeMap<Host, route::VirtualHost>,
        notes: &mut Vec<Note>,
    ) {
        let own: Vec<Host> = server.hosts_for(&rule.config.namespace).collect();
        let shared = intersection(&own, &rule.config.hosts);
        if shared.is_empty() {
            return;
        }
        let gateway = server.gateway_name();
        let client = Client { gateway: &gateway, namespace: self.namespace, labels: self.labels };
        let inputs = ActionInputs {
            destinations: self.destinations,
            owner: &rule.config.namespace,
            port: server.port,
            semantics: rule.semantics,
        };
        let (routes, unreachable) = virtual_service::routes(rule, client, &inputs);
        if unreachable > 0 {
            let text = format!("{unreachable} routes come after one that takes every request");
            notes.push(Note::on(&rule.config.object, text));
        }
        if routes.is_empty() {
            return;
        }
        for host in shared {
            let virtual_host = hosts.entry(host.clone()).or_insert_with(|| empty(&host, server.port));
            virtual_host.routes.extend(routes.iter().cloned());
        }
    }
}

/// The hosts that both lists admit, the narrower where one contains the other, each once.
pub(crate) fn intersection(server: &[Host], rule: &[Host]) -> Vec<Host> {
    let mut shared: Vec<Host> = Vec::new();
    for own in server {
        for wanted in rule {
            let narrower = if own.contains(wanted) {
                wanted
            } else if wanted.contains(own) {
                own
            } else {
                continue;
            };
            if !shared.contains(narrower) {
                shared.push(narrower.clone());
            }
        }
    }
    shared
}

fn empty(host: &Host, port: u16) -> route::VirtualHost {
    route::VirtualHost {
        name: format!("{host}:{port}"),
        domains: vec![host.as_str().to_owned()],
        ..Default::default()
    }
}

/// Virtual hosts that differ in nothing but their domains become one, named after the first.
fn collapsed(hosts: Vec<route::VirtualHost>) -> Vec<route::VirtualHost> {
    let mut out: Vec<route::VirtualHost> = Vec::with_capacity(hosts.len());
    for host in hosts {
        let same = |other: &&mut route::VirtualHost| {
            other.require_tls == host.require_tls && other.routes == host.routes
        };
        match out.iter_mut().find(same) {
            Some(first) => first.domains.extend(host.domains),
            None => out.push(host),
        }
    }
    out
}

/// The route configurations of a gateway proxy, of those names.
pub(crate) fn build(
    snapshot: &Snapshot,
    proxy: &Proxy,
    names: &BTreeSet<String>,
    targets: &[ServiceTarget],
) -> Vec<Built<route::RouteConfiguration>> {
    let scope = snapshot.scope(proxy);
    let destinations = sidecar::destinations(snapshot, proxy, &scope);
    let objects = EdgeObjects::of(snapshot, proxy, targets);
    let merged = objects.merged(proxy);
    let rules = objects.rules(snapshot, &mut Vec::new());
    let servers: Vec<Running<'_>> =
        merged.ports.values().flat_map(|port| port.servers.iter().copied()).collect();
    let build = |name: &String| {
        let mine: Vec<Running<'_>> =
            servers.iter().filter(|server| server.route_name().as_ref() == Some(name)).copied().collect();
        let hosts = GatewayHosts {
            servers: &mine,
            rules: &rules,
            destinations: &destinations,
            namespace: &proxy.namespace,
            labels: &proxy.labels,
        };
        let (message, notes) = hosts.build(name);
        Built { name: name.clone(), message, notes }
    };
    names.iter().map(build).collect()
}
