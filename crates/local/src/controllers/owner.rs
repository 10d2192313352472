//! Who owns whom.

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
