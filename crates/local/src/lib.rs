//! The local cluster: controllers, node agent, isolation.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod addresses;
mod api;
#[cfg(test)]
mod cluster_tests;
mod backend;
mod controllers;
#[cfg(test)]
mod fake;
mod instant;
pub mod lease;
mod net;
mod node;
pub mod process;
pub mod state;
