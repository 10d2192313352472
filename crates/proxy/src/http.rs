//! HTTP: from a client's connection to the last byte of a response.

pub mod body;
pub mod connection;
pub mod destination;
pub mod edits;
pub mod exchange;
pub mod filters;
pub mod head;
pub mod ingress;
pub mod manager;
pub mod mirror;
pub mod reply;
pub mod retry;
pub mod router;
pub mod send;
pub mod serve;
pub mod upgrade;
