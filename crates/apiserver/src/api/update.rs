//! Replacement and patches.

use std::sync::Arc;

use serde_json::{Value, json};

use super::meta;
use super::{Api, Call, Done, Patch};
use crate::object::{self, Draft, Object};
use crate::status::Status;
use crate::store::Write;
use crate::{admission, defaults, fields, managed, patch, validate};

/// How often a write that raced with others is computed anew before the caller is told.
const ATTEMPTS: usize = 64;

impl Api {
    pub(crate) async fn update(&self, call: Call<'_>, name: &str, value: Value) -> Result<Done, Status> {
        let mut value = crate::convert::to_stored(value, call.resource);
        meta::check_type(&call, &mut value)?;
        meta::check_namespace(&call, &mut value)?;
        if object::name(&value) != name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                object::name(&value)
            )));
        }
        self.change(&call, name, false, |_| Ok(value.clone())).await
    }

    pub(crate) async fn patch(&self, call: Call<'_>, name: &str, patch: &Patch) -> Result<Done, Status> {
        if matches!(patch, Patch::Strategic(_)) && call.resource.custom().is_some() {
            let kind = "application/strategic-merge-patch+json";
            return Err(Status::unsupported_media_type(
                kind,
                "application/json-patch+json, application/merge-patch+json",
            ));
        }
        if let Patch::Apply { intent, manager, force } = patch {
            return self.apply(call, name, intent, manager, *force).await;
        }
        self.change(&call, name, false, |current| {
            let shown = crate::convert::to_version(current.clone(), call.resource);
            let mut patched =
                crate::convert::to_stored(patch::apply(call.resource, &shown, patch)?, call.resource);
            meta::check_type(&call, &mut patched)?;
            meta::check_namespace(&call, &mut patched)?;
            if object::name(&patched) != name {
                return Err(Status::bad_request("a patch may not change metadata.name"));
            }
            Ok(patched)
        })
        .await
    }

    /// Server-side apply; an object that is not there is made.
    async fn apply(
        &self,
        call: Call<'_>,
        name: &str,
        intent: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Done, Status> {
        let mut intent = managed::intent(&call, crate::convert::to_stored(intent.clone(), call.resource));
        meta::check_type(&call, &mut intent)?;
        meta::check_namespace(&call, &mut intent)?;
        if object::name(&intent).is_empty() {
            object::metadata_mut(&mut intent).insert("name".into(), json!(name));
        } else if object::name(&intent) != name {
            return Err(Status::bad_request(
                "an applied object's metadata.name has to be the name on the URL",
            ));
        }
        let call = Call { manager: Some(manager), ..call };
        loop {
            let merged = |current: &Value| managed::apply(&call, manager, current, &intent, force);
            match self.change(&call, name, true, merged).await {
                Err(status) if status.is_not_found() && call.subresource.is_none() => {}
                done => return done,
            }
            match self.create_managed(call, merged(&Value::Null)?, true).await {
                // Somebody was faster: it is a change after all.
                Err(status) if status.is_already_exists() => {}
                done => return done,
            }
        }
    }

    /// Computes the next state from the current one until no other writer comes between.
    async fn change(
        &self,
        call: &Call<'_>,
        name: &str,
        applied: bool,
        next: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<Done, Status> {
        let resource = call.resource;
        for _ in 0..ATTEMPTS {
            let current = self.get(resource, call.namespace, name)?;
            let old = current.value(resource);
            let new = next(&old)?;
            let pinned = check_preconditions(resource.name.as_str(), &current, &old, &new, name)?;
            let (mut new, mut warnings) = self.next_state(call, &old, new)?;
            let operation = admission::Operation::Update;
            let request = admission::Request { call, operation, name, object: &Value::Null, old: &old };
            if let Some(changed) =
                admission::mutate(self, admission::Request { object: &new, ..request }, &mut warnings).await?
            {
                let (again, more) = self.next_state(call, &old, changed)?;
                new = again;
                warnings.extend(more);
            }
            admission::validate(self, admission::Request { object: &new, ..request }, &mut warnings).await?;
            if !applied {
                managed::track(call, &old, &mut new);
            }
            match self.store_next(call, &current, new).await {
                Ok(object) => return Ok(Done { object, warnings, created: false }),
                Err(status) if status.is_conflict() && !pinned => {}
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(resource.name.as_str(), name))
    }

    async fn store_next(
        &self,
        call: &Call<'_>,
        current: &Arc<Object>,
        new: Value,
    ) -> Result<Arc<Object>, Status> {
        let finished = is_finished(call, &new);
        let draft = Draft::new(new);
        if draft.same_as(current) && !finished {
            return Ok(current.clone());
        }
        if call.options.dry_run {
            return Ok(draft.at(current.resource_version));
        }
        let over = current.resource_version;
        if finished {
            let (namespace, name) = (draft.namespace.clone(), draft.name.clone());
            return self.write(call.resource, &current.name, Write::Delete { namespace, name, over }).await;
        }
        self.write(call.resource, &current.name, Write::Update { draft, over }).await
    }

    /// What would be stored: server-owned fields kept, defaults added, everything checked.
    fn next_state(
        &self,
        call: &Call<'_>,
        old: &Value,
        mut new: Value,
    ) -> Result<(Value, Vec<String>), Status> {
        let resource = call.resource;
        let managers = object::metadata(&new)["managedFields"].clone();
        keep_metadata(old, &mut new);
        match call.subresource {
            Some("status") => new = only_status(old, &new),
            Some("finalize") => new = only_finalizers(old, &new),
            _ if resource.status => keep_status(old, &mut new),
            _ => {}
        }
        if call.subresource.is_some() && !managers.is_null() {
            object::metadata_mut(&mut new).insert("managedFields".into(), managers);
        }
        if call.subresource.is_none() && resource.is("namespaces") {
            // Its finalizers are the server's; whoever drops them leaves orphans behind.
            new["spec"] = old["spec"].clone();
        }
        let mut warnings = fields::check(call, &mut new, Some(old))?;
        defaults::apply(resource, &mut new, Some(old));
        let mut causes = meta::causes(resource, &new);
        causes.extend(validate::causes(resource, &new, Some(old).filter(|_| call.subresource.is_none())));
        if !causes.is_empty() {
            return Err(Status::invalid(&resource.group, &resource.kind, object::name(&new), causes));
        }
        warnings.extend(resource.custom().and_then(|c| c.deprecation.clone()));
        if call.subresource.is_none() {
            defaults::allocate(self, resource, &mut new)?;
        }
        if resource.generation && desired(old, resource.status) != desired(&new, resource.status) {
            let generation = object::metadata(old)["generation"].as_u64().unwrap_or(0) + 1;
            object::metadata_mut(&mut new).insert("generation".into(), json!(generation));
        }
        Ok((new, warnings))
    }
}

/// True when the caller named the version that it changes.
fn check_preconditions(
    resource: &str,
    current: &Object,
    old: &Value,
    new: &Value,
    name: &str,
) -> Result<bool, Status> {
    let asked = object::uid(new);
    if !asked.is_empty() && asked != object::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Status::conflict(resource, name, &why));
    }
    let version = object::metadata(new)["resourceVersion"].as_str().unwrap_or_default();
    if version.is_empty() {
        return Ok(false);
    }
    if version != current.resource_version.to_string() {
        return Err(Status::modified(resource, name));
    }
    Ok(object::metadata(old)["resourceVersion"] != object::metadata(new)["resourceVersion"])
}

