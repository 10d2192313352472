//! Outlier detection: hosts that fail too often in a row are left out for a while.
//!
//! Failures are counted where they happen, by workers; ejections end at sweeps of the control thread, one per interval.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use lateen_route::cluster::OutlierDetection;

use super::cluster::Cluster;
use super::host::Host;

/// A host's health by its own doing.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// Whether it is left out.
    pub(crate) ejected: AtomicBool,
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// How often it was ejected, less one for every quiet sweep.
    times: AtomicU32,
    /// When the ejection ends, in milliseconds since the first ejection of the process was possible.
    until: AtomicU64,
}

/// What became of a request to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    /// It answered with this status.
    Status(u16),
    /// It could not be connected to, or did not answer in time.
    Local,
}

impl Cluster {
    /// Takes note of a result, and ejects the host if it was one failure too many.
    pub(crate) fn judge(&self, host: &Host, result: Result) {
        let Some(rules) = &self.compiled.outlier_detection else { return };
        let conduct = &host.conduct;
        let (server, gateway, local) = match result {
            Result::Status(status) => (status >= 500, matches!(status, 502..=504), false),
            // Where our own failures do not count apart, they count as a 503 would.
            Result::Local => (!rules.split_local, !rules.split_local, rules.split_local),
        };
        let over = |counter: &AtomicU32, failed: bool, limit: Option<u32>| {
            if !failed {
                counter.store(0, Ordering::Relaxed);
                return false;
            }
            let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
            limit.is_some_and(|limit| count >= limit)
        };
        let eject = over(&conduct.consecutive_5xx, server, rules.consecutive_5xx)
            | over(&conduct.consecutive_gateway, gateway, rules.consecutive_gateway)
            | over(&conduct.consecutive_local, local, rules.consecutive_local);
        if eject {
            self.eject(host, rules);
        }
    }

    fn eject(&self, host: &Host, rules: &OutlierDetection) {
        let set = self.hosts.load();
        let ejected =
            set.hosts.iter().filter(|member| member.host.conduct.ejected.load(Ordering::Relaxed)).count();
        let allowed = (set.hosts.len() * rules.max_ejection_percent.min(100) as usize / 100).max(1);
        if ejected >= allowed || host.conduct.ejected.swap(true, Ordering::Relaxed) {
            return;
        }
        let times = host.conduct.times.fetch_add(1, Ordering::Relaxed) + 1;
        let duration =
            rules.base_ejection.saturating_mul(times).min(rules.max_ejection.max(rules.base_ejection));
        host.conduct.until.store(now() + millis(duration), Ordering::Relaxed);
        self.stats.outlier_detection_ejections_total.inc();
        self.stats.outlier_detection_ejections_active.inc();
        self.replan();
    }

    /// Ends the ejections whose time is over.
    pub(crate) fn sweep_outliers(&self) {
        let Some(rules) = &self.compiled.outlier_detection else { return };
        let now = now();
        if now < self.next_sweep.load(Ordering::Relaxed) {
            return;
        }
        self.next_sweep.store(now + millis(rules.interval), Ordering::Relaxed);
        let mut changed = false;
        for member in &self.hosts.load().hosts {
            let conduct = &member.host.conduct;
            if conduct.ejected.load(Ordering::Relaxed) && now >= conduct.until.load(Ordering::Relaxed) {
                for counter in
                    [&conduct.consecutive_5xx, &conduct.consecutive_gateway, &conduct.consecutive_local]
                {
                    counter.store(0, Ordering::Relaxed);
                }
                conduct.ejected.store(false, Ordering::Relaxed);
                self.stats.outlier_detection_ejections_active.dec();
                changed = true;
            }
        }
        if changed {
            self.replan();
        }
    }
}

/// Milliseconds of the process's own clock.
fn now() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    millis(START.elapsed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
