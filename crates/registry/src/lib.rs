//! Services, workloads and endpoints of N clusters: events in, changes out.
//!
//! [`Registry::apply`] takes one event of one cluster, updates what depends on it and says what changed;
//! [`Registry::view`] is an immutable picture that costs a few reference counts. The result of any order of
//! events is that of a rebuild from the objects that remain.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocate;
mod configs;
mod endpoint;
mod event;
mod from_entry;
mod from_kube;
pub mod kube_objects;
pub mod manifests;
mod network;
mod protocol;
mod registry;
mod service;
mod view;
mod workload;

pub use configs::Configs;
pub use endpoint::{Endpoint, EndpointAddress, EndpointSet, Health};
pub use event::{Change, Changes, Event, Key, Resource};
pub use from_entry::created;
pub use network::NetworkGateway;
pub use protocol::Protocol;
pub use registry::{Registry, Settings};
pub use service::{ExportTo, Port, Resolution, Service, ServiceKey, Source, Visibility};
pub use view::{Generations, View};
pub use workload::{TargetPort, Workload, WorkloadSource};
