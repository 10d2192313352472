//! Where resources come from: the bootstrap, a file, a control plane.

pub(crate) mod discovery;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_proto::envoy::config::listener::v3::Listener;
use lateen_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::envoy::service::discovery::v3::DiscoveryResponse;
use lateen_proto::{Any, Message, Name, json};

use crate::store::{Rejected, Source, Store};

/// Resources of all types.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// Secrets.
    pub secrets: Vec<Any>,
    /// Endpoint assignments.
    pub endpoints: Vec<Any>,
    /// Clusters.
    pub clusters: Vec<Any>,
    /// Route configurations.
    pub routes: Vec<Any>,
    /// Listeners.
    pub listeners: Vec<Any>,
}

impl Resources {
    /// The static resources of a bootstrap.
    pub fn of_bootstrap(bootstrap: &Bootstrap) -> Self {
        let resources = bootstrap.static_resources.clone().unwrap_or_default();
        Self {
            secrets: resources.secrets.iter().map(Any::pack).collect(),
            endpoints: Vec::new(),
            clusters: resources.clusters.iter().map(Any::pack).collect(),
            routes: Vec::new(),
            listeners: resources.listeners.iter().map(Any::pack).collect(),
        }
    }

    /// Reads a file: JSON as `x dump-xds` prints it, or an encoded `DiscoveryResponse` if the name ends with `.pb`.
    ///
    /// # Errors
    /// Says what is wrong, and where.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        if path.extension().is_some_and(|extension| extension == "pb") {
            return Self::decode(&bytes);
        }
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        Self::from_json(&value)
    }

    /// Reads an encoded `DiscoveryResponse` of any types.
    ///
    /// # Errors
    /// When it is none, or holds a type that a proxy has no use for.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let response = DiscoveryResponse::decode(bytes).map_err(|error| error.to_string())?;
        let mut out = Self::default();
        for resource in response.resources {
            let any = Any { type_url: resource.type_url, value: resource.value };
            out.add(any)?;
        }
        Ok(out)
    }

    /// Reads `{"listeners":[..],"clusters":[..],"routes":[..],"endpoints":[..],"secrets":[..]}`.
    ///
    /// # Errors
    /// Names the list, the element and the field.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("expected an object with lists of resources")?;
        for key in object.keys() {
            if !["listeners", "clusters", "routes", "endpoints", "secrets", "nameTable"]
                .contains(&key.as_str())
            {
                return Err(format!(
                    "unknown member {key:?}: expected listeners, clusters, routes, endpoints, secrets"
                ));
            }
        }
        Ok(Self {
            secrets: list::<Secret>(value, "secrets")?,
            endpoints: list::<ClusterLoadAssignment>(value, "endpoints")?,
            clusters: list::<Cluster>(value, "clusters")?,
            routes: list::<RouteConfiguration>(value, "routes")?,
            listeners: list::<Listener>(value, "listeners")?,
        })
    }

    /// The resources as one encoded `DiscoveryResponse`.
    pub fn encode(&self) -> Vec<u8> {
        let all = [&self.secrets, &self.endpoints, &self.clusters, &self.routes, &self.listeners];
        let response = DiscoveryResponse {
            resources: all.into_iter().flatten().cloned().collect(),
            ..DiscoveryResponse::default()
        };
        response.encode_to_vec()
    }

    /// Adds one resource.
    ///
    /// # Errors
    /// When a proxy has no use for its type.
    pub fn add(&mut self, any: Any) -> Result<(), String> {
        let list = if any.is::<Listener>() {
            &mut self.listeners
        } else if any.is::<Cluster>() {
            &mut self.clusters
        } else if any.is::<RouteConfiguration>() {
            &mut self.routes
        } else if any.is::<ClusterLoadAssignment>() {
            &mut self.endpoints
        } else if any.is::<Secret>() {
            &mut self.secrets
        } else {
            return Err(format!("{} is no resource of a proxy", any.type_url));
        };
        list.push(any);
        Ok(())
    }

    /// Adds other resources.
    pub fn extend(&mut self, other: Self) {
        self.secrets.extend(other.secrets);
        self.endpoints.extend(other.endpoints);
        self.clusters.extend(other.clusters);
        self.routes.extend(other.routes);
        self.listeners.extend(other.listeners);
    }

    /// Puts them into a store, in the order in which they need one another; what was refused.
    pub(crate) fn apply(self, store: &mut Store, is_static: bool) -> Vec<Rejected> {
        type Take = fn(&mut Store, Source) -> Result<(), Rejected>;
        let mut work: VecDeque<(Vec<Any>, Take)> = VecDeque::from([
            (self.secrets, Store::set_secret as Take),
            (self.endpoints, Store::set_endpoints as Take),
            (self.clusters, Store::set_cluster as Take),
            (self.routes, Store::set_routes as Take),
            (self.listeners, Store::set_listener as Take),
        ]);
        let updated = SystemTime::now();
        let version: Arc<str> = "".into();
        let mut rejected = Vec::new();
        store.note_update();
        while let Some((list, take)) = work.pop_front() {
            for any in list {
                let source = Source { any, version: version.clone(), updated, is_static };
                rejected.extend(take(store, source).err());
            }
        }
        rejected
    }
}

fn list<M: Message + Name + Default>(value: &serde_json::Value, key: &str) -> Result<Vec<Any>, String> {
    let Some(items) = value.get(key).filter(|items| !items.is_null()) else { return Ok(Vec::new()) };
    let items = items.as_array().ok_or_else(|| format!("{key}: expected a list"))?;
    items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            let message: M = json::from_value(item).map_err(|error| format!("{key}[{index}]: {error}"))?;
            Ok(Any::pack(&message))
        })
        .collect()
}

/// The DNS servers of a bootstrap's resolver.
pub(crate) fn resolver_addresses(bootstrap: &Bootstrap) -> Vec<SocketAddr> {
    let config = bootstrap.typed_dns_resolver_config.as_ref().and_then(|config| config.typed_config.as_ref());
    let Some(cares) = config.and_then(|any| any.unpack::<CaresDnsResolverConfig>().ok()) else {
        return Vec::new();
    };
    cares.resolvers.iter().filter_map(socket_address).collect()
}

/// The address that all upstream connections are made from.
pub(crate) fn bind_address(bootstrap: &Bootstrap) -> Option<IpAddr> {
    let config = bootstrap.cluster_manager.as_ref()?.upstream_bind_config.as_ref()?;
    config.source_address.as_ref()?.address.parse().ok()
}

/// A TCP address of a message.
pub(crate) fn socket_address(address: &core::Address) -> Option<SocketAddr> {
    use core::address::Address;
    use core::socket_address::PortSpecifier;
    let Some(Address::SocketAddress(socket)) = &address.address else { return None };
    let Some(PortSpecifier::PortValue(port)) = &socket.port_specifier else { return None };
    Some(SocketAddr::new(socket.address.parse().ok()?, u16::try_from(*port).ok()?))
}
