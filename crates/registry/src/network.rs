//! Networks and the gateways that lead into them.

use std::net::IpAddr;

use ipnet::IpNet;
use lateen_api::mesh::{MeshNetworks, NetworkEndpoints};
use lateen_base::{ClusterId, Host, Labels, Network};

/// The label that names the network of a namespace, a workload or a gateway's service.
pub(crate) const NETWORK_LABEL: &str = "topology.istio.io/network";
/// The label that names the port of a gateway's service.
pub(crate) const GATEWAY_PORT_LABEL: &str = "networking.istio.io/gatewayPort";
/// The port of gateways that say nothing.
pub(crate) const GATEWAY_PORT: u16 = 15443;

/// A gateway by which other networks reach one network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkGateway {
    /// The network behind it.
    pub network: Network,
    /// The cluster it is in; empty for gateways that only an address names.
    pub cluster: ClusterId,
    /// Its address, an IP.
    pub address: String,
    /// Its port for mTLS with SNI.
    pub port: u16,
}

/// What mesh networks say about one cluster and about addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct NetworkRules {
    /// `fromRegistry`: cluster to network.
    pub(crate) by_registry: Vec<(ClusterId, Network)>,
    /// `fromCidr`: block to network.
    pub(crate) by_block: Vec<(IpNet, Network)>,
    /// Gateways that an address names.
    pub(crate) addressed_gateways: Vec<NetworkGateway>,
    /// Gateways that the host of their service names.
    pub(crate) named_gateways: Vec<NamedGateway>,
}

/// A gateway that the host of its service names.
#[derive(Clone, Debug)]
pub(crate) struct NamedGateway {
    pub(crate) network: Network,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl NetworkRules {
    /// The rules of mesh networks. Blocks that do not parse are left out: validation tells their author.
    pub(crate) fn of(networks: &MeshNetworks) -> Self {
        let mut rules = Self::default();
        for (name, network) in &networks.networks {
            let name = Network::new(name);
            for endpoint in &network.endpoints {
                match endpoint {
                    NetworkEndpoints::FromRegistry(cluster) => {
                        rules.by_registry.push((ClusterId::new(cluster), name.clone()));
                    }
                    NetworkEndpoints::FromCidr(block) => {
                        rules.by_block.extend(block.parse().ok().map(|block| (block, name.clone())));
                    }
                    NetworkEndpoints::Unset => {}
                }
            }
            for gateway in &network.gateways {
                let port = gateway.port as u16;
                let port = if port == 0 { GATEWAY_PORT } else { port };
                if !gateway.registry_service_name.is_empty() {
                    let host = Host::new(&gateway.registry_service_name);
                    rules.named_gateways.push(NamedGateway { network: name.clone(), host, port });
                } else if gateway.address.parse::<IpAddr>().is_ok() {
                    rules.addressed_gateways.push(NetworkGateway {
                        network: name.clone(),
                        cluster: ClusterId::default(),
                        address: gateway.address.clone(),
                        port,
                    });
                }
            }
        }
        rules
    }

    /// The network of an address of a cluster (Istio: the registry's network, then the narrowest block).
    pub(crate) fn network_of(&self, cluster: &ClusterId, address: Option<IpAddr>) -> Option<&Network> {
        if let Some((_, network)) = self.by_registry.iter().find(|(id, _)| id == cluster) {
            return Some(network);
        }
        let address = address?;
        let blocks = self.by_block.iter().filter(|(block, _)| block.contains(&address));
        blocks.max_by_key(|(block, _)| block.prefix_len()).map(|(_, network)| network)
    }
}

/// The network that labels name.
pub(crate) fn labelled(labels: &Labels) -> Option<Network> {
    labels.value(NETWORK_LABEL).filter(|name| !name.is_empty()).map(Network::new)
}
