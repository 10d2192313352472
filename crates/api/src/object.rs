//! Objects of the API: metadata, typed spec, and where they came from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_base::{Labels, Namespace, ObjectRef};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::field::{Field, FieldError, Reader};
use crate::kinds::{Kind, Spec};

/// Where an object was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file.
    pub file: Arc<str>,
    /// The line its document begins at, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// An object of one of Istio's kinds.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The kind.
    pub kind: Kind,
    /// The version it was written in, such as `v1beta1`.
    pub version: String,
    /// The namespace; empty when it does not say.
    pub namespace: Namespace,
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Labels,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
    /// When it was created.
    pub created: Option<SystemTime>,
    /// The API server's version of it.
    pub resource_version: String,
    /// Counts changes of the spec.
    pub generation: i64,
    /// The API server's identity of it.
    pub uid: String,
    /// Where it was written, when it came from a file.
    pub origin: Option<Origin>,
    /// What it says.
    pub spec: Spec,
    /// Rules of its schema that it breaks; the API server refuses such objects.
    pub violations: Vec<FieldError>,
}

impl Object {
    /// An object with nothing but a name.
    pub fn new(namespace: impl Into<Namespace>, name: impl Into<String>, spec: impl Into<Spec>) -> Self {
        let spec = spec.into();
        Self {
            kind: spec.kind(),
            version: spec.kind().info().storage.to_owned(),
            namespace: namespace.into(),
            name: name.into(),
            labels: Labels::default(),
            annotations: BTreeMap::new(),
            created: None,
            resource_version: String::new(),
            generation: 0,
            uid: String::new(),
            origin: None,
            spec,
            violations: Vec::new(),
        }
    }

    /// What provenance calls it.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind.name().to_owned(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Writes it as JSON, without status.
    pub fn write(&self) -> Value {
        let mut metadata = Map::new();
        let mut put = |key: &str, value: &dyn Fn() -> Value, there: bool| {
            if there {
                metadata.insert(key.to_owned(), value());
            }
        };
        put("name", &|| json!(self.name), !self.name.is_empty());
        put("namespace", &|| json!(self.namespace), !self.namespace.is_empty());
        put("labels", &|| json!(self.labels), !self.labels.is_empty());
        put("annotations", &|| json!(self.annotations), !self.annotations.is_empty());
        put("creationTimestamp", &|| json!(self.created.map(format_time)), self.created.is_some());
        put("resourceVersion", &|| json!(self.resource_version), !self.resource_version.is_empty());
        put("generation", &|| json!(self.generation), self.generation != 0);
        put("uid", &|| json!(self.uid), !self.uid.is_empty());
        json!({
            "apiVersion": format!("{}/{}", self.kind.info().group, self.version),
            "kind": self.kind.name(),
            "metadata": metadata,
            "spec": self.spec.write(),
        })
    }
}

/// Why an object was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", self.place(), crate::field::FieldErrors(self.errors.clone()))]
pub struct ObjectError {
    /// Where it was written.
    pub origin: Option<Origin>,
    /// What it calls itself, as far as that could be read.
    pub object: Option<ObjectRef>,
    /// What is wrong.
    pub errors: Vec<FieldError>,
}

impl ObjectError {
    fn place(&self) -> String {
        let mut place = String::new();
        if let Some(origin) = &self.origin {
            place = format!("{origin}: ");
        }
        if let Some(object) = &self.object {
            place.push_str(&format!("{object}: "));
        }
        place
    }
}

/// The group and version of an `apiVersion`.
pub(crate) fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// What an object of any kind calls itself.
pub fn reference_of(value: &Value) -> Option<ObjectRef> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = text("/kind");
    if kind.is_empty() {
        return None;
    }
    Some(ObjectRef {
        kind: kind.to_owned(),
        namespace: text("/metadata/namespace").into(),
        name: text("/metadata/name").to_owned(),
    })
}

/// Reads an object of one of Istio's kinds, such as a watch delivers it.
///
/// # Errors
/// When it is of another kind, or has unknown fields, wrong types or bad durations: each with its path. Rules of the
/// schema that it breaks do not fail the reading, they are left in [`Object::violations`].
pub fn parse_json(value: &Value) -> Result<Object, ObjectError> {
    let mut reader = Reader::default();
    let object = read_object(value, &mut reader);
    let (errors, violations) = reader.finish();
    match object {
        Some(mut object) if errors.is_empty() => {
            object.violations = violations;
            Ok(object)
        }
        _ => Err(ObjectError { origin: None, object: reference_of(value), errors }),
    }
}

fn read_object(value: &Value, reader: &mut Reader) -> Option<Object> {
    let object = reader.object(value)?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = group_version(text("apiVersion"));
    let Some(kind) = Kind::of(group, text("kind")) else {
        reader.field("kind", |r| r.error(format!("no kind {:?} in group {group:?}", text("kind"))));
        return None;
    };
    let info = kind.info();
    if !info.versions.contains(&version) {
        let known = info.versions.join(", ");
        reader.field("apiVersion", |r| r.error(format!("{kind} has no version {version:?}; it has {known}")));
    }
    for key in object.keys() {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&key.as_str()) {
            reader.unknown_field(key, &["metadata", "spec", "status"]);
        }
    }
    let empty = json!({});
    let spec = match object.get("spec").filter(|spec| !spec.is_null()) {
        Some(spec) => spec,
        None => {
            if info.spec_required {
                reader.field("spec", |r| r.violation("is required"));
            }
            &empty
        }
    };
    let spec = reader.field("spec", |reader| info.read_spec(spec, reader))?;
    let mut read = Object::new("", "", spec);
    read.version = version.to_owned();
    if let Some(metadata) = object.get("metadata") {
        reader.field("metadata", |reader| read_metadata(metadata, &mut read, reader));
    }
    Some(read)
}

fn read_metadata(value: &Value, object: &mut Object, reader: &mut Reader) {
    let Some(metadata) = reader.object(value) else { return };
    fn part<T: Field + Default>(metadata: &Map<String, Value>, key: &str, reader: &mut Reader) -> T {
        metadata.get(key).and_then(|value| reader.value(key, value, &[])).unwrap_or_default()
    }
    object.name = part(metadata, "name", reader);
    object.namespace = part::<String>(metadata, "namespace", reader).into();
    object.labels = part(metadata, "labels", reader);
    object.annotations = part(metadata, "annotations", reader);
    object.resource_version = part(metadata, "resourceVersion", reader);
    object.generation = part(metadata, "generation", reader);
    object.uid = part(metadata, "uid", reader);
    let created: String = part(metadata, "creationTimestamp", reader);
    if !created.is_empty() {
        object.created = parse_time(&created);
        if object.created.is_none() {
            let message = format!("{created:?} is no RFC 3339 time");
            reader.field("creationTimestamp", |reader| reader.error(message));
        }
    }
}

fn parse_time(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

fn format_time(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    OffsetDateTime::from(whole).format(&Rfc3339).ok()
}
