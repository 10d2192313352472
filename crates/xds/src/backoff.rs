//! How long to wait before the next try.

use std::time::Duration;

/// Exponential waits with jitter: each wait is drawn from the upper half of a doubling interval.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    /// Waits that start at `first` and never pass `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempt: 0 }
    }

    /// The next wait; `entropy` is any random number.
    pub fn next(&mut self, entropy: u64) -> Duration {
        let interval = self.first.saturating_mul(1 << self.attempt.min(20)).min(self.longest);
        self.attempt = self.attempt.saturating_add(1);
        let half = interval / 2;
        let span = u64::try_from(half.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_millis(entropy % span)
    }

    /// Forgets the failures so far.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

impl Default for Backoff {
    /// 200 ms to 10 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds_and_resets() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..40).map(|_| backoff.next(u64::MAX).as_millis()).collect();
        assert!(waits[0] <= 200 && waits[0] >= 100);
        assert!(waits.iter().all(|w| *w <= 10_000));
        assert!(waits[39] >= 5_000);
        backoff.reset();
        assert!(backoff.next(0).as_millis() <= 200);
    }
}
