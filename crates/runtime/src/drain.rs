//! Drain: one word of "finish and go" to every task, and a wait until the last one has gone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The side that starts the drain and waits. Clones speak of the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    token: CancellationToken,
    tracker: TaskTracker,
}

/// What a task holds while it has work to finish; the process may exit once all guards are gone.
#[derive(Clone, Debug)]
pub struct DrainGuard {
    token: CancellationToken,
    _tracked: tokio_util::task::task_tracker::TaskTrackerToken,
}

impl Drain {
    /// A drain that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A guard for a task that has to finish before the process exits.
    pub fn guard(&self) -> DrainGuard {
        DrainGuard { token: self.token.clone(), _tracked: self.tracker.token() }
    }

    /// Asks every task to finish.
    pub fn start(&self) {
        self.token.cancel();
        self.tracker.close();
    }

    /// Whether the drain has been asked for.
    pub fn started(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the drain is asked for.
    pub async fn wait_started(&self) {
        self.token.cancelled().await;
    }

    /// Waits until every guard is gone, at most `deadline`; false when some task did not make it.
    pub async fn wait_finished(&self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

impl DrainGuard {
    /// Waits until the drain is asked for.
    pub async fn started(&self) {
        self.token.cancelled().await;
    }

    /// Whether it has been asked for.
    pub fn is_started(&self) -> bool {
        self.token.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_guard_lets_the_process_go() {
        let drain = Drain::new();
        let guard = drain.guard();
        let task = tokio::spawn(async move {
            guard.started().await;
            drop(guard);
        });
        drain.start();
        assert!(drain.wait_finished(Duration::from_secs(60)).await);
        assert!(task.await.is_ok());
    }

    #[tokio::test]
    async fn a_task_that_never_finishes_is_left_behind() {
        let drain = Drain::new();
        let _guard = drain.guard();
        drain.start();
        assert!(!drain.wait_finished(Duration::from_millis(1)).await);
    }
}
