//! Signing, root rotation, SPIFFE identities, TLS configurations.
pub mod tls;
