//! The proxy as a whole, in this process: real sockets on port 0 of the loopback interface.
#![allow(clippy::unwrap_used)]

mod http;
mod lifecycle;
mod support;
mod tcp;
mod tls;
