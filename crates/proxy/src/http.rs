//! HTTP: from a client's connection to the last byte of a response.

mod attempts;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod destination;
pub(crate) mod edits;
pub(crate) mod exchange;
pub(crate) mod filters;
pub(crate) mod grpc_web;
pub(crate) mod head;
pub(crate) mod ingress;
pub(crate) mod local_reply;
pub(crate) mod manager;
pub(crate) mod mirror;
mod on_demand;
pub(crate) mod pulse;
mod rate_limit;
pub(crate) mod reply;
pub(crate) mod retry;
mod rewrite;
pub(crate) mod router;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod tokens;
pub(crate) mod upgrade;
