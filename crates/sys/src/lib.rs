//! The one package with unsafe code: process set-up, terminals and namespaces.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod process;
pub mod terminal;
