//! An object as the flat set of what can be owned.

use std::collections::BTreeMap;

use serde_json::Value;

use super::paths::{Path, Step};
use super::shape::{Merge, Shape, key_of};

/// Fields of the metadata that are nobody's.
const IDENTITY: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Each owned path with its value; an item of a list stands for its existence, without value.
pub(super) fn leaves<'a>(object: &'a Value, shape: Shape<'_>) -> BTreeMap<Path, &'a Value> {
    let mut out = BTreeMap::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        if matches!(name.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let mut at = vec![Step::Field(name.clone())];
        let (inner, merge) = shape.field(name, value);
        if name == "metadata" {
            for (name, value) in value.as_object().into_iter().flatten() {
                if !IDENTITY.contains(&name.as_str()) {
                    at.push(Step::Field(name.clone()));
                    let (inner, merge) = inner.field(name, value);
                    collect(value, inner, &merge, &mut at, &mut out);
                    at.pop();
                }
            }
        } else {
            collect(value, inner, &merge, &mut at, &mut out);
        }
    }
    out
}

fn collect<'a>(
    value: &'a Value,
    shape: Shape<'_>,
    merge: &Merge,
    at: &mut Path,
    out: &mut BTreeMap<Path, &'a Value>,
) {
    match (merge, value) {
        (Merge::Fields, Value::Object(map)) if !map.is_empty() => {
            for (name, value) in map {
                at.push(Step::Field(name.clone()));
                let (inner, merge) = shape.field(name, value);
                collect(value, inner, &merge, at, out);
                at.pop();
            }
        }
        (Merge::Items(keys), Value::Array(list)) if !list.is_empty() => {
            for item in list {
                at.push(key_of(item, keys));
                out.insert(at.clone(), &Value::Null);
                if item.as_object().is_some_and(|map| !map.is_empty()) {
                    collect(item, shape.item(), &Merge::Fields, at, out);
                }
                at.pop();
            }
        }
        (Merge::Set, Value::Array(list)) if !list.is_empty() => {
            for item in list {
                at.push(Step::Item(item.to_string()));
                out.insert(at.clone(), &Value::Null);
                at.pop();
            }
        }
        _ => drop(out.insert(at.clone(), value)),
    }
}
