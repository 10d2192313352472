//! What every namespace has: its default service account and the cluster's root certificate.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{Change, name_of};

/// The namespaces a cluster is born with.
pub(crate) const BASE: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

const ROOT_MAP: &str = "kube-root-ca.crt";

/// Makes what is missing.
pub(crate) fn reconcile(
    namespaces: &[Arc<Namespace>],
    accounts: &[Arc<ServiceAccount>],
    maps: &[Arc<ConfigMap>],
    root: &str,
) -> Vec<Change> {
    let known = |name: &&&str| namespaces.iter().any(|one| one.metadata.name.as_deref() == Some(**name));
    let mut changes: Vec<Option<Change>> = BASE
        .iter()
        .filter(|name| !known(name))
        .map(|name| Change::create(&Namespace { metadata: meta(None, name), ..Namespace::default() }))
        .collect();
    let living = namespaces.iter().filter(|one| one.metadata.deletion_timestamp.is_none());
    for namespace in living.map(|namespace| name_of(&namespace.metadata)) {
        let within = |meta: &ObjectMeta, name: &str| {
            meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
        };
        if !accounts.iter().any(|one| within(&one.metadata, "default")) {
            let metadata = meta(Some(namespace), "default");
            changes.push(Change::create(&ServiceAccount { metadata, ..ServiceAccount::default() }));
        }
        let data = Some(BTreeMap::from([("ca.crt".to_owned(), root.to_owned())]));
        match maps.iter().find(|one| within(&one.metadata, ROOT_MAP)) {
            Some(map) if map.data == data => {}
            Some(map) => changes.push(Change::replace(&ConfigMap { data, ..(**map).clone() })),
            None => {
                let metadata = meta(Some(namespace), ROOT_MAP);
                changes.push(Change::create(&ConfigMap { metadata, data, ..ConfigMap::default() }));
            }
        }
    }
    changes.into_iter().flatten().collect()
}

fn meta(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_gets_its_account_and_the_root() {
        let namespaces: Vec<Arc<Namespace>> = BASE
            .iter()
            .map(|name| Arc::new(Namespace { metadata: meta(None, name), ..Namespace::default() }))
            .collect();
        assert_eq!(reconcile(&[], &[], &[], "pem").len(), BASE.len());
        assert_eq!(reconcile(&namespaces, &[], &[], "pem").len(), 2 * BASE.len());
        let mut leaving = (*namespaces[0]).clone();
        leaving.metadata.deletion_timestamp = Some(crate::instant::time());
        let mut all = namespaces;
        all[0] = Arc::new(leaving);
        assert_eq!(reconcile(&all, &[], &[], "pem").len(), 2 * BASE.len() - 2);
    }
}
