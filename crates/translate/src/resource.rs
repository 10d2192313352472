//! What translation makes: named messages with their version and what is to be said about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_base::ObjectRef;
use lateen_proto::istio::networking::nds::v1::NameTable;
use lateen_proto::{Any, Message, Name};
use xxhash_rust::xxh3::xxh3_64;

use crate::{PatchReport, Scoping};

/// Something that its author should know: what was dropped, shadowed or merged, and by which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Note {
    /// What happened, in words.
    pub text: String,
    /// Whom it concerns.
    pub object: Option<ObjectRef>,
}

impl Note {
    /// A note about an object.
    pub fn on(object: &ObjectRef, text: impl Into<String>) -> Self {
        Self { text: text.into(), object: Some(object.clone()) }
    }
}

/// A message and what is to be said about it, before it is packed.
#[derive(Clone, Debug, PartialEq)]
pub struct Built<M> {
    /// The resource's name.
    pub name: String,
    /// The message.
    pub message: M,
    /// What is to be said.
    pub notes: Vec<Note>,
}

impl<M> Built<M> {
    /// A message without notes.
    pub fn new(name: impl Into<String>, message: M) -> Self {
        Self { name: name.into(), message, notes: Vec::new() }
    }
}

impl<M: Message + Name> Built<M> {
    /// Packs it.
    pub fn pack(self) -> Arc<Resource> {
        Arc::new(Resource::pack(&self.name, &self.message, self.notes))
    }
}

/// A packed resource. Equal messages have equal versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Its name.
    pub name: Arc<str>,
    /// The hash of its bytes, in hexadecimal.
    pub version: Arc<str>,
    /// The message.
    pub any: Any,
    /// What is to be said about it.
    pub notes: Vec<Note>,
}

impl Resource {
    /// Packs a message.
    pub fn pack<M: Message + Name>(name: &str, message: &M, notes: Vec<Note>) -> Self {
        let any = Any::pack(message);
        let version = format!("{:016x}", xxh3_64(&any.value));
        Self { name: name.into(), version: version.into(), any, notes }
    }
}

impl Resource {
    /// A message that is packed already.
    pub(crate) fn of_bytes<M: Name>(name: &str, bytes: Vec<u8>, notes: Vec<Note>) -> Self {
        let version = format!("{:016x}", xxh3_64(&bytes));
        let any = Any { type_url: M::type_url(), value: bytes.into() };
        Self { name: name.into(), version: version.into(), any, notes }
    }
}

/// Everything one proxy gets.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// The listeners.
    pub listeners: Vec<Arc<Resource>>,
    /// The clusters, also those that are loaded on demand.
    pub clusters: Vec<Arc<Resource>>,
    /// The route configurations that the listeners refer to.
    pub routes: Vec<Arc<Resource>>,
    /// The load assignments of the clusters of type EDS.
    pub endpoints: Vec<Arc<Resource>>,
    /// The secrets that come over ADS (`kubernetes://...`).
    pub secret_names: BTreeSet<String>,
    /// The names that the agent's DNS server answers.
    pub name_table: Arc<NameTable>,
    /// Configurations of extensions that filters ask for by name.
    pub extensions: Vec<Arc<Resource>>,
    /// What each patch of an EnvoyFilter did that is meant for the proxy.
    pub patches: Vec<PatchReport>,
    /// What is to be said about no resource in particular.
    pub notes: Vec<Note>,
    /// What its agent is to merge into the bootstrap.
    pub bootstrap: Option<Arc<Resource>>,
    /// Whether the proxy loads clusters on demand.
    pub scoping: Scoping,
    /// The clusters that it does not have from the start, but loads when a request wants them.
    pub on_demand: BTreeSet<String>,
}

impl Resources {
    /// What the proxy has from the start.
    pub fn at_start(&self) -> Self {
        let there = |list: &[Arc<Resource>]| {
            list.iter().filter(|resource| !self.on_demand.contains(&*resource.name)).cloned().collect()
        };
        Self { clusters: there(&self.clusters), endpoints: there(&self.endpoints), ..self.clone() }
    }
}
