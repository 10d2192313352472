//! What every namespace has: the cluster's root certificate. Its account `default` comes from the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{Change, name_of};

const ROOT_MAP: &str = "kube-root-ca.crt";

/// Makes what is missing.
pub(crate) fn reconcile(namespaces: &[Arc<Namespace>], maps: &[Arc<ConfigMap>], root: &str) -> Vec<Change> {
    let mut changes: Vec<Option<Change>> = Vec::new();
    let living = namespaces.iter().filter(|one| one.metadata.deletion_timestamp.is_none());
    for namespace in living.map(|namespace| name_of(&namespace.metadata)) {
        let within = |meta: &ObjectMeta, name: &str| {
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
        };
        let data = Some(BTreeMap::from([("ca.crt".to_owned(), root.to_owned())]));
        match maps.iter().find(|one| within(&one.metadata, ROOT_MAP)) {
            Some(map) if map.data == data => {}
            Some(map) => changes.push(Change::replace(&ConfigMap { data, ..(**map).clone() })),
            None => {
                let metadata = meta(namespace, ROOT_MAP);
                changes.push(Change::create(&ConfigMap { metadata, data, ..ConfigMap::default() }));
            }
        }
    }
    changes.into_iter().flatten().collect()
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_namespace_gets_the_root() {
        let namespaces = [
            object(json!({"metadata": {"name": "default"}})),
            object(json!({"metadata": {"name": "going", "deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        ];
        assert_eq!(reconcile(&namespaces, &[], "pem").len(), 1);
        let map = object(
            json!({"metadata": {"name": ROOT_MAP, "namespace": "default"}, "data": {"ca.crt": "old"}}),
        );
        let changes = reconcile(&namespaces, &[map], "pem");
        let [Change::Replace(_, map, _)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(map["data"]["ca.crt"], "pem");
    }
}
