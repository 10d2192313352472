//! Manifests into the embedded API server: created where they are missing, merged where they differ.

use lateen_apiserver::{Client, Patch, ResourceName, Status};
use serde_json::Value;

/// An object that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {message}")]
pub struct ApplyError {
    kind: String,
    name: String,
    message: String,
}

/// Applies the objects: first those that others need, each kind of them at once.
pub(crate) async fn all(client: &Client, objects: &[Value]) -> Result<(), ApplyError> {
    let (first, then): (Vec<&Value>, Vec<&Value>) = objects.iter().partition(|object| {
        matches!(object["kind"].as_str(), Some("CustomResourceDefinition" | "Namespace"))
    });
    for step in [first, then] {
        let applied = step.into_iter().map(|object| async move {
            one(client, object).await.map_err(|status| ApplyError {
                kind: text(&object["kind"]),
                name: text(&object["metadata"]["name"]),
                message: status.message,
            })
        });
        futures::future::try_join_all(applied).await?;
    }
    Ok(())
}

async fn one(client: &Client, object: &Value) -> Result<(), Status> {
    let resource = resource(object);
    let namespace = object["metadata"]["namespace"].as_str();
    let name = text(&object["metadata"]["name"]);
    match client.create(resource.clone(), object.clone()).await {
        Err(status) if status.is_already_exists() => {
            client.patch(resource, namespace, &name, Patch::Merge(object.clone())).await.map(drop)
        }
        other => other.map(drop),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The collection of an object, from its kind: the plural as Kubernetes and Istio form it.
fn resource(object: &Value) -> ResourceName {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    ResourceName::new(group, &plural(object["kind"].as_str().unwrap_or_default()))
}

fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    if kind == "endpoints" {
        kind
    } else if let Some(stem) = kind.strip_suffix('y').filter(|stem| !stem.ends_with(['a', 'e', 'o'])) {
        format!("{stem}ies")
    } else if kind.ends_with('s') {
        format!("{kind}es")
    } else {
        format!("{kind}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_are_those_of_the_api() {
        for (kind, want) in [
            ("Gateway", "gateways"),
            ("ServiceEntry", "serviceentries"),
            ("AuthorizationPolicy", "authorizationpolicies"),
            ("Ingress", "ingresses"),
            ("Endpoints", "endpoints"),
            ("CustomResourceDefinition", "customresourcedefinitions"),
        ] {
            assert_eq!(plural(kind), want);
        }
    }
}
