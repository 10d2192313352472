//! The upstream side: clusters, hosts, pools, circuit breakers.

pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod host;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod outlier;
mod planning;
pub(crate) mod pool;
pub(crate) mod pools;
pub(crate) mod proxy_header;
