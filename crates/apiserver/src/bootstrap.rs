//! The objects that every cluster has from its first start.

use serde_json::{Value, json};

use crate::access::User;
use crate::api::{Api, Call, WriteOptions};
use crate::status::Status;

/// Makes what is missing.
pub(crate) async fn run(api: &Api, ca: &str) -> Result<(), Status> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(api, "namespaces", json!({"metadata": {"name": name}})).await?;
    }
    let public =
        json!({"metadata": {"name": "kube-root-ca.crt", "namespace": "kube-public"}, "data": {"ca.crt": ca}});
    ensure(api, "configmaps", public).await?;
    for (name, rules) in roles() {
        let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
        let role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
        ensure(api, "clusterroles.rbac.authorization.k8s.io", role).await?;
    }
    for (name, role, group) in [
        ("cluster-admin", "cluster-admin", "system:masters"),
        ("system:basic-user", "system:basic-user", "system:authenticated"),
        ("system:discovery", "system:discovery", "system:authenticated"),
        ("system:public-info-viewer", "system:public-info-viewer", "system:unauthenticated"),
    ] {
        let binding = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "Group", "name": group}],
        });
        ensure(api, "clusterrolebindings.rbac.authorization.k8s.io", binding).await?;
    }
    Ok(())
}

async fn ensure(api: &Api, resource: &str, object: Value) -> Result<(), Status> {
    let resource = api.catalog().by_name(&resource.into(), None).ok_or_else(Status::no_such_path)?;
    let user = User::master("system:apiserver");
    let namespace = crate::object::namespace(&object).to_owned();
    let options = WriteOptions::default();
    let call = Call {
        resource: &resource,
        namespace: &namespace,
        user: &user,
        subresource: None,
        options,
        manager: None,
    };
    match api.create(call, object).await {
        Err(status) if !status.is_already_exists() => Err(status),
        _ => Ok(()),
    }
}

/// Kubernetes' roles for users, and the ones every caller has.
fn roles() -> Vec<(&'static str, Value)> {
    let read = json!(["get", "list", "watch"]);
    let write = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    let groups =
        json!(["", "apps", "autoscaling", "batch", "discovery.k8s.io", "networking.k8s.io", "policy"]);
    let plain = json!([
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/log",
        "replicationcontrollers",
        "serviceaccounts",
        "services",
        "daemonsets",
        "deployments",
        "replicasets",
        "statefulsets",
        "horizontalpodautoscalers",
        "cronjobs",
        "jobs",
        "endpointslices",
        "ingresses",
        "networkpolicies",
        "poddisruptionbudgets",
    ]);
    let with = |more: &[&str]| {
        let mut all = plain.as_array().cloned().unwrap_or_default();
        all.extend(more.iter().map(|r| json!(r)));
        Value::Array(all)
    };
    let changing = with(&[
        "secrets",
        "pods/exec",
        "pods/portforward",
        "pods/attach",
        "deployments/scale",
        "replicasets/scale",
    ]);
    let own_roles = json!({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": write});
    let namespaces = json!({"apiGroups": [""], "resources": ["namespaces"], "verbs": read});
    let reviews = json!({"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"]});
    let view = json!({"apiGroups": groups, "resources": plain, "verbs": read});
    let edit = json!({"apiGroups": groups, "resources": changing, "verbs": write});
    let paths = |paths: &[&str]| json!([{"nonResourceURLs": paths, "verbs": ["get"]}]);
    vec![
        (
            "cluster-admin",
            json!([
                {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]},
            ]),
        ),
        ("admin", json!([edit, own_roles, namespaces])),
        ("edit", json!([edit, namespaces])),
        ("view", json!([view, namespaces])),
        ("system:basic-user", json!([reviews])),
        (
            "system:discovery",
            paths(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
            ]),
        ),
        ("system:public-info-viewer", paths(&["/healthz", "/livez", "/readyz", "/version"])),
    ]
}
