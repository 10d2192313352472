//! The CustomResourceDefinitions of Istio's kinds, from the table of kinds and the declarations of their specs.

use serde_json::{Map, Value, json};

use crate::field::{Field, Schema, enumeration, message};
use crate::kinds::{Column, KINDS, KindInfo};

/// All CRDs, in the order of the table; valid for `apiextensions.k8s.io/v1`.
pub fn crds() -> Vec<Value> {
    KINDS.iter().map(crd).collect()
}

/// The CRD of one kind.
pub fn crd(info: &KindInfo) -> Value {
    let schema: Value = object_schema(info).into();
    let versions: Vec<Value> =
        info.versions.iter().map(|version| crd_version(info, version, &schema)).collect();
    let mut names = Map::from_iter([
        ("categories".to_owned(), json!(info.categories())),
        ("kind".to_owned(), json!(info.name)),
        ("listKind".to_owned(), json!(format!("{}List", info.name))),
        ("plural".to_owned(), json!(info.plural)),
        ("singular".to_owned(), json!(info.singular())),
    ]);
    if !info.short_names.is_empty() {
        names.insert("shortNames".to_owned(), json!(info.short_names));
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": info.crd_name(),
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": labels(info),
        },
        "spec": {
            "group": info.group,
            "names": names,
            "scope": "Namespaced",
            "versions": versions,
        },
    })
}

fn labels(info: &KindInfo) -> Value {
    let mut labels =
        json!({"app": "istio-pilot", "chart": "istio", "heritage": "Tiller", "release": "istio"});
    if let Some(part) = ["security", "telemetry"].iter().find(|part| info.group.starts_with(**part)) {
        labels["istio"] = json!(part);
    }
    labels
}

fn crd_version(info: &KindInfo, version: &str, schema: &Value) -> Value {
    let mut out = json!({
        "name": version,
        "served": true,
        "storage": version == info.storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    });
    if !info.columns.is_empty() {
        let columns: Vec<Value> = info.columns.iter().map(printer_column).collect();
        out["additionalPrinterColumns"] = json!(columns);
    }
    out
}

fn printer_column(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "jsonPath": column.path,
        "description": column.doc,
    })
}

fn object_schema(info: &KindInfo) -> Schema {
    let mut properties = Map::new();
    properties.insert("spec".to_owned(), (info.schema)().into());
    let status = IstioStatus::schema().with("x-kubernetes-preserve-unknown-fields", true);
    properties.insert("status".to_owned(), status.into());
    let schema = Schema::of("object").with("properties", properties);
    if info.spec_required { schema.with("required", json!(["spec"])) } else { schema }
}

message! {
    /// What the control plane says of an object (`istio.meta.v1alpha1.IstioStatus`).
    pub struct IstioStatus {
        /// What holds of it.
        conditions: Vec<Condition>,
        /// What was found wrong with it.
        validation_messages: Vec<ValidationMessage>,
        /// The generation that this is about.
        observed_generation: IntOrString,
    }
}

message! {
    /// A condition.
    pub struct Condition {
        /// What it is about.
        r#type: String,
        /// True, False or Unknown.
        status: String,
        /// When it was last looked at.
        last_probe_time: Time,
        /// When it last changed.
        last_transition_time: Time,
        /// Why, in one word.
        reason: String,
        /// Why, for people.
        message: String,
        /// The generation that this is about.
        observed_generation: IntOrString,
    }
}

message! {
    /// Something that was found wrong.
    pub struct ValidationMessage {
        /// What.
        r#type: MessageType,
        /// How bad.
        level: MessageLevel,
        /// Where to read more.
        documentation_url: String,
    }
}

message! {
    /// A kind of message.
    pub struct MessageType {
        /// Its name.
        name: String,
        /// Its code, such as IST0101.
        code: String,
    }
}

enumeration! {
    /// How bad something is.
    pub enum MessageLevel {
        /// Nothing was said.
        Unknown = "UNKNOWN" 0,
        /// It does not work.
        Error = "ERROR" 3,
        /// It may not work.
        Warning = "WARNING" 8,
        /// It works.
        Info = "INFO" 12,
    }
}

/// A number that Istio writes as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntOrString(pub String);

impl Field for IntOrString {
    fn read(value: &Value, reader: &mut crate::field::Reader) -> Option<Self> {
        match value {
            Value::String(text) => Some(Self(text.clone())),
            Value::Number(number) => Some(Self(number.to_string())),
            other => {
                reader.wrong_type("a number or its text", other);
                None
            }
        }
    }

    fn write(&self) -> Value {
        Value::String(self.0.clone())
    }

    fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    fn schema() -> Schema {
        Schema::default()
            .with("anyOf", json!([{"type": "integer"}, {"type": "string"}]))
            .with("x-kubernetes-int-or-string", true)
    }
}

/// A time, as RFC 3339 writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Time(pub String);

impl Field for Time {
    fn read(value: &Value, reader: &mut crate::field::Reader) -> Option<Self> {
        String::read(value, reader).map(Self)
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    fn schema() -> Schema {
        Schema::of("string").with("format", "date-time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_definition() {
        let crds = crds();
        assert_eq!(crds.len(), KINDS.len());
        let vs = &crds[0];
        assert_eq!(vs["metadata"]["name"], "virtualservices.networking.istio.io");
        let stored: Vec<_> =
            vs["spec"]["versions"].as_array().unwrap().iter().map(|v| &v["storage"]).collect();
        assert_eq!(stored, [true, false, false]);
        let route =
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/http/items/properties/route";
        let weight = vs.pointer(&format!("{route}/items/properties/weight/type"));
        assert_eq!(weight, Some(&json!("integer")));
    }
}
