//! The names that the agent's DNS server answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_proto::istio::networking::nds::v1::NameTable;
use lateen_proto::istio::networking::nds::v1::name_table::NameInfo;
use lateen_registry::{Endpoint, Health, Resolution, Service, Source};

use crate::{Proxy, Snapshot};

/// The name table of a proxy: every host that it sees with its addresses, and the pods of headless services.
pub fn build(snapshot: &Snapshot, proxy: &Proxy) -> NameTable {
    let scope = snapshot.scope(proxy);
    let seen: Vec<Arc<Service>> = match scope.sidecar {
        Some(_) => scope.egress.iter().flat_map(|egress| egress.services.clone()).collect(),
        None => snapshot.services.seen_by(&proxy.namespace),
    };
    let mut table: BTreeMap<String, NameInfo> = BTreeMap::new();
    for service in seen.iter().filter(|service| !service.host.is_wildcard()) {
        let addresses = addresses(service, proxy);
        if addresses.is_empty() && is_headless(service) {
            headless(snapshot, proxy, service, &mut table);
        } else {
            add(&mut table, service, addresses);
        }
    }
    NameTable { table }
}

/// The addresses by which a proxy reaches a service: its own in the proxy's cluster, else those made up for it.
fn addresses(service: &Service, proxy: &Proxy) -> Vec<String> {
    let own = service.addresses_in(&proxy.metadata.cluster).iter();
    let own: Vec<String> = own.filter(|address| address.parse::<IpAddr>().is_ok()).cloned().collect();
    if !own.is_empty() || !service.is_unaddressed() {
        return own;
    }
    let families = |ip: &&IpAddr| if ip.is_ipv4() { proxy.is_ipv4() } else { proxy.is_ipv6() };
    let given = proxy.metadata.dns_auto_allocate || proxy.metadata.dns_capture;
    service.allocated.iter().filter(|_| given).filter(families).map(IpAddr::to_string).collect()
}

/// Whether clients choose among endpoints themselves.
fn is_headless(service: &Service) -> bool {
    service.resolution == Resolution::None
        && (service.source == Source::Kubernetes || !service.selector.is_empty())
}

fn add(table: &mut BTreeMap<String, NameInfo>, service: &Service, addresses: Vec<String>) {
    if addresses.is_empty() {
        return;
    }
    let fresh = info(service, &service.name, addresses);
    match table.get_mut(service.host.as_str()) {
        // A Kubernetes service counts before all entries of its host; entries add to each other.
        Some(known) if known.registry == Source::Kubernetes.as_str() => {}
        Some(known) if service.source == Source::External => {
            for ip in fresh.ips {
                if !known.ips.contains(&ip) {
                    known.ips.push(ip);
                }
            }
        }
        _ => {
            table.insert(service.host.to_string(), fresh);
        }
    }
}

fn info(service: &Service, short: &str, ips: Vec<String>) -> NameInfo {
    let kubernetes = service.source == Source::Kubernetes;
    NameInfo {
        ips,
        registry: service.source.as_str().to_owned(),
        shortname: if kubernetes { short.to_owned() } else { String::new() },
        namespace: if kubernetes { service.namespace.to_string() } else { String::new() },
    }
}

/// The endpoints themselves, in the proxy's network, and the pods that have names of their own.
fn headless(snapshot: &Snapshot, proxy: &Proxy, service: &Service, table: &mut BTreeMap<String, NameInfo>) {
    let Some(set) = snapshot.view.endpoints_of(service) else { return };
    let network = &proxy.metadata.network;
    let shown = |endpoint: &&Endpoint| {
        let near = network.is_empty() || endpoint.network.is_empty() || endpoint.network == *network;
        near && (service.publish_not_ready || endpoint.health == Health::Healthy)
    };
    let mut all: Vec<String> = Vec::new();
    for endpoint in set.endpoints.iter().filter(shown) {
        let Some(ip) = endpoint.address.ip().map(|ip| ip.to_string()) else { continue };
        if !endpoint.hostname.is_empty() && endpoint.subdomain == service.name {
            let short = format!("{}.{}", endpoint.hostname, endpoint.subdomain);
            let rest = service.host.as_str().split_once('.').map_or("", |(_, rest)| rest);
            let pod =
                table.entry(format!("{short}.{rest}")).or_insert_with(|| info(service, &short, Vec::new()));
            if !pod.ips.contains(&ip) {
                pod.ips.push(ip.clone());
            }
        }
        if !all.contains(&ip) {
            all.push(ip);
        }
    }
    add(table, service, all);
}
