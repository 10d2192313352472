//! The discovery protocol (xDS v3): who subscribes to what, what they hold, what they are owed.
//!
//! The two state machines are plain values without sockets: [`server::Session`] is one connection as the server
//! sees it (delta and state-of-the-world from one machine), [`client::Subscriptions`] the client's side.
//! [`client::connect`] and [`server::service`] put them on gRPC.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
pub mod client;
pub mod resolve;
mod resource;
pub mod server;
pub mod transport;
pub mod types;

pub use backoff::Backoff;
pub use resource::{Catalog, Entry, Rejection, Resource, ResourceMap};
