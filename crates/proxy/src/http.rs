//! HTTP: from a client's connection to the last byte of a response.

pub(crate) mod arriving;
mod attempts;
pub(crate) mod body;
pub(crate) mod connection;
pub(crate) mod destination;
pub(crate) mod edits;
pub(crate) mod exchange;
mod ext_authz;
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
mod rbac;
pub(crate) mod reply;
pub(crate) mod retry;
pub(crate) mod rewrite;
pub(crate) mod router;
pub(crate) mod send;
pub(crate) mod serve;
pub(crate) mod tokens;
pub(crate) mod upgrade;