/// Fields of the metadata that only the server writes.
fn keep_metadata(old: &Value, new: &mut Value) {
    let before = object::metadata(old);
    let metadata = object::metadata_mut(new);
    for owned in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        match &before[owned] {
            Value::Null => metadata.remove(owned),
            value => metadata.insert(owned.into(), value.clone()),
        };
    }
    metadata.retain(|_, v| !v.is_null());
}

fn keep_status(old: &Value, new: &mut Value) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        match old.get("status") {
            Some(status) => drop(new.insert("status".into(), status.clone())),
            None => drop(new.shift_remove("status")),
        }
    }
}

fn only_status(old: &Value, new: &Value) -> Value {
    let mut kept = old.clone();
    if let Some(kept) = kept.as_object_mut() {
        match new.get("status") {
            Some(status) if !status.is_null() => drop(kept.insert("status".into(), status.clone())),
            _ => drop(kept.shift_remove("status")),
        }
    }
    kept
}

/// `namespaces/finalize`.
fn only_finalizers(old: &Value, new: &Value) -> Value {
    let mut kept = old.clone();
    object::child_mut(&mut kept, "spec").insert("finalizers".into(), new["spec"]["finalizers"].clone());
    kept
}

/// What `metadata.generation` counts the changes of.
fn desired(value: &Value, without_status: bool) -> Value {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.shift_remove("metadata");
        if without_status {
            object.shift_remove("status");
        }
    }
    value
}

/// A marked object goes with its last finalizer.
fn is_finished(call: &Call<'_>, new: &Value) -> bool {
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let metadata = object::metadata(new);
    metadata["deletionTimestamp"].is_string()
        && empty(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && (!call.resource.is("namespaces") || empty(&new["spec"]["finalizers"]))
}
