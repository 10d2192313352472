//! The schemas of everything that is served, as OpenAPI: version 3 per group and version, version 2 as a whole. `kubectl
//! explain` reads the former, older kubectls validate and explain by the latter.
//!
//! Built-in types come from k8s-openapi, which generates them from Kubernetes' own document; custom ones from their
//! definitions. Which lists are merged by which key is added by the table that merges them here.

mod builtin;
mod custom;
mod gnostic;
mod schema;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

pub(crate) use self::builtin::Definitions;
pub(crate) use self::gnostic::document as v2_protobuf;
use self::schema::Dialect;
use crate::api::Api;
use crate::resource::Resource;

/// Query parameters of writes; clients look here for what the server supports.
const PARAMETERS: &[(&str, &str)] =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("pretty", "string")];

/// `/openapi/v3`: where the documents are.
pub(crate) fn index(api: &Api) -> Value {
    let catalog = api.catalog();
    let mut paths = Map::new();
    for (group, versions) in catalog.groups() {
        for version in versions {
            let key =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let url = format!("/openapi/v3/{key}");
            paths.insert(key, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/apis/GROUP/VERSION`; none when nothing of it is served.
pub(crate) fn v3(api: &Api, group: &str, version: &str) -> Option<Value> {
    let catalog = api.catalog();
    let definitions = Definitions::load();
    let (mut paths, mut schemas, mut wanted) = (Map::new(), Map::new(), BTreeSet::new());
    for resource in catalog.of(group, version) {
        let name = match custom::definition(api, resource) {
            Some((name, source)) => {
                schemas.insert(name.clone(), schema::translate(&source, Dialect::V3));
                wanted.insert(builtin::OBJECT_META.to_owned());
                Some(name)
            }
            None => definitions.name(resource),
        };
        wanted.extend(name.iter().filter(|name| !schemas.contains_key(*name)).cloned());
        add_paths(resource, name.as_deref(), Dialect::V3, &mut paths);
    }
    if paths.is_empty() {
        return None;
    }
    for (name, source) in definitions.with_references(wanted) {
        schemas.insert(name.to_owned(), schema::translate(source, Dialect::V3));
    }
    Some(json!({
        "openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas},
    }))
}

/// `/openapi/v2`.
pub(crate) fn v2(api: &Api) -> Value {
    let definitions = Definitions::load();
    let (mut all, mut paths) = (Map::new(), Map::new());
    for (name, source) in definitions.all() {
        all.insert(name.clone(), schema::translate(source, Dialect::V2));
    }
    for resource in api.catalog().all() {
        let name = match custom::definition(api, resource) {
            Some((name, source)) => {
                all.insert(name.clone(), schema::translate(&source, Dialect::V2));
                Some(name)
            }
            None => definitions.name(resource),
        };
        add_paths(resource, name.as_deref(), Dialect::V2, &mut paths);
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": all})
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": format!("v1.32.0-lateen.{}", env!("CARGO_PKG_VERSION"))})
}

fn add_paths(resource: &Resource, schema: Option<&str>, dialect: Dialect, paths: &mut Map<String, Value>) {
    let start =
        if resource.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", resource.group) };
    let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{start}/{}{place}/{}", resource.version, resource.plural());
    let operation = |action: &str, forced: bool| operation(resource, schema, dialect, action, forced);
    if resource.is_review() {
        paths.insert(collection, json!({"post": operation("post", false)}));
        return;
    }
    let item = format!("{collection}/{{name}}");
    paths.insert(
        collection,
        json!({
            "get": operation("list", false), "post": operation("post", false),
            "delete": operation("deletecollection", false),
        }),
    );
    paths.insert(
        item,
        json!({
            "get": operation("get", false), "put": operation("put", false), "patch": operation("patch", true),
            "delete": operation("delete", false),
        }),
    );
}

fn operation(
    resource: &Resource,
    schema: Option<&str>,
    dialect: Dialect,
    action: &str,
    forced: bool,
) -> Value {
    let parameter = |(name, kind): (&str, &str)| match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}),
    };
    let mut parameters: Vec<Value> = Vec::new();
    if matches!(action, "post" | "put" | "patch") {
        parameters.extend(PARAMETERS.iter().copied().map(parameter));
    }
    if forced {
        parameters.push(parameter(("force", "boolean")));
    }
    let schema = match schema {
        None => json!({"type": "object"}),
        Some(name) => json!({"$ref": format!("{}{name}", dialect.place())}),
    };
    let response = match dialect {
        Dialect::V2 => json!({"description": "OK", "schema": schema}),
        Dialect::V3 => json!({"description": "OK", "content": {"application/json": {"schema": schema}}}),
    };
    json!({
        "operationId": format!("{action}_{}_{}_{}", resource.group, resource.version, resource.plural()),
        "parameters": parameters,
        "responses": {"200": response},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind(resource),
    })
}

/// (group, version, kind) as an extension.
fn kind(resource: &Resource) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": resource.kind})
}
