//! Beside each proxy: its identity, its bootstrap, and its way to the control plane.
//!
//! The agent makes the workload's key, has it certified, and serves the certificate on a socket; forwards the
//! proxy's discovery stream with the workload's token; writes the bootstrap that stock Envoy and Lateen's proxy
//! both read; answers health probes; and, beside stock Envoy, runs it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod application;
mod bootstrap;
mod certificate_files;
mod envoy;
mod files;
mod following;
mod foreign;
mod forwarder;
mod health;
mod identity;
mod metadata;
mod metrics;
mod patched;
mod probes;
mod roots;
mod secrets;
mod settings;
mod typed_bootstrap;
mod upstream;
mod workload_api;

pub use agent::{Agent, AgentError};
pub use envoy::{Envoy, EnvoyError};
pub use metrics::Scrape;
pub use probes::Probes;
pub use settings::{Arguments, ProxyConfig, Role, Settings, SettingsError, StatsMatcher};
