//! What differs between two manifests, object by object and field by field.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A manifest that cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {message}")]
pub struct DiffError {
    /// Which one.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
}

/// The differences between two manifests as text, in the form of `istioctl manifest diff`; empty where there are none.
/// ConfigMaps' texts that are YAML or JSON are compared by their fields.
///
/// # Errors
/// When one is no YAML.
pub fn diff(a: (&str, &str), b: (&str, &str)) -> Result<String, DiffError> {
    let (a, b) = (objects(a)?, objects(b)?);
    let mut text = String::new();
    // Writing to a String cannot fail.
    for (key, old) in &a {
        match b.get(key) {
            None => {
                let _ = writeln!(text, "\nObject {key} is missing in B:\n");
            }
            Some(new) => {
                if let Some(changed) = changed(old, new) {
                    let _ = writeln!(text, "\nObject {key} has diffs:\n\n{}", tree(&changed, 0).trim_end());
                    text.push('\n');
                }
            }
        }
    }
    for key in b.keys().filter(|key| !a.contains_key(*key)) {
        let _ = writeln!(text, "\nObject {key} is missing in A:\n");
    }
    Ok(text)
}

fn objects((name, text): (&str, &str)) -> Result<BTreeMap<String, Value>, DiffError> {
    let parsed = serde_saphyr::from_multiple::<Value>(text)
        .map_err(|error| DiffError { name: name.to_owned(), message: error.to_string() })?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let key = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{}:{}:{}", word(&object["kind"]), word(&metadata["namespace"]), word(&metadata["name"]))
    };
    Ok(parsed.into_iter().filter(Value::is_object).map(|object| (key(&object), unfolded(object))).collect())
}

/// The object with texts of a ConfigMap taken apart.
fn unfolded(mut object: Value) -> Value {
    if object["kind"] == "ConfigMap" {
        for text in object["data"].as_object_mut().into_iter().flat_map(Map::values_mut) {
            let parsed = text.as_str().and_then(|text| serde_saphyr::from_str::<Value>(text).ok());
            if let Some(parsed) = parsed.filter(Value::is_object) {
                *text = parsed;
            }
        }
    }
    object
}

/// The fields that differ, each with what it was and is.
fn changed(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            let mut fields: Vec<_> = keys
                .filter_map(|key| {
                    let (old, new) = (old.get(key), new.get(key));
                    Some((key.clone(), one(old, new)?))
                })
                .collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            (!fields.is_empty()).then(|| Value::Object(fields.into_iter().collect()))
        }
        (Value::Array(old), Value::Array(new)) => {
            let fields: Map<String, Value> = (0..old.len().max(new.len()))
                .filter_map(|at| Some((format!("[#{at}]"), one(old.get(at), new.get(at))?)))
                .collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        _ => Some(Value::String(format!("{} -> {}", said(old), said(new)))),
    }
}

fn one(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    match (old.filter(|v| !is_nothing(v)), new.filter(|v| !is_nothing(v))) {
        (None, None) => None,
        (None, Some(new)) => Some(Value::String(format!("<empty> -> {} (ADDED)", said(new)))),
        (Some(old), None) => Some(Value::String(format!("{} -> <empty> (REMOVED)", said(old)))),
        (Some(old), Some(new)) => changed(old, new),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == ""
}

fn said(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn tree(value: &Value, depth: usize) -> String {
    let mut text = String::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let indent = "  ".repeat(depth);
        let key = if key.starts_with('[') { format!("'{key}'") } else { key.clone() };
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Object(_) => write!(text, "{indent}{key}:\n{}", tree(value, depth + 1)),
            other => writeln!(text, "{indent}{key}: {}", said(other)),
        };
    }
    text
}
