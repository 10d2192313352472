//! Watches: a cursor into the store's changes, pulled by the reader, so that a slow one holds nothing up.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use crate::object::Object;
use crate::resource::Resource;
use crate::selector::Selector;
use crate::status::Status;
use crate::store::{Change, Event, Store};

/// Changes taken at once: what a reader holds that is slower than the writers.
const TAKEN: usize = 256;

/// What a [`Watch`] tells.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent {
    /// The object is new, or new to the selection.
    Added(Value),
    /// The object changed.
    Modified(Value),
    /// The object is gone, or left the selection; its last state.
    Deleted(Value),
    /// All objects that existed at the start (or at [`WatchEvent::Restarted`]) were told; the resource version.
    Synced(u64),
    /// The reader was too slow: what it knows may be outdated, and the objects there are follow as after a start.
    Restarted,
}

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// With the objects there are, as `Added`, then `Synced`.
    State,
    /// With the changes after a resource version.
    After(u64),
}

/// A running watch of the in-process client.
pub struct Watch {
    cursor: Cursor,
    resource: Arc<Resource>,
    queued: VecDeque<WatchEvent>,
}

impl Watch {
    pub(crate) fn new(cursor: Cursor, resource: Arc<Resource>) -> Self {
        let mut watch = Self { cursor, resource, queued: VecDeque::new() };
        watch.queue_initial();
        watch
    }

    /// The next event; waits for it. `None` when the server has stopped.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.queued.pop_front() {
                return Some(event);
            }
            match self.cursor.next().await {
                Ok(Some(changes)) => {
                    let resource = &self.resource;
                    self.queued.extend(changes.into_iter().map(|(change, object)| {
                        let value = object.value(resource);
                        match change {
                            Change::Added => WatchEvent::Added(value),
                            Change::Modified => WatchEvent::Modified(value),
                            Change::Deleted => WatchEvent::Deleted(value),
                        }
                    }));
                }
                Ok(None) => return None,
                Err(_expired) => {
                    self.cursor.restart();
                    self.queued.push_back(WatchEvent::Restarted);
                    self.queue_initial();
                }
            }
        }
    }

    fn queue_initial(&mut self) {
        let Some(objects) = self.cursor.take_initial() else { return };
        let resource = &self.resource;
        self.queued.extend(objects.iter().map(|o| WatchEvent::Added(o.value(resource))));
        self.queued.push_back(WatchEvent::Synced(self.cursor.position));
    }
}

/// Changes as a watch tells them.
pub(crate) type Changes = Vec<(Change, Arc<Object>)>;

/// A place in the changes of a resource, and what to tell of them.
pub(crate) struct Cursor {
    store: Store,
    resource: Arc<Resource>,
    namespace: Option<Box<str>>,
    selector: Selector,
    changed: tokio::sync::watch::Receiver<u64>,
    initial: Option<Vec<Arc<Object>>>,
    /// Everything up to this resource version has been told.
    pub(crate) position: u64,
}

impl Cursor {
    pub(crate) fn new(
        store: &Store,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        selector: Selector,
        start: WatchStart,
    ) -> Result<Self, Status> {
        let changed = store.subscribe(&resource.name);
        let mut cursor = Self {
            store: store.clone(),
            resource: resource.clone(),
            namespace: namespace.map(Into::into),
            selector,
            changed,
            initial: None,
            position: 0,
        };
        match start {
            WatchStart::State => cursor.restart(),
            WatchStart::After(version) => {
                cursor.position = version;
                let newest = store.resource_version();
                if version > newest || store.changes(&resource.name, version, 0).is_none() {
                    return Err(too_old(version, newest));
                }
            }
        }
        Ok(cursor)
    }

    /// Starts over with the objects there are.
    pub(crate) fn restart(&mut self) {
        let page = self.store.list(&self.resource.name, self.namespace.as_deref());
        self.position = page.resource_version;
        self.initial =
            Some(page.objects.into_iter().filter(|o| self.selector.matches(o, &self.resource)).collect());
    }

    /// The objects to begin with, once after a start with the state.
    pub(crate) fn take_initial(&mut self) -> Option<Vec<Arc<Object>>> {
        self.initial.take()
    }

    /// Moves on as far as nothing is left to tell.
    pub(crate) fn advance(&mut self) {
        if let Some((events, upto)) = self.store.changes(&self.resource.name, self.position, TAKEN)
            && !events.iter().any(|event| self.tell(event).is_some())
        {
            self.position = upto;
        }
    }

    /// The next changes that concern this watch, waiting for them; `None` when the store is closed. Fails with 410 when
    /// changes were forgotten before they were read.
    pub(crate) async fn next(&mut self) -> Result<Option<Changes>, Status> {
        loop {
            self.changed.mark_unchanged();
            let Some((events, upto)) = self.store.changes(&self.resource.name, self.position, TAKEN) else {
                return Err(too_old(self.position, self.store.resource_version()));
            };
            self.position = upto;
            let told: Vec<_> = events.iter().filter_map(|event| self.tell(event)).collect();
            if !told.is_empty() {
                return Ok(Some(told));
            }
            if events.len() == TAKEN {
                continue;
            }
            if self.changed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// The event as seen through the selection: objects enter and leave it.
    fn tell(&self, event: &Event) -> Option<(Change, Arc<Object>)> {
        if self.namespace.as_deref().is_some_and(|ns| ns != &*event.object.namespace) {
            return None;
        }
        let matches = |object: &Arc<Object>| self.selector.matches(object, &self.resource);
        let before = event.before.as_ref().is_some_and(matches);
        let now = event.change != Change::Deleted && matches(&event.object);
        let change = match (before, now) {
            (false, false) => return None,
            (false, true) => Change::Added,
            (true, true) => Change::Modified,
            (true, false) => Change::Deleted,
        };
        Some((change, event.object.clone()))
    }
}

fn too_old(asked: u64, newest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({newest})"))
}
