//! Certificate requests: how a workload makes one, and what the authority accepts.

use lateen_base::SpiffeId;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::asn1_rs::Tag;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// RSA keys that are signed, in bits: larger ones cost every peer too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The curves whose keys are signed: P-256 and P-384.
const CURVES: [&str; 2] = ["1.2.840.10045.3.1.7", "1.3.132.0.34"];
/// The largest request that is looked at, in bytes.
const LARGEST: usize = 16 << 10;

/// A fresh key and the request to certify it. `Debug` leaves the key out.
#[derive(Clone)]
pub struct KeyRequest {
    /// The private key, PKCS #8 PEM; it never leaves the workload.
    pub key_pem: String,
    /// The request, PEM.
    pub csr_pem: String,
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRequest").field("csr_pem", &self.csr_pem).finish_non_exhaustive()
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It does not parse.
    #[error("it is not a PEM certificate request: {0}")]
    Malformed(String),
    /// It is not signed by its own key.
    #[error("its signature is not by the key it carries")]
    Signature,
    /// It asks for names that are not the caller's.
    #[error("it asks for {asked}, the caller is {caller}")]
    Identity {
        /// What it asks for.
        asked: String,
        /// Whose token came with it.
        caller: String,
    },
    /// Its key is of a kind that is not signed.
    #[error("its key is {0}: use RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519")]
    Key(String),
    /// Its key is on a curve that is not signed.
    #[error("its key is on the curve {0}: use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519")]
    Curve(String),
    /// It is larger than any good one.
    #[error("it has {0} bytes: at most {LARGEST} are taken")]
    Large(usize),
}

impl KeyRequest {
    /// Makes an ECDSA P-256 key and a request for the identity.
    ///
    /// # Errors
    /// When the machine gives no randomness.
    pub fn new(identity: &SpiffeId) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        Ok(Self { csr_pem: params.serialize_request(&key)?.pem()?, key_pem: key.serialize_pem() })
    }
}

/// Accepts a request that is signed by its own, strong key, and asks for nothing but the caller's identity.
///
/// # Errors
/// As [`RequestError`] lists.
pub(crate) fn check(pem: &str, caller: &SpiffeId) -> Result<CertificateSigningRequestParams, RequestError> {
    if pem.len() > LARGEST {
        return Err(RequestError::Large(pem.len()));
    }
    let malformed = |error: &dyn std::fmt::Display| RequestError::Malformed(error.to_string());
    let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|e| malformed(&e))?;
    // The key first: a signature by one of those that are not taken cannot be checked.
    check_key(&der)?;
    let csr = CertificateSigningRequestParams::from_der(&der).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => RequestError::Signature,
        other => malformed(&other),
    })?;
    let caller = caller.to_string();
    let foreign = csr.params.subject_alt_names.iter().find(|name| !is_uri(name, &caller));
    match foreign {
        Some(name) => Err(RequestError::Identity { asked: describe(name), caller }),
        None => Ok(csr),
    }
}

fn check_key(der: &[u8]) -> Result<(), RequestError> {
    let (_, csr) =
        X509CertificationRequest::from_der(der).map_err(|e| RequestError::Malformed(e.to_string()))?;
    let key = &csr.certification_request_info.subject_pki;
    match key.parsed().map_err(|e| RequestError::Malformed(e.to_string()))? {
        PublicKey::RSA(rsa) if !RSA_BITS.contains(&rsa.key_size()) => {
            Err(RequestError::Key(format!("RSA of {} bits", rsa.key_size())))
        }
        PublicKey::EC(_) if !curve(key).is_some_and(|curve| CURVES.contains(&curve.as_str())) => {
            Err(RequestError::Curve(curve(key).unwrap_or_else(|| "of its own".to_owned())))
        }
        PublicKey::RSA(_) | PublicKey::EC(_) => Ok(()),
        PublicKey::Unknown(_) if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => Ok(()),
        other => Err(RequestError::Key(format!("{other:?}").chars().take(20).collect())),
    }
}

/// The identifier of the curve that a key names; others of the same size are not of the same strength.
fn curve(key: &x509_parser::x509::SubjectPublicKeyInfo<'_>) -> Option<String> {
    let parameters = key.algorithm.parameters.as_ref().filter(|any| any.tag() == Tag::Oid)?;
    parameters.as_oid().ok().map(|oid| oid.to_id_string())
}

fn is_uri(name: &SanType, uri: &str) -> bool {
    matches!(name, SanType::URI(text) if text.as_str() == uri)
}

fn describe(name: &SanType) -> String {
    match name {
        SanType::URI(text) => text.as_str().to_owned(),
        SanType::DnsName(text) => format!("the DNS name {}", text.as_str()),
        SanType::IpAddress(address) => format!("the address {address}"),
        _ => "a name of another kind".to_owned(),
    }
}
