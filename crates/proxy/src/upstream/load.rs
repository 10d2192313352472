//! What hosts report of their load, and the weights that they get for it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use lateen_route::cluster::{ByLoad, LoadReport, fill_in};

use super::cluster::{Cluster, Member};
use super::host::Host;
use super::outlier;

/// What a host reported last. Times are in milliseconds of the process's own clock; 0 is never.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// Since when it reports without a pause that was too long.
    since: AtomicU64,
    last: AtomicU64,
    weight: AtomicU32,
}

impl Reported {
    fn take(&self, weight: u32, now: u64) {
        self.weight.store(weight, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
        // Only the first of a row says since when.
        let _ = self.since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The weight, where it is neither too new nor too old to be believed.
    fn weight(&self, rules: &ByLoad, now: u64) -> Option<u32> {
        let since = self.since.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        let past = |time: u64| Duration::from_millis(now.saturating_sub(time));
        if past(self.last.load(Ordering::Relaxed)) > rules.expiration {
            self.since.store(0, Ordering::Relaxed);
            return None;
        }
        (past(since) >= rules.blackout).then(|| self.weight.load(Ordering::Relaxed))
    }
}

/// The weights of hosts now; none where the assignment's count.
pub(super) fn weights(rules: Option<&ByLoad>, hosts: &[Member]) -> Box<[u32]> {
    let Some(rules) = rules else { return Box::default() };
    let now = outlier::now();
    let known: Vec<_> = hosts
        .iter()
        .map(|member| member.host.reported.get().and_then(|reported| reported.weight(rules, now)))
        .collect();
    fill_in(&known).into()
}

impl Cluster {
    /// Takes the report in a response's headers or trailers, if weights follow from reports.
    pub(crate) fn take_report(&self, host: &Host, headers: &HeaderMap) {
        let Some(rules) = &self.compiled.balancing.by_load else { return };
        if let Some(weight) = LoadReport::read(headers).and_then(|report| rules.weight(&report)) {
            // The clock begins at 0, which is never.
            host.reported.get_or_init(Box::default).take(weight, outlier::now().max(1));
        }
    }

    /// Makes the weights anew when that is due.
    pub(crate) fn sweep_load(&self) {
        let Some(rules) = &self.compiled.balancing.by_load else { return };
        let now = outlier::now();
        if now < self.next_weighing.load(Ordering::Relaxed) {
            return;
        }
        let update = u64::try_from(rules.update.as_millis()).unwrap_or(u64::MAX);
        self.next_weighing.store(now.saturating_add(update), Ordering::Relaxed);
        let set = self.hosts.load();
        if weights(Some(rules), &set.hosts) != set.weights {
            self.replan();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> ByLoad {
        ByLoad {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
            error_penalty: 1.0,
            metrics: Box::default(),
        }
    }

    #[test]
    fn a_weight_counts_after_the_blackout_and_until_it_expires() {
        let reported = Reported::default();
        assert_eq!(reported.weight(&rules(), 5), None);
        reported.take(7, 1_000);
        assert_eq!(reported.weight(&rules(), 10_999), None);
        reported.take(8, 9_000);
        assert_eq!(reported.weight(&rules(), 11_000), Some(8));
        assert_eq!(reported.weight(&rules(), 189_000), Some(8));
        assert_eq!(reported.weight(&rules(), 189_001), None);
        reported.take(9, 190_000);
        assert_eq!(reported.weight(&rules(), 199_999), None, "the blackout begins again");
        assert_eq!(reported.weight(&rules(), 200_000), Some(9));
    }
}
