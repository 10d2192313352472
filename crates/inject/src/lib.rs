//! Pod and mesh configuration to the injected pod: what Istio's sidecar injector does, as a pure function.
//!
//! [`decide`] says whether a pod gets a proxy and why; [`inject`] adds it by templates: `sidecar`, `gateway`,
//! `grpc-agent`, or what users have added; [`review`] answers a Kubernetes `AdmissionReview` with the difference as a
//! JSON patch; [`inject_object`] does the same to manifests. Arguments, environment, mounts and annotations are those of
//! Istio's templates.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod annotations;
mod container;
mod custom;
mod decision;
mod describe;
mod document;
mod merge;
mod overrides;
mod pod;
mod probes;
mod quantity;
mod review;
mod selector;
mod settings;
mod templates;
mod workload;

pub use container::PROXY_NAME;
pub use decision::{Decision, Policy, decide, namespace_enabled};
pub use document::inject_object;
pub use pod::{InjectError, inject};
pub use review::review;
pub use selector::Selector;
pub use settings::{Settings, SettingsError};
pub use workload::Workload;
