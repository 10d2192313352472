//! The local cluster: controllers, node agent, isolation.
//!
//! [`ClusterConfig::start`] runs a cluster in this process, [`Cluster::install`] puts the mesh into it. Pods are child
//! processes of this very binary; in loopback isolation each has an address of 127/8 (see [`addresses`]).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addresses;
mod api;
mod backend;
pub mod background;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod controllers;
#[cfg(test)]
mod fake;
mod install;
mod instant;
pub mod lease;
mod net;
mod node;
mod outside;
pub mod process;
mod progress;
pub mod state;

pub use cluster::{Cluster, ClusterConfig, UpError};
pub use install::InstallError;
pub use node::launch::DataPlane;
pub use progress::Progress;
