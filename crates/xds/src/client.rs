//! The client's side: [`Subscriptions`] is the state machine, [`connect`] puts it on gRPC.

mod stream;
mod subscriptions;

pub use stream::{Config, Event, Handle, Service, connect};
pub use subscriptions::{Subscriptions, Update};
