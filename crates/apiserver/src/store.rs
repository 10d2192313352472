//! The store: every object in memory, every write in redb before it is acknowledged or seen.
//!
//! One writer thread takes whatever writes are waiting, checks their preconditions in order, commits them in one durable
//! transaction and only then publishes them to readers and watchers. Reads therefore never show what a crash could undo.

mod database;
mod pages;
mod tables;
mod writer;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::database::StoreError;
pub(crate) use self::pages::{Page, Slice};
use self::tables::Tables;
pub(crate) use self::tables::{Change, Event};
use self::writer::Pending;
use crate::object::{Draft, Object};
use crate::resource::ResourceName;

/// Handle to the store; clones share it. The database closes when the last clone is gone.
#[derive(Clone)]
pub(crate) struct Store {
    tables: Arc<RwLock<Tables>>,
    queue: mpsc::UnboundedSender<Pending>,
}

/// One write. The precondition is part of it: the writer checks it against what is committed before.
#[derive(Debug)]
pub(crate) enum Write {
    /// Fails with [`Rejected::Exists`] when there is an object of that name.
    Create(Draft),
    /// Replaces the object whose resource version is `over`.
    Update { draft: Draft, over: u64 },
    /// Removes the object whose resource version is `over`.
    Delete { namespace: Box<str>, name: Box<str>, over: u64 },
}

/// Why a write was not done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// Create: the name is taken.
    Exists,
    /// Update or delete: the object is gone.
    Gone,
    /// Update or delete: the object has another resource version.
    Modified,
    /// The database failed; nothing was written.
    Failed(String),
}

impl Store {
    /// Opens the database below `dir`, creating it when it is missing, and loads it.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let (database, tables) = database::Database::open(dir)?;
        let tables = Arc::new(RwLock::new(tables));
        let (queue, receiver) = mpsc::unbounded_channel();
        let writer = writer::Writer::new(database, tables.clone(), receiver);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|e| StoreError::Thread(e.to_string()))?;
        Ok(Self { tables, queue })
    }

    /// The object, if it exists.
    pub(crate) fn get(&self, resource: &ResourceName, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.tables.read().get(resource, namespace, name)
    }

    /// All objects, in order of namespace and name.
    pub(crate) fn list(&self, resource: &ResourceName, namespace: Option<&str>) -> Page {
        self.tables.read().list(resource, namespace)
    }

    /// A part of the objects, in order of namespace and name; `None` when the state asked for is no longer remembered.
    pub(crate) fn page(&self, resource: &ResourceName, slice: &Slice<'_>) -> Option<Page> {
        self.tables.read().page(resource, slice)
    }

    /// Resource version of the newest write of any resource.
    pub(crate) fn resource_version(&self) -> u64 {
        self.tables.read().resource_version
    }

    /// Resource version of the newest write of this resource.
    pub(crate) fn changed_at(&self, resource: &ResourceName) -> u64 {
        self.tables.read().changed_at(resource)
    }

    /// Changes of a resource after `after`, in order and at most `limit` of them, with the resource version up to which
    /// they are complete. `None` when some of them are no longer remembered.
    pub(crate) fn changes(
        &self,
        resource: &ResourceName,
        after: u64,
        limit: usize,
    ) -> Option<(Vec<Arc<Event>>, u64)> {
        self.tables.read().changes(resource, after, limit)
    }

    /// Wakes on each change of the resource.
    pub(crate) fn subscribe(&self, resource: &ResourceName) -> watch::Receiver<u64> {
        self.tables.write().subscribe(resource)
    }

    /// Wakes those who wait for removals: one is to come.
    pub(crate) fn announce_removal(&self) {
        self.tables.read().removals.send_modify(|_| {});
    }

    /// Wakes when anything is removed or announced to be, and on changes of namespaces.
    pub(crate) fn removals(&self) -> watch::Receiver<u64> {
        self.tables.read().removals.subscribe()
    }

    /// Does the write; returns when it is durable and visible. The object returned for a deletion is the last state.
    pub(crate) async fn write(&self, resource: &ResourceName, write: Write) -> Result<Arc<Object>, Rejected> {
        let (answer, answered) = oneshot::channel();
        let pending = Pending { resource: resource.clone(), write, answer };
        let stopped =
            || Rejected::Failed("the store has stopped after an earlier failure; restart the server".into());
        self.queue.send(pending).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

#[cfg(test)]
mod tests;
