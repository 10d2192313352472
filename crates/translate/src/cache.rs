//! What was made before: a builder's input is its key, so equal inputs are made once.
//!
//! The cache goes from snapshot to snapshot (see [`crate::Snapshot::build`]). An entry lives as long as it is asked for
//! every now and then.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use lateen_base::Host;
use lateen_proto::istio::networking::nds::v1::NameTable;

use crate::clusters::{Class, outbound};
use crate::endpoints;
use crate::generate::EdgeInput;
use crate::{Note, Resource};

/// How many snapshots an entry survives that nobody asks for.
const PATIENCE: u64 = 32;

/// What was made before.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// The clusters of each port of each service, for each class of proxies.
    pub(crate) clusters: Memo<ClusterKey, outbound::Input, Arc<Vec<MadeCluster>>>,
    /// The load assignments of each cluster, for each view.
    pub(crate) endpoints: Memo<(String, Arc<endpoints::View>), endpoints::Input, Arc<Resource>>,
    /// Listeners, routes and names of each proxy.
    pub(crate) edges: Memo<String, EdgeInput, Arc<Edge>>,
}

impl Cache {
    /// Forgets what was not asked for since long before snapshot `now`.
    pub(crate) fn tidy(&self, now: u64) {
        self.clusters.tidy(now);
        self.endpoints.tidy(now);
        self.edges.tidy(now);
    }
}

/// Host, port, whether by SNI, and the class of proxies.
pub(crate) type ClusterKey = (Host, u16, bool, Arc<Class>);

/// A cluster, and what else has to be known of it.
#[derive(Clone, Debug)]
pub(crate) struct MadeCluster {
    /// The cluster.
    pub(crate) resource: Arc<Resource>,
    /// The name by which it asks for endpoints.
    pub(crate) endpoints: Option<String>,
    /// The secrets that it asks for over the stream that everything comes over.
    pub(crate) secrets: Vec<String>,
}

/// What a proxy gets besides clusters and endpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edge {
    /// The listeners.
    pub(crate) listeners: Vec<Arc<Resource>>,
    /// The route configurations.
    pub(crate) routes: Vec<Arc<Resource>>,
    /// The secrets that listeners ask for.
    pub(crate) secret_names: BTreeSet<String>,
    /// The names.
    pub(crate) name_table: Arc<NameTable>,
    /// What is to be said.
    pub(crate) notes: Vec<Note>,
}

/// Outputs by key, each with the input that it was made from.
#[derive(Debug)]
pub(crate) struct Memo<K, I, O>(Mutex<HashMap<K, Entry<I, O>>>);

#[derive(Debug)]
struct Entry<I, O> {
    input: I,
    output: O,
    asked: u64,
}

impl<K, I, O> Default for Memo<K, I, O> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, I: PartialEq, O: Clone> Memo<K, I, O> {
    /// What `make` makes of the input, now or before.
    pub(crate) fn get(&self, key: K, input: I, now: u64, make: impl FnOnce(&I) -> O) -> O {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = lock().get_mut(&key).filter(|entry| entry.input == input) {
            entry.asked = now;
            return entry.output.clone();
        }
        // Two may make the same at once, and both make equal outputs.
        let output = make(&input);
        lock().insert(key, Entry { input, output: output.clone(), asked: now });
        output
    }

    fn tidy(&self, now: u64) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| entry.asked + PATIENCE >= now);
    }
}

/// Something shared that is equal to itself without a look inside.
#[derive(Debug)]
pub(crate) struct Shared<T>(pub(crate) Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
