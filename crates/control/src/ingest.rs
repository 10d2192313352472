//! Objects as they come from the API server, typed or rejected by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::{Kind, Object, Severity};
use lateen_base::ObjectRef;
use lateen_kube::WatchEvent;
use lateen_registry::{Event, Key, Resource, View};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::input::Watched;
use crate::settings::Settings;

/// Types objects; remembers which were rejected and why.
#[derive(Debug, Default)]
pub(crate) struct Ingest {
    rejected: BTreeMap<ObjectRef, String>,
}

impl Ingest {
    /// The objects whose newest version is not used, and why.
    pub(crate) fn rejected(&self) -> &BTreeMap<ObjectRef, String> {
        &self.rejected
    }

    /// The registry's words for what happened. A rejected object changes nothing: its last good version stays.
    pub(crate) fn event(
        &mut self,
        kind: Watched,
        event: WatchEvent,
        view: &View,
        settings: &Settings,
    ) -> Option<Event> {
        match event {
            WatchEvent::Applied(object) if is_foreign(&object, settings) => self.removed(kind, &object),
            WatchEvent::Applied(object) => self.typed(kind, &object).map(Event::Applied),
            WatchEvent::Deleted(object) => self.removed(kind, &object),
            WatchEvent::Replaced(objects) => {
                let ours = objects.iter().filter(|object| !is_foreign(object, settings));
                let resources = ours
                    .filter_map(|object| self.typed(kind, object).or_else(|| last_good(kind, object, view)));
                let resources = resources.collect();
                self.forget_gone(kind, &objects);
                Some(Event::Relisted { kind: any_key(kind)?, resources })
            }
            WatchEvent::Failed(_) => None,
        }
    }

    fn typed(&mut self, kind: Watched, object: &Value) -> Option<Resource> {
        let reference = reference(kind, object);
        match read(kind, object) {
            Ok(resource) => {
                self.rejected.remove(&reference);
                Some(resource)
            }
            Err(reason) => {
                tracing::warn!(target: "model", "{reference} rejected: {reason}");
                self.rejected.insert(reference, reason);
                None
            }
        }
    }

    fn removed(&mut self, kind: Watched, object: &Value) -> Option<Event> {
        let reference = reference(kind, object);
        self.rejected.remove(&reference);
        key(kind, &reference).map(Event::Removed)
    }

    fn forget_gone(&mut self, kind: Watched, objects: &[Value]) {
        let name = kind.resource().kind;
        let there: Vec<ObjectRef> = objects.iter().map(|object| reference(kind, object)).collect();
        self.rejected.retain(|reference, _| reference.kind != name || there.contains(reference));
    }
}

/// Whether another revision of the control plane owns the object.
fn is_foreign(object: &Value, settings: &Settings) -> bool {
    let group = object["apiVersion"].as_str().unwrap_or_default();
    let revision = object["metadata"]["labels"]["istio.io/rev"].as_str();
    group.contains(".istio.io/") && !settings.is_for_us(revision)
}

fn read(kind: Watched, object: &Value) -> Result<Resource, String> {
    fn core<T: DeserializeOwned>(object: &Value) -> Result<Arc<T>, String> {
        T::deserialize(object).map(Arc::new).map_err(|error| error.to_string())
    }
    match kind {
        Watched::Service => core(object).map(Resource::Service),
        Watched::EndpointSlice => core(object).map(Resource::EndpointSlice),
        Watched::Endpoints => core(object).map(Resource::Endpoints),
        Watched::Pod => core(object).map(Resource::Pod),
        Watched::Node => core(object).map(Resource::Node),
        Watched::Namespace => core(object).map(Resource::Namespace),
        Watched::Ingress => core(object).map(Resource::Ingress),
        Watched::IngressClass => core(object).map(Resource::IngressClass),
        Watched::Istio(_) => istio(object).map(Resource::Config),
        Watched::Secret | Watched::ConfigMap | Watched::RootMap | Watched::Webhook | Watched::Validator => {
            Err("it is no part of the registry".into())
        }
    }
}

fn istio(object: &Value) -> Result<Arc<Object>, String> {
    let object = lateen_api::parse_json(object).map_err(|error| {
        let errors = error.errors.iter().map(ToString::to_string);
        errors.collect::<Vec<_>>().join("; ")
    })?;
    let problems = lateen_api::validate(&object);
    let errors: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    match errors.is_empty() {
        true => Ok(Arc::new(object)),
        false => Err(errors.join("; ")),
    }
}

fn last_good(kind: Watched, object: &Value, view: &View) -> Option<Resource> {
    let Watched::Istio(kind) = kind else { return None };
    let reference = reference(Watched::Istio(kind), object);
    view.configs.object(kind, &reference.namespace, &reference.name).cloned().map(Resource::Config)
}

fn reference(kind: Watched, object: &Value) -> ObjectRef {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    ObjectRef {
        kind: kind.resource().kind,
        namespace: text("namespace").into(),
        name: text("name").to_owned(),
    }
}

fn key(kind: Watched, reference: &ObjectRef) -> Option<Key> {
    let (namespace, name) = (reference.namespace.clone(), reference.name.clone());
    Some(match kind {
        Watched::Service => Key::Service(namespace, name),
        Watched::EndpointSlice => Key::EndpointSlice(namespace, name),
        Watched::Endpoints => Key::Endpoints(namespace, name),
        Watched::Pod => Key::Pod(namespace, name),
        Watched::Node => Key::Node(name),
        Watched::Namespace => Key::Namespace(name.into()),
        Watched::Ingress => Key::Ingress(namespace, name),
        Watched::IngressClass => Key::IngressClass(name),
        Watched::Istio(kind) => Key::Config(kind, namespace, name),
        Watched::Secret | Watched::ConfigMap | Watched::RootMap | Watched::Webhook | Watched::Validator => {
            return None;
        }
    })
}

fn any_key(kind: Watched) -> Option<Key> {
    let nameless = ObjectRef { kind: String::new(), namespace: "".into(), name: String::new() };
    key(kind, &nameless)
}

/// The kind's word in the path of an object, as `metadata.filter_metadata.istio.config` has it.
pub(crate) fn kind_of_path(word: &str) -> Option<Kind> {
    let squeezed: String = word.chars().filter(|c| *c != '-').collect();
    lateen_api::KINDS.iter().find(|info| info.name.eq_ignore_ascii_case(&squeezed)).map(|info| info.kind)
}
