//! Outlier detection: hosts that fail too often in a row, or more often than others, are left out for a while.
//!
//! Failures are counted where they happen, by workers; rates are compared and ejections end at sweeps of the control
//! thread, one per interval.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use lateen_route::cluster::{Detector, OutlierDetection, Rate};

use super::cluster::Cluster;
use super::host::Host;
use crate::stats::{Figure, OutlierStats};

/// A host's health by its own doing.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// Whether it is left out.
    pub(crate) ejected: AtomicBool,
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    /// Answers of this interval.
    external: Tally,
    /// Connections of this interval, where they count apart.
    local: Tally,
    /// How often it was ejected, less one for every sweep at which it was well.
    times: AtomicU32,
    /// When the ejection ends, in milliseconds since the first ejection of the process was possible.
    until: AtomicU64,
}

/// Successes and all results of an interval.
#[derive(Debug, Default)]
struct Tally {
    good: AtomicU64,
    all: AtomicU64,
    /// Of the last interval, in hundredths of a percent, plus one; 0 is none.
    rate: AtomicU64,
}

impl Tally {
    fn count(&self, good: bool) {
        self.all.fetch_add(1, Ordering::Relaxed);
        if good {
            self.good.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Rate of success in percent, and number, of the interval that ends.
    fn end(&self) -> (f64, u64) {
        let (good, all) = (self.good.swap(0, Ordering::Relaxed), self.all.swap(0, Ordering::Relaxed));
        (good.min(all) as f64 * 100.0 / all.max(1) as f64, all)
    }

    fn tell(&self, rate: Option<f64>) {
        self.rate.store(rate.map_or(0, |rate| (rate * 100.0) as u64 + 1), Ordering::Relaxed);
    }

    fn told(&self) -> Option<f64> {
        let stored = self.rate.load(Ordering::Relaxed).checked_sub(1)?;
        Some(stored as f64 / 100.0)
    }
}

impl Conduct {
    /// Rates of success of the last interval, in percent: of answers, of our own side; where there were enough.
    pub(crate) fn success_rates(&self) -> (Option<f64>, Option<f64>) {
        (self.external.told(), self.local.told())
    }
}

/// What became of a request to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Result {
    /// It answered with this status.
    Status(u16),
    /// A connection was made.
    Connected,
    /// It could not be connected to, or did not answer in time.
    Local,
}

impl Cluster {
    /// Takes note of a result, and ejects the host if it was one failure too many.
    pub(crate) fn judge(&self, host: &Host, result: Result) {
        let Some(rules) = &self.compiled.outlier_detection else { return };
        let conduct = &host.conduct;
        match result {
            Result::Status(status) => self.judge_status(rules, host, status),
            Result::Connected => {
                conduct.consecutive_local.store(0, Ordering::Relaxed);
                conduct.local.count(true);
            }
            Result::Local if rules.split_local => {
                conduct.local.count(false);
                self.again(rules, host, Detector::ConsecutiveLocal, &conduct.consecutive_local);
            }
            // Where our own failures do not count apart, they count as a 503 would.
            Result::Local => self.judge_status(rules, host, 503),
        }
    }

    /// Takes note of a response, which may count as a failure by what the cluster says of its head.
    pub(crate) fn judge_response(&self, host: &Host, status: StatusCode, headers: &HeaderMap) {
        let status = match &self.compiled.http.errors {
            Some(errors) if errors.matches(status, headers) => 500,
            Some(_) => 200,
            None => status.as_u16(),
        };
        self.judge(host, Result::Status(status));
    }

    fn judge_status(&self, rules: &OutlierDetection, host: &Host, status: u16) {
        let conduct = &host.conduct;
        conduct.external.count(status < 500);
        if status < 500 {
            conduct.consecutive_5xx.store(0, Ordering::Relaxed);
            conduct.consecutive_gateway.store(0, Ordering::Relaxed);
            return;
        }
        if matches!(status, 502..=504) {
            self.again(rules, host, Detector::ConsecutiveGateway, &conduct.consecutive_gateway);
        } else {
            conduct.consecutive_gateway.store(0, Ordering::Relaxed);
        }
        self.again(rules, host, Detector::Consecutive5xx, &conduct.consecutive_5xx);
    }

