//! The data plane: listeners, TLS, TCP and HTTP, pools, balancing, filters, admin. It speaks Envoy v3 only.
