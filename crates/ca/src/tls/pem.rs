//! Certificates and keys read from PEM, and what a peer's certificate says.

use base64::Engine as _;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::legacy;

/// Why a PEM text is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It holds no certificate.
    #[error("no certificate in the PEM text: expected a block BEGIN CERTIFICATE")]
    NoCertificate,
    /// It holds no private key.
    #[error(
        "no private key in the PEM text: expected a block BEGIN PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY ({0})"
    )]
    NoKey(String),
    /// The PEM framing is broken.
    #[error("malformed PEM: {0}")]
    Malformed(String),
    /// Key and certificate do not go together, or the key's algorithm is unknown.
    #[error("the private key does not fit the certificate: {0}")]
    Key(rustls::Error),
    /// A certificate does not parse.
    #[error("malformed certificate: {0}")]
    Certificate(String),
    /// It holds no list of revoked certificates.
    #[error("no revocation list in the PEM text: expected a block BEGIN X509 CRL")]
    NoRevocations,
    /// A list of revoked certificates does not parse.
    #[error("malformed revocation list: {0}; expected an X.509 CRL of version 2")]
    Revocations(String),
}

/// The anchors that peers' chains have to lead to.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
}

impl Trust {
    /// Reads one or more anchors from PEM.
    ///
    /// # Errors
    /// When there is none, or one does not parse.
    pub fn from_pem(pem: &[u8]) -> Result<Self, PemError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(|error| PemError::Certificate(error.to_string()))?;
        }
        Ok(Self { roots: Arc::new(roots) })
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

/// Reads a certificate chain, leaf first, and its private key.
///
/// # Errors
/// When either is missing or malformed, or they do not go together.
pub fn identity(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, PemError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| PemError::NoKey(error.to_string()))?;
    // rustls compares key and certificate itself, but reads certificates of version 3 only.
    let Some(public) = chain.first().and_then(legacy::public_key) else {
        return CertifiedKey::from_der(chain, key, &provider()).map(Arc::new).map_err(PemError::Key);
    };
    let key = provider().key_provider.load_private_key(key).map_err(PemError::Key)?;
    if key.public_key().is_some_and(|ours| ours != public) {
        return Err(PemError::Key(rustls::InconsistentKeys::KeyMismatch.into()));
    }
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PemError::Malformed(error.to_string()))?;
    if chain.is_empty() { Err(PemError::NoCertificate) } else { Ok(chain) }
}

/// The one crypto provider of the mesh.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// What a certificate says about its holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject in RFC 2253 form, as Envoy writes it.
    pub subject: String,
    /// Subject alternative names that are URIs.
    pub uris: Vec<String>,
    /// Subject alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: String,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// Start of validity, seconds since the epoch.
    pub not_before: i64,
    /// End of validity, seconds since the epoch.
    pub not_after: i64,
    der: Vec<u8>,
}

impl PeerCertificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// When it does not parse.
    pub fn from_der(der: &[u8]) -> Result<Self, PemError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| PemError::Certificate(error.to_string()))?;
        let mut out = Self {
            subject: rfc2253(certificate.subject()),
            sha256: hex(&sha256(der)),
            serial: hex(certificate.raw_serial()).trim_start_matches("00").to_owned(),
            not_before: certificate.validity().not_before.timestamp(),
            not_after: certificate.validity().not_after.timestamp(),
            der: der.to_vec(),
            ..Self::default()
        };
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::URI(uri) => out.uris.push((*uri).to_owned()),
                    GeneralName::DNSName(dns) => out.dns_names.push((*dns).to_owned()),
                    _ => {}
                }
            }
        }
        Ok(out)
    }

    /// The certificate in PEM, in the form that `x-forwarded-client-cert` has it: what would end a value is written `%XX`.
    pub fn url_encoded_pem(&self) -> String {
        let pem = block("CERTIFICATE", &self.der);
        let mut encoded = String::with_capacity(pem.len() + pem.len() / 8);
        for c in pem.chars() {
            match c {
                '\n' => encoded.push_str("%0A"),
                ' ' => encoded.push_str("%20"),
                '+' => encoded.push_str("%2B"),
                '/' => encoded.push_str("%2F"),
                '=' => encoded.push_str("%3D"),
                other => encoded.push(other),
            }
        }
        encoded
    }

    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none, or one does not parse.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, PemError> {
        certificates(pem)?.iter().map(|der| Self::from_der(der)).collect()
    }
}

/// Certificates in DER, one after the other, as PEM.
///
/// # Errors
/// When there is none, or one does not parse.
pub fn chain_from_der(der: &[u8]) -> Result<String, PemError> {
    let (mut rest, mut pem) = (der, String::new());
    while !rest.is_empty() {
        let (after, _) =
            X509Certificate::from_der(rest).map_err(|error| PemError::Certificate(error.to_string()))?;
        pem += &block("CERTIFICATE", &rest[..rest.len() - after.len()]);
        rest = after;
    }
    if pem.is_empty() { Err(PemError::NoCertificate) } else { Ok(pem) }
}

/// A private key in DER, by PKCS #8, as PEM.
pub fn key_from_der(pkcs8: &[u8]) -> String {
    block("PRIVATE KEY", pkcs8)
}

/// A block of PEM, in lines of 64 characters.
fn block(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for (at, c) in body.chars().enumerate() {
        pem.push(c);
        if (at + 1) % LINE == 0 || at + 1 == body.len() {
            pem.push('\n');
        }
    }
    pem + &format!("-----END {label}-----\n")
}

/// The most specific part first, commas without blanks, special characters escaped.
pub(crate) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_attributes()
        .map(|attribute| {
            let oid = attribute.attr_type();
            let key = x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry())
                .map_or_else(|_| oid.to_id_string(), str::to_owned);
            let mut text = key + "=";
            for c in attribute.as_str().unwrap_or_default().chars() {
                if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
                    text.push('\\');
                }
                text.push(c);
            }
            text
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

pub(super) fn sha256(data: &[u8]) -> Vec<u8> {
    match rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13() {
        Some(suite) => suite.common.hash_provider.hash(data).as_ref().to_vec(),
        None => Vec::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