    /// Another failure in a row.
    fn again(&self, rules: &OutlierDetection, host: &Host, detector: Detector, counter: &AtomicU32) {
        let limit = match detector {
            Detector::ConsecutiveGateway => rules.consecutive_gateway,
            Detector::ConsecutiveLocal => rules.consecutive_local,
            _ => rules.consecutive_5xx,
        };
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if limit == 0 || count != limit || host.conduct.ejected.load(Ordering::Relaxed) {
            return;
        }
        counter.store(0, Ordering::Relaxed);
        if self.found(rules, host, detector) {
            self.replan();
        }
    }

    /// A host is an outlier: it is ejected if that is enforced, and if not too many are already. Whether it was.
    fn found(&self, rules: &OutlierDetection, host: &Host, detector: Detector) -> bool {
        let stats = &self.outlier;
        stats.detected(detector).inc();
        match detector {
            Detector::Consecutive5xx => stats.ejections_consecutive_5xx.inc(),
            Detector::SuccessRate | Detector::LocalSuccessRate => stats.ejections_success_rate.inc(),
            _ => {}
        }
        let total = self.hosts.load().hosts.len() as u64;
        let active = stats.ejections_active.value();
        let fits = (active + 1) * 100 <= total * u64::from(rules.max_ejection_percent);
        let one = rules.always_one && active == 0;
        if !(fits || one) {
            stats.ejections_overflow.inc();
            return false;
        }
        let enforced = rules.enforcing(detector);
        if enforced < 100 && rand::random_range(0..100) >= enforced {
            return false;
        }
        if host.conduct.ejected.swap(true, Ordering::Relaxed) {
            return false;
        }
        stats.ejections_active.inc();
        stats.ejections_total.inc();
        stats.ejections_enforced_total.inc();
        stats.enforced(detector).inc();
        let before = host.conduct.times.load(Ordering::Relaxed);
        let grown = rules.base_ejection.saturating_mul(before) < rules.max_ejection + rules.base_ejection;
        let times = before + u32::from(grown);
        host.conduct.times.store(times, Ordering::Relaxed);
        let duration = rules.base_ejection.saturating_mul(times).min(rules.max_ejection);
        let jitter = rules.jitter.mul_f64(rand::random::<f64>());
        host.conduct.until.store(now() + millis(duration + jitter), Ordering::Relaxed);
        tracing::debug!(target: "upstream", cluster = %self.compiled.name, host = %host.text, ?detector, "ejected");
        true
    }

    /// Ends the ejections whose time is over, and compares rates, when an interval is over.
    pub(crate) fn sweep_outliers(&self) {
        let Some(rules) = &self.compiled.outlier_detection else { return };
        let now = now();
        let due = self.next_sweep.load(Ordering::Relaxed);
        if now < due {
            return;
        }
        self.next_sweep.store(now + millis(rules.interval), Ordering::Relaxed);
        if due == 0 {
            // The first interval begins here.
            return;
        }
        for member in &self.hosts.load().hosts {
            let conduct = &member.host.conduct;
            if !conduct.ejected.load(Ordering::Relaxed) {
                let times = conduct.times.load(Ordering::Relaxed);
                conduct.times.store(times.saturating_sub(1), Ordering::Relaxed);
            } else if now >= conduct.until.load(Ordering::Relaxed) {
                self.uneject(&member.host);
            }
        }
        let external = [Detector::SuccessRate, Detector::FailurePercentage];
        self.compare(rules, |conduct| &conduct.external, external);
        let local = [Detector::LocalSuccessRate, Detector::LocalFailurePercentage];
        self.compare(rules, |conduct| &conduct.local, local);
    }

