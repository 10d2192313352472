//! Structural schemas of custom resources: compiled once per definition; pruning, defaulting and validation.
//!
//! CEL rules (`x-kubernetes-validations`) are not evaluated.

mod prune;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

/// A compiled `openAPIV3Schema`.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    types: Option<Type>,
    nullable: bool,
    int_or_string: bool,
    preserve_unknown: bool,
    embedded: bool,
    default: Option<Value>,
    properties: BTreeMap<String, Schema>,
    additional: Additional,
    items: Option<Box<Schema>>,
    required: Vec<String>,
    limits: Limits,
    format: String,
    pattern: Option<Regex>,
    allowed: Vec<Value>,
    all_of: Vec<Schema>,
    any_of: Vec<Schema>,
    one_of: Vec<Schema>,
    not: Option<Box<Schema>>,
    map_keys: Vec<String>,
    list_set: bool,
    whole: bool,
}

#[derive(Debug, Default)]
enum Additional {
    #[default]
    Unknown,
    Any,
    Of(Box<Schema>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

#[derive(Debug, Default)]
struct Limits {
    minimum: Option<f64>,
    maximum: Option<f64>,
    exclusive_minimum: bool,
    exclusive_maximum: bool,
    multiple_of: Option<f64>,
    min_length: Option<u64>,
    max_length: Option<u64>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    min_properties: Option<u64>,
    max_properties: Option<u64>,
    unique_items: bool,
}

impl Schema {
    /// Compiles; fails on a type or pattern that cannot be understood. Null stands for "anything".
    pub(crate) fn compile(source: &Value) -> Result<Self, String> {
        if source.is_null() {
            return Ok(Self { preserve_unknown: true, ..Self::default() });
        }
        let flag = |key: &str| source[key] == true;
        let many = |key: &str| -> Result<Vec<Self>, String> {
            source[key].as_array().into_iter().flatten().map(Self::compile).collect()
        };
        let texts = |key: &str| -> Vec<String> {
            source[key]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let boxed = |key: &str| -> Result<Option<Box<Self>>, String> {
            source.get(key).map(|inner| Self::compile(inner).map(Box::new)).transpose()
        };
        Ok(Self {
            types: compile_type(&source["type"])?,
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: source.get("default").cloned(),
            properties: compile_properties(&source["properties"])?,
            additional: match &source["additionalProperties"] {
                Value::Object(_) => Additional::Of(Box::new(Self::compile(&source["additionalProperties"])?)),
                Value::Bool(true) => Additional::Any,
                _ => Additional::Unknown,
            },
            items: boxed("items")?,
            required: texts("required"),
            limits: Limits::compile(source),
            format: source["format"].as_str().unwrap_or_default().into(),
            pattern: compile_pattern(&source["pattern"])?,
            allowed: source["enum"].as_array().cloned().unwrap_or_default(),
            all_of: many("allOf")?,
            any_of: many("anyOf")?,
            one_of: many("oneOf")?,
            not: boxed("not")?,
            map_keys: if source["x-kubernetes-list-type"] == "map" {
                texts("x-kubernetes-list-map-keys")
            } else {
                vec![]
            },
            list_set: source["x-kubernetes-list-type"] == "set",
            whole: source["x-kubernetes-map-type"] == "atomic",
        })
    }
}

/// How a list's items are told apart (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind<'a> {
    /// They are not: the list is one value.
    Atomic,
    /// By their values.
    Set,
    /// By these fields.
    Map(&'a [String]),
}

impl Schema {
    /// The schema of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(known), _) => Some(known),
            (None, Additional::Of(schema)) => Some(schema),
            (None, Additional::Unknown | Additional::Any) => None,
        }
    }

    /// The schema of a list's items.
    pub(crate) fn item(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// How the items of a list are told apart.
    pub(crate) fn list(&self) -> ListKind<'_> {
        match (self.list_set, self.map_keys.as_slice()) {
            (true, _) => ListKind::Set,
            (false, []) => ListKind::Atomic,
            (false, keys) => ListKind::Map(keys),
        }
    }

    /// Whether a map is one value (`x-kubernetes-map-type: atomic`).
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

impl Limits {
    fn compile(source: &Value) -> Self {
        let count = |key: &str| source[key].as_u64();
        Self {
            minimum: source["minimum"].as_f64(),
            maximum: source["maximum"].as_f64(),
            exclusive_minimum: source["exclusiveMinimum"] == true,
            exclusive_maximum: source["exclusiveMaximum"] == true,
            multiple_of: source["multipleOf"].as_f64(),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            unique_items: source["uniqueItems"] == true,
        }
    }
}

fn compile_type(value: &Value) -> Result<Option<Type>, String> {
    Ok(Some(match value.as_str() {
        None | Some("") => return Ok(None),
        Some("object") => Type::Object,
        Some("array") => Type::Array,
        Some("string") => Type::String,
        Some("integer") => Type::Integer,
        Some("number") => Type::Number,
        Some("boolean") => Type::Boolean,
        Some(other) => return Err(format!("unknown type {other:?}")),
    }))
}

fn compile_properties(value: &Value) -> Result<BTreeMap<String, Schema>, String> {
    let given = value.as_object().into_iter().flatten();
    given
        .map(|(name, inner)| {
            let schema = Schema::compile(inner).map_err(|why| format!("{name}: {why}"))?;
            Ok((name.clone(), schema))
        })
        .collect()
}

fn compile_pattern(value: &Value) -> Result<Option<Regex>, String> {
    let Some(text) = value.as_str() else { return Ok(None) };
    Regex::new(text).map(Some).map_err(|e| format!("pattern {text:?}: {e}"))
}

#[cfg(test)]
mod tests;
