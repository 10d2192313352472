//! The upstream side: clusters, hosts, pools, circuit breakers.

pub mod cluster;
pub mod connect;
pub mod host;
pub mod limits;
pub mod pool;
pub mod pools;