    /// Ends an ejection.
    pub(crate) fn uneject(&self, host: &Host) {
        let conduct = &host.conduct;
        if !conduct.ejected.swap(false, Ordering::Relaxed) {
            return;
        }
        for counter in [&conduct.consecutive_5xx, &conduct.consecutive_gateway, &conduct.consecutive_local] {
            counter.store(0, Ordering::Relaxed);
        }
        self.outlier.ejections_active.dec();
        self.replan();
    }

    /// Finds hosts whose rate of success is far from the others', or too low, over the interval that ends.
    fn compare(&self, rules: &OutlierDetection, tally: fn(&Conduct) -> &Tally, detectors: [Detector; 2]) {
        let set = self.hosts.load();
        let mut rates = Vec::new();
        for member in &set.hosts {
            let (rate, volume) = tally(&member.host.conduct).end();
            let enough =
                volume >= u64::from(rules.success_rate.requests.min(rules.failure_percentage.requests));
            let counts = enough && volume > 0 && !member.host.conduct.ejected.load(Ordering::Relaxed);
            tally(&member.host.conduct).tell(counts.then_some(rate));
            if counts {
                rates.push((&member.host, rate, volume));
            }
        }
        let of = |needed: Rate| {
            let some: Vec<_> =
                rates.iter().filter(|(.., volume)| *volume >= needed.requests.into()).collect();
            if some.len() >= needed.hosts.max(1) as usize { some } else { Vec::new() }
        };
        let comparable = of(rules.success_rate);
        let mut found = false;
        if !comparable.is_empty() {
            let count = comparable.len() as f64;
            let mean = comparable.iter().map(|(_, rate, _)| rate).sum::<f64>() / count;
            let variance = comparable.iter().map(|(_, rate, _)| (rate - mean).powi(2)).sum::<f64>() / count;
            let threshold = mean - rules.deviations * variance.sqrt();
            for (host, ..) in comparable.iter().filter(|(_, rate, _)| *rate < threshold) {
                found |= self.found(rules, host, detectors[0]);
            }
        }
        for (host, rate, _) in of(rules.failure_percentage) {
            if 100.0 - rate >= f64::from(rules.failure_threshold) {
                found |= self.found(rules, host, detectors[1]);
            }
        }
        if found {
            self.replan();
        }
    }
}

impl OutlierStats {
    fn detected(&self, detector: Detector) -> &Figure {
        match detector {
            Detector::Consecutive5xx => &self.ejections_detected_consecutive_5xx,
            Detector::ConsecutiveGateway => &self.ejections_detected_consecutive_gateway_failure,
            Detector::ConsecutiveLocal => &self.ejections_detected_consecutive_local_origin_failure,
            Detector::SuccessRate => &self.ejections_detected_success_rate,
            Detector::LocalSuccessRate => &self.ejections_detected_local_origin_success_rate,
            Detector::FailurePercentage => &self.ejections_detected_failure_percentage,
            Detector::LocalFailurePercentage => &self.ejections_detected_local_origin_failure_percentage,
        }
    }

    fn enforced(&self, detector: Detector) -> &Figure {
        match detector {
            Detector::Consecutive5xx => &self.ejections_enforced_consecutive_5xx,
            Detector::ConsecutiveGateway => &self.ejections_enforced_consecutive_gateway_failure,
            Detector::ConsecutiveLocal => &self.ejections_enforced_consecutive_local_origin_failure,
            Detector::SuccessRate => &self.ejections_enforced_success_rate,
            Detector::LocalSuccessRate => &self.ejections_enforced_local_origin_success_rate,
            Detector::FailurePercentage => &self.ejections_enforced_failure_percentage,
            Detector::LocalFailurePercentage => &self.ejections_enforced_local_origin_failure_percentage,
        }
    }
}

/// Milliseconds of the process's own clock.
pub(super) fn now() -> u64 {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    millis(START.elapsed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
