//! The schemas of custom resources, from their definitions.

use serde_json::{Value, json};

use super::builtin::OBJECT_META;
use crate::api::Api;
use crate::resource::Resource;

/// A custom resource's name among the definitions, and its schema in schemars' form of references.
pub(super) fn definition(api: &Api, resource: &Resource) -> Option<(String, Value)> {
    resource.custom()?;
    let object = api.store.get(&crate::catalog::CRDS.into(), "", resource.name.as_str())?;
    let definition = object.neutral()?;
    let versions = definition["spec"]["versions"].as_array()?;
    let version = versions.iter().find(|one| one["name"] == resource.version.as_str())?;
    let mut schema = version["schema"]["openAPIV3Schema"].clone();
    if !schema.is_object() {
        schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let text = |text: &str| json!({"type": "string", "description": text});
    schema["properties"]["apiVersion"] =
        text("APIVersion names the version of this representation of an object.");
    schema["properties"]["kind"] = text("Kind is the name of the resource that this object represents.");
    schema["properties"]["metadata"] =
        json!({"$ref": format!("#/$defs/{OBJECT_META}"), "description": "Standard object's metadata."});
    schema["x-kubernetes-group-version-kind"] = json!([super::kind(resource)]);
    let reversed: Vec<&str> = resource.group.rsplit('.').collect();
    Some((format!("{}.{}.{}", reversed.join("."), resource.version, resource.kind), schema))
}
