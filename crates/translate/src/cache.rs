//! What was made before: a builder's input is its key, so equal inputs are made once.
//!
//! The cache goes from snapshot to snapshot (see [`crate::Snapshot::build`]). An entry lives as long as it is asked for
//! every now and then.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use lateen_base::{Host, Labels, Namespace, ObjectRef};

use crate::generate::{Edge, EdgeInput, Names, NamesInput, Own, OwnInput, Routed, RoutesInput};
use crate::patches::PatchSet;
use crate::patches::bootstrap::BootstrapPatch;
use crate::routes::parts::{ClaimInput, HostInput, MadeHost, OwnRouteInput, Routes};

/// How many snapshots an entry survives that nobody asks for.
const PATIENCE: u64 = 32;

/// What was made before. Keys only have to tell apart what is wanted side by side: an entry with another input is made
/// anew.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// The fixed clusters and those of the own workload, of each proxy.
    pub(crate) own: Memo<String, OwnInput, Arc<Own>>,
    /// Listeners, by what of a proxy they depend on and the services it serves.
    pub(crate) edges: Memo<EdgeKey, EdgeInput, Arc<Edge>>,
    /// Route configurations, likewise, and by their names.
    pub(crate) routes: Memo<RoutesKey, RoutesInput, Arc<Routed>>,
    /// The routes of services that no VirtualService is for, by service, port, rule and proxy's abilities.
    pub(crate) own_routes: Memo<(Host, u16, usize, bool), OwnRouteInput, Routes>,
    /// The routes of VirtualServices and how many are unreachable, by object, port and client.
    pub(crate) claims: Memo<(ObjectRef, u16, Namespace, Labels), ClaimInput, (Routes, usize)>,
    /// Virtual hosts, by name, domains and the rule that their routes follow.
    pub(crate) hosts: Memo<(String, u64, usize), HostInput, Arc<MadeHost>>,
    /// What patches of the bootstrap come to, by patches and kind of proxy.
    pub(crate) bootstraps: Memo<(u64, bool), (PatchSet, bool), Arc<BootstrapPatch>>,
    /// Name tables.
    pub(crate) names: Memo<u64, NamesInput, Arc<Names>>,
}

/// What of a proxy listeners depend on, the services that it serves, and the patches for it.
type EdgeKey = (u64, Vec<(Host, u16)>, u64);
/// What of a proxy routes depend on, the services that a gateway serves, the names of the configurations, and the patches.
type RoutesKey = (u64, Vec<(Host, u16)>, BTreeSet<String>, u64);

impl Cache {
    /// Forgets what was not asked for since long before snapshot `now`.
    pub(crate) fn tidy(&self, now: u64) {
        self.own.tidy(now);
        self.edges.tidy(now);
        self.routes.tidy(now);
        self.own_routes.tidy(now);
        self.claims.tidy(now);
        self.hosts.tidy(now);
        self.bootstraps.tidy(now);
        self.names.tidy(now);
    }
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
