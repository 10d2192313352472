//! The cluster's objects as the controllers and the node agent use them: typed, and parsed once.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;

/// The name of a collection of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Collection {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
}

impl Collection {
    pub(crate) const fn of<T: Resource>() -> Self {
        Self { group: T::GROUP, version: T::VERSION, resource: T::URL_PATH_SEGMENT }
    }
}

/// Why the API refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    NotFound(String),
    /// Somebody else was first: read again, decide again.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Other(String),
}

/// A service-account token to be issued.
#[derive(Clone, Debug)]
pub(crate) struct TokenRequest {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) audience: Option<String>,
    pub(crate) lifetime: Duration,
    /// The pod that the token dies with.
    pub(crate) pod: String,
}

/// What of an object a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Status,
}

/// Which object, and how to delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) collection: Collection,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    /// Only this very object, not a later one of its name.
    pub(crate) uid: Option<String>,
    /// Seconds a pod is given; the pod's own when not said.
    pub(crate) grace: Option<i64>,
}

/// An API server in this process.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// Every object of a collection, or those of one namespace.
    async fn list(&self, collection: Collection, namespace: Option<&str>) -> Vec<Value>;
    /// One object.
    async fn get(&self, collection: Collection, namespace: Option<&str>, name: &str) -> Option<Value>;
    /// Moves on with every write to a collection of interest.
    fn changes(&self) -> watch::Receiver<u64>;
    /// Creates an object, with all that admission does.
    async fn create(&self, collection: Collection, object: Value) -> Result<Value, ApiError>;
    /// Replaces an object; a stale resourceVersion is a conflict.
    async fn replace(&self, collection: Collection, object: Value, part: Part) -> Result<Value, ApiError>;
    /// Deletes an object.
    async fn delete(&self, deletion: Deletion) -> Result<(), ApiError>;
    /// Issues a token.
    async fn token(&self, request: TokenRequest) -> Result<String, ApiError>;
}

/// Typed access to the objects. Clones share one cache of parsed objects.
#[derive(Clone)]
pub(crate) struct Api {
    backend: Arc<dyn Backend>,
    parsed: Arc<Mutex<HashMap<(TypeId, String), Parsed>>>,
}

struct Parsed {
    version: String,
    object: Arc<dyn Any + Send + Sync>,
}

impl Api {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, parsed: Arc::default() }
    }

    /// Every object of a kind. One that does not parse is left out, and logged.
    pub(crate) async fn list<T: Kind>(&self) -> Vec<Arc<T>> {
        self.parse_all(&self.backend.list(Collection::of::<T>(), None).await)
    }

    /// The objects of a kind in one namespace.
    pub(crate) async fn list_in<T: Kind>(&self, namespace: &str) -> Vec<Arc<T>> {
        self.parse_all(&self.backend.list(Collection::of::<T>(), Some(namespace)).await)
    }

    fn parse_all<T: Kind>(&self, found: &[Value]) -> Vec<Arc<T>> {
        let mut parsed = self.parsed.lock();
        let before = parsed.len();
        let out: Vec<Arc<T>> = found.iter().filter_map(|value| parse(&mut parsed, value)).collect();
        if before > 2 * out.len() + 4096 {
            // Objects long gone: start over rather than track each deletion.
            parsed.clear();
        }
        out
    }

    /// One object.
    pub(crate) async fn get<T: Kind>(&self, namespace: Option<&str>, name: &str) -> Option<Arc<T>> {
        let value = self.backend.get(Collection::of::<T>(), namespace, name).await?;
        parse(&mut self.parsed.lock(), &value)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.backend.changes()
    }

    pub(crate) async fn create<T: Kind>(&self, object: &T) -> Result<T, ApiError> {
        from_value(self.backend.create(Collection::of::<T>(), to_value(object)?).await?)
    }

    pub(crate) async fn replace<T: Kind>(&self, object: &T, part: Part) -> Result<T, ApiError> {
        from_value(self.backend.replace(Collection::of::<T>(), to_value(object)?, part).await?)
    }

    pub(crate) async fn delete(&self, deletion: Deletion) -> Result<(), ApiError> {
        self.backend.delete(deletion).await
    }

    pub(crate) async fn token(&self, request: TokenRequest) -> Result<String, ApiError> {
        self.backend.token(request).await
    }

    /// Carries out a controller's decision. What somebody else has done or undone meanwhile is no failure.
    /// Returns what was written, if anything was.
    pub(crate) async fn carry_out(&self, change: Change) -> Result<Option<Value>, ApiError> {
        let done = match change {
            Change::Create(collection, object) => self.backend.create(collection, object).await.map(Some),
            Change::Replace(collection, object, part) => {
                self.backend.replace(collection, object, part).await.map(Some)
            }
            Change::Delete(deletion) => self.backend.delete(deletion).await.map(|()| None),
        };
        match done {
            Err(ApiError::Conflict(_) | ApiError::NotFound(_)) => Ok(None),
            other => other,
        }
    }
}

/// A kind that controllers read and write.
pub(crate) trait Kind:
    Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<T> Kind for T where
    T: Resource + Metadata<Ty = ObjectMeta> + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

/// What a controller wants done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(Collection, Value),
    Replace(Collection, Value, Part),
    Delete(Deletion),
}

impl Change {
    pub(crate) fn create<T: Kind>(object: &T) -> Option<Self> {
        Some(Self::Create(Collection::of::<T>(), to_value(object).ok()?))
    }

    pub(crate) fn replace<T: Kind>(object: &T) -> Option<Self> {
        Some(Self::Replace(Collection::of::<T>(), to_value(object).ok()?, Part::Whole))
    }

    pub(crate) fn status<T: Kind>(object: &T) -> Option<Self> {
        Some(Self::Replace(Collection::of::<T>(), to_value(object).ok()?, Part::Status))
    }

    pub(crate) fn delete<T: Kind>(object: &T) -> Option<Self> {
        Some(Self::Delete(deletion(object)))
    }
}

/// The deletion of this very object.
pub(crate) fn deletion<T: Kind>(object: &T) -> Deletion {
    let meta = object.metadata();
    Deletion {
        collection: Collection::of::<T>(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone(),
        grace: None,
    }
}

fn to_value<T: Serialize>(object: &T) -> Result<Value, ApiError> {
    serde_json::to_value(object).map_err(|error| ApiError::Other(error.to_string()))
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::Other(error.to_string()))
}

fn parse<T: Kind>(parsed: &mut HashMap<(TypeId, String), Parsed>, value: &Value) -> Option<Arc<T>> {
    let meta = value.get("metadata")?;
    let text = |key| meta.get(key).and_then(Value::as_str).unwrap_or_default();
    let key = (TypeId::of::<T>(), text("uid").to_owned());
    let version = text("resourceVersion");
    if let Some(known) = parsed.get(&key)
        && known.version == version
        && !version.is_empty()
    {
        return known.object.clone().downcast::<T>().ok();
    }
    match T::deserialize(value) {
        Ok(object) => {
            let object = Arc::new(object);
            parsed.insert(key, Parsed { version: version.to_owned(), object: object.clone() });
            Some(object)
        }
        Err(error) => {
            let name = text("name");
            tracing::warn!(kind = T::KIND, name, %error, "an object that does not parse is left alone");
            None
        }
    }
}

/// An object's namespace, or nothing.
pub(crate) fn namespace_of(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// An object's name, or nothing.
pub(crate) fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}
