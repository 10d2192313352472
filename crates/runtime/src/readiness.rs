//! Readiness: the process is ready once every named task has said so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The set of tasks that are still on their way. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeSet<String>>>,
    ready: watch::Sender<bool>,
}

/// One task's word; dropping it says "ready".
#[derive(Debug)]
pub struct Task {
    name: String,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { pending: Arc::default(), ready: watch::Sender::new(true) }
    }
}

impl Readiness {
    /// Nothing is pending yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a task that must become ready.
    pub fn task(&self, name: impl Into<String>) -> Task {
        let name = name.into();
        self.change(|pending| {
            pending.insert(name.clone());
        });
        Task { name, readiness: self.clone() }
    }

    /// The tasks that are not ready, by name.
    pub fn pending(&self) -> Vec<String> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Whether all are.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until all are.
    pub async fn wait(&self) {
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeSet<String>)) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut pending);
        self.ready.send_replace(pending.is_empty());
    }
}

impl Task {
    /// Says that the task is ready.
    pub fn ready(self) {}
}

impl Drop for Task {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.readiness.change(|pending| {
            pending.remove(&name);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_when_every_task_is() {
        let readiness = Readiness::new();
        let (a, b) = (readiness.task("listeners"), readiness.task("secrets"));
        a.ready();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.pending(), ["secrets"]);
        b.ready();
        readiness.wait().await;
        assert!(readiness.is_ready());
    }
}
