//! The one writer: batches of writes, one durable transaction each.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot};

use super::database::Database;
use super::tables::{Change, Event, Tables};
use super::{Rejected, Write};
use crate::object::Object;
use crate::resource::ResourceName;

/// Writes per transaction at most.
const BATCH: usize = 512;

pub(super) struct Pending {
    pub(super) resource: ResourceName,
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Result<Arc<Object>, Rejected>>,
}

pub(super) struct Writer {
    database: Database,
    tables: Arc<RwLock<Tables>>,
    queue: mpsc::UnboundedReceiver<Pending>,
}

/// A write whose precondition held.
pub(super) struct Accepted {
    pub(super) resource: ResourceName,
    pub(super) event: Arc<Event>,
    answer: oneshot::Sender<Result<Arc<Object>, Rejected>>,
}

impl Writer {
    pub(super) fn new(
        database: Database,
        tables: Arc<RwLock<Tables>>,
        queue: mpsc::UnboundedReceiver<Pending>,
    ) -> Self {
        Self { database, tables, queue }
    }

    /// Until every handle of the store is gone.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        while self.queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            let accepted = Batch::new(&self.tables.read()).check(batch.drain(..));
            if accepted.is_empty() {
                continue;
            }
            match self.database.commit(&accepted) {
                Ok(()) => self.publish(accepted),
                Err(error) => {
                    tracing::error!(%error, "the state could not be written; the writes were refused");
                    for one in accepted {
                        drop(one.answer.send(Err(Rejected::Failed(error.to_string()))));
                    }
                }
            }
        }
    }

    fn publish(&self, accepted: Vec<Accepted>) {
        let mut tables = self.tables.write();
        for one in &accepted {
            tables.publish(&one.resource, one.event.clone());
        }
        drop(tables);
        for one in accepted {
            // A caller that went away does not undo its write.
            drop(one.answer.send(Ok(one.event.object.clone())));
        }
    }
}

/// Resource, namespace, name.
type Key = (ResourceName, Box<str>, Box<str>);

/// The state a batch builds upon: what is published, overlaid with the batch's own earlier writes.
struct Batch<'a> {
    tables: &'a Tables,
    resource_version: u64,
    overlay: HashMap<Key, Option<Arc<Object>>>,
}

impl<'a> Batch<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, resource_version: tables.resource_version, overlay: HashMap::new() }
    }

    fn check(mut self, pending: impl Iterator<Item = Pending>) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        for Pending { resource, write, answer } in pending {
            match self.apply(&resource, write) {
                Ok(event) => accepted.push(Accepted { resource, event: Arc::new(event), answer }),
                Err(rejected) => drop(answer.send(Err(rejected))),
            }
        }
        accepted
    }

    fn apply(&mut self, resource: &ResourceName, write: Write) -> Result<Event, Rejected> {
        let (namespace, name) = match &write {
            Write::Create(draft) | Write::Update { draft, .. } => {
                (draft.namespace.clone(), draft.name.clone())
            }
            Write::Delete { namespace, name, .. } => (namespace.clone(), name.clone()),
        };
        let key = (resource.clone(), namespace, name);
        let before = match self.overlay.get(&key) {
            Some(pending) => pending.clone(),
            None => self.tables.get(resource, &key.1, &key.2),
        };
        let version = self.resource_version + 1;
        let event = match write {
            Write::Create(_) if before.is_some() => return Err(Rejected::Exists),
            Write::Create(draft) => Event { change: Change::Added, object: draft.at(version), before: None },
            Write::Update { draft, over } => {
                let before = Self::expect(before, over)?;
                Event { change: Change::Modified, object: draft.at(version), before: Some(before) }
            }
            Write::Delete { over, .. } => {
                let before = Self::expect(before, over)?;
                Event { change: Change::Deleted, object: before.at(version), before: Some(before) }
            }
        };
        self.resource_version = version;
        let now = (event.change != Change::Deleted).then(|| event.object.clone());
        self.overlay.insert(key, now);
        Ok(event)
    }

    fn expect(before: Option<Arc<Object>>, over: u64) -> Result<Arc<Object>, Rejected> {
        match before {
            None => Err(Rejected::Gone),
            Some(object) if object.resource_version == over => Ok(object),
            Some(_) => Err(Rejected::Modified),
        }
    }
}
