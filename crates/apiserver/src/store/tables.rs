//! The state in memory: objects by resource, namespace and name, and the recent changes for watches.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use crate::object::Object;
use crate::resource::ResourceName;

/// Changes remembered per resource; a watch that is further behind starts over with a list.
const REMEMBERED: usize = 1024;
/// Bytes of objects remembered per resource, beyond a few changes that are always remembered.
const REMEMBERED_BYTES: usize = 2 << 20;
const ALWAYS: usize = 64;

type Names = BTreeMap<Box<str>, Arc<Object>>;

#[derive(Default)]
pub(super) struct Tables {
    pub(super) resource_version: u64,
    tables: BTreeMap<ResourceName, Table>,
    /// What was forgotten at start: nothing before it can be watched.
    start: u64,
    /// Newest removal, or change of a namespace.
    pub(super) removals: watch::Sender<u64>,
}

struct Table {
    namespaces: BTreeMap<Box<str>, Names>,
    changes: VecDeque<Arc<Event>>,
    changes_bytes: usize,
    /// Changes after this resource version are all in `changes`.
    complete_after: u64,
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

/// Part of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// Resource version of the state that was read.
    pub(crate) resource_version: u64,
    /// Objects after the last one.
    pub(crate) remaining: usize,
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

    pub(super) fn list(
        &self,
        resource: &ResourceName,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Page {
        let mut page = Page { objects: Vec::new(), resource_version: self.resource_version, remaining: 0 };
        let Some(table) = self.tables.get(resource) else { return page };
        for object in
            table.select(namespace).filter(|o| after.is_none_or(|key| (&*o.namespace, &*o.name) > key))
        {
            if page.objects.len() < limit {
                page.objects.push(object.clone());
            } else {
                page.remaining += 1;
            }
        }
        page
    }

    pub(super) fn changed_at(&self, resource: &ResourceName) -> u64 {
        self.tables.get(resource).map_or(0, |table| *table.changed_at.borrow())
    }

    pub(super) fn changes(&self, resource: &ResourceName, after: u64) -> Option<(Vec<Arc<Event>>, u64)> {
        let Some(table) = self.tables.get(resource) else {
            return (after >= self.start).then(|| (Vec::new(), self.resource_version));
        };
        if after < table.complete_after {
            return None;
        }
        let first = table.changes.partition_point(|e| e.object.resource_version <= after);
        Some((table.changes.range(first..).cloned().collect(), self.resource_version))
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
    fn select<'a>(&'a self, namespace: Option<&str>) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let range = match namespace {
            None => self.namespaces.range::<str, _>(..),
            Some(one) => self.namespaces.range::<str, _>((Bound::Included(one), Bound::Included(one))),
        };
        range.flat_map(|(_, names)| names.values())
    }

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
