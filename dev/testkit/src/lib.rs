//! Fakes and harnesses for tests: stock Envoy, an ADS client, certificates, an echo server.
//!
//! Nothing here is part of the product. What cannot be had on a machine (stock Envoy, the corpora) is told on
//! standard error and makes a test end early; `LATEEN_REQUIRE_TOOLS`, which `.ci/run` sets, makes a missing tool a failure instead.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod abuse;
pub mod corpora;
pub mod envoy;
#[allow(clippy::unwrap_used)]
pub mod faulty;

/// Says that a test is skipped for want of a tool.
///
/// # Panics
/// When `LATEEN_REQUIRE_TOOLS` is set: then none may be wanting.
pub(crate) fn without_tool(what: &str) {
    assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "LATEEN_REQUIRE_TOOLS is set, but {what}");
    eprintln!("skipped: {what}");
}
