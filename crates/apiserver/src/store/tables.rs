//! The state in memory: objects by resource, namespace and name, and the recent changes for watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::pages::Page;
use crate::object::Object;
use crate::resource::ResourceName;

/// Changes remembered per resource; a watch that is further behind starts over with a list.
const REMEMBERED: usize = 1024;
/// Bytes of objects remembered per resource, beyond a few changes that are always remembered.
const REMEMBERED_BYTES: usize = 2 << 20;
const ALWAYS: usize = 64;

pub(super) type Names = BTreeMap<Box<str>, Arc<Object>>;

#[derive(Default)]
pub(super) struct Tables {
    pub(super) resource_version: u64,
    pub(super) tables: BTreeMap<ResourceName, Table>,
    /// What was forgotten at start: nothing before it can be watched.
    pub(super) start: u64,
    /// Newest removal, or change of a namespace.
    pub(super) removals: watch::Sender<u64>,
}

pub(super) struct Table {
    pub(super) namespaces: BTreeMap<Box<str>, Names>,
    pub(super) changes: VecDeque<Arc<Event>>,
    changes_bytes: usize,
    /// Changes after this resource version are all in `changes`.
    pub(super) complete_after: u64,
    changed_at: watch::Sender<u64>,
}

/// A change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) change: Change,
    pub(crate) object: Arc<Object>,
    /// The state before, for watches that select objects.
    pub(crate) before: Option<Arc<Object>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
}

impl Tables {
    /// The state as loaded: `changed_at` tells the newest write per resource.
    pub(super) fn load(resource_version: u64) -> Self {
        Self { resource_version, start: resource_version, ..Self::default() }
    }

    pub(super) fn insert_loaded(&mut self, resource: ResourceName, object: Arc<Object>) {
        self.table(&resource).insert(object);
    }

    pub(super) fn get(&self, resource: &ResourceName, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.tables.get(resource)?.namespaces.get(namespace)?.get(name).cloned()
    }

    pub(super) fn list(&self, resource: &ResourceName, namespace: Option<&str>) -> Page {
        let objects: Vec<_> = match self.tables.get(resource) {
            Some(table) => table.following(namespace, None).cloned().collect(),
            None => Vec::new(),
        };
        let (resource_version, total) = (self.resource_version, objects.len());
        Page { objects, resource_version, total, more: false }
    }

    pub(super) fn changed_at(&self, resource: &ResourceName) -> u64 {
        self.tables.get(resource).map_or(0, |table| *table.changed_at.borrow())
    }

    pub(super) fn changes(
        &self,
        resource: &ResourceName,
        after: u64,
        limit: usize,
    ) -> Option<(Vec<Arc<Event>>, u64)> {
        let Some(table) = self.tables.get(resource) else {
            return (after >= self.start).then(|| (Vec::new(), self.resource_version));
        };
        if after < table.complete_after {
            return None;
        }
        let first = table.changes.partition_point(|e| e.object.resource_version <= after);
        let last = table.changes.len().min(first.saturating_add(limit));
        let events: Vec<Arc<Event>> = table.changes.range(first..last).cloned().collect();
        let upto = match events.last() {
            Some(event) if last < table.changes.len() => event.object.resource_version,
            _ => self.resource_version,
        };
        Some((events, upto))
    }

    pub(super) fn subscribe(&mut self, resource: &ResourceName) -> watch::Receiver<u64> {
        self.table(resource).changed_at.subscribe()
    }

    /// Makes a committed change visible.
    pub(super) fn publish(&mut self, resource: &ResourceName, event: Arc<Event>) {
        let version = event.object.resource_version;
        self.resource_version = version;
        let removal = event.change == Change::Deleted || resource.as_str() == "namespaces";
        let table = self.table(resource);
        match event.change {
            Change::Deleted => table.remove(&event.object),
            Change::Added | Change::Modified => table.insert(event.object.clone()),
        }
        table.remember(event);
        table.changed_at.send_replace(version);
        if removal {
            self.removals.send_replace(version);
        }
    }

    fn table(&mut self, resource: &ResourceName) -> &mut Table {
        let start = self.start;
        self.tables.entry(resource.clone()).or_insert_with(|| Table {
            namespaces: BTreeMap::new(),
            changes: VecDeque::new(),
            changes_bytes: 0,
            complete_after: start,
            changed_at: watch::Sender::new(start),
        })
    }
}

impl Table {
    fn remember(&mut self, event: Arc<Event>) {
        self.changes_bytes += event.object.tail().len();
        self.changes.push_back(event);
        while self.changes.len() > REMEMBERED
            || self.changes_bytes > REMEMBERED_BYTES && self.changes.len() > ALWAYS
        {
            let Some(forgotten) = self.changes.pop_front() else { return };
            self.changes_bytes -= forgotten.object.tail().len();
            self.complete_after = forgotten.object.resource_version;
        }
    }

    fn insert(&mut self, object: Arc<Object>) {
        self.namespaces.entry(object.namespace.clone()).or_default().insert(object.name.clone(), object);
    }

    fn remove(&mut self, object: &Object) {
        if let Some(names) = self.namespaces.get_mut(&object.namespace) {
            names.remove(&object.name);
            if names.is_empty() {
                self.namespaces.remove(&object.namespace);
            }
        }
    }
}
