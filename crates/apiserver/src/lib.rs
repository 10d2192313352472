//! The embedded Kubernetes API: store, REST, watch, discovery, admission, logs.
