//! From JSON schema to the dialects of OpenAPI.

use serde_json::{Map, Value, json};

/// A version of OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// Where definitions are.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::V2 => "#/definitions/",
            Self::V3 => "#/components/schemas/",
        }
    }
}

/// How schemars refers to a definition.
const REFERENCE: &str = "#/$defs/";

/// What version 2 has no word for.
const NEW_IN_V3: &[&str] = &["anyOf", "oneOf", "not", "nullable"];

/// The schema in a dialect, with all that is in it.
pub(super) fn translate(schema: &Value, dialect: Dialect) -> Value {
    let Value::Object(map) = schema else {
        // `true` is anything.
        return json!({});
    };
    let mut out = Map::new();
    for (key, value) in map {
        if dialect == Dialect::V2 && NEW_IN_V3.contains(&key.as_str()) {
            continue;
        }
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.iter().map(|(name, inner)| (name.clone(), translate(inner, dialect))).collect()
            }
            ("items" | "additionalProperties" | "not", Value::Object(_)) => translate(value, dialect),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                list.iter().map(|inner| translate(inner, dialect)).collect()
            }
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    refer(&mut out, dialect);
    if dialect == Dialect::V2 {
        simplify(&mut out);
    }
    Value::Object(out)
}

fn refer(schema: &mut Map<String, Value>, dialect: Dialect) {
    let Some(name) = target(schema.get("$ref")).map(str::to_owned) else { return };
    let reference = json!(format!("{}{name}", dialect.place()));
    match dialect {
        Dialect::V2 => drop(schema.insert("$ref".into(), reference)),
        // Beside a reference nothing counts there.
        Dialect::V3 => {
            schema.remove("$ref");
            schema.insert("allOf".into(), json!([{"$ref": reference}]));
        }
    }
}

/// As Kubernetes itself does: what version 2 cannot say becomes "anything", so that clients do not refuse what is right.
fn simplify(schema: &mut Map<String, Value>) {
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        schema.insert("type".into(), json!("string"));
        schema.insert("format".into(), json!("int-or-string"));
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        for part in ["properties", "items", "required", "type"] {
            schema.remove(part);
        }
    }
}

/// The names of definitions that a schema refers to.
pub(super) fn references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            into.extend(target(map.get("$ref")).map(str::to_owned));
            map.values().for_each(|inner| references(inner, into));
        }
        Value::Array(list) => list.iter().for_each(|inner| references(inner, into)),
        _ => {}
    }
}

pub(super) fn target(reference: Option<&Value>) -> Option<&str> {
    reference?.as_str()?.strip_prefix(REFERENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_alternatives_are_said_in_each_dialect() {
        let schema = json!({"type": "object", "properties": {
            "a": {"$ref": "#/$defs/X", "description": "an X"},
            "b": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }});
        let old = translate(&schema, Dialect::V2);
        assert_eq!(old["properties"]["a"], json!({"$ref": "#/definitions/X", "description": "an X"}));
        let b = json!({"x-kubernetes-int-or-string": true, "type": "string", "format": "int-or-string"});
        assert_eq!(old["properties"]["b"], b);
        assert!(old["properties"]["c"]["type"].is_null());
        let new = translate(&schema, Dialect::V3);
        let a = json!({"description": "an X", "allOf": [{"$ref": "#/components/schemas/X"}]});
        assert_eq!(new["properties"]["a"], a);
        assert_eq!(new["properties"]["b"], schema["properties"]["b"]);
        let mut names = Vec::new();
        references(&schema, &mut names);
        assert_eq!(names, ["X"]);
    }
}
