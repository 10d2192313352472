//! One connection as the server sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use lateen_proto::google::rpc::Status;

use super::push::Push;
use super::subscription::Subscription;
use crate::resource::decode_rejections;
use crate::{Catalog, Rejection, types};

/// The form of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Incremental: differences both ways.
    Delta,
    /// Each response carries everything that is subscribed of its type.
    StateOfTheWorld,
}

/// One connection: subscriptions, versions and verdicts of every type. No sockets, no time.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    node: Option<Node>,
    types: BTreeMap<(usize, Arc<str>), Subscription>,
    nonces: u64,
}

/// What a request said.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// The type it is about.
    pub type_url: Arc<str>,
    /// The answer to a response, if it is one.
    pub verdict: Option<Verdict>,
}

/// A client's answer to a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of it is in use.
    Ack,
    /// These resources are refused; the rest is in use.
    Nack(Vec<Rejection>),
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The request names no type.
    #[error("a discovery request without a type_url")]
    NoType,
    /// The first request must say who is asking.
    #[error("the first discovery request of a stream must carry the node")]
    NoNode,
}

/// Where one type of one connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStatus {
    /// The type.
    pub type_url: Arc<str>,
    /// The last response's nonce; empty when none was sent.
    pub sent_nonce: String,
    /// The last answered nonce.
    pub acked_nonce: String,
    /// A response is on its way or being applied.
    pub outstanding: bool,
    /// How many resources the client holds.
    pub held: usize,
    /// What the client refuses now, and why.
    pub rejected: Vec<Rejection>,
}

impl Session {
    /// A connection that has said nothing yet.
    pub fn new(dialect: Dialect) -> Self {
        Self { dialect, node: None, types: BTreeMap::new(), nonces: 0 }
    }

    /// Who is asking, once the first request came.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Takes in a delta request.
    ///
    /// # Errors
    /// When it names no type, or the first of a stream names no node.
    pub fn on_delta(&mut self, request: DeltaDiscoveryRequest) -> Result<Heard, ProtocolError> {
        let key = self.begin(request.node, &request.type_url)?;
        let first = !self.types.contains_key(&key);
        let subscription = self.types.entry(key.clone()).or_default();
        if first {
            let versions = request.initial_resource_versions.iter();
            subscription.held = versions.map(|(n, v)| (n.as_str().into(), v.as_str().into())).collect();
        }
        let verdict = judge(subscription, &request.response_nonce, request.error_detail.as_ref());
        for name in &request.resource_names_unsubscribe {
            match name.as_str() {
                "*" => subscription.unsubscribe_all(),
                name => subscription.unsubscribe(name),
            }
        }
        for name in &request.resource_names_subscribe {
            match name.as_str() {
                "*" => subscription.subscribe_all(),
                name => subscription.subscribe(name, first && subscription.held.contains_key(name)),
            }
        }
        if first && request.resource_names_subscribe.is_empty() {
            match types::empty_means_all(&key.1) {
                true => subscription.subscribe_all(),
                false => subscription.answer = true,
            }
        }
        Ok(Heard { type_url: key.1, verdict })
    }

    /// Takes in a state-of-the-world request.
    ///
    /// # Errors
    /// As [`Self::on_delta`].
    pub fn on_state_of_the_world(&mut self, request: DiscoveryRequest) -> Result<Heard, ProtocolError> {
        let key = self.begin(request.node, &request.type_url)?;
        let first = !self.types.contains_key(&key);
        let subscription = self.types.entry(key.clone()).or_default();
        let verdict = judge(subscription, &request.response_nonce, request.error_detail.as_ref());
        let stale = !request.response_nonce.is_empty() && request.response_nonce != subscription.sent_nonce;
        if !stale {
            replace_names(subscription, &request.resource_names, types::empty_means_all(&key.1));
            subscription.answer |= first;
        }
        Ok(Heard { type_url: key.1, verdict })
    }

    /// What must be sent for the client to see the catalog, in the fixed order of types. A changed cluster takes
    /// its load assignment along, since the client warms the new cluster until it hears one.
    pub fn pushes(&mut self, catalog: &dyn Catalog) -> Vec<Push> {
        let mut pushes = Vec::new();
        let keys: Vec<_> = self.types.keys().cloned().collect();
        for key in keys {
            if let Some(push) = self.push(&key, catalog) {
                if &*push.type_url == types::CLUSTER {
                    self.owe_load_assignments(&push);
                }
                pushes.push(push);
            }
        }
        pushes
    }

