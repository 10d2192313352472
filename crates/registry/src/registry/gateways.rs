//! The gateways into networks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_base::{ClusterId, Network};

use super::Registry;
use super::cluster::Cluster;
use crate::network::{NetworkRules, labelled};
use crate::{Change, Changes, NetworkGateway, Settings, from_kube};

impl Registry {
    /// Works the gateways out anew.
    pub(super) fn settle_gateways(&mut self, changes: &mut Changes) {
        let mut gateways = gateways(&self.rules, &self.clusters, &self.settings);
        gateways.sort();
        gateways.dedup();
        if *self.view.gateways != gateways {
            self.view.gateways = Arc::new(gateways);
            self.view.generations.networks += 1;
            changes.insert(Change::Networks);
        }
    }
}

/// Gateways by address, by the name of their service, and by label.
fn gateways(
    rules: &NetworkRules,
    clusters: &BTreeMap<ClusterId, Cluster>,
    settings: &Settings,
) -> Vec<NetworkGateway> {
    let mut all = rules.addressed_gateways.clone();
    for (id, state) in clusters {
        for ((namespace, name), service) in &state.services {
            let host = from_kube::host_of(name, namespace.as_str(), &settings.domain);
            let named = rules.named_gateways.iter().filter(|gateway| {
                gateway.host == host && rules.network_of(id, None) == Some(&gateway.network)
            });
            let mut found: Vec<(Network, u16)> = named.map(|g| (g.network.clone(), g.port)).collect();
            if let Some(network) = labelled(&service.metadata.labels).filter(|_| found.is_empty()) {
                found.push((network, from_kube::gateway_port(&service.metadata.labels)));
            }
            for (network, port) in found {
                let nodes = state.nodes.values().map(Arc::as_ref);
                let (addresses, port) = from_kube::outside(service, port, nodes);
                // A name has to be resolved by whoever feeds the registry; only addresses can stand in endpoints.
                let addresses = addresses.into_iter().filter(|address| address.parse::<IpAddr>().is_ok());
                all.extend(addresses.map(|address| NetworkGateway {
                    network: network.clone(),
                    cluster: id.clone(),
                    address,
                    port,
                }));
            }
        }
    }
    all
}
