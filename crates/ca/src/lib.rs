//! Signing, root rotation, SPIFFE identities, TLS configurations.
