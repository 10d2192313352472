//! Certificates of the mesh: the authority that signs them, the requests for them, when to renew them, and the
//! TLS configurations that use them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod authority;
pub mod chain;
pub mod client;
mod describe;
pub mod exchange;
mod limit;
pub mod make;
pub mod request;
pub mod rotation;
pub mod service;
pub mod tls;

pub use authority::{Authority, CaError, Certified, secret_keys};
pub use describe::describe;
pub use limit::Rate;
