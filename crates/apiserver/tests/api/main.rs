//! The server as clients see it: over real HTTPS, with stock kubectl, and killed in the middle of its work.

#![allow(clippy::unwrap_used)]

mod admission;
mod applies;
mod clients;
mod consistency;
mod crud;
mod custom;
mod kubectl;
#[path = "../../../../dev/testkit/src/kubectl.rs"]
mod kubectls;
mod lists;
mod remote;
mod rest;
mod scale;
mod survival;
mod tokens;
mod watches;
