//! The controllers: pure functions from what is there to what has to be done.

pub(crate) mod autoscalers;
pub(crate) mod daemon_sets;
pub(crate) mod deployments;
pub(crate) mod disruption_budgets;
pub(crate) mod endpoints;
pub(crate) mod jobs;
pub(crate) mod namespaces;
mod owner;
pub(crate) mod replica_sets;
mod revisions;
pub(crate) mod run;
pub(crate) mod schedule;
pub(crate) mod selector;
pub(crate) mod services;
pub(crate) mod stateful_sets;
mod template_hash;
mod told;
