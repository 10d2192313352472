//! Objects whose owners are gone go as well.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::Deletion;

/// An object that may be owned.
pub(crate) struct Owned<'a> {
    pub(crate) meta: &'a ObjectMeta,
    pub(crate) deletion: Deletion,
}

/// The objects to delete: they have owners, and none of the owners is there any more.
///
/// `living` has the uid of every object of the kinds in `kinds`. An owner of any other kind counts as alive: what
/// cannot be seen is not judged.
pub(crate) fn orphans(owned: &[Owned<'_>], living: &BTreeSet<&str>, kinds: &[&str]) -> Vec<Deletion> {
    owned
        .iter()
        .filter(|object| {
            let owners = object.meta.owner_references.iter().flatten();
            let mut known = owners.clone().peekable();
            known.peek().is_some()
                && object.meta.deletion_timestamp.is_none()
                && owners.into_iter().all(|owner| {
                    kinds.contains(&&*owner.kind) && !living.contains(&*owner.uid)
                })
        })
        .map(|object| object.deletion.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn pod(name: &str, owners: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "ownerReferences": owners}}))
            .unwrap()
    }

    fn owner(kind: &str, uid: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": uid})
    }

    #[test]
    fn only_objects_that_lost_every_owner_go() {
        let pods = [
            pod("free", json!([])),
            pod("kept", json!([owner("ReplicaSet", "alive")])),
            pod("lost", json!([owner("ReplicaSet", "dead")])),
            pod("shared", json!([owner("ReplicaSet", "dead"), owner("ReplicaSet", "alive")])),
            pod("foreign", json!([owner("CronTab", "unknown")])),
        ];
        let owned: Vec<Owned<'_>> =
            pods.iter().map(|pod| Owned { meta: &pod.metadata, deletion: api::deletion(pod) }).collect();
        let gone = orphans(&owned, &BTreeSet::from(["alive"]), &["ReplicaSet"]);
        assert_eq!(gone.iter().map(|deletion| &*deletion.name).collect::<Vec<_>>(), ["lost"]);
    }
}
