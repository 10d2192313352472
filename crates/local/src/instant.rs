//! The time of day as Kubernetes objects carry it.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// Now. A clock before 1970 or after the year 9999 shows 1970.
pub(crate) fn now() -> Timestamp {
    of(SystemTime::now())
}

/// A time of this system's clock.
pub(crate) fn of(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos())
        .ok()
        .and_then(|nanos| Timestamp::from_nanosecond(nanos).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Now, in whole seconds: how object metadata and statuses are written.
pub(crate) fn time() -> Time {
    Time(whole(now()))
}

/// Without the part below a second.
pub(crate) fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
