//! Start-up, readiness, drain, shutdown and logs: what every long-running role of the binary shares.

pub mod drain;
pub mod logs;
pub mod readiness;
pub mod scopes;
pub mod signals;

pub use drain::{Drain, DrainGuard};
pub use readiness::{Readiness, Task};
