//! The controllers: pure functions from what is there to what has to be done.

pub(crate) mod deployments;
pub(crate) mod endpoints;
pub(crate) mod namespaces;
mod owner;
pub(crate) mod replica_sets;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod selector;
pub(crate) mod services;
mod template_hash;
mod told;
