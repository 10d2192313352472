//! The store of Istio's objects, by kind, namespace and name.

use std::sync::Arc;

use imbl::OrdMap;
use lateen_api::{Kind, Object};
use lateen_base::Namespace;

type OfKind = OrdMap<(Namespace, String), Arc<Object>>;

/// Istio's objects: an immutable picture, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Configs {
    by_kind: OrdMap<Kind, (u64, OfKind)>,
}

impl Configs {
    /// The objects of a kind, ordered by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.by_kind.get(&kind).into_iter().flat_map(|(_, objects)| objects.values())
    }

    /// One object.
    pub fn object(&self, kind: Kind, namespace: &Namespace, name: &str) -> Option<&Arc<Object>> {
        let (_, objects) = self.by_kind.get(&kind)?;
        objects.get(&(namespace.clone(), name.to_owned()))
    }

    /// A number that grows with every change to a kind: equal numbers of one registry mean equal objects.
    pub fn generation(&self, kind: Kind) -> u64 {
        self.by_kind.get(&kind).map_or(0, |(generation, _)| *generation)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.by_kind.values().flat_map(|(_, objects)| objects.values())
    }

    pub(crate) fn insert(&mut self, object: Arc<Object>) {
        let (generation, objects) = self.by_kind.entry(object.kind).or_default();
        *generation += 1;
        objects.insert((object.namespace.clone(), object.name.clone()), object);
    }

    pub(crate) fn remove(&mut self, kind: Kind, namespace: &Namespace, name: &str) -> Option<Arc<Object>> {
        let (generation, objects) = self.by_kind.get_mut(&kind)?;
        let removed = objects.remove(&(namespace.clone(), name.to_owned()))?;
        *generation += 1;
        Some(removed)
    }
}
