//! Filters of listeners and connection managers, and what they share: pure builders of Envoy messages.
//!
//! The order of filters is Istio's; `istio.*` filters are only for proxies that list them among their extensions, see
//! [`extensions`].

pub(crate) mod access_log;
pub(crate) mod dynamic_dns;
pub(crate) mod extensions;
pub(crate) mod hcm;
pub(crate) mod listener_filters;
pub(crate) mod security;
pub(crate) mod settings;
pub(crate) mod tcp;
pub(crate) mod telemetry;
pub(crate) mod tls;
pub(crate) mod tracing;
pub(crate) mod wire;
