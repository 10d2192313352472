//! The data plane: listeners, TLS, TCP and HTTP, pools, balancing, filters, admin. It speaks Envoy v3 only.
//!
//! A request's way is a row of named phases, each a module: `accept` -> `inspect` (listener filters) -> `connection`
//! (filter chain, TLS, network filters) -> `http::serve` (head, route, filters, action) -> `http::router` (attempts,
//! pool, response) -> `log`. The configuration's way: `source` (file, ADS, SDS) -> `store` (compile, warm) ->
//! `snapshot` (published to workers).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod accept;
mod admin;
mod connection;
mod dns;
mod downstream;
mod ext_authz;
mod failure;
mod flags;
mod handle;
mod http;
mod inspect;
mod listener;
mod log;
mod on_demand;
mod rest;
mod scratch;
mod snapshot;
mod source;
mod stats;
mod store;
mod stream;
mod tcp;
mod upstream;
mod worker;

pub use handle::{Config, Handle, ProxyError};
pub use source::Resources;
pub use store::Rejected;
