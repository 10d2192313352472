//! Ending namespaces: what is in them is deleted, what is left is told in their conditions, and when nothing is they go.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Housekeeper;
use crate::api::{Call, DeleteOptions, now};
use crate::object::{self, Object};
use crate::status::Status;

/// What holds a namespace.
#[derive(Default)]
struct Remains {
    /// Per resource how many objects.
    objects: BTreeMap<String, usize>,
    /// Per finalizer how many objects wait for its owner.
    finalizers: BTreeMap<String, usize>,
    /// Deletions that were refused.
    failures: Vec<String>,
}

impl Housekeeper<'_> {
    /// True when something is left to do soon.
    pub(super) async fn end_namespaces(&self) -> bool {
        let mut left = false;
        for namespace in self.api.store.list(&"namespaces".into(), None).objects {
            if namespace.ties.deleted {
                left |= self.end(&namespace).await.unwrap_or(true);
            }
        }
        left
    }

    /// Deletes what is in the namespace and, when it is empty, lets it go. True when to try again.
    async fn end(&self, namespace: &Object) -> Result<bool, Status> {
        let remains = self.empty(namespace).await;
        let resource = self.api.catalog().by_name(&"namespaces".into(), None);
        let resource = resource.ok_or_else(Status::no_such_path)?;
        let mut value = self.api.get(&resource, "", &namespace.name)?.value(&resource);
        let part = if remains.objects.is_empty() {
            value["spec"]["finalizers"] = json!([]);
            "finalize"
        } else {
            if !remains.tell(&mut value) {
                return Ok(!remains.failures.is_empty());
            }
            "status"
        };
        let call = Call { subresource: Some(part), ..self.call(&resource, "") };
        match self.api.update(call, &namespace.name, value).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(!remains.failures.is_empty()),
        }
    }

    async fn empty(&self, namespace: &Object) -> Remains {
        let catalog = self.api.catalog();
        let mut remains = Remains::default();
        for resource in catalog.stored().filter(|r| r.namespaced) {
            let objects = self.api.store.list(&resource.name, Some(&namespace.name)).objects;
            for object in objects {
                match self.delete(resource, &object, DeleteOptions::default()).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(status) => remains.failures.push(status.message),
                }
                *remains.objects.entry(resource.name.to_string()).or_default() += 1;
                let value = object.neutral().unwrap_or_default();
                for finalizer in object::metadata(&value)["finalizers"].as_array().into_iter().flatten() {
                    let name = finalizer.as_str().unwrap_or_default().to_owned();
                    *remains.finalizers.entry(name).or_default() += 1;
                }
            }
        }
        remains
    }
}

impl Remains {
    /// Writes the conditions; false when they say so already.
    fn tell(&self, namespace: &mut Value) -> bool {
        let counts = |all: &BTreeMap<String, usize>, word: &str| {
            let listed: Vec<String> =
                all.iter().map(|(name, count)| format!("{name} {word} {count} resource instances")).collect();
            listed.join(", ")
        };
        let conditions = [
            (
                "NamespaceDeletionDiscoveryFailure",
                None,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_owned(),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_owned(),
            ),
            (
                "NamespaceDeletionContentFailure",
                (!self.failures.is_empty())
                    .then(|| self.failures.join("; "))
                    .map(|why| ("ContentDeletionFailed", why)),
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_owned(),
            ),
            (
                "NamespaceContentRemaining",
                Some((
                    "SomeResourcesRemain",
                    format!("Some resources are remaining: {}", counts(&self.objects, "has")),
                )),
                "ContentRemoved",
                "All content successfully removed".to_owned(),
            ),
            (
                "NamespaceFinalizersRemaining",
                (!self.finalizers.is_empty()).then(|| {
                    let listed = counts(&self.finalizers, "in");
                    (
                        "SomeFinalizersRemain",
                        format!("Some content in the namespace has finalizers remaining: {listed}"),
                    )
                }),
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished".to_owned(),
            ),
        ];
        let old = namespace["status"]["conditions"].clone();
        let known =
            |kind: &str| old.as_array().into_iter().flatten().find(|one| one["type"] == kind).cloned();
        let mut told: Vec<Value> = Vec::new();
        for (kind, failed, fine, message) in conditions {
            let (status, reason, message) = match failed {
                Some((reason, message)) => ("True", reason, message),
                None => ("False", fine, message),
            };
            let before = known(kind).filter(|one| one["status"] == status);
            let since = before.and_then(|one| one["lastTransitionTime"].as_str().map(str::to_owned));
            told.push(
                json!({"type": kind, "status": status, "lastTransitionTime": since.unwrap_or_else(now),
                "reason": reason, "message": message}),
            );
        }
        let told = Value::Array(told);
        let news = told != old;
        namespace["status"]["conditions"] = told;
        news
    }
}
