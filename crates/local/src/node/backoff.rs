//! How long a container waits before its next start.

use std::time::Duration;

/// Kubernetes' back-off: the first restart at once, then 10 s, doubled up to 5 min; forgotten after 10 min of running.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(10);
    const LAST: Duration = Duration::from_secs(300);
    const FORGET: Duration = Duration::from_secs(600);

    /// The delay after a run that lasted so long.
    pub(crate) fn after_run(&mut self, lasted: Duration) -> Duration {
        if lasted >= Self::FORGET {
            self.failures = 0;
        }
        self.failures += 1;
        match self.failures {
            1 => Duration::ZERO,
            n => Self::doubled(n - 2),
        }
    }

    /// The delay after a failure that ran nothing (an image that is not there).
    pub(crate) fn after_failure(&mut self) -> Duration {
        self.failures += 1;
        Self::doubled(self.failures - 1)
    }

    fn doubled(times: u32) -> Duration {
        Self::FIRST.saturating_mul(1 << times.min(10)).min(Self::LAST)
    }
}

/// A duration as the kubelet's messages have it (`10s`, `1m20s`, `5m0s`).
pub(crate) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let crash = Duration::from_secs(1);
        let delays: Vec<String> = (0..8).map(|_| go_duration(backoff.after_run(crash))).collect();
        assert_eq!(delays, ["0s", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
        assert_eq!(backoff.after_run(Duration::from_secs(601)), Duration::ZERO);
        assert_eq!(go_duration(Backoff::default().after_failure()), "10s");
    }
}
