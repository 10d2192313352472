//! Mesh configuration and registry to Envoy v3 resources.
