//! What a peer's certificate has to be, beyond well-formed.

use std::fmt;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::pem::{PemError, Trust, sha256};
use super::verify::SanRule;

/// What a peer's certificate has to be. All parts have to hold; the default accepts whatever is shown.
#[derive(Clone, Debug, Default)]
pub struct PeerChecks {
    /// Anchors; without, any chain is accepted.
    pub trust: Option<Trust>,
    /// Names that the peer may have; any when empty.
    pub names: Vec<SanRule>,
    /// Digests of which the certificate must have one.
    pub pins: Pins,
    /// Lists of certificates that were revoked.
    pub revoked: Option<Revocations>,
}

impl PeerChecks {
    /// A chain to one of these anchors, and no more.
    pub fn trusting(trust: Trust) -> Self {
        Self { trust: Some(trust), ..Self::default() }
    }
}

/// SHA-256 digests of which a certificate must have one, as Envoy's `verify_certificate_hash` and `verify_certificate_spki`:
/// either list will do, and without any digest every certificate will.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// Of whole certificates (DER).
    pub certificates: Vec<[u8; 32]>,
    /// Of public keys (DER of SubjectPublicKeyInfo).
    pub keys: Vec<[u8; 32]>,
}

impl Pins {
    /// # Errors
    /// When there are digests and the certificate has none of them.
    pub(super) fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), CertificateError> {
        if *self == Self::default() {
            return Ok(());
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let among = |digests: &[[u8; 32]], of: &[u8]| {
            let digest = sha256(of);
            digests.iter().any(|known| known.as_slice() == digest)
        };
        match among(&self.certificates, leaf) || among(&self.keys, parsed.public_key().raw) {
            true => Ok(()),
            false => Err(CertificateError::ApplicationVerificationFailure),
        }
    }
}

/// Lists of revoked certificates. As with Envoy, who gives one has to give one for each authority of a chain (or says that
/// leaves alone are looked up), and a list that has run out is worth nothing: what cannot be looked up is refused.
#[derive(Clone)]
pub struct Revocations {
    lists: Arc<[CertRevocationList<'static>]>,
    leaf_only: bool,
}

impl Revocations {
    /// Reads one or more lists (X.509 CRL version 2) from PEM. With `leaf_only`, intermediates are not looked up.
    ///
    /// # Errors
    /// When there is none, or one does not parse.
    pub fn from_pem(pem: &[u8], leaf_only: bool) -> Result<Self, PemError> {
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(pem) {
            let der = der.map_err(|error| PemError::Malformed(error.to_string()))?;
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|error| PemError::Revocations(error.to_string()))?;
            lists.push(list.into());
        }
        match lists.is_empty() {
            true => Err(PemError::NoRevocations),
            false => Ok(Self { lists: lists.into(), leaf_only }),
        }
    }

    /// Lets a chain be verified under these lists.
    pub(super) fn apply<T>(&self, verify: impl FnOnce(Option<RevocationOptions<'_>>) -> T) -> T {
        let lists: Vec<&CertRevocationList<'_>> = self.lists.iter().collect();
        let depth = match self.leaf_only {
            true => RevocationCheckDepth::EndEntity,
            false => RevocationCheckDepth::Chain,
        };
        let options = RevocationOptionsBuilder::new(&lists)
            // There is at least one, see `from_pem`.
            .expect("a list of revoked certificates")
            .with_depth(depth)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce);
        verify(Some(options.build()))
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({} lists, leaf only: {})", self.lists.len(), self.leaf_only)
    }
}
