//! Certificate requests: how a workload makes one, and what the authority accepts.

use lateen_base::SpiffeId;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PublicKeyData, SanType,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// RSA keys that are signed, in bits: larger ones cost every peer too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// The largest request that is looked at, in bytes.
const LARGEST: usize = 16 << 10;

/// A fresh key and the request to certify it.
#[derive(Clone, Debug)]
pub struct KeyRequest {
    /// The private key, PKCS #8 PEM; it never leaves the workload.
    pub key_pem: String,
    /// The request, PEM.
    pub csr_pem: String,
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
    let csr = CertificateSigningRequestParams::from_pem(pem).map_err(|error| match error {
        rcgen::Error::InvalidCertificationRequestSignature => RequestError::Signature,
        other => RequestError::Malformed(other.to_string()),
    })?;
    check_key(&csr)?;
    let caller = caller.to_string();
    let foreign = csr.params.subject_alt_names.iter().find(|name| !is_uri(name, &caller));
    match foreign {
        Some(name) => Err(RequestError::Identity { asked: describe(name), caller }),
        None => Ok(csr),
    }
}

fn check_key(csr: &CertificateSigningRequestParams) -> Result<(), RequestError> {
    let der = csr.public_key.subject_public_key_info();
    let (_, key) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&der)
        .map_err(|e| RequestError::Malformed(e.to_string()))?;
    match key.parsed().map_err(|e| RequestError::Malformed(e.to_string()))? {
        PublicKey::RSA(rsa) if !RSA_BITS.contains(&rsa.key_size()) => {
            Err(RequestError::Key(format!("RSA of {} bits", rsa.key_size())))
        }
        PublicKey::EC(point) if !matches!(point.key_size(), 256 | 384) => {
            Err(RequestError::Key(format!("ECDSA of {} bits", point.key_size())))
        }
        PublicKey::RSA(_) | PublicKey::EC(_) => Ok(()),
        PublicKey::Unknown(_) if key.algorithm.algorithm.to_id_string() == "1.3.101.112" => Ok(()),
        other => Err(RequestError::Key(format!("{other:?}").chars().take(20).collect())),
    }
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
