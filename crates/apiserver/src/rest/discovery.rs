//! Paths outside of resources: discovery, version, health, OpenAPI, token keys.

use std::sync::Arc;

use http::Response;
use http::request::Parts;
use serde_json::{Value, json};

use super::negotiate;
use super::response::{self, Body};
use crate::api::Api;
use crate::catalog::Catalog;
use crate::openapi;
use crate::resource::Resource;
use crate::status::Status;

/// The Kubernetes version whose API this is.
const MINOR: &str = "32";
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Answers a path that names no resource.
pub(super) fn other(api: &Arc<Api>, segments: &[String], parts: &Parts) -> Result<Response<Body>, Status> {
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    if !matches!(parts.method.as_str(), "GET" | "HEAD") {
        return Err(if words.is_empty() { Status::method_not_allowed() } else { Status::no_such_path() });
    }
    let catalog = api.catalog();
    let host =
        parts.headers.get("host").and_then(|h| h.to_str().ok()).or(parts.uri.authority().map(|a| a.as_str()));
    match words.as_slice() {
        [] => Ok(response::json(200, &json!({"paths": paths(&catalog)}))),
        ["healthz" | "readyz" | "livez", ..] => Ok(response::text(200, "ok")),
        ["version"] => Ok(response::json(200, &version())),
        ["api" | "apis"] if negotiate::aggregated(&parts.headers).is_some() => {
            let version = negotiate::aggregated(&parts.headers).unwrap_or("v2");
            Ok(aggregated(&catalog, words[0] == "api", version))
        }
        ["api"] => Ok(response::json(200, &core_versions(host.unwrap_or_default()))),
        ["apis"] => Ok(response::json(200, &group_list(&catalog))),
        ["apis", group] => group_object(&catalog, group).map(|g| response::json(200, &g)),
        ["api", version] => resource_list(&catalog, "", version),
        ["apis", group, version] => resource_list(&catalog, group, version),
        ["openapi", "v2"] => Ok(openapi_v2(api, parts)),
        ["openapi", "v3"] => Ok(response::json(200, &openapi::index(api))),
        ["openapi", "v3", "api", version] => openapi_v3(api, "", version),
        ["openapi", "v3", "apis", group, version] => openapi_v3(api, group, version),
        [".well-known", "openid-configuration"] => {
            Ok(response::json(200, &api.tokens.discovery(host.unwrap_or_default())))
        }
        ["openid", "v1", "jwks"] => {
            Ok(response::bytes(200, "application/jwk-set+json", api.tokens.key_set().to_string()))
        }
        _ => Err(Status::no_such_path()),
    }
}

fn openapi_v2(api: &Api, parts: &Parts) -> Response<Body> {
    let document = openapi::v2(api);
    let accept = parts.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // The media type has been written in two ways.
    if accept.contains("com.github.proto-openapi.spec.v2") {
        return response::bytes(200, OPENAPI_V2, openapi::v2_protobuf(&document));
    }
    response::json(200, &document)
}

fn openapi_v3(api: &Api, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let document = openapi::v3(api, group, version).ok_or_else(Status::no_such_path)?;
    Ok(response::json(200, &document))
}

fn paths(catalog: &Catalog) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in catalog.groups().iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(
        ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"].map(str::to_owned),
    );
    paths
}

fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0-lateen.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }),
    })
}

fn core_versions(host: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
    })
}

fn group(name: &str, versions: &[String]) -> Value {
    let word = |version: &String| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let listed: Vec<Value> = versions.iter().map(word).collect();
    json!({"name": name, "versions": listed, "preferredVersion": listed.first()})
}

fn group_list(catalog: &Catalog) -> Value {
    let groups = catalog.groups().iter().filter(|(name, _)| !name.is_empty());
    let groups: Vec<Value> = groups.map(|(name, versions)| group(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group_object(catalog: &Catalog, name: &str) -> Result<Value, Status> {
    let found = catalog.groups().iter().find(|(group, _)| group == name && !name.is_empty());
    let (name, versions) = found.ok_or_else(Status::no_such_path)?;
    let mut object = group(name, versions);
    object["kind"] = json!("APIGroup");
    object["apiVersion"] = json!("v1");
    Ok(object)
}

fn resource_list(catalog: &Catalog, group: &str, version: &str) -> Result<Response<Body>, Status> {
    let mut resources = Vec::new();
    for resource in catalog.of(group, version) {
        let mut entry = json!({
            "name": resource.plural(), "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": resource.verbs(),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for part in parts(resource) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural(), part.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": part.kind, "verbs": part.verbs,
            });
            if let Some((group, version)) = part.of {
                entry["group"] = json!(group);
                entry["version"] = json!(version);
            }
            resources.push(entry);
        }
    }
    if resources.is_empty() {
        return Err(Status::no_such_path());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources});
    Ok(response::json(200, &list))
}

/// A subresource.
struct Part {
    name: &'static str,
    kind: String,
    verbs: &'static [&'static str],
    /// Group and version of the kind when they are not the resource's.
    of: Option<(&'static str, &'static str)>,
}

fn parts(resource: &Resource) -> Vec<Part> {
    let mut parts = Vec::new();
    if resource.status {
        let verbs = &["get", "patch", "update"];
        parts.push(Part { name: "status", kind: resource.kind.clone(), verbs, of: None });
    }
    if resource.scale.is_some() {
        let verbs = &["get", "patch", "update"];
        parts.push(Part { name: "scale", kind: "Scale".into(), verbs, of: Some(("autoscaling", "v1")) });
    }
    match resource.name.as_str() {
        "pods" => {
            parts.push(Part { name: "log", kind: "Pod".into(), verbs: &["get"], of: None });
            for (name, kind) in [
                ("exec", "PodExecOptions"),
                ("attach", "PodAttachOptions"),
                ("portforward", "PodPortForwardOptions"),
                ("proxy", "PodProxyOptions"),
            ] {
                parts.push(Part { name, kind: kind.into(), verbs: &["create", "get"], of: None });
            }
            parts.push(Part { name: "binding", kind: "Binding".into(), verbs: &["create"], of: None });
            let of = Some(("policy", "v1"));
            parts.push(Part { name: "eviction", kind: "Eviction".into(), verbs: &["create"], of });
        }
        "serviceaccounts" => {
            let of = Some(("authentication.k8s.io", "v1"));
            parts.push(Part { name: "token", kind: "TokenRequest".into(), verbs: &["create"], of });
        }
        "namespaces" => {
            parts.push(Part { name: "finalize", kind: "Namespace".into(), verbs: &["update"], of: None })
        }
        _ => {}
    }
    parts
}

/// Everything in one answer (`apidiscovery.k8s.io`), what kubectl asks for since 1.26.
fn aggregated(catalog: &Catalog, core: bool, version: &str) -> Response<Body> {
    let groups = catalog.groups().iter().filter(|(name, _)| name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|v| {
                    let resources: Vec<Value> = catalog.of(name, v).map(|r| aggregated_resource(r)).collect();
                    json!({"version": v, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items});
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    response::bytes(200, &media, list.to_string())
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut entry = json!({
        "resource": resource.plural(),
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs(),
    });
    for (key, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !list.is_empty() {
            entry[key] = json!(list);
        }
    }
    let parts: Vec<Value> = parts(resource).into_iter().map(|part| {
        let (group, version) = part.of.unwrap_or((&resource.group, &resource.version));
        json!({"subresource": part.name, "responseKind": kind(group, version, &part.kind), "verbs": part.verbs})
    }).collect();
    if !parts.is_empty() {
        entry["subresources"] = json!(parts);
    }
    entry
}
