//! Events: what `kubectl describe` shows under a pod.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::mpsc;

use crate::api::{Api, Kind, Part, name_of, namespace_of};
use crate::instant;

/// How grave an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Normal,
    Warning,
}

/// Writes events, in the background and in order. Equal ones are counted up.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    queue: mpsc::UnboundedSender<Said>,
}

#[derive(Debug)]
struct Said {
    about: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
    component: &'static str,
}

/// More than this many different events are not remembered for counting.
const REMEMBERED: usize = 4096;

impl Events {
    /// Starts the writer; it ends with the last clone.
    pub(crate) fn start(api: Api) -> Self {
        let (queue, inbox) = mpsc::unbounded_channel();
        tokio::spawn(write(api, inbox));
        Self { queue }
    }

    /// Something normal about a pod.
    pub(crate) fn normal(&self, pod: &Pod, reason: &'static str, message: impl Into<String>) {
        self.say(pod, "kubelet", Severity::Normal, reason, message.into());
    }

    /// Something to look at about a pod.
    pub(crate) fn warning(&self, pod: &Pod, reason: &'static str, message: impl Into<String>) {
        self.say(pod, "kubelet", Severity::Warning, reason, message.into());
    }

    /// An event about any object.
    pub(crate) fn say<T: Kind>(
        &self,
        about: &T,
        component: &'static str,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let meta = about.metadata();
        let about = ObjectReference {
            api_version: Some(T::API_VERSION.to_owned()),
            kind: Some(T::KIND.to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: None,
        };
        // The writer outlives all that has something to say but the last moments of the process.
        let _ = self.queue.send(Said { about, severity, reason, message, component });
    }
}

async fn write(api: Api, mut inbox: mpsc::UnboundedReceiver<Said>) {
    let mut known: HashMap<(String, &'static str, String), Event> = HashMap::new();
    while let Some(said) = inbox.recv().await {
        let uid = said.about.uid.clone().unwrap_or_default();
        let key = (uid, said.reason, said.message.clone());
        if known.len() > REMEMBERED {
            known.clear();
        }
        let written = match known.remove(&key) {
            Some(event) => again(&api, event).await,
            None => None,
        };
        let written = match written {
            Some(event) => Some(event),
            None => api.create(&event(&said)).await.ok(),
        };
        if let Some(event) = written {
            known.insert(key, event);
        }
    }
}

async fn again(api: &Api, mut event: Event) -> Option<Event> {
    event.count = Some(event.count.unwrap_or(1) + 1);
    event.last_timestamp = Some(instant::time());
    // It may have expired, or its namespace be gone: then it is made anew.
    api.replace(&event, Part::Whole).await.ok()
}

fn event(said: &Said) -> Event {
    let now = instant::now();
    let name = said.about.name.as_deref().unwrap_or_default();
    let namespace = said.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let severity = match said.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:016x}", now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: said.about.clone(),
        type_: Some(severity.to_owned()),
        reason: Some(said.reason.to_owned()),
        message: Some(said.message.clone()),
        count: Some(1),
        first_timestamp: Some(instant::time()),
        last_timestamp: Some(instant::time()),
        source: Some(EventSource { component: Some(said.component.to_owned()), host: None }),
        reporting_component: Some(said.component.to_owned()),
        ..Event::default()
    }
}

/// The name of an object with its namespace, for messages.
pub(crate) fn full_name(meta: &ObjectMeta) -> String {
    format!("{}/{}", namespace_of(meta), name_of(meta))
}
