//! What the server does by itself: ending namespaces are emptied, dependents of deleted owners are collected, old events go.
//! In Kubernetes these are parts of the controller manager that no user ever sees.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::access::User;
use crate::api::{Api, Call, DeleteOptions, WriteOptions};
use crate::object::{self, Object};
use crate::resource::Resource;
use crate::status::Status;

/// Events live an hour, as in Kubernetes.
const EVENT_LIFE: time::Duration = time::Duration::hours(1);
/// Retries of what did not work, and the age of events.
const SLOW: Duration = Duration::from_secs(60);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(20);

/// Runs until the server stops.
pub(crate) async fn run(api: Arc<Api>, mut stopped: watch::Receiver<bool>) {
    let mut changed = api.store.removals();
    let user = User::master("system:serviceaccount:kube-system:housekeeping");
    let keeper = Housekeeper { api: &api, user: &user };
    loop {
        changed.mark_unchanged();
        let again = keeper.pass().await;
        tokio::select! {
            () = crate::server::until(&mut stopped) => return,
            done = changed.changed() => if done.is_err() { return },
            () = tokio::time::sleep(if again { GATHER * 10 } else { SLOW }) => {}
        }
        tokio::select! {
            () = crate::server::until(&mut stopped) => return,
            () = tokio::time::sleep(GATHER) => {}
        }
    }
}

struct Housekeeper<'a> {
    api: &'a Api,
    user: &'a User,
}

impl Housekeeper<'_> {
    /// One look at everything; true when something is left to do soon.
    async fn pass(&self) -> bool {
        let mut left = self.end_namespaces().await;
        left |= self.collect_dependents().await;
        self.forget_events().await;
        left
    }

    async fn end_namespaces(&self) -> bool {
        let mut left = false;
        for namespace in self.api.store.list(&"namespaces".into(), None, None, usize::MAX).objects {
            let Some(value) = namespace.neutral() else { continue };
            if object::metadata(&value)["deletionTimestamp"].is_string()
                && self.end(&namespace).await.is_err()
            {
                left = true;
            }
        }
        left
    }

    /// Deletes what is in the namespace and, when it is empty, lets it go.
    async fn end(&self, namespace: &Object) -> Result<(), Status> {
        let catalog = self.api.catalog();
        let mut empty = true;
        for resource in catalog.stored().filter(|r| r.namespaced) {
            for object in self.api.store.list(&resource.name, Some(&namespace.name), None, usize::MAX).objects
            {
                let deleted = self.delete(resource, &object, DeleteOptions::default()).await?;
                empty &= deleted;
            }
        }
        if !empty {
            return Ok(());
        }
        let resource = catalog.by_name(&"namespaces".into(), None).ok_or_else(Status::no_such_path)?;
        let mut value = self.api.get(&resource, "", &namespace.name)?.value(&resource);
        value["spec"]["finalizers"] = json!([]);
        let call = Call { subresource: Some("finalize"), ..self.call(&resource, "") };
        match self.api.update(call, &namespace.name, value).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }

    /// Objects whose owners are all gone go, too.
    async fn collect_dependents(&self) -> bool {
        let catalog = self.api.catalog();
        let everything = || {
            let resources = catalog.stored().filter(|r| !r.is("events"));
            resources.flat_map(|r| {
                self.api.store.list(&r.name, None, None, usize::MAX).objects.into_iter().map(move |o| (r, o))
            })
        };
        // Dependents first: whatever owned them then is found by the second look, unless it was deleted since.
        let mut owned: Vec<(&Arc<Resource>, Arc<Object>, Vec<String>)> = Vec::new();
        for (resource, object) in everything() {
            let owners = object.neutral().map(|value| owner_uids(&value)).unwrap_or_default();
            if !owners.is_empty() {
                owned.push((resource, object, owners));
            }
        }
        if owned.is_empty() {
            return false;
        }
        let uids: HashSet<String> = everything()
            .filter_map(|(_, o)| o.neutral().map(|value| object::uid(&value).to_owned()))
            .collect();
        let mut left = false;
        for (resource, object, owners) in owned {
            if owners.iter().any(|owner| uids.contains(owner)) {
                continue;
            }
            let options = DeleteOptions {
                resource_version: Some(object.resource_version.to_string()),
                ..DeleteOptions::default()
            };
            left |= self.delete(resource, &object, options).await.is_err();
        }
        left
    }

    async fn forget_events(&self) {
        let Some(resource) = self.api.catalog().by_name(&"events".into(), None) else { return };
        let oldest = crate::api::rfc3339(time::OffsetDateTime::now_utc() - EVENT_LIFE);
        for event in self.api.store.list(&resource.name, None, None, usize::MAX).objects {
            let value = event.neutral().unwrap_or_default();
            let at =
                value["lastTimestamp"].as_str().or(object::metadata(&value)["creationTimestamp"].as_str());
            if at.is_some_and(|at| at < oldest.as_str())
                && let Err(status) = self.delete(&resource, &event, DeleteOptions::default()).await
            {
                tracing::debug!(%status, "an old event stays until the next pass");
            }
        }
    }

    /// True when the object is gone, false when it is marked.
    async fn delete(
        &self,
        resource: &Arc<Resource>,
        object: &Object,
        options: DeleteOptions,
    ) -> Result<bool, Status> {
        match self.api.delete(self.call(resource, &object.namespace), &object.name, options).await {
            Ok(crate::api::Deleted::Gone(_)) => Ok(true),
            Ok(crate::api::Deleted::Marked(_)) => Ok(false),
            Err(status) if status.is_not_found() => Ok(true),
            Err(status) => Err(status),
        }
    }

    fn call<'a>(&'a self, resource: &'a Arc<Resource>, namespace: &'a str) -> Call<'a> {
        Call { resource, namespace, user: self.user, subresource: None, options: WriteOptions::default() }
    }
}

fn owner_uids(value: &Value) -> Vec<String> {
    let owners = object::metadata(value)["ownerReferences"].as_array().into_iter().flatten();
    owners.filter_map(|owner| owner["uid"].as_str().map(str::to_owned)).collect()
}
