//! Objects: as they are stored (bytes), and words for their JSON.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::api::FOREGROUND;
use crate::resource::Resource;

/// A stored object, version-neutral: everything but `apiVersion`, `kind` and `metadata.resourceVersion`, which are put
/// back when it is served. Memory holds these bytes, the labels and the ties, nothing else decoded.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) resource_version: u64,
    pub(crate) labels: Labels,
    pub(crate) ties: Ties,
    tail: Bytes,
}

/// What decides on an object's life besides its users: read at each removal of any object, so kept decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ties {
    pub(crate) uid: Box<str>,
    pub(crate) owners: Box<[Owner]>,
    /// There is a `deletionTimestamp`.
    pub(crate) deleted: bool,
    /// The finalizer of foreground deletion is there.
    pub(crate) foreground: bool,
}

/// An owner reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: Box<str>,
    /// `blockOwnerDeletion`.
    pub(crate) blocks: bool,
}

impl Ties {
    fn of(value: &Value) -> Self {
        let metadata = metadata(value);
        let owner = |reference: &Value| {
            let uid = reference["uid"].as_str()?.into();
            Some(Owner { uid, blocks: reference["blockOwnerDeletion"] == true })
        };
        let finalizers = metadata["finalizers"].as_array();
        Self {
            uid: uid(value).into(),
            owners: metadata["ownerReferences"].as_array().into_iter().flatten().filter_map(owner).collect(),
            deleted: metadata["deletionTimestamp"].is_string(),
            foreground: finalizers.is_some_and(|all| all.iter().any(|one| one == FOREGROUND)),
        }
    }
}

/// Labels, sorted by key.
pub(crate) type Labels = Box<[(Box<str>, Box<str>)]>;

/// An object on its way to the store: it has no resource version yet.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) namespace: Box<str>,
    pub(crate) name: Box<str>,
    labels: Labels,
    ties: Ties,
    tail: Bytes,
}

impl Draft {
    /// Takes the JSON of an object that has a name.
    pub(crate) fn new(mut value: Value) -> Self {
        let labels = labels_of(&value);
        let ties = Ties::of(&value);
        let namespace = namespace(&value).into();
        let name = name(&value).into();
        let mut tail = Vec::with_capacity(512);
        if let Some(object) = value.as_object_mut() {
            object.shift_remove("apiVersion");
            object.shift_remove("kind");
            let mut metadata = object.shift_remove("metadata").unwrap_or_else(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                for unstored in ["resourceVersion", "selfLink"] {
                    metadata.shift_remove(unstored);
                }
            }
            tail.extend_from_slice(&metadata.to_string().as_bytes()[1..]);
            if object.is_empty() {
                tail.push(b'}');
            } else {
                tail.push(b',');
                tail.extend_from_slice(&value.to_string().as_bytes()[1..]);
            }
        }
        Self { namespace, name, labels, ties, tail: tail.into() }
    }

    /// The stored form at a resource version.
    pub(crate) fn at(self, resource_version: u64) -> Arc<Object> {
        let Self { namespace, name, labels, ties, tail } = self;
        Arc::new(Object { namespace, name, resource_version, labels, ties, tail })
    }

    /// True when nothing but the resource version tells the two apart.
    pub(crate) fn same_as(&self, object: &Object) -> bool {
        self.tail == object.tail
    }
}

impl Object {
    /// From what the database holds.
    pub(crate) fn from_stored(
        namespace: &str,
        name: &str,
        resource_version: u64,
        tail: &[u8],
    ) -> Option<Arc<Self>> {
        let object = Self {
            namespace: namespace.into(),
            name: name.into(),
            resource_version,
            labels: Box::default(),
            ties: Ties::default(),
            tail: Bytes::copy_from_slice(tail),
        };
        let value = object.neutral()?;
        Some(Arc::new(Self { labels: labels_of(&value), ties: Ties::of(&value), ..object }))
    }

    /// What the database keeps besides the resource version.
    pub(crate) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// The same object at a later resource version (a deletion's).
    pub(crate) fn at(&self, resource_version: u64) -> Arc<Self> {
        Arc::new(Self {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            resource_version,
            labels: self.labels.clone(),
            ties: self.ties.clone(),
            tail: self.tail.clone(),
        })
    }

    /// Appends the JSON in the resource's version.
    pub(crate) fn write(&self, resource: &Resource, out: &mut Vec<u8>) {
        self.write_as(&resource.api_version(), &resource.kind, out);
    }

    fn write_as(&self, api_version: &str, kind: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"apiVersion\":\"");
        out.extend_from_slice(api_version.as_bytes());
        out.extend_from_slice(b"\",\"kind\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"metadata\":{\"resourceVersion\":\"");
        out.extend_from_slice(self.resource_version.to_string().as_bytes());
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.tail);
    }

    /// The JSON in the resource's version.
    pub(crate) fn value(&self, resource: &Resource) -> Value {
        let mut out = Vec::with_capacity(self.tail.len() + 128);
        self.write(resource, &mut out);
        // The bytes were serialised by this process or checked at start.
        serde_json::from_slice(&out).unwrap_or(Value::Null)
    }

    /// The JSON, whatever the version.
    pub(crate) fn neutral(&self) -> Option<Value> {
        let mut out = Vec::with_capacity(self.tail.len() + 64);
        self.write_as("", "", &mut out);
        serde_json::from_slice(&out).ok()
    }
}

/// `metadata`, or null.
pub(crate) fn metadata(value: &Value) -> &Value {
    &value["metadata"]
}

/// `metadata` as a map, made when it is missing.
pub(crate) fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    child_mut(value, "metadata")
}

/// The object `value[key]`, made when it is missing or of another type.
pub(crate) fn child_mut<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        _ => unreachable!("was made an object above"),
    }
}

/// `metadata.name`, or "".
pub(crate) fn name(value: &Value) -> &str {
    metadata(value)["name"].as_str().unwrap_or_default()
}

/// `metadata.namespace`, or "".
pub(crate) fn namespace(value: &Value) -> &str {
    metadata(value)["namespace"].as_str().unwrap_or_default()
}

/// `metadata.uid`, or "".
pub(crate) fn uid(value: &Value) -> &str {
    metadata(value)["uid"].as_str().unwrap_or_default()
}

fn labels_of(value: &Value) -> Labels {
    let Some(map) = metadata(value)["labels"].as_object() else { return Box::default() };
    let mut labels: Vec<(Box<str>, Box<str>)> = map
        .iter()
        .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()))
        .collect();
    labels.sort_unstable();
    labels.into_boxed_slice()
}
