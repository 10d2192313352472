//! X.509 version 1 leaves, which `openssl x509 -req` makes where no extensions are asked for. webpki knows version 3
//! only; Envoy takes both.
//!
//! Such a leaf has no extensions, hence no names and no limits on its use. It is good when it is in its time and a chain
//! of signatures leads to an anchor: directly, or by version 3 intermediates that may sign certificates. Names,
//! signatures and times follow RFC 5280, section 6; what an intermediate says that is not understood here makes the
//! chain worthless.

use rustls::CertificateError;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::RawPublicKeyEntity;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

/// Intermediates that are followed at most.
const DEPTH: usize = 6;

/// Reads a certificate if it is of version 1.
pub(super) fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    (rest.is_empty() && certificate.version() == X509Version::V1).then_some(certificate)
}

/// The public key of a certificate of version 1, for signatures of the handshake.
pub(super) fn public_key(der: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let certificate = parse(der)?;
    Some(SubjectPublicKeyInfoDer::from(certificate.public_key().raw).into_owned())
}

/// Whether a leaf of version 1 leads to one of the anchors.
///
/// # Errors
/// Says what is wrong with the chain.
pub(super) fn verify(
    leaf: &X509Certificate<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    now: UnixTime,
) -> Result<(), CertificateError> {
    in_time(leaf, now)?;
    let issuers: Vec<X509Certificate<'_>> = intermediates
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok())
        .filter_map(|(rest, certificate)| rest.is_empty().then_some(certificate))
        .collect();
    let path = Path { issuers: &issuers, anchors, algorithms, now };
    path.follow(leaf, 0)
}

/// What a chain is made of.
struct Path<'a> {
    issuers: &'a [X509Certificate<'a>],
    anchors: &'a [TrustAnchor<'a>],
    algorithms: &'a WebPkiSupportedAlgorithms,
    now: UnixTime,
}

impl Path<'_> {
    /// `below` is the number of intermediates between the certificate and the leaf, itself included.
    fn follow(&self, certificate: &X509Certificate<'_>, below: usize) -> Result<(), CertificateError> {
        let mut error = CertificateError::UnknownIssuer;
        for anchor in self.anchors {
            if !names(certificate.issuer().as_raw(), anchor.subject.as_ref()) {
                continue;
            }
            // Constraints on names cannot be held against a leaf that has none.
            if anchor.name_constraints.is_some() {
                continue;
            }
            let key = sequence(anchor.subject_public_key_info.as_ref());
            match self.check_signature(certificate, &key) {
                Ok(()) => return Ok(()),
                Err(wrong) => error = wrong,
            }
        }
        if below == DEPTH {
            return Err(error);
        }
        for issuer in self.issuers {
            if issuer.subject().as_raw() != certificate.issuer().as_raw() || !may_sign(issuer, below) {
                continue;
            }
            let step = in_time(issuer, self.now)
                .and_then(|()| self.check_signature(certificate, issuer.public_key().raw))
                .and_then(|()| self.follow(issuer, below + 1));
            match step {
                Ok(()) => return Ok(()),
                Err(wrong) => error = wrong,
            }
        }
        Err(error)
    }

    fn check_signature(&self, certificate: &X509Certificate<'_>, key: &[u8]) -> Result<(), CertificateError> {
        let key = SubjectPublicKeyInfoDer::from(key);
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let algorithm = algorithm(certificate).ok_or(CertificateError::BadEncoding)?;
        let signed = certificate.tbs_certificate.as_ref();
        let signature = &certificate.signature_value.data;
        // One algorithm of signatures may go with several of keys.
        let good =
            self.algorithms.all.iter().filter(|known| known.signature_alg_id().as_ref() == &*algorithm);
        let mut good = good.map(|known| key.verify_signature(*known, signed, signature));
        if good.any(|result| result.is_ok()) { Ok(()) } else { Err(CertificateError::BadSignature) }
    }
}

fn in_time(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    Ok(())
}

/// Whether an intermediate may sign certificates with `below` intermediates under it.
fn may_sign(issuer: &X509Certificate<'_>, below: usize) -> bool {
    let mut authority = false;
    for extension in issuer.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(rules) => {
                let depth = rules.path_len_constraint.is_none_or(|most| below <= most as usize);
                authority = rules.ca && depth;
            }
            ParsedExtension::KeyUsage(usage) if !usage.key_cert_sign() => return false,
            ParsedExtension::KeyUsage(_) => {}
            _ if extension.critical => return false,
            _ => {}
        }
    }
    authority && issuer.version() == X509Version::V3
}

/// Whether a whole name is the one whose content an anchor has.
fn names(name: &[u8], content: &[u8]) -> bool {
    name == sequence(content)
}

/// The content of a DER sequence with its tag and length.
fn sequence(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![0x30];
    match u8::try_from(length) {
        Ok(short @ 0..0x80) => out.push(short),
        // A length has at most eight bytes.
        _ => {
            out.push(0x80 | digits.len() as u8);
            out.extend(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The content of the signature's algorithm, outside the part that is signed. It has to say the same as the one inside.
fn algorithm(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    if certificate.signature_algorithm != certificate.tbs_certificate.signature {
        return None;
    }
    let identifier = &certificate.signature_algorithm;
    let mut out = vec![0x06, u8::try_from(identifier.algorithm.as_bytes().len()).ok()?];
    out.extend_from_slice(identifier.algorithm.as_bytes());
    if let Some(parameters) = &identifier.parameters {
        use x509_parser::asn1_rs::ToDer;
        out.extend(parameters.to_der_vec().ok()?);
    }
    Some(out)
}