    /// Where each type stands, in the order of pushes.
    pub fn status(&self) -> Vec<TypeStatus> {
        let status = |((_, type_url), s): (&(usize, Arc<str>), &Subscription)| TypeStatus {
            type_url: type_url.clone(),
            sent_nonce: s.sent_nonce.clone(),
            acked_nonce: s.acked_nonce.clone(),
            outstanding: s.is_outstanding(),
            held: s.held.len(),
            rejected: s
                .rejected
                .iter()
                .map(|(name, reason)| Rejection { resource: name.clone(), reason: reason.clone() })
                .collect(),
        };
        self.types.iter().map(status).collect()
    }

    /// Whether the client asked for this name, or for everything, of the type.
    pub fn wants(&self, type_url: &str, name: &str) -> bool {
        self.types
            .get(&(types::rank(type_url), Arc::from(type_url)))
            .is_some_and(|s| s.wildcard || s.names.contains(name))
    }

    /// What the client asked for by name of a type, in no order.
    pub fn asked(&self, type_url: &str) -> impl Iterator<Item = &Arc<str>> {
        let subscription = self.types.get(&(types::rank(type_url), Arc::from(type_url)));
        subscription.into_iter().flat_map(|s| &s.names)
    }

    fn begin(&mut self, node: Option<Node>, type_url: &str) -> Result<(usize, Arc<str>), ProtocolError> {
        if node.is_some() {
            self.node = node;
        }
        if self.node.is_none() {
            return Err(ProtocolError::NoNode);
        }
        match type_url.is_empty() {
            true => Err(ProtocolError::NoType),
            false => Ok((types::rank(type_url), type_url.into())),
        }
    }

    fn push(&mut self, key: &(usize, Arc<str>), catalog: &dyn Catalog) -> Option<Push> {
        let subscription = self.types.get_mut(key)?;
        let difference = subscription.difference(&key.1, catalog)?;
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let carried = difference.changed.iter().map(|r| r.name.clone()).chain(difference.removed.clone());
        subscription.sent(&nonce, carried.collect());
        let (resources, removed) = match self.dialect {
            Dialect::Delta => (difference.changed, difference.removed),
            Dialect::StateOfTheWorld => (subscription.everything(&key.1, catalog), Vec::new()),
        };
        Some(Push { type_url: key.1.clone(), nonce, resources, removed })
    }

    fn owe_load_assignments(&mut self, clusters: &Push) {
        let key = (types::rank(types::ENDPOINT), Arc::from(types::ENDPOINT));
        if let Some(endpoints) = self.types.get_mut(&key) {
            let changed = clusters.resources.iter().map(|cluster| &cluster.name);
            let subscribed = changed.filter(|name| endpoints.wildcard || endpoints.names.contains(*name));
            endpoints.owed.extend(subscribed.cloned().collect::<Vec<_>>());
        }
    }
}

/// Reads the answer that a request carries, if it carries one to an outstanding response.
fn judge(subscription: &mut Subscription, nonce: &str, error: Option<&Status>) -> Option<Verdict> {
    if nonce.is_empty() {
        return None;
    }
    let names = subscription.answered(nonce)?;
    let rejections = error.map(|status| decode_rejections(status, &names)).unwrap_or_default();
    subscription.judged(&names, &rejections);
    Some(match error {
        Some(_) => Verdict::Nack(rejections),
        None => Verdict::Ack,
    })
}

/// A state-of-the-world request names all that is wanted from now on. Of a type that can be had as a whole, one that has
/// never named anything wants everything.
fn replace_names(subscription: &mut Subscription, names: &[String], empty_is_all: bool) {
    subscription.named |= !names.is_empty();
    let all = names.iter().any(|name| name == "*") || (empty_is_all && !subscription.named);
    let gone: Vec<Arc<str>> = subscription
        .names
        .iter()
        .filter(|old| !names.iter().any(|new| new.as_str() == &***old))
        .cloned()
        .collect();
    for name in gone {
        subscription.unsubscribe(&name);
    }
    for name in names.iter().filter(|name| *name != "*") {
        if !subscription.names.contains(name.as_str()) {
            subscription.subscribe(name, false);
        }
    }
    match (all, subscription.wildcard) {
        (true, false) => subscription.subscribe_all(),
        (false, true) => subscription.unsubscribe_all(),
        _ => {}
    }
}
