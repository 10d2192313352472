//! Circuit breakers: shared by all workers, per cluster and priority.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What is counted, and how much of it there may be.
#[derive(Debug)]
pub(crate) struct Limit {
    used: AtomicU32,
    max: AtomicU32,
}

impl Limit {
    /// At most `max`.
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { used: AtomicU32::new(0), max: AtomicU32::new(max) })
    }

    /// Changes the most there may be; what is over it stays.
    pub(crate) fn set_max(&self, max: u32) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// One more, if there may be.
    pub(crate) fn acquire(self: &Arc<Self>) -> Option<Permit> {
        let used = self.used.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.clone());
        (used < self.max.load(Ordering::Relaxed)).then_some(permit)
    }

    /// One more, whether or not there may be.
    pub(crate) fn force(self: &Arc<Self>) -> Permit {
        self.used.fetch_add(1, Ordering::Relaxed);
        Permit(self.clone())
    }

    /// How much there is.
    pub(crate) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// How much there may be.
    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Whether no more is allowed.
    pub(crate) fn is_open(&self) -> bool {
        self.used() >= self.max()
    }
}

/// One unit of a [`Limit`], given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Limit>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The circuit breakers of one priority of a cluster.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Connections.
    pub connections: Arc<Limit>,
    /// Requests that wait for a connection.
    pub pending: Arc<Limit>,
    /// Requests.
    pub requests: Arc<Limit>,
    /// Retries.
    pub retries: Arc<Limit>,
}

impl Limits {
    /// Envoy's defaults are 1024 of each, and 3 retries.
    pub(crate) fn new(connections: u32, pending: u32, requests: u32, retries: u32) -> Self {
        Self {
            connections: Limit::new(connections),
            pending: Limit::new(pending),
            requests: Limit::new(requests),
            retries: Limit::new(retries),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_given_back() {
        let limit = Limit::new(1);
        let permit = limit.acquire();
        assert!(permit.is_some() && limit.acquire().is_none() && limit.is_open());
        drop(permit);
        assert_eq!(limit.used(), 0);
        assert!(limit.acquire().is_some());
    }
}
