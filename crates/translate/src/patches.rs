//! `EnvoyFilter`: patches of what was made for Envoy.
//!
//! An object is compiled once, when it changes: each patch's value becomes the message that it stands for, and a patch
//! that cannot be followed says why. A proxy gets the patches that are meant for it, in their order; a resource that
//! a patch would make one that Envoy refuses stays as it was. What each patch did, or why it did nothing, is known.

pub(crate) mod bootstrap;
mod clusters;
mod compile;
mod edit;
mod effects;
mod extensions;
mod listeners;
mod matches;
mod nothing;
mod report;
mod routes;
mod select;
mod sound;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use lateen_api::kinds::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, FilterClass, PatchContext, PatchOperation,
};
use lateen_base::ObjectRef;
use lateen_proto::{Any, Message, Name};

pub(crate) use compile::EnvoyFilters;
pub(crate) use effects::Effects;
pub use report::{Made, PatchOutcome, PatchReport, Patched, Tally};
pub(crate) use routes::{PortMap, Side};

/// A patch that can be followed.
#[derive(Debug, PartialEq)]
pub(crate) struct Patch {
    /// The object.
    pub(crate) filter: ObjectRef,
    /// Which of the object's patches, from 0.
    pub(crate) index: usize,
    /// What is patched.
    pub(crate) apply_to: ApplyTo,
    /// What is done.
    pub(crate) operation: PatchOperation,
    /// Where an added HTTP filter goes.
    pub(crate) class: FilterClass,
    /// Which of them.
    pub(crate) condition: EnvoyConfigObjectMatch,
    /// The value, as the message that it stands for; empty for removals.
    pub(crate) value: Any,
}

impl Patch {
    /// The value.
    pub(crate) fn message<M: Message + Name + Default>(&self) -> Result<M, String> {
        self.value.unpack().map_err(|error| error.to_string())
    }

    /// Whether the patch is for a side of a proxy.
    pub(crate) fn is_for(&self, context: PatchContext) -> bool {
        self.condition.context == PatchContext::Any || self.condition.context == context
    }

    /// What it is: `CLUSTER MERGE`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.apply_to, self.operation)
    }

    /// Whether it merges its value in.
    pub(crate) fn merges(&self) -> bool {
        matches!(self.operation, PatchOperation::Merge | PatchOperation::MergeAndReplaceList)
    }
}

/// Patches in the order in which they apply. Equal sets do the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct PatchSet(Arc<[Arc<Patch>]>);

impl PatchSet {
    /// The patches.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Patch>> {
        self.0.iter()
    }

    /// The patches of one kind of objects.
    pub(crate) fn of(&self, apply_to: ApplyTo) -> impl Iterator<Item = &Arc<Patch>> {
        self.0.iter().filter(move |patch| patch.apply_to == apply_to)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of some kinds of objects.
    pub(crate) fn among(&self, kinds: &[ApplyTo]) -> Self {
        self.0.iter().filter(|patch| kinds.contains(&patch.apply_to)).cloned().collect()
    }

    /// A number by which sets that differ can mostly be told apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl FromIterator<Arc<Patch>> for PatchSet {
    fn from_iter<I: IntoIterator<Item = Arc<Patch>>>(patches: I) -> Self {
        Self(patches.into_iter().collect())
    }
}

impl PartialEq for PatchSet {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Patch>, &Arc<Patch>)| Arc::ptr_eq(a, b) || a == b;
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(same)
    }
}

impl Eq for PatchSet {}

impl Hash for PatchSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for patch in self.0.iter() {
            (&patch.filter, patch.index, &*patch.value.value).hash(state);
        }
    }
}

/// The kinds of objects of which listeners are made, the routes within them included.
pub(crate) const OF_LISTENERS: &[ApplyTo] = &[
    ApplyTo::Listener,
    ApplyTo::ListenerFilter,
    ApplyTo::FilterChain,
    ApplyTo::NetworkFilter,
    ApplyTo::HttpFilter,
    ApplyTo::RouteConfiguration,
    ApplyTo::VirtualHost,
    ApplyTo::HttpRoute,
];
/// The kinds of objects of which route configurations are made.
pub(crate) const OF_ROUTES: &[ApplyTo] =
    &[ApplyTo::RouteConfiguration, ApplyTo::VirtualHost, ApplyTo::HttpRoute];
/// Clusters.
pub(crate) const OF_CLUSTERS: &[ApplyTo] = &[ApplyTo::Cluster];

/// Patches and what they did so far.
pub(crate) struct Patching<'a> {
    /// The patches.
    pub(crate) patches: &'a PatchSet,
    /// What they did.
    pub(crate) effects: Effects,
}

impl<'a> Patching<'a> {
    /// Patches that did nothing yet.
    pub(crate) fn new(patches: &'a PatchSet) -> Self {
        Self { patches, effects: Effects::default() }
    }

    /// Tries a patch on a resource: what it makes of it counts if Envoy would take it.
    fn attempt<M: sound::Sound>(
        &mut self,
        patch: &Patch,
        built: &mut crate::Built<M>,
        edit: impl FnOnce(&mut M) -> edit::Edited,
    ) {
        let mut changed = built.message.clone();
        let edited = edit(&mut changed);
        for reason in &edited.refused {
            self.effects.refused(patch, &built.name, reason);
        }
        if edited.count == 0 {
            return;
        }
        match changed.sound() {
            Ok(()) => {
                built.message = changed;
                self.effects.changed(patch, &built.name);
                let text = format!("patch {} ({} {})", patch.index, patch.operation, patch.apply_to);
                built.notes.push(crate::Note::on(&patch.filter, text));
            }
            Err(reason) => self.effects.refused(patch, &built.name, &reason),
        }
    }
}
