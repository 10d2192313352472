//! The loopback data path: service addresses, node ports, names, and the plain forwarder, all in user space.

pub(crate) mod directory;
pub(crate) mod dns;
pub(crate) mod forward;
pub(crate) mod http_proxy;
mod relay;
