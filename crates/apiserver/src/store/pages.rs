//! Pages of lists: a part of a resource's objects as they were at a resource version.
//!
//! Past states are not kept: they are what is there now with the remembered changes undone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::tables::{Change, Table, Tables};
use crate::object::Object;
use crate::resource::ResourceName;

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice<'a> {
    /// `None`: of all namespaces.
    pub(crate) namespace: Option<&'a str>,
    /// The resource version whose state is asked for; `None` for the newest. Not newer than that.
    pub(crate) at: Option<u64>,
    /// Only what follows this namespace and name.
    pub(crate) after: Option<(&'a str, &'a str)>,
    /// Objects at most.
    pub(crate) limit: usize,
}

/// Part of a list, in the order of namespace and name.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// Resource version of the state that was read.
    pub(crate) resource_version: u64,
    /// Objects of the whole list, in that state.
    pub(crate) total: usize,
    /// Others follow.
    pub(crate) more: bool,
}

/// Namespace and name.
type Key<'a> = (&'a str, &'a str);
/// What the objects were that have changed since; `None` where there was none.
type Undone<'a> = BTreeMap<Key<'a>, Option<&'a Arc<Object>>>;

impl Tables {
    /// `None` when the state is no longer remembered.
    pub(super) fn page(&self, resource: &ResourceName, slice: &Slice<'_>) -> Option<Page> {
        let resource_version = slice.at.unwrap_or(self.resource_version);
        let Some(table) = self.tables.get(resource) else {
            let nothing = Page { objects: Vec::new(), resource_version, total: 0, more: false };
            return (resource_version >= self.start).then_some(nothing);
        };
        let undone = table.undone(resource_version, slice.namespace)?;
        let was = undone.values().filter(|before| before.is_some()).count();
        let is = undone.keys().filter(|(namespace, name)| table.has(namespace, name)).count();
        let total = table.count(slice.namespace) + was - is;
        let mut all = table.at(&undone, slice);
        let objects: Vec<Arc<Object>> = all.by_ref().take(slice.limit).cloned().collect();
        let more = all.next().is_some();
        Some(Page { objects, resource_version, total, more })
    }
}

impl Table {
    fn undone(&self, at: u64, namespace: Option<&str>) -> Option<Undone<'_>> {
        if at < self.complete_after {
            return None;
        }
        let first = self.changes.partition_point(|event| event.object.resource_version <= at);
        let mut undone = Undone::new();
        for event in self.changes.range(first..) {
            let key = (&*event.object.namespace, &*event.object.name);
            if namespace.is_none_or(|wanted| wanted == key.0) {
                debug_assert_eq!(event.before.is_none(), event.change == Change::Added);
                undone.entry(key).or_insert(event.before.as_ref());
            }
        }
        Some(undone)
    }

    fn has(&self, namespace: &str, name: &str) -> bool {
        self.namespaces.get(namespace).is_some_and(|names| names.contains_key(name))
    }

    fn count(&self, namespace: Option<&str>) -> usize {
        match namespace {
            Some(one) => self.namespaces.get(one).map_or(0, BTreeMap::len),
            None => self.namespaces.values().map(BTreeMap::len).sum(),
        }
    }

    /// The objects of a slice, with the changes undone.
    fn at<'a>(
        &'a self,
        undone: &'a Undone<'a>,
        slice: &Slice<'a>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let after = slice.after;
        let mut past = undone
            .iter()
            .filter(move |(key, _)| after.is_none_or(|after| **key > after))
            .filter_map(|(_, before)| *before)
            .peekable();
        let mut present = self
            .following(slice.namespace, after)
            .filter(|object| !undone.contains_key(&key(object)))
            .peekable();
        std::iter::from_fn(move || match (past.peek(), present.peek()) {
            (Some(one), Some(other)) if key(one) > key(other) => present.next(),
            (Some(_), _) => past.next(),
            (None, _) => present.next(),
        })
    }

    /// The objects there are now, after a namespace and name.
    pub(super) fn following<'a>(
        &'a self,
        namespace: Option<&'a str>,
        after: Option<Key<'a>>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let first = after.map(|(namespace, _)| namespace);
        let range = match (namespace, first) {
            (Some(one), _) => (Bound::Included(one), Bound::Included(one)),
            (None, Some(first)) => (Bound::Included(first), Bound::Unbounded),
            (None, None) => (Bound::Unbounded, Bound::Unbounded),
        };
        let namespaces = self.namespaces.range::<str, _>(range);
        let left = namespaces.filter(move |(namespace, _)| first.is_none_or(|first| &***namespace >= first));
        left.flat_map(move |(namespace, names)| {
            let from = match after {
                Some((first, name)) if first == &**namespace => Bound::Excluded(name),
                _ => Bound::Unbounded,
            };
            names.range::<str, _>((from, Bound::Unbounded)).map(|(_, object)| object)
        })
    }
}

fn key(object: &Object) -> Key<'_> {
    (&object.namespace, &object.name)
}
