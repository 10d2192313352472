//! The local cluster: controllers, node agent, isolation.
