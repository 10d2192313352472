//! What built-in types look like, compiled from their schemas: small enough to be held for good.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use base64::Engine as _;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use crate::openapi::Definitions;
use crate::resource::Resource;

/// The shapes of every built-in type.
#[derive(Debug)]
pub(super) struct Shapes {
    /// By the place of their definition.
    shapes: Vec<Shape>,
    /// By group, version and kind.
    kinds: BTreeMap<(String, String, String), usize>,
}

#[derive(Debug)]
enum Shape {
    Any,
    Boolean,
    Integer,
    Number,
    String,
    /// RFC 3339.
    Time,
    /// Base64.
    Bytes,
    IntOrString,
    /// A number is taken for it and becomes text.
    Quantity,
    List(Box<Shape>),
    Map(Box<Shape>),
    Object(BTreeMap<String, Shape>),
    OneOf(Vec<Shape>),
    Definition(usize),
}

/// A value that is not of its field's type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistyped {
    path: String,
    expected: &'static str,
    found: &'static str,
}

impl std::fmt::Display for Mistyped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, expected, found } = self;
        write!(f, "{path}: expected {expected}, found {found}")
    }
}

impl Shapes {
    /// The shapes, made when they are asked for first.
    pub(super) fn all() -> &'static Self {
        static ALL: OnceLock<Shapes> = OnceLock::new();
        ALL.get_or_init(|| Self::compile(&Definitions::load()))
    }

    fn compile(definitions: &Definitions) -> Self {
        let places: BTreeMap<&str, usize> =
            definitions.all().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        let shapes = definitions.all().map(|(name, schema)| Shape::of_definition(name, schema, &places));
        let kinds = definitions.kinds().filter_map(|((group, version, kind), name)| {
            Some(((group.into(), version.into(), kind.into()), *places.get(name)?))
        });
        Self { shapes: shapes.collect(), kinds: kinds.collect() }
    }

    /// Removes what a resource's type does not know, and returns the paths; quantities that are numbers become text. `None`
    /// for a type without shape.
    pub(super) fn prune(
        &self,
        resource: &Resource,
        value: &mut Value,
    ) -> Option<Result<Vec<String>, Mistyped>> {
        let kind = (resource.group.to_string(), resource.version.to_string(), resource.kind.to_string());
        let place = *self.kinds.get(&kind)?;
        let mut walk = Walk { shapes: &self.shapes, path: Vec::new(), unknown: Vec::new() };
        Some(walk.shape(&self.shapes[place], value).map(|()| walk.unknown))
    }
}

impl Shape {
    fn of_definition(name: &str, schema: &Value, places: &BTreeMap<&str, usize>) -> Self {
        if name.ends_with(".Quantity") { Self::Quantity } else { Self::of(schema, places) }
    }

    fn of(schema: &Value, places: &BTreeMap<&str, usize>) -> Self {
        let inner = |schema: &Value| Box::new(Self::of(schema, places));
        if let Some(name) = Definitions::reference(schema) {
            return places.get(name).map_or(Self::Any, |place| Self::Definition(*place));
        }
        if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice) {
            return Self::of(only, places);
        }
        if let Some(several) = schema["oneOf"].as_array() {
            return Self::OneOf(several.iter().map(|schema| Self::of(schema, places)).collect());
        }
        if schema["x-kubernetes-int-or-string"] == true {
            return Self::IntOrString;
        }
        match schema["type"].as_str() {
            Some("boolean") => Self::Boolean,
            Some("integer") => Self::Integer,
            Some("number") => Self::Number,
            Some("string") => match schema["format"].as_str() {
                Some("date-time") => Self::Time,
                Some("byte") => Self::Bytes,
                _ => Self::String,
            },
            Some("array") => Self::List(inner(&schema["items"])),
            Some("object") => match (schema["properties"].as_object(), &schema["additionalProperties"]) {
                (Some(fields), _) => Self::Object(
                    fields.iter().map(|(name, schema)| (name.clone(), Self::of(schema, places))).collect(),
                ),
                (None, Value::Object(_)) => Self::Map(inner(&schema["additionalProperties"])),
                (None, _) => Self::Map(Box::new(Self::Any)),
            },
            _ => Self::Any,
        }
    }

    /// What a value of the shape is, for people.
    fn word(&self) -> &'static str {
        match self {
            Self::Any => "any value",
            Self::Boolean => "true or false",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Time => "a time such as 2026-01-31T12:00:00Z",
            Self::Bytes => "text in base64",
            Self::IntOrString => "an integer or a string",
            Self::Quantity => "a quantity such as 500m or 1Gi",
            Self::List(_) => "a list",
            Self::Map(_) | Self::Object(_) => "an object",
            Self::OneOf(_) | Self::Definition(_) => "a value of another type",
        }
    }

    /// Whether a value of this kind of JSON can be meant; what is in it is not looked at.
    fn may_be(&self, value: &Value, shapes: &[Shape]) -> bool {
        match self {
            Self::Any => true,
            Self::Boolean => value.is_boolean(),
            Self::Integer | Self::Number => value.is_number(),
            Self::String | Self::Time | Self::Bytes => value.is_string(),
            Self::IntOrString | Self::Quantity => value.is_number() || value.is_string(),
            Self::List(_) => value.is_array(),
            Self::Map(_) | Self::Object(_) => value.is_object(),
            Self::OneOf(several) => several.iter().any(|shape| shape.may_be(value, shapes)),
            Self::Definition(place) => shapes[*place].may_be(value, shapes),
        }
    }
}

enum Step {
    Field(String),
    Index(usize),
}

