//! Endpoints of other networks: their gateways stand for them.

use std::collections::BTreeMap;

use lateen_base::{ClusterId, Labels, Locality, Network};
use lateen_registry::{Endpoint, EndpointAddress, NetworkGateway};

use super::group::{Member, gateway, member};

/// The gateways of the mesh, by network and by cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gateways {
    by_network: BTreeMap<Network, Vec<NetworkGateway>>,
    scale: u32,
}

impl Gateways {
    /// These gateways.
    pub(crate) fn of(gateways: &[NetworkGateway]) -> Self {
        let mut by_network: BTreeMap<Network, Vec<NetworkGateway>> = BTreeMap::new();
        let mut by_cluster: BTreeMap<(Network, ClusterId), u32> = BTreeMap::new();
        for gateway in gateways {
            by_network.entry(gateway.network.clone()).or_default().push(gateway.clone());
            *by_cluster.entry((gateway.network.clone(), gateway.cluster.clone())).or_default() += 1;
        }
        for gateways in by_network.values_mut() {
            gateways.sort_by(|a, b| (&a.address, a.port, &a.cluster).cmp(&(&b.address, b.port, &b.cluster)));
        }
        let counts = by_network.values().map(|list| list.len() as u32).chain(by_cluster.into_values());
        let scale = counts.fold(1, least_common_multiple);
        Self { by_network, scale }
    }

    /// The gateways to an endpoint: its own cluster's where there are, else all of its network.
    fn to(&self, network: &Network, cluster: &ClusterId) -> Vec<&NetworkGateway> {
        let all: Vec<&NetworkGateway> = self.by_network.get(network).into_iter().flatten().collect();
        let own: Vec<&NetworkGateway> =
            all.iter().copied().filter(|gateway| gateway.cluster == *cluster).collect();
        if own.is_empty() { all } else { own }
    }
}

/// The endpoints as a client in `own` reaches them; `mtls` says whether an endpoint takes mTLS, without which no
/// gateway can tell where to pass a connection on to. Weights are scaled so that gateways can share them evenly.
pub(crate) fn reachable<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    own: &Network,
    gateways: &Gateways,
    mtls: impl Fn(&Endpoint) -> bool,
) -> Vec<(Locality, Member)> {
    let mut direct = Vec::new();
    let mut through: BTreeMap<(Locality, usize), (&NetworkGateway, Labels, u32)> = BTreeMap::new();
    let order: Vec<&NetworkGateway> = gateways.by_network.values().flatten().collect();
    for endpoint in endpoints {
        let weight = endpoint.weight().saturating_mul(gateways.scale);
        let takes = mtls(endpoint);
        let near = own.is_empty() || endpoint.network.is_empty() || endpoint.network == *own;
        let to = if near { Vec::new() } else { gateways.to(&endpoint.network, &endpoint.cluster) };
        if to.is_empty() {
            // Nobody knows where it is, and no gateway leads there.
            if endpoint.address != EndpointAddress::Gateway {
                direct.push((endpoint.locality.clone(), member(endpoint, takes, weight)));
            }
            continue;
        }
        if !takes {
            continue;
        }
        let share = weight / to.len() as u32;
        for gateway in to {
            let at = order.iter().position(|known| *known == gateway).unwrap_or_default();
            let entry = through
                .entry((endpoint.locality.clone(), at))
                .or_insert_with(|| (gateway, endpoint.labels.clone(), 0));
            entry.2 = entry.2.saturating_add(share);
        }
    }
    let through = through
        .into_iter()
        .map(|((locality, _), (via, labels, weight))| (locality, gateway(via, labels, weight.max(1))));
    direct.extend(through);
    direct
}

fn least_common_multiple(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
}
