//! The only package on kube-rs: objects as JSON in and out, watches that survive relists, token review.
//!
//! What an object means is for others: this package moves `serde_json::Value`s between a Kubernetes API server and its
//! caller, and tells errors in words. [`install`] brings a rendered installation onto a server, and takes it off again.

mod client;
mod discovery;
mod exec;
mod forward;
pub mod install;
mod kind;
mod overload;
mod watch;

pub use client::{Access, Client, KubeError, LogOptions, Patch, TokenIdentity};
pub use discovery::Discovery;
pub use exec::{Ended, Exec, Resize, RunningCommand};
pub use kind::ResourceKind;
pub use watch::{Scope, WatchEvent};
