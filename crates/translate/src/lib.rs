//! Mesh configuration and registry to Envoy v3 resources.
//!
//! [`Snapshot::build`] takes what is known at one moment, [`generate`] makes everything that one proxy gets from it.
//! All is pure: equal input gives equal bytes.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
pub mod clusters;
mod edge;
pub mod endpoints;
mod filters;
mod gateways;
mod generate;
pub mod hosts;
mod list;
pub mod listeners;
pub mod name_table;
pub mod names;
pub mod offline;
mod patches;
mod proxy;
mod resource;
pub mod routes;
pub mod scoping;
mod sidecar;
pub mod snapshot;
mod upstream;

pub use generate::{Generated, generate, generate_lists};
pub use list::List;
pub use patches::{Made, PatchOutcome, PatchReport, Patched, Tally};
pub use proxy::{Interception, Metadata, Proxy, ProxyError, ProxyKind};
pub use resource::{Built, Note, Resource, Resources};
pub use scoping::{AtStart, Scoping};
pub use snapshot::{Ineffective, Snapshot};
