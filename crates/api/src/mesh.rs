//! Mesh configuration.

use std::collections::BTreeMap;

use crate::field::{message, oneof};

message! {
    /// Settings of the whole mesh.
    pub struct MeshConfig {
        /// Whom services are shown to that do not say.
        default_service_export_to: Vec<String>,
        /// Whom virtual services are shown to that do not say.
        default_virtual_service_export_to: Vec<String>,
        /// Whom destination rules are shown to that do not say.
        default_destination_rule_export_to: Vec<String>,
    }
}

message! {
    /// The networks of the mesh.
    pub struct MeshNetworks {
        /// By name.
        networks: BTreeMap<String, Network>,
    }
}

message! {
    /// A network.
    pub struct Network {
        /// What is in it.
        endpoints: Vec<NetworkEndpoints>,
        /// How to get in.
        gateways: Vec<IstioNetworkGateway>,
    }
}

oneof! {
    /// What is in a network.
    pub enum NetworkEndpoints {
        /// A block of addresses.
        from_cidr => FromCidr(String),
        /// All of a cluster.
        from_registry => FromRegistry(String),
    }
}

message! {
    /// A way into a network.
    pub struct IstioNetworkGateway {
        /// The host of its service.
        registry_service_name: String,
        /// Its address.
        address: String,
        /// Its port.
        port: u32,
    }
}
