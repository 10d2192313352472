//! Envoy v3 resources compiled to decision tables: filter chain, virtual host, route, policy, endpoint.
//!
//! This package is the shared judge: the proxy decides by it on its request path, `lateen explain` asks it offline,
//! and the translator's tests ask it "where does this request go?". Everything here is a pure function of a compiled
//! resource, a view of the request or the hosts, and 64 bits of [`Entropy`].
//!
//! Compiling is the only place where something can be wrong: it returns a [`CompileError`] that names resource, field
//! and reason (what a control plane gets as a NACK), or a [`Compiled`] value with [`Note`]s on the fields that are
//! accepted without effect. [`fields::table`] lists every field of every message and its [`fields::Class`].
//!
//! | resource | compile | decide |
//! |---|---|---|
//! | Listener | [`compile_listener`] | [`Listener::filter_chain`], [`Listener::listener_filters`] |
//! | RouteConfiguration | [`compile_routes`] | [`RouteTable::route`] |
//! | Cluster | [`compile_cluster`] | [`Cluster::transport`] |
//! | ClusterLoadAssignment | [`compile_endpoints`] | [`Plan::new`], [`Plan::pick`] |
//! | Secret | [`compile_secret`] | |
//!
//! *Why* a decision fell is written to a [`Trail`]; the proxy passes `&mut ()`, which costs nothing.
#![cfg_attr(test, allow(clippy::unwrap_used))]
// Control planes still send what Envoy deprecates (dns_refresh_rate, text_format): reading it is the task here.
#![allow(deprecated)]

pub mod access_log;
pub mod balance;
pub mod cluster;
pub mod endpoints;
mod entropy;
mod error;
pub mod explain;
pub mod ext_authz;
pub mod fields;
pub mod format;
pub mod header_edits;
pub mod header_match;
pub mod http_manager;
pub mod istio;
pub mod jwt;
pub mod listener;
pub mod metadata_match;
pub mod network;
mod path_template;
pub mod rate_limit;
pub mod rbac;
pub mod request;
pub mod response_match;
pub mod routes;
pub mod string_match;
pub mod tls;
mod trail;

pub use balance::{HostView, Plan};
pub use cluster::{Cluster, compile_cluster};
pub use endpoints::{Assignment, compile_endpoints};
pub use entropy::{Entropy, Fraction};
pub use error::{CompileError, Compiled, Note};
pub use listener::{FilterChain, Listener, compile_listener};
pub use request::{ConnectionView, RequestView};
pub use routes::{RouteTable, compile_routes};
pub use tls::{Secret, compile_secret};

/// A table that every request is looked up in. Its hash is seeded, but quicker than the standard library's, which resists
/// those who choose the names: here the configuration does.
pub type FastMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
pub use trail::Trail;
