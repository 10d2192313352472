//! Which lists are merged item by item: by the table of built-in types, or by a definition's schema.

use serde_json::{Map, Value, json};

use super::paths::Step;
use crate::patch::{List, rule};
use crate::resource::Resource;
use crate::schema::{ListKind, Schema};

/// What is known of a value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape<'a> {
    /// A built-in type, by name; at the root the kind.
    Type {
        name: &'a str,
        root: bool,
    },
    Schema {
        schema: &'a Schema,
        root: bool,
    },
    /// Maps are merged, lists are not.
    Unknown,
}

/// How a field's value is owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Merge {
    /// As a whole.
    Atomic,
    /// A map: each field for itself.
    Fields,
    /// A list: each item, known by these keys.
    Items(Vec<String>),
    /// A list: each value.
    Set,
}

/// Fields of built-in types whose maps are one value (`x-kubernetes-map-type: atomic`).
const WHOLE: &[&str] = &[
    "configMapKeyRef",
    "fieldRef",
    "nodeSelector",
    "resourceFieldRef",
    "roleRef",
    "scaleTargetRef",
    "secretKeyRef",
    "selector",
];

impl<'a> Shape<'a> {
    pub(super) fn of(resource: &'a Resource) -> Self {
        match resource.custom() {
            Some(custom) => Self::Schema { schema: &custom.schema, root: true },
            None => Self::Type { name: &resource.kind, root: true },
        }
    }

    /// Shape of a field, and how its value is owned.
    pub(super) fn field(self, name: &str, value: &Value) -> (Self, Merge) {
        let (shape, list) = match self {
            Self::Schema { root: true, .. } if name == "metadata" => {
                (Self::Type { name: "ObjectMeta", root: false }, Merge::Atomic)
            }
            Self::Schema { schema, .. } => match schema.field(name) {
                Some(field) => (Self::Schema { schema: field, root: false }, list_of(field)),
                None => (Self::Unknown, Merge::Atomic),
            },
            Self::Type { name: of, root } => {
                let rule = rule(of, name, root);
                let list = match rule.list {
                    List::Atomic => Merge::Atomic,
                    List::Set => Merge::Set,
                    List::ByKey(key) => Merge::Items(keys(of, name, key)),
                };
                let shape = if rule.of.is_empty() {
                    Self::Unknown
                } else {
                    Self::Type { name: rule.of, root: false }
                };
                (shape, list)
            }
            Self::Unknown => (Self::Unknown, Merge::Atomic),
        };
        let built_in = !matches!(self, Self::Schema { .. });
        match value {
            Value::Array(_) => (shape, list),
            Value::Object(_) if built_in && WHOLE.contains(&name) => (shape, Merge::Atomic),
            Value::Object(_) => match shape {
                Self::Schema { schema, .. } if schema.is_whole() => (shape, Merge::Atomic),
                _ => (shape, Merge::Fields),
            },
            _ => (shape, Merge::Atomic),
        }
    }

    /// Shape of the items of a list of this shape.
    pub(super) fn item(self) -> Self {
        match self {
            Self::Schema { schema, .. } => {
                schema.item().map_or(Self::Unknown, |schema| Self::Schema { schema, root: false })
            }
            // The table names the items' type.
            other => other,
        }
    }
}

fn list_of(schema: &Schema) -> Merge {
    match schema.list() {
        ListKind::Atomic => Merge::Atomic,
        ListKind::Set => Merge::Set,
        ListKind::Map(keys) => Merge::Items(keys.to_vec()),
    }
}

/// Apply knows some items by two keys where strategic merge patches take one.
fn keys(of: &str, field: &str, key: &str) -> Vec<String> {
    let second = match (of, field) {
        ("Container" | "ServiceSpec", "ports") => Some("protocol"),
        ("PodSpec", "topologySpreadConstraints") => Some("whenUnsatisfiable"),
        _ => None,
    };
    std::iter::once(key).chain(second).map(str::to_owned).collect()
}

/// The step to an item with these keys.
pub(super) fn key_of(item: &Value, keys: &[String]) -> Step {
    let mut sorted: Vec<&String> = keys.iter().collect();
    sorted.sort();
    let mut map = Map::new();
    for key in sorted {
        match &item[key] {
            // The one key that has a default.
            Value::Null if key == "protocol" => drop(map.insert(key.clone(), json!("TCP"))),
            Value::Null => {}
            value => drop(map.insert(key.clone(), value.clone())),
        }
    }
    Step::Key(Value::Object(map).to_string())
}
