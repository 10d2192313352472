//! TLS as the mesh uses it: rustls configurations made from PEM, verifiers with Envoy's rules.
//!
//! A peer is accepted when its chain leads to a trust anchor and, if a list of subject alternative names was given, one
//! of its names is on the list; digests and lists of revoked certificates narrow that further. Host names are not compared (Envoy does not either): the list is what binds a name.
//! Chains are judged by webpki; leaves of X.509 version 1, which it does not know, by rules of our own.

mod checks;
mod legacy;
mod offers;
mod pem;
mod public;
mod settings;
mod verify;

pub use checks::{PeerChecks, Pins, Revocations};
pub use offers::Offers;
pub use pem::{PeerCertificate, PemError, Trust, chain_from_der, identity, key_from_der};
pub(crate) use pem::{certificates, rfc2253};
pub use public::public_client;
pub use settings::{
    ClientAuth, ClientSettings, Server, ServerSettings, SettingsError, Version, client_config, server_config,
};
pub use verify::{SanKind, SanPredicate, SanRule};
