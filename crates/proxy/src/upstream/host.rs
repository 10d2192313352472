//! A host of a cluster: its address, and the live figures that all workers share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::check::Checked;
use super::load::Reported;
use super::outlier::{self, Conduct};

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A Unix socket's path.
    Pipe(Arc<str>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

/// A host, kept for as long as any snapshot or connection knows its address.
#[derive(Debug)]
pub(crate) struct Host {
    /// Distinct among all hosts of the process, over time.
    pub id: u64,
    /// Where it is.
    pub address: Address,
    /// The address as logs and `/clusters` write it.
    pub text: Arc<str>,
    /// The name that the address was resolved from.
    pub hostname: Arc<str>,
    /// Requests being served, for least-request balancing.
    pub active: AtomicU32,
    /// Its health by outlier detection.
    pub(crate) conduct: Conduct,
    /// Its health by active checks.
    pub(crate) checked: Checked,
    /// What it reported of its load, where that is asked for.
    pub(super) reported: OnceLock<Box<Reported>>,
    /// Since when it may be used, in milliseconds of the process's own clock.
    pub(super) well_since: AtomicU64,
    /// Its counters.
    pub stats: HostStats,
}

/// A host's counters, in the order of Envoy's `/clusters`.
#[derive(Debug, Default)]
pub(crate) struct HostStats {
    /// Connections open.
    pub cx_active: AtomicU64,
    /// Connections that failed.
    pub cx_connect_fail: AtomicU64,
    /// Connections ever.
    pub cx_total: AtomicU64,
    /// Requests that failed.
    pub rq_error: AtomicU64,
    /// Requests that succeeded.
    pub rq_success: AtomicU64,
    /// Requests that timed out.
    pub rq_timeout: AtomicU64,
    /// Requests ever.
    pub rq_total: AtomicU64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Host {
    /// A host at an address.
    pub(crate) fn new(address: Address, hostname: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            text: address.to_string().into(),
            address,
            hostname: hostname.into(),
            active: AtomicU32::new(0),
            conduct: Conduct::default(),
            checked: Checked::default(),
            reported: OnceLock::new(),
            well_since: AtomicU64::new(outlier::now()),
            stats: HostStats::default(),
        })
    }

    /// Whether neither active checks nor outlier detection hold it back.
    pub(crate) fn is_well(&self) -> bool {
        !self.conduct.ejected.load(Ordering::Relaxed) && !self.checked.failed.load(Ordering::Relaxed)
    }

    /// It may be used from now on, and warms up where that is asked for.
    pub(super) fn begin(&self) {
        self.well_since.store(outlier::now(), Ordering::Relaxed);
    }

    /// How long it has been of use.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(outlier::now().saturating_sub(self.well_since.load(Ordering::Relaxed)))
    }
}
