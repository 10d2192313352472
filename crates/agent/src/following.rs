//! Sockets of others that are asked again and again.

use std::fmt::Display;

use lateen_xds::Backoff;

/// Waits before a socket is asked again, and says why that is. What was `taken` from it makes the next wait a short one.
pub(crate) async fn pause(backoff: &mut Backoff, taken: bool, socket: impl Display, reason: &str) {
    if taken {
        backoff.reset();
    }
    let wait = backoff.next(rand::random());
    tracing::warn!(target: "cache", "{socket}: {reason}; what is in use stays; next try in {wait:?}");
    tokio::time::sleep(wait).await;
}
