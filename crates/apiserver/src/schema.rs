//! Structural schemas of custom resources: compiled once per definition; pruning, defaulting and validation.

mod prune;
mod rules;
mod validate;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use crate::cel::{Kind, Tag};

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
    rules: Vec<rules::Rule>,
    /// There are rules, here or below.
    ruled: bool,
}

/// What cannot be understood in a schema.
#[derive(Debug)]
pub(crate) struct Bad {
    /// Where, below the schema: `.properties[spec].pattern`.
    pub(crate) path: String,
    /// What stands there.
    pub(crate) value: Value,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl Bad {
    fn below(self, step: &str) -> Self {
        Self { path: format!(".{step}{}", self.path), ..self }
    }
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
    /// Compiles the schema of whole objects; fails on a type, pattern or rule that cannot be understood. Null stands for
    /// "anything".
    pub(crate) fn compile(source: &Value) -> Result<Self, Bad> {
        Self::part(source, true)
    }

    fn part(source: &Value, root: bool) -> Result<Self, Bad> {
        if source.is_null() {
            return Ok(Self { preserve_unknown: true, ..Self::default() });
        }
        let flag = |key: &str| source[key] == true;
        let many = |key: &str| -> Result<Vec<Self>, Bad> {
            let given = source[key].as_array().into_iter().flatten().enumerate();
            given
                .map(|(index, inner)| {
                    Self::part(inner, false).map_err(|bad| bad.below(&format!("{key}[{index}]")))
                })
                .collect()
        };
        let texts = |key: &str| -> Vec<String> {
            source[key]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect()
        };
        let boxed = |key: &str| -> Result<Option<Box<Self>>, Bad> {
            let inner = source.get(key).map(|inner| Self::part(inner, false).map(Box::new));
            inner.transpose().map_err(|bad| bad.below(key))
        };
        let bad = |key: &str, why: String| Bad { path: format!(".{key}"), value: source[key].clone(), why };
        let mut schema = Self {
            types: compile_type(&source["type"]).map_err(|why| bad("type", why))?,
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: source.get("default").cloned(),
            properties: compile_properties(&source["properties"])?,
            additional: match &source["additionalProperties"] {
                Value::Object(_) => match boxed("additionalProperties")? {
                    Some(schema) => Additional::Of(schema),
                    None => Additional::Unknown,
                },
                Value::Bool(true) => Additional::Any,
                _ => Additional::Unknown,
            },
            items: boxed("items")?,
            required: texts("required"),
            limits: Limits::compile(source),
            format: source["format"].as_str().unwrap_or_default().into(),
            pattern: compile_pattern(&source["pattern"]).map_err(|why| bad("pattern", why))?,
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
            rules: Vec::new(),
            ruled: false,
        };
        schema.rules = schema.compile_rules(&source["x-kubernetes-validations"], root)?;
        schema.ruled = !schema.rules.is_empty() || schema.parts().any(|part| part.ruled);
        Ok(schema)
    }

    fn compile_rules(&self, source: &Value, root: bool) -> Result<Vec<rules::Rule>, Bad> {
        let given = source.as_array().into_iter().flatten().enumerate();
        let resource = root || self.embedded;
        given
            .map(|(index, one)| {
                rules::Rule::compile(one, self, resource)
                    .map_err(|bad| bad.below(&format!("x-kubernetes-validations[{index}]")))
            })
            .collect()
    }

    fn parts(&self) -> impl Iterator<Item = &Self> {
        let additional = match &self.additional {
            Additional::Of(schema) => Some(&**schema),
            Additional::Unknown | Additional::Any => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
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

    /// Whether the schema names the field, and does not only allow it.
    fn names(&self, field: &str) -> bool {
        self.properties.contains_key(field)
    }

    pub(crate) fn is_nullable(&self) -> bool {
        self.nullable
    }

    pub(crate) fn is_integer(&self) -> bool {
        self.types == Some(Type::Integer)
    }

    pub(crate) fn is_number(&self) -> bool {
        self.types == Some(Type::Number)
    }

    /// `format`, or "".
    pub(crate) fn format(&self) -> &str {
        &self.format
    }

    /// What its values are to expressions.
    pub(crate) fn kind(&self) -> Kind<'_> {
        let plain = |tag| Kind::Plain(tag);
        match (self.types, self.format.as_str()) {
            _ if self.int_or_string => plain(Tag::Dyn),
            (Some(Type::Object), _) if self.embedded => Kind::Resource(self),
            (Some(Type::Object), _) => match &self.additional {
                Additional::Of(value) if self.properties.is_empty() => Kind::Map(Box::new(value.kind())),
                Additional::Any => plain(Tag::Map),
                _ if self.preserve_unknown => plain(Tag::Dyn),
                _ => Kind::Object(self),
            },
            (Some(Type::Array), _) => {
                let item = self.items.as_ref().map_or(plain(Tag::Dyn), |item| item.kind());
                Kind::List(Box::new(item))
            }
            (Some(Type::String), "date-time") => plain(Tag::Time),
            (Some(Type::String), "duration") => plain(Tag::Duration),
            (Some(Type::String), "byte") => plain(Tag::Bytes),
            (Some(Type::String), _) => plain(Tag::Text),
            (Some(Type::Integer), _) => plain(Tag::Int),
            (Some(Type::Number), _) => plain(Tag::Double),
            (Some(Type::Boolean), _) => plain(Tag::Bool),
            (None, _) => plain(Tag::Dyn),
        }
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

fn compile_properties(value: &Value) -> Result<BTreeMap<String, Schema>, Bad> {
    let given = value.as_object().into_iter().flatten();
    given
        .map(|(name, inner)| {
            let schema =
                Schema::part(inner, false).map_err(|bad| bad.below(&format!("properties[{name}]")))?;
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
