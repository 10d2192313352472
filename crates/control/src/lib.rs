//! The control plane: what happens in the cluster becomes what proxies are told.
//!
//! One writer, the engine, takes in [`Input`]s and publishes immutable snapshots; every connected proxy gets what
//! translation makes of the newest one. Beside that: the certificate authority, the injection webhook, and the
//! debug API.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod authority;
mod callers;
mod catalog;
mod cluster;
mod control;
mod crowd;
mod debounce;
mod debug;
mod discovery;
mod dump;
mod engine;
mod gate;
mod ingest;
mod input;
mod jwks;
mod kube_source;
mod mesh;
mod metrics;
mod patches;
mod policies;
mod proxies;
mod refusals;
mod roots;
#[cfg(test)]
mod scale;
mod secrets;
mod serve;
mod settings;
mod tls;
mod webhook;

pub use cluster::{Cluster, Role, SecretData};
pub use control::{Bound, Control, ControlError, Deps};
pub use input::{Input, Watched};
pub use kube_source::watch;
pub use roots::RootWrite;
pub use secrets::Secrets;
pub use serve::ListenError;
pub use settings::{Connections, Debounce, DebugAccess, JwksSettings, Ports, Retry, Settings};
