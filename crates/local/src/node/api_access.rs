//! The volume that gives every container its service account: token, root certificate, namespace.

use k8s_openapi::api::core::v1::{Pod, Volume, VolumeMount};

/// Where programs look for their service account.
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const NAME: &str = "kube-api-access";

/// Adds the volume and its mounts where admission has not, and the pod does not refuse them.
pub(super) fn add(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    if spec.automount_service_account_token == Some(false) {
        return;
    }
    let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
    let mut added = false;
    for container in containers {
        let mounts = container.volume_mounts.get_or_insert_default();
        if mounts.iter().all(|mount| mount.mount_path.trim_end_matches('/') != PLACE) {
            added = true;
            mounts.push(VolumeMount {
                name: NAME.to_owned(),
                mount_path: PLACE.to_owned(),
                read_only: Some(true),
                ..VolumeMount::default()
            });
        }
    }
    if added && let Some(volume) = volume() {
        spec.volumes.get_or_insert_default().push(volume);
    }
}

fn volume() -> Option<Volume> {
    let volume = serde_json::json!({"name": NAME, "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}});
    serde_json::from_value(volume).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_container_gets_its_account_once() {
        let pod = json!({"spec": {"containers": [{"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "kube-api-access-x", "mountPath": PLACE}]}]}});
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        add(&mut pod);
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.volumes.as_ref().unwrap().len(), 1);
        assert!(spec.containers.iter().all(|one| one.volume_mounts.as_ref().unwrap().len() == 1));
        let before = pod.clone();
        add(&mut pod);
        assert_eq!(pod, before);
        let mut refusing: Pod = serde_json::from_value(
            json!({"spec": {"automountServiceAccountToken": false, "containers": [{"name": "a"}]}}),
        )
        .unwrap();
        let before = refusing.clone();
        add(&mut refusing);
        assert_eq!(refusing, before);
    }
}
