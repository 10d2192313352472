//! Route configurations in parts: a virtual host that was made before is neither made nor encoded again.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_api::mesh::MeshConfig;
use lateen_base::{Host, Labels, Namespace, ObjectRef};
use lateen_proto::Message;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_registry::Service;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::cache::Shared;
use crate::filters::wire::provenance;
use crate::scoping;
use crate::snapshot::{MergedRule, VirtualServiceConfig};
use crate::{Built, Note, Resource};

/// The number of the field of a route configuration that holds its virtual hosts.
const VIRTUAL_HOSTS: u32 = 2;

/// A route configuration, its virtual hosts apart.
#[derive(Debug)]
pub(crate) struct RouteParts {
    /// The configuration without virtual hosts.
    pub(crate) head: route::RouteConfiguration,
    /// The virtual hosts.
    pub(crate) hosts: Vec<Arc<MadeHost>>,
    /// What is to be said.
    pub(crate) notes: Vec<Note>,
}

/// A virtual host, and its bytes.
#[derive(Debug)]
pub(crate) struct MadeHost {
    /// The message.
    pub(crate) message: route::VirtualHost,
    bytes: Vec<u8>,
    /// Clusters that it names beside those that its requests go to.
    pub(crate) beside: BTreeSet<String>,
}

/// Routes that were made once.
pub(crate) type Routes = Shared<Vec<route::Route>>;

/// What a virtual host is made from.
#[derive(Debug, PartialEq)]
pub(crate) struct HostInput {
    /// Its name.
    pub(crate) name: String,
    /// Its domains.
    pub(crate) domains: Vec<String>,
    /// Its routes.
    pub(crate) routes: Routes,
    /// The VirtualService that it is of.
    pub(crate) object: Option<ObjectRef>,
    /// Whether requests are told which attempt they are.
    pub(crate) counted: bool,
}

/// What the one route of a service without VirtualService is made from.
#[derive(Debug, PartialEq)]
pub(crate) struct OwnRouteInput {
    /// The service.
    pub(crate) service: Shared<Service>,
    /// Its port.
    pub(crate) port: u16,
    /// What holds for it.
    pub(crate) rule: Option<Shared<MergedRule>>,
    /// Whether the proxy has `istio.alpn`.
    pub(crate) alpn: bool,
    /// The mesh's settings.
    pub(crate) mesh: Shared<MeshConfig>,
}

/// A destination, as far as routes depend on it.
pub(crate) type Known = (Host, Option<Shared<Service>>, Option<Shared<MergedRule>>);

/// What the routes of a VirtualService for a port are made from.
#[derive(Debug, PartialEq)]
pub(crate) struct ClaimInput {
    /// The VirtualService; it delegates nothing.
    pub(crate) config: Shared<VirtualServiceConfig>,
    /// The port.
    pub(crate) port: u16,
    /// The client's namespace.
    pub(crate) namespace: Namespace,
    /// Those of the client's labels that matter.
    pub(crate) labels: Labels,
    /// Where it leads.
    pub(crate) known: Vec<Known>,
    /// Whether the proxy has `istio.alpn`.
    pub(crate) alpn: bool,
    /// The mesh's settings.
    pub(crate) mesh: Shared<MeshConfig>,
}

impl HostInput {
    /// Makes the virtual host.
    pub(crate) fn make(&self) -> Arc<MadeHost> {
        Arc::new(MadeHost::new(route::VirtualHost {
            name: self.name.clone(),
            domains: self.domains.clone(),
            routes: self.routes.to_vec(),
            metadata: self.object.as_ref().map(provenance),
            include_request_attempt_count: self.counted,
            ..Default::default()
        }))
    }
}

impl MadeHost {
    /// A virtual host, encoded.
    pub(crate) fn new(message: route::VirtualHost) -> Self {
        let mut beside = BTreeSet::new();
        scoping::find_beside(&message, &mut beside);
        Self { bytes: message.encode_to_vec(), message, beside }
    }
}

impl RouteParts {
    /// The configuration as a message.
    pub(crate) fn whole(self) -> Built<route::RouteConfiguration> {
        let mut message = self.head;
        message.virtual_hosts = self.hosts.iter().map(|host| host.message.clone()).collect();
        Built { name: message.name.clone(), message, notes: self.notes }
    }

    /// The configuration as a resource: the very bytes that the message would have.
    pub(crate) fn pack(self) -> Arc<Resource> {
        let Self { mut head, hosts, notes } = self;
        let name = std::mem::take(&mut head.name);
        let size: usize = hosts.iter().map(|host| host.bytes.len() + 8).sum();
        let mut bytes = Vec::with_capacity(size + name.len() + 64);
        // A message's fields are encoded in the order of their numbers: the name is 1.
        let named = route::RouteConfiguration { name: name.clone(), ..Default::default() };
        bytes.extend(named.encode_to_vec());
        for host in &hosts {
            encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut bytes);
            encode_varint(host.bytes.len() as u64, &mut bytes);
            bytes.extend_from_slice(&host.bytes);
        }
        bytes.extend(head.encode_to_vec());
        Arc::new(Resource::of_bytes::<route::RouteConfiguration>(&name, bytes, notes))
    }
}

impl From<Built<route::RouteConfiguration>> for RouteParts {
    fn from(built: Built<route::RouteConfiguration>) -> Self {
        let mut head = built.message;
        let hosts = std::mem::take(&mut head.virtual_hosts);
        let hosts = hosts.into_iter().map(|host| Arc::new(MadeHost::new(host))).collect();
        Self { head, hosts, notes: built.notes }
    }
}
