//! What a client asks for and holds, over any number of connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::resource::encode_rejections;
use crate::{Rejection, Resource, types};

/// One response, to be judged with [`Subscriptions::ack`] or [`Subscriptions::nack`].
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The type.
    pub type_url: Arc<str>,
    /// New or changed resources.
    pub resources: Vec<Resource>,
    /// Names that are gone, or that were asked for and do not exist.
    pub removed: Vec<Arc<str>>,
    /// The response's name.
    pub nonce: String,
}

/// The client's side of delta discovery; versions outlive connections, so that a reconnect transfers only
/// what changed.
#[derive(Debug)]
pub struct Subscriptions {
    node: Node,
    types: BTreeMap<(usize, Arc<str>), Interest>,
    connected: bool,
    node_sent: bool,
}

#[derive(Debug, Default)]
struct Interest {
    names: BTreeSet<String>,
    versions: BTreeMap<String, String>,
}

impl Subscriptions {
    /// A client that asks for nothing yet.
    pub fn new(node: Node) -> Self {
        Self { node, types: BTreeMap::new(), connected: false, node_sent: false }
    }

    /// Asks for names (`*` for everything); the request to send, if a connection is open and anything is new.
    pub fn subscribe<S: AsRef<str>>(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = S>,
    ) -> Option<DeltaDiscoveryRequest> {
        let interest = self.interest(type_url);
        let names: Vec<String> = names.into_iter().map(|n| n.as_ref().to_owned()).collect();
        let new: Vec<String> = names.into_iter().filter(|n| interest.names.insert(n.clone())).collect();
        if new.is_empty() {
            return None;
        }
        self.request(type_url, new, vec![])
    }

    /// Asks for names no more; the request to send, if any.
    pub fn unsubscribe<S: AsRef<str>>(
        &mut self,
        type_url: &str,
        names: impl IntoIterator<Item = S>,
    ) -> Option<DeltaDiscoveryRequest> {
        let interest = self.interest(type_url);
        let names: Vec<String> = names.into_iter().map(|n| n.as_ref().to_owned()).collect();
        let gone: Vec<String> = names.into_iter().filter(|n| interest.names.remove(n)).collect();
        let Interest { names: wanted, versions } = interest;
        // What the wildcard still covers is still held, and a reconnect must say so.
        if !wanted.contains("*") {
            versions.retain(|name, _| wanted.contains(name));
        }
        if gone.is_empty() {
            return None;
        }
        self.request(type_url, vec![], gone)
    }

    /// A connection is open: everything that is wanted, with the versions that are held.
    pub fn open(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.connected = true;
        self.node_sent = false;
        let wanted: Vec<DeltaDiscoveryRequest> = self
            .types
            .iter()
            .filter(|(_, interest)| !interest.names.is_empty())
            .map(|((_, type_url), interest)| DeltaDiscoveryRequest {
                type_url: type_url.to_string(),
                resource_names_subscribe: interest.names.iter().cloned().collect(),
                initial_resource_versions: interest.versions.clone(),
                ..Default::default()
            })
            .collect();
        wanted.into_iter().map(|request| self.introduce(request)).collect()
    }

    /// The connection is gone; requests wait for the next [`Self::open`].
    pub fn close(&mut self) {
        self.connected = false;
    }

    /// Takes in a response. A resource without a body counts as removed.
    pub fn on_response(&self, response: DeltaDiscoveryResponse) -> Update {
        let mut removed: Vec<Arc<str>> =
            response.removed_resources.iter().map(|name| name.as_str().into()).collect();
        let mut resources = Vec::with_capacity(response.resources.len());
        for resource in response.resources {
            match resource.resource {
                Some(any) => resources.push(Resource {
                    name: resource.name.into(),
                    version: resource.version.into(),
                    any,
                }),
                None => removed.push(resource.name.into()),
            }
        }
        Update { type_url: response.type_url.into(), resources, removed, nonce: response.nonce }
    }

    /// Accepts an update: its versions are held now.
    pub fn ack(&mut self, update: &Update) -> DeltaDiscoveryRequest {
        self.hold(update, &[]);
        answer(update)
    }

    /// Refuses some resources of an update; the others are held now. Rejections without a name refuse all.
    pub fn nack(&mut self, update: &Update, rejections: &[Rejection]) -> DeltaDiscoveryRequest {
        self.hold(update, rejections);
        DeltaDiscoveryRequest { error_detail: Some(encode_rejections(rejections)), ..answer(update) }
    }

    fn hold(&mut self, update: &Update, rejections: &[Rejection]) {
        if rejections.iter().any(|r| r.resource.is_empty()) {
            return;
        }
        let versions = &mut self.interest(&update.type_url).versions;
        for resource in &update.resources {
            if !rejections.iter().any(|r| r.resource == resource.name) {
                versions.insert(resource.name.to_string(), resource.version.to_string());
            }
        }
        for name in &update.removed {
            versions.remove(&**name);
        }
    }

    fn interest(&mut self, type_url: &str) -> &mut Interest {
        self.types.entry(key(type_url)).or_default()
    }

    /// A change of names on the open connection; `None` while there is none.
    fn request(
        &mut self,
        type_url: &str,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
    ) -> Option<DeltaDiscoveryRequest> {
        self.connected.then(|| {
            self.introduce(DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_subscribe: subscribe,
                resource_names_unsubscribe: unsubscribe,
                ..Default::default()
            })
        })
    }

    /// The first request of a connection says who is asking.
    fn introduce(&mut self, request: DeltaDiscoveryRequest) -> DeltaDiscoveryRequest {
        let first = !std::mem::replace(&mut self.node_sent, true);
        DeltaDiscoveryRequest { node: first.then(|| self.node.clone()), ..request }
    }
}

fn key(type_url: &str) -> (usize, Arc<str>) {
    (types::rank(type_url), type_url.into())
}

fn answer(update: &Update) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: update.type_url.to_string(),
        response_nonce: update.nonce.clone(),
        ..Default::default()
    }
}
