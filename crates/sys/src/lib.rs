//! The one package with unsafe code: process set-up, the heap, terminals and namespaces.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod heap;
pub mod process;
pub mod terminal;
