//! The server's side: one [`Session`] per connection, and the gRPC service around it.

mod push;
mod service;
mod session;
mod subscription;

pub use push::Push;
pub use service::{
    Discovery, Observer, Opened, Peer, SecretServer, Server, Service, secret_service, service,
};
pub use session::{Dialect, Heard, ProtocolError, Session, TypeStatus, Verdict};