struct Walk<'s> {
    shapes: &'s [Shape],
    path: Vec<Step>,
    unknown: Vec<String>,
}

impl Walk<'_> {
    fn shape(&mut self, shape: &Shape, value: &mut Value) -> Result<(), Mistyped> {
        let shapes = self.shapes;
        // A null is a field that is not there.
        let fits = match (shape, &mut *value) {
            (_, Value::Null) | (Shape::Any, _) => true,
            (Shape::Definition(place), value) => return self.shape(&shapes[*place], value),
            (Shape::OneOf(several), value) => {
                return match several.iter().find(|shape| shape.may_be(value, shapes)) {
                    Some(shape) => self.shape(shape, value),
                    None => Err(self.mistyped(shape, value)),
                };
            }
            (Shape::List(items), Value::Array(list)) => return self.list(items, list),
            (Shape::Map(values), Value::Object(map)) => return self.map(values, map),
            (Shape::Object(fields), Value::Object(map)) => return self.object(fields, map),
            (Shape::Quantity, value) if value.is_number() => {
                *value = Value::String(value.to_string());
                true
            }
            (Shape::Integer, value) => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
            }
            (Shape::IntOrString, value) => value.is_i64() || value.is_u64() || value.is_string(),
            (Shape::Time, Value::String(text)) => text.parse::<Timestamp>().is_ok(),
            (Shape::Bytes, Value::String(text)) => {
                base64::engine::general_purpose::STANDARD.decode(text.as_bytes()).is_ok()
            }
            (shape, value) => shape.may_be(value, shapes),
        };
        if fits { Ok(()) } else { Err(self.mistyped(shape, value)) }
    }

    fn list(&mut self, items: &Shape, list: &mut [Value]) -> Result<(), Mistyped> {
        for (index, item) in list.iter_mut().enumerate() {
            self.path.push(Step::Index(index));
            self.shape(items, item)?;
            self.path.pop();
        }
        Ok(())
    }

    fn map(&mut self, values: &Shape, map: &mut Map<String, Value>) -> Result<(), Mistyped> {
        for (key, value) in map {
            self.path.push(Step::Field(key.clone()));
            self.shape(values, value)?;
            self.path.pop();
        }
        Ok(())
    }

    fn object(
        &mut self,
        fields: &BTreeMap<String, Shape>,
        map: &mut Map<String, Value>,
    ) -> Result<(), Mistyped> {
        let mut unknown = Vec::new();
        for (key, value) in map.iter_mut() {
            match fields.get(key) {
                Some(shape) => {
                    self.path.push(Step::Field(key.clone()));
                    self.shape(shape, value)?;
                    self.path.pop();
                }
                // Of every object: some types have no status of their own, which the server adds.
                None if self.path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind" | "status") => {}
                None => {
                    self.path.push(Step::Field(key.clone()));
                    self.unknown.push(self.text());
                    self.path.pop();
                    unknown.push(key.clone());
                }
            }
        }
        for key in unknown {
            map.shift_remove(&key);
        }
        Ok(())
    }

    fn mistyped(&self, shape: &Shape, value: &Value) -> Mistyped {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Mistyped { path: self.text(), expected: shape.word(), found }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if out.is_empty() => out.push_str(name),
                Step::Field(name) => out.extend([".", name]),
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn prune(group: &str, kind: &str, value: &mut Value) -> Result<Vec<String>, String> {
        let resources = crate::builtin::resources();
        let resource = resources.iter().find(|r| &*r.group == group && &*r.kind == kind).unwrap();
        Shapes::all().prune(resource, value).unwrap().map_err(|error| error.to_string())
    }

    fn deployment(spec: Value) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
    }

    #[test]
    fn what_a_type_does_not_know_goes() {
        let mut value = deployment(json!({"replica": 1, "template": {"spec": {
            "containers": [{"name": "c", "imag": "x", "resources": {"limits": {"cpu": 1}}}]}}}));
        let unknown = prune("apps", "Deployment", &mut value).unwrap();
        assert_eq!(unknown, ["spec.replica", "spec.template.spec.containers[0].imag"]);
        let container = &value["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(*container, json!({"name": "c", "resources": {"limits": {"cpu": "1"}}}));
        assert!(value["spec"].get("replica").is_none());
    }

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        let wrong = |spec| prune("apps", "Deployment", &mut deployment(spec)).unwrap_err();
        assert_eq!(wrong(json!({"replicas": "two"})), "spec.replicas: expected an integer, found a string");
        let text = wrong(json!({"template": {"spec": {"containers": {}}}}));
        assert_eq!(text, "spec.template.spec.containers: expected a list, found an object");
        let mut secret = json!({"kind": "Secret", "data": {"a": "not base64!"}});
        assert!(prune("", "Secret", &mut secret).unwrap_err().starts_with("data.a: expected text in base64"));
    }

    #[test]
    fn nulls_either_ors_and_schemas_within_pass() {
        let mut service = json!({"kind": "Service", "metadata": {"creationTimestamp": null},
            "spec": {"ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}]}});
        assert_eq!(prune("", "Service", &mut service).unwrap(), Vec::<String>::new());
        let schema = json!({"type": "object", "additionalProperties": {"type": "string"},
            "properties": {"a": {"x-kubernetes-int-or-string": true, "items": {"type": "string"}, "default": [1]}}});
        let mut definition = json!({"kind": "CustomResourceDefinition", "spec": {"group": "g", "names": {"kind": "K"},
            "versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
        let kind = "CustomResourceDefinition";
        assert_eq!(prune("apiextensions.k8s.io", kind, &mut definition).unwrap(), Vec::<String>::new());
    }
}
