//! Access-log formats and files, trace context.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod log_file;
pub mod trace_context;
