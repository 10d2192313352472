//! Who owns whom, and pods as their owners make them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::{Kind, name_of};

/// The reference by which `owner` controls what it makes.
pub(super) fn controller<T: Kind>(owner: &T) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        name: name_of(meta).to_owned(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether `meta` is controlled by the object with this uid.
pub(super) fn controls(uid: Option<&String>, meta: &ObjectMeta) -> bool {
    let controlling =
        meta.owner_references.iter().flatten().find(|reference| reference.controller == Some(true));
    uid.is_some_and(|uid| controlling.is_some_and(|reference| reference.uid == *uid))
}

/// The pods that an object controls, those on their way out among them.
pub(super) fn pods_of<'a, T: Kind>(owner: &T, pods: &'a [Arc<Pod>]) -> Vec<&'a Pod> {
    let uid = owner.metadata().uid.as_ref();
    pods.iter().map(AsRef::as_ref).filter(|pod| controls(uid, &pod.metadata)).collect()
}

/// A pod of the template, named by the server after its owner.
pub(super) fn pod<T: Kind>(owner: &T, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", name_of(owner.metadata()))),
            namespace: owner.metadata().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![controller(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// The pod's phase, or nothing.
pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Neither on its way out nor finished.
pub(super) fn is_active(pod: &Pod) -> bool {
    !is_leaving(pod) && !matches!(phase(pod), "Succeeded" | "Failed")
}

/// On its way out.
pub(super) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// A count as the API writes it.
pub(super) fn count(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
