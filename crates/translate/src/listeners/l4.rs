//! Chains of bytes: TCP and TLS routes of VirtualServices, and services without any.

use std::collections::BTreeSet;
use std::time::Duration;

use lateen_api::kinds::virtual_service::RouteDestination;
use lateen_base::{Namespace, ObjectRef, parse_duration};
use lateen_proto::envoy::config::accesslog::v3::AccessLog;
use lateen_proto::envoy::config::listener::v3::Filter;
use lateen_registry::{Port, Service};

use super::chain::{Chain, ChainMatch, block};
use crate::filters::extensions;
use crate::filters::hcm::HttpSettings;
use crate::filters::tcp::{TcpProxy, TcpTarget};
use crate::filters::wire::provenance;
use crate::names;
use crate::routes::destinations::{Destinations, Policy};
use crate::routes::virtual_service::{Client, Rule, port_applies};

/// What chains of bytes are made from.
#[derive(Clone, Copy)]
pub(crate) struct L4<'a> {
    /// What destinations stand for.
    pub(crate) destinations: &'a Destinations<'a>,
    /// Who asks.
    pub(crate) client: Client<'a>,
    /// What all chains of the traffic class share.
    pub(crate) settings: &'a HttpSettings,
}

impl L4<'_> {
    /// The chains of a service's port. `blocks` are the addresses that the listener's own address does not tell; `shared`:
    /// other services are reached through the listener, too, so that TLS is told apart by server name.
    pub(crate) fn service(
        &self,
        service: &Service,
        port: &Port,
        blocks: &[(String, u8)],
        shared: bool,
        rules: &[Rule<'_>],
    ) -> Vec<Chain> {
        let mine: Vec<&Rule<'_>> = rules
            .iter()
            .filter(|rule| rule.config.hosts.iter().any(|host| host.contains(&service.host)))
            .collect();
        let mut chains = self.tls_routes(&mine, port.number, blocks);
        if port.protocol.is_tls() {
            if chains.is_empty() {
                let by_name = shared || !blocks.is_empty();
                chains.push(self.own(service, port, blocks, by_name));
            }
            return chains;
        }
        match self.tcp_routes(&mine, port.number, blocks) {
            routed if routed.is_empty() => chains.push(self.own(service, port, blocks, false)),
            routed => chains.extend(routed),
        }
        chains
    }

    /// Chains by server name; of equal names the first rule has them.
    fn tls_routes(&self, rules: &[&Rule<'_>], port: u16, blocks: &[(String, u8)]) -> Vec<Chain> {
        let mut seen = BTreeSet::new();
        let mut chains = Vec::new();
        for rule in rules {
            for route in &rule.config.spec.tls {
                for wanted in &route.r#match {
                    let ours = port_applies(wanted.port, port)
                        && self.client.is_among(
                            &wanted.gateways,
                            &wanted.source_labels,
                            &wanted.source_namespace,
                        );
                    let names: Vec<String> = wanted
                        .sni_hosts
                        .iter()
                        .filter(|name| seen.insert((*name).clone()))
                        .cloned()
                        .collect();
                    if !ours || names.is_empty() {
                        continue;
                    }
                    let destinations = subnets(&wanted.destination_subnets, blocks);
                    let matches = ChainMatch {
                        server_names: server_names(names.iter().map(String::as_str)),
                        destinations,
                        ..Default::default()
                    };
                    chains.push(self.routed(rule, &route.route, port, matches));
                }
            }
        }
        chains
    }

    fn tcp_routes(&self, rules: &[&Rule<'_>], port: u16, blocks: &[(String, u8)]) -> Vec<Chain> {
        let mut chains = Vec::new();
        for rule in rules {
            for route in &rule.config.spec.tcp {
                if route.r#match.is_empty() {
                    let matches = ChainMatch { destinations: blocks.to_vec(), ..Default::default() };
                    chains.push(self.routed(rule, &route.route, port, matches));
                    return chains;
                }
                for wanted in &route.r#match {
                    let ours = port_applies(wanted.port, port)
                        && self.client.is_among(
                            &wanted.gateways,
                            &wanted.source_labels,
                            &wanted.source_namespace,
                        );
                    if !ours {
                        continue;
                    }
                    let destinations = subnets(&wanted.destination_subnets, blocks);
                    let matches = ChainMatch { destinations, ..Default::default() };
                    chains.push(self.routed(rule, &route.route, port, matches));
                    if wanted.destination_subnets.is_empty() {
                        return chains;
                    }
                }
            }
        }
        chains
    }

    /// The chain of a service that no rule routes.
    fn own(&self, service: &Service, port: &Port, blocks: &[(String, u8)], by_name: bool) -> Chain {
        let target = self.destinations.own_target(service, port);
        let policy = self.destinations.policy(&service.host, port.number, "");
        let names = if by_name { server_names([service.host.as_str()].into_iter()) } else { Vec::new() };
        Chain {
            matches: ChainMatch { server_names: names, destinations: blocks.to_vec(), ..Default::default() },
            filters: self.filters(target.cluster.clone(), TcpTarget::Cluster(target.cluster), &policy),
            ..Default::default()
        }
    }

    /// A chain to the destinations of a route.
    pub(crate) fn routed(
        &self,
        rule: &Rule<'_>,
        route: &[RouteDestination],
        port: u16,
        matches: ChainMatch,
    ) -> Chain {
        Chain {
            matches,
            filters: self.route_filters(&rule.config.object, route, port),
            metadata: Some(provenance(&rule.config.object)),
            ..Default::default()
        }
    }

    /// The filters that lead to the destinations of a route.
    pub(crate) fn route_filters(
        &self,
        object: &ObjectRef,
        route: &[RouteDestination],
        port: u16,
    ) -> Vec<Filter> {
        let owner: &Namespace = &object.namespace;
        let live = route.iter().filter(|to| route.len() == 1 || to.weight > 0);
        let mut clusters: Vec<(String, u32)> = live
            .map(|to| {
                let cluster = self.destinations.target(&to.destination, owner, port).cluster;
                (cluster, u32::try_from(to.weight).unwrap_or(0))
            })
            .collect();
        let policy = self.policy_of(clusters.first().map(|(cluster, _)| cluster.as_str()));
        match clusters.len() {
            1 => {
                let (cluster, _) = clusters.swap_remove(0);
                self.filters(cluster.clone(), TcpTarget::Cluster(cluster), &policy)
            }
            _ => {
                let prefix = format!("{}.{}", object.name, object.namespace);
                self.filters(prefix, TcpTarget::Weighted(clusters), &policy)
            }
        }
    }

    fn policy_of(&self, cluster: Option<&str>) -> Policy<'_> {
        let parsed = cluster.and_then(names::parse_cluster);
        parsed
            .map(|(_, port, subset, host)| self.destinations.policy(&host, port, subset))
            .unwrap_or_default()
    }

    fn filters(&self, stat_prefix: String, target: TcpTarget, policy: &Policy<'_>) -> Vec<Filter> {
        let by_source = policy
            .balancer
            .and_then(|lb| lb.consistent_hash.as_ref())
            .is_some_and(|hash| hash.use_source_ip == Some(true));
        let idle = policy.tcp.and_then(|tcp| tcp.idle_timeout);
        let tunnel = policy.tunnel.map(|tunnel| {
            let host = format!("{}:{}", tunnel.target_host, tunnel.target_port);
            (host, tunnel.protocol.eq_ignore_ascii_case("POST"))
        });
        let proxy = TcpProxy {
            stat_prefix,
            target,
            idle: idle.or_else(|| idle_timeout(&self.destinations.proxy.metadata.idle_timeout)),
            access_log: &self.settings.access_log,
            hash_by_source_ip: by_source,
            tunnel,
        };
        with_statistics(proxy, self.settings)
    }
}

