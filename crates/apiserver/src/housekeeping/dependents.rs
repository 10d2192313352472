//! Garbage collection: dependents of deleted owners go, and owners that are deleted in the foreground go after those that
//! block them (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/>).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Housekeeper;
use crate::api::{DeleteOptions, FOREGROUND, Propagation};
use crate::object::{self, Object, Owner};
use crate::resource::Resource;
use crate::status::Status;

/// An object that has owners, or is one that waits for its dependents.
struct Item {
    resource: Arc<Resource>,
    object: Arc<Object>,
}

impl Housekeeper<'_> {
    /// True when something is left to do soon.
    pub(super) async fn collect_dependents(&self) -> bool {
        // Dependents first: whatever owned them then is found by the second look, unless it was deleted since.
        let items: Vec<Item> = self.everything().filter_map(|(r, o)| Item::of(r, o)).collect();
        if items.is_empty() {
            return false;
        }
        let wanted: HashSet<&str> = items.iter().flat_map(|item| item.owners()).map(|o| &*o.uid).collect();
        let present: HashSet<&str> =
            self.everything().filter_map(|(_, o)| wanted.get(&*o.ties.uid).copied()).collect();
        let mut left = false;
        for item in items.iter().filter(|item| !item.owners().is_empty()) {
            if !item.owners().iter().any(|owner| present.contains(&*owner.uid)) {
                left |= self.remove(item, Propagation::Background).await.is_err();
            }
        }
        left | self.end_owners(&items).await
    }

    /// Owners that wait: their blocking dependents are deleted, and when there are none the owner is let go.
    async fn end_owners(&self, items: &[Item]) -> bool {
        let mut dependents: HashMap<&str, Vec<&Item>> = HashMap::new();
        for item in items {
            for owner in item.owners() {
                dependents.entry(&owner.uid).or_default().push(item);
            }
        }
        let mut left = false;
        for owner in items.iter().filter(|item| item.waits()) {
            let uid = owner.uid();
            let own = dependents.get(uid).map(Vec::as_slice).unwrap_or_default();
            let blocks = |item: &&&Item| item.owners().iter().any(|o| &*o.uid == uid && o.blocks);
            let blocking: Vec<&&Item> = own.iter().filter(blocks).collect();
            if blocking.is_empty() {
                left |= self.let_go(owner).await.is_err();
            }
            for item in blocking.into_iter().filter(|item| !item.object.ties.deleted) {
                let has_dependents = dependents.contains_key(item.uid());
                let policy = if has_dependents { Propagation::Foreground } else { Propagation::Background };
                left |= self.remove(item, policy).await.is_err();
            }
        }
        left
    }

    fn everything(&self) -> impl Iterator<Item = (Arc<Resource>, Arc<Object>)> + '_ {
        let resources: Vec<Arc<Resource>> =
            self.api.catalog().stored().filter(|r| !r.is("events")).cloned().collect();
        resources.into_iter().flat_map(|resource| {
            let objects = self.api.store.list(&resource.name, None).objects;
            objects.into_iter().map(move |object| (resource.clone(), object))
        })
    }

    async fn remove(&self, item: &Item, propagation: Propagation) -> Result<(), Status> {
        let options = DeleteOptions {
            resource_version: Some(item.object.resource_version.to_string()),
            propagation,
            ..DeleteOptions::default()
        };
        self.delete(&item.resource, &item.object, options).await.map(drop)
    }

    async fn let_go(&self, owner: &Item) -> Result<(), Status> {
        let mut value = owner.object.value(&owner.resource);
        let finalizers = object::metadata_mut(&mut value).get_mut("finalizers").and_then(Value::as_array_mut);
        finalizers.into_iter().for_each(|list| list.retain(|one| one != FOREGROUND));
        value["metadata"]["resourceVersion"] = json!(owner.object.resource_version.to_string());
        let call = self.call(&owner.resource, &owner.object.namespace);
        match self.api.update(call, &owner.object.name, value).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}

impl Item {
    fn of(resource: Arc<Resource>, object: Arc<Object>) -> Option<Self> {
        let item = Self { resource, object };
        (item.waits() || !item.owners().is_empty()).then_some(item)
    }

    fn uid(&self) -> &str {
        &self.object.ties.uid
    }

    fn owners(&self) -> &[Owner] {
        &self.object.ties.owners
    }

    /// Deleted, and held by the finalizer.
    fn waits(&self) -> bool {
        self.object.ties.deleted && self.object.ties.foreground
    }
}
