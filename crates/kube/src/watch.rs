//! Watches that go on for ever: a relist fills a side buffer and comes out as one replacement.

use futures::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, watcher};
use serde_json::Value;
use tracing::warn;

use crate::client::{Client, chain, to_value};
use crate::{KubeError, ResourceKind};

/// What of a kind is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The namespace; none: all.
    pub namespace: Option<String>,
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector.
    pub fields: Option<String>,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    /// These are all objects there are, at the start and after every relist; what is not among them is gone.
    Replaced(Vec<Value>),
    /// The object was created or changed.
    Applied(Value),
    /// The object was deleted; this was its last state.
    Deleted(Value),
    /// The server cannot be reached, or refuses; the watch goes on trying, and what was known stays.
    Failed(String),
}

impl Client {
    /// Watches a kind. The stream never ends; errors are events.
    pub fn watch(&self, kind: &ResourceKind, scope: &Scope) -> impl Stream<Item = WatchEvent> + Send + use<> {
        let api = self.api(kind, scope.namespace.as_deref());
        let mut config = watcher::Config::default();
        config.label_selector.clone_from(&scope.labels);
        config.field_selector.clone_from(&scope.fields);
        let name = kind.plural.clone();
        let events = kube::runtime::WatchStreamExt::default_backoff(watcher(api, config));
        stream::unfold((Box::pin(events), Vec::new()), move |(mut events, mut buffer)| {
            let name = name.clone();
            async move {
                loop {
                    let event = match events.next().await? {
                        Ok(watcher::Event::Init) => {
                            buffer.clear();
                            continue;
                        }
                        Ok(watcher::Event::InitApply(object)) => {
                            match to_value(object) {
                                Ok(value) => buffer.push(value),
                                Err(error) => warn!("watch of {name}: {error}"),
                            }
                            continue;
                        }
                        Ok(watcher::Event::InitDone) => WatchEvent::Replaced(std::mem::take(&mut buffer)),
                        Ok(watcher::Event::Apply(object)) => changed(to_value(object), WatchEvent::Applied),
                        Ok(watcher::Event::Delete(object)) => changed(to_value(object), WatchEvent::Deleted),
                        Err(error) => WatchEvent::Failed(chain(&error)),
                    };
                    return Some((event, (events, buffer)));
                }
            }
        })
    }
}

fn changed(value: Result<Value, KubeError>, event: fn(Value) -> WatchEvent) -> WatchEvent {
    match value {
        Ok(value) => event(value),
        Err(error) => WatchEvent::Failed(error.to_string()),
    }
}