/// A TCP proxy to one cluster, for traffic that no route decides.
pub(crate) fn to_cluster(cluster: &str, settings: &HttpSettings, access_log: &[AccessLog]) -> Vec<Filter> {
    let proxy = TcpProxy {
        stat_prefix: cluster.to_owned(),
        target: TcpTarget::Cluster(cluster.to_owned()),
        idle: settings.idle,
        access_log,
        hash_by_source_ip: false,
        tunnel: None,
    };
    with_statistics(proxy, settings)
}

fn with_statistics(proxy: TcpProxy<'_>, settings: &HttpSettings) -> Vec<Filter> {
    let statistics = settings.istio.stats.then(|| extensions::tcp_stats(settings.class));
    statistics.into_iter().chain([proxy.into_filter()]).collect()
}

/// The idle timeout that a proxy's metadata asks for; what is no duration asks for nothing.
pub(crate) fn idle_timeout(text: &str) -> Option<Duration> {
    parse_duration(text).ok()
}

/// Server names of a chain; among them a bare wildcard means any.
pub(crate) fn server_names<'n>(names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut all: Vec<String> = names.map(str::to_ascii_lowercase).collect();
    if all.iter().any(|name| name == "*") {
        return Vec::new();
    }
    all.sort();
    all.dedup();
    all
}

fn subnets(given: &[String], own: &[(String, u8)]) -> Vec<(String, u8)> {
    match given.is_empty() {
        true => own.to_vec(),
        false => given.iter().filter_map(|text| block(text)).collect(),
    }
}
