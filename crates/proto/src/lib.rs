//! Envoy v3 messages, the few Istio messages of the wire, and their JSON.
//!
//! The types are generated at build time. Maps are ordered, so equal messages have equal bytes: the version of a
//! resource can be the hash of them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod any;
pub mod json;
pub mod merge;
pub mod rules;

pub use any::{Any, AnyError};
pub use prost::{Message, Name};
pub use prost_types::{Duration, FieldMask, ListValue, Struct, Timestamp, Value, value};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/envoy.rs"));
}

pub use generated::*;

/// SPIFFE's Workload API, whose messages are in no package of their own.
pub mod spiffe {
    pub use super::generated::{X509svid, X509svidRequest, X509svidResponse};
    pub use super::generated::{spiffe_workload_api_client, spiffe_workload_api_server};
}
