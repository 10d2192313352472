//! The embedded Kubernetes API: store, REST, watch, discovery, admission, logs.
//!
//! [`Config::build`] starts a server; [`Handle::client`] is the API for controllers in the same process, stock `kubectl` uses
//! [`Handle::kubeconfig_path`]. What the server does by itself, so that no controller has to: it gives services their
//! addresses and node ports (unless [`Config::service_network`] is `None`), establishes CustomResourceDefinitions, empties
//! ending namespaces, collects dependents of deleted owners, and forgets events after an hour. What controllers do: everything
//! else, first of all binding pods to nodes and removing deleted ones (with a grace period of zero) once they have stopped.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod admission;
mod api;
mod bootstrap;
mod builtin;
mod catalog;
mod cel;
mod client;
mod convert;
mod custom;
mod defaults;
mod fields;
mod housekeeping;
mod jsonpath;
mod managed;
mod object;
mod openapi;
mod patch;
mod pki;
mod protobuf;
mod providers;
mod rendered;
mod resource;
mod rest;
mod schema;
mod selector;
mod server;
mod spdy;
mod status;
mod store;
mod tls;
mod token;
mod validate;
mod watch;

pub use access::User;
pub use api::{DeleteOptions, Patch, Propagation};
pub use client::{Client, List, Selection};
pub use pki::PkiError;
pub use providers::{
    BoxRead, BoxWrite, CommandRequest, Connection, LogRequest, LogStream, PodLogs, PodStreams,
    RunningCommand, ServiceResolver, TerminalSize,
};
pub use resource::ResourceName;
pub use selector::Selector;
pub use server::{Config, Handle, StartError};
pub use status::{Cause, Details, Status};
pub use store::StoreError;
pub use token::{IssuedToken, TokenRequest};
pub use watch::{Watch, WatchEvent};
