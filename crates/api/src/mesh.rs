//! Mesh configuration.
