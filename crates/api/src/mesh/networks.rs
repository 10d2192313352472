//! `MeshNetworks`: which endpoints are in which network, and how networks reach each other.

use std::collections::BTreeMap;

use crate::field::{message, oneof};

message! {
    /// The networks of the mesh.
    pub struct MeshNetworks {
        /// By name.
        networks: BTreeMap<String, Network>,
    }
}

message! {
    /// A network: endpoints that reach each other directly.
    pub struct Network {
        /// Which endpoints.
        endpoints: Vec<NetworkEndpoints>,
        /// Where traffic from other networks comes in.
        gateways: Vec<IstioNetworkGateway>,
    }
}

oneof! {
    /// Endpoints of a network.
    pub enum NetworkEndpoints {
        /// Those with an address in this range.
        from_cidr => FromCidr(String),
        /// Those of the registry of this name, which is a cluster.
        from_registry => FromRegistry(String),
    }
}

message! {
    /// Where traffic from other networks comes in: by service or by address.
    pub struct IstioNetworkGateway [OneOf(&["registry_service_name", "address"])] {
        /// The full name of the gateway's service.
        registry_service_name: String,
        /// Its address, or a name that DNS resolves.
        address: String,
        /// Its port.
        port: u32,
        /// Its locality.
        locality: String,
    }
}
