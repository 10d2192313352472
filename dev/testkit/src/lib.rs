//! Fakes and harnesses for tests: stock Envoy, an ADS client, certificates, an echo server.
//!
//! Nothing here is part of the product. What cannot be had on a machine (stock Envoy, the corpora) is told on
//! standard error and makes a test end early; `LATEEN_REQUIRE=1` (`.ci/run` sets it) makes it a failure instead.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod corpora;
pub mod envoy;

/// Says that a test is skipped for want of something.
///
/// # Panics
/// When `LATEEN_REQUIRE=1`: then nothing may be wanting.
pub(crate) fn skip(what: &str) {
    assert!(std::env::var_os("LATEEN_REQUIRE").is_none_or(|v| v != "1"), "LATEEN_REQUIRE=1, but {what}");
    eprintln!("skipped: {what}");
}
