//! How often each caller may ask: a bucket of tokens for every identity.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use lateen_base::SpiffeId;

/// Identities that are remembered; beyond, those that have not asked for long are forgotten.
const REMEMBERED: usize = 10_000;

/// The rate that one identity is granted; the replicas of a deployment share an identity.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Requests that may come at once.
    pub burst: u32,
    /// Requests per second after that.
    pub per_second: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { burst: 1_000, per_second: 50 }
    }
}

impl Rate {
    /// After this time an identity that asked for nothing is as if it never had.
    fn forgotten_after(&self) -> Duration {
        Duration::from_secs(1 + u64::from(self.burst / self.per_second.max(1)))
    }
}

/// Counts requests.
#[derive(Debug)]
pub(crate) struct Limiter {
    rate: Rate,
    buckets: Mutex<HashMap<SpiffeId, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: SystemTime,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Whether the identity may ask now.
    pub(crate) fn admits(&self, caller: &SpiffeId, now: SystemTime) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            let forgotten = self.rate.forgotten_after();
            buckets.retain(|_, bucket| now.duration_since(bucket.at).is_ok_and(|age| age < forgotten));
        }
        let full = f64::from(self.rate.burst);
        let bucket = buckets.entry(caller.clone()).or_insert(Bucket { left: full, at: now });
        let passed = now.duration_since(bucket.at).unwrap_or_default().as_secs_f64();
        bucket.left = (bucket.left + passed * f64::from(self.rate.per_second)).min(full);
        bucket.at = now;
        let admitted = bucket.left >= 1.0;
        if admitted {
            bucket.left -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_its_own_burst_and_rate() {
        let limiter = Limiter::new(Rate { burst: 3, per_second: 2 });
        let id = |account: &str| -> SpiffeId { format!("spiffe://td/ns/a/sa/{account}").parse().unwrap() };
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let admitted = |who: &str, at: SystemTime| (0..10).filter(|_| limiter.admits(&id(who), at)).count();
        assert_eq!(admitted("one", start), 3);
        assert_eq!(admitted("two", start), 3);
        assert_eq!(admitted("one", start + Duration::from_secs(1)), 2);
        assert_eq!(admitted("one", start + Duration::from_secs(100)), 3);
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let limiter = Limiter::new(Rate { burst: 2, per_second: 1 });
        let mut now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        for index in 0..REMEMBERED * 2 {
            now += Duration::from_secs(1);
            let caller = format!("spiffe://td/ns/a/sa/{index}").parse().unwrap();
            assert!(limiter.admits(&caller, now));
        }
        assert!(limiter.buckets.lock().unwrap().len() <= REMEMBERED);
    }
}
