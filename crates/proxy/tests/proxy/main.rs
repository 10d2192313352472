//! The proxy as a whole, in this process: real sockets on port 0 of the loopback interface.
#![allow(clippy::unwrap_used)]

mod abuse;
mod admin;
mod balance;
mod checks;
mod discovery;
mod endpoints;
mod excess;
mod heads;
mod http;
mod lifecycle;
mod limits;
mod misuse;
mod pressure;
mod rate_limit;
mod sides;
mod support;
mod tcp;
mod tls;
mod tokens;
