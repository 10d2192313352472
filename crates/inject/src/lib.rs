//! Pod and mesh configuration to the injected pod: what Istio's sidecar injector does, as a pure function.
//!
//! [`decide`] says whether a pod gets a sidecar and why; [`inject`] adds it; [`review`] answers a Kubernetes
//! `AdmissionReview` with the difference as a JSON patch. [`ProxyContainer`] is the one place that knows how a proxy's
//! container looks; gateways are rendered from it, too.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod container;
mod decision;
mod pod;
mod review;
mod settings;

pub use container::{PROXY_NAME, ProxyContainer, Role, volumes};
pub use decision::{Decision, Policy, decide, namespace_enabled};
pub use pod::{InjectError, inject};
pub use review::review;
pub use settings::{Settings, SettingsError};
