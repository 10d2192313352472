//! What holds for the whole mesh: `MeshConfig`, the proxies' defaults in it, and `MeshNetworks`.

pub mod config;
pub mod defaults;
pub mod networks;
pub mod providers;
pub mod proxy;

pub use config::MeshConfig;
pub use networks::{IstioNetworkGateway, MeshNetworks, Network, NetworkEndpoints};
pub use providers::ExtensionProvider;
pub use proxy::MeshProxyConfig;
