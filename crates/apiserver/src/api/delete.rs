//! Deletion: at once, or by a mark that a node agent or a finalizer's owner answers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::meta::rfc3339;
use super::{Api, Call, DeleteOptions, Propagation, WriteOptions};
use crate::admission;
use crate::object::{self, Draft, Object};
use crate::resource::Resource;
use crate::selector::Selector;
use crate::status::Status;
use crate::store::Write;

/// Holds an object until the dependents that block its deletion are gone.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// Ten years: a longer wait is the same to anyone who waits.
const MAX_GRACE: u64 = 315_360_000;

/// What became of the object.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone; its last state.
    Gone(Arc<Object>),
    /// It is marked and goes later.
    Marked(Arc<Object>),
}

impl Deleted {
    pub(crate) fn object(&self) -> &Arc<Object> {
        let (Self::Gone(object) | Self::Marked(object)) = self;
        object
    }
}

impl Api {
    pub(crate) async fn delete(
        &self,
        call: Call<'_>,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Deleted, Status> {
        let resource = call.resource;
        if resource.is("namespaces") && matches!(name, "default" | "kube-system" | "kube-public") {
            return Err(Status::forbidden("namespaces", name, "this namespace may not be deleted"));
        }
        loop {
            let current = self.get(resource, call.namespace, name)?;
            let old = current.value(resource);
            check(resource, &current, &old, &options)?;
            let grace = grace_period(resource, &old, &options);
            let foreground = options.propagation == Propagation::Foreground;
            let waits = grace > 0 || foreground || has_finalizers(resource, &old);
            let call = Call { options: WriteOptions { dry_run: options.dry_run, ..call.options }, ..call };
            admission::delete(self, &call, name, &old).await?;
            if options.dry_run {
                return Ok(Deleted::Gone(current));
            }
            if options.propagation == Propagation::Orphan {
                self.orphan_dependents(call, object::uid(&old)).await?;
            }
            let over = current.resource_version;
            let done = if waits {
                let Some(marked) = mark(resource, &old, grace, foreground) else {
                    return Ok(Deleted::Marked(current));
                };
                let draft = Draft::new(marked);
                self.write(resource, name, Write::Update { draft, over }).await.map(Deleted::Marked)
            } else {
                let (namespace, name) = (current.namespace.clone(), current.name.clone());
                self.write(resource, &name.clone(), Write::Delete { namespace, name, over })
                    .await
                    .map(Deleted::Gone)
            };
            match done {
                Err(status) if status.is_conflict() && options.resource_version.is_none() => {}
                Ok(deleted) => {
                    if foreground {
                        self.store.announce_removal();
                    }
                    self.delete_instances(&call, &old).await;
                    return Ok(deleted);
                }
                Err(status) => return Err(status),
            }
        }
    }

    /// Deletes everything selected; what vanishes meanwhile is fine.
    pub(crate) async fn delete_collection(
        &self,
        call: Call<'_>,
        selector: &Selector,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let namespace = Some(call.namespace).filter(|ns| !ns.is_empty());
        let mut objects = self.list(call.resource, namespace, selector).objects;
        for object in &mut objects {
            let call = Call { namespace: &object.namespace.clone(), ..call };
            match self.delete(call, &object.name.clone(), options.clone()).await {
                Ok(deleted) => *object = deleted.object().clone(),
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(objects)
    }

    /// A CustomResourceDefinition takes its objects along.
    async fn delete_instances(&self, call: &Call<'_>, definition: &Value) {
        if !call.resource.is(crate::catalog::CRDS) {
            return;
        }
        let text = |key: &str| definition["spec"][key].as_str().unwrap_or_default().to_owned();
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let resource = crate::resource::ResourceName::new(&text("group"), plural);
        for object in self.store.list(&resource, None).objects {
            let (namespace, name) = (object.namespace.clone(), object.name.clone());
            let write = Write::Delete { namespace, name, over: object.resource_version };
            if let Err(why) = self.store.write(&resource, write).await {
                tracing::warn!(%resource, name = &*object.name, ?why, "an object of a deleted definition stays behind");
            }
        }
    }

    async fn orphan_dependents(&self, call: Call<'_>, uid: &str) -> Result<(), Status> {
        for resource in self.catalog().stored() {
            let objects = self.store.list(&resource.name, None).objects;
            for object in objects.iter().filter(|o| o.ties.owners.iter().any(|owner| &*owner.uid == uid)) {
                let mut value = object.value(resource);
                let Some(owners) =
                    object::metadata_mut(&mut value).get_mut("ownerReferences").and_then(Value::as_array_mut)
                else {
                    continue;
                };
                owners.retain(|owner| owner["uid"] != uid);
                let call = Call { resource, namespace: &object.namespace, subresource: None, ..call };
                match self.update(call, &object.name, value).await {
                    Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn check(resource: &Resource, current: &Object, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let fail = |what: &str, asked: &str, found: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {found}");
        Err(Status::conflict(resource.name.as_str(), &current.name, &why))
    };
    if let Some(uid) = options.uid.as_deref()
        && uid != object::uid(old)
    {
        return fail("UID", uid, object::uid(old));
    }
    let version = current.resource_version.to_string();
    match options.resource_version.as_deref() {
        Some(asked) if asked != version => fail("ResourceVersion", asked, &version),
        _ => Ok(()),
    }
}

/// Seconds to wait for the node agent; only pods that run on a node have any.
fn grace_period(resource: &Resource, old: &Value, options: &DeleteOptions) -> u64 {
    let over = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !resource.is("pods") || old["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() || over {
        return 0;
    }
    options.grace_period_seconds.or(old["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30)
}

fn has_finalizers(resource: &Resource, old: &Value) -> bool {
    let any = |list: &Value| list.as_array().is_some_and(|l| !l.is_empty());
    any(&object::metadata(old)["finalizers"]) || resource.is("namespaces") && any(&old["spec"]["finalizers"])
}

/// The object with the mark; `None` when it has it already and nothing becomes sooner.
fn mark(resource: &Resource, old: &Value, grace: u64, foreground: bool) -> Option<Value> {
    let metadata = object::metadata(old);
    let marked = metadata["deletionTimestamp"].is_string();
    let held = metadata["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == FOREGROUND));
    let mut new = old.clone();
    if foreground && !held {
        let finalizers = object::metadata_mut(&mut new).entry("finalizers").or_insert_with(|| json!([]));
        finalizers.as_array_mut()?.push(json!(FOREGROUND));
    }
    if marked && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) <= grace {
        return (foreground && !held).then_some(new);
    }
    let end = time::OffsetDateTime::now_utc() + std::time::Duration::from_secs(grace.min(MAX_GRACE));
    let metadata = object::metadata_mut(&mut new);
    metadata.insert("deletionTimestamp".into(), json!(rfc3339(end)));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    if let Some(generation) = metadata.get("generation").and_then(Value::as_u64) {
        metadata.insert("generation".into(), json!(generation + 1));
    }
    if resource.is("namespaces") {
        new["status"]["phase"] = json!("Terminating");
    }
    Some(new)
}
