//! An API server in a few lines, for tests: a map with versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::api::{Api, ApiError, Backend, Collection, Deletion, Part, TokenRequest};

type Key = (&'static str, String, String);

#[derive(Default)]
struct Objects {
    objects: BTreeMap<Key, Value>,
    version: u64,
}

/// The server. `list` and `get` see every write at once, as the real one's do.
pub(crate) struct Fake {
    objects: Mutex<Objects>,
    changed: watch::Sender<u64>,
}

pub(crate) fn api() -> (Arc<Fake>, Api) {
    let fake = Arc::new(Fake { objects: Mutex::default(), changed: watch::Sender::new(0) });
    (fake.clone(), Api::new(fake))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Fake {
    fn store(&self, key: Key, mut object: Value) -> Value {
        let mut objects = self.objects.lock();
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        objects.objects.insert(key, object.clone());
        self.changed.send_replace(objects.version);
        object
    }

    fn owned_by(&self, uid: &str) -> Vec<(Collection, String, String)> {
        let objects = self.objects.lock();
        let owned = objects.objects.iter().filter(|(_, object)| {
            object["metadata"]["ownerReferences"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|one| one["uid"] == uid)
        });
        let place = |key: &Key| {
            let collection = Collection { group: "", version: "", resource: key.0 };
            (collection, key.1.clone(), key.2.clone())
        };
        owned.map(|(key, _)| place(key)).collect()
    }

    fn remove(&self, key: &Key) {
        let mut objects = self.objects.lock();
        objects.objects.remove(key);
        objects.version += 1;
        self.changed.send_replace(objects.version);
    }
}

fn key(collection: Collection, object: &Value) -> Key {
    (collection.resource, text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

#[async_trait]
impl Backend for Fake {
    async fn list(&self, collection: Collection, namespace: Option<&str>) -> Vec<Value> {
        let objects = self.objects.lock();
        let found = objects.objects.iter().filter(|((resource, within, _), _)| {
            *resource == collection.resource && namespace.is_none_or(|namespace| namespace == within)
        });
        found.map(|(_, object)| object.clone()).collect()
    }

    async fn get(&self, collection: Collection, namespace: Option<&str>, name: &str) -> Option<Value> {
        let key = (collection.resource, namespace.unwrap_or_default().to_owned(), name.to_owned());
        self.objects.lock().objects.get(&key).cloned()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn create(&self, collection: Collection, mut object: Value) -> Result<Value, ApiError> {
        let next = self.objects.lock().version + 1;
        if let Some(stem) = object["metadata"]["generateName"].as_str() {
            object["metadata"]["name"] = json!(format!("{stem}{next:05}"));
        }
        let key = key(collection, &object);
        if self.objects.lock().objects.contains_key(&key) {
            return Err(ApiError::Conflict(format!("{key:?} already exists")));
        }
        object["metadata"]["uid"] = json!(format!("uid-{next}"));
        if key.0 == "services" && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = json!(format!("127.255.1.{next}"));
        }
        Ok(self.store(key, object))
    }

    async fn replace(&self, collection: Collection, object: Value, part: Part) -> Result<Value, ApiError> {
        let key = key(collection, &object);
        let current = self.objects.lock().objects.get(&key).cloned();
        let Some(mut current) = current else { return Err(ApiError::NotFound(format!("{key:?}"))) };
        let stale = object["metadata"]["resourceVersion"]
            .as_str()
            .is_some_and(|version| Some(version) != current["metadata"]["resourceVersion"].as_str());
        if stale {
            return Err(ApiError::Conflict("modified".into()));
        }
        let before = current.clone();
        match part {
            Part::Status => current["status"] = object["status"].clone(),
            Part::Whole => {
                let status = current.get("status").cloned();
                current = object;
                if let Some(status) = status {
                    current["status"] = status;
                }
            }
        }
        Ok(if current == before { current } else { self.store(key, current) })
    }

    async fn delete(&self, deletion: Deletion) -> Result<(), ApiError> {
        let namespace = deletion.namespace.unwrap_or_default();
        let key = (deletion.collection.resource, namespace, deletion.name);
        let current = self.objects.lock().objects.get(&key).cloned();
        let Some(mut current) = current else { return Err(ApiError::NotFound(format!("{key:?}"))) };
        let runs = current["spec"]["nodeName"].is_string() && key.0 == "pods";
        if runs && deletion.grace != Some(0) {
            current["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            current["metadata"]["deletionGracePeriodSeconds"] = json!(1);
            self.store(key, current);
        } else {
            self.remove(&key);
            // What it owned goes with it.
            let uid = text(&current["metadata"]["uid"]);
            for (collection, namespace, name) in self.owned_by(&uid) {
                let deletion =
                    Deletion { collection, namespace: Some(namespace), name, uid: None, grace: None };
                self.delete(deletion).await?;
            }
        }
        Ok(())
    }

    async fn token(&self, request: TokenRequest) -> Result<String, ApiError> {
        Ok(format!("token of {} for {:?}", request.account, request.audience))
    }
}
