//! Chains of certificates: who signed whom, and what operators know a certificate by.

use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::tls::{PeerCertificate, PemError, certificates};

/// The longest chain that is followed, the root included.
const LONGEST: usize = 16;

/// What names a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The subject in RFC 2253 form.
    pub subject: String,
    /// The serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: String,
    /// When it runs out.
    pub not_after: SystemTime,
}

impl From<PeerCertificate> for Facts {
    fn from(certificate: PeerCertificate) -> Self {
        let seconds = u64::try_from(certificate.not_after).unwrap_or_default();
        Self {
            subject: certificate.subject,
            serial: certificate.serial,
            sha256: certificate.sha256,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }
}

/// The certificates of a PEM text, in their order.
///
/// # Errors
/// When there is none, or one does not parse.
pub fn facts(pem: &str) -> Result<Vec<Facts>, PemError> {
    Ok(PeerCertificate::all_from_pem(pem.as_bytes())?.into_iter().map(Facts::from).collect())
}

/// The root, among `roots`, that the first certificate of `chain` leads to by way of the others, in any order, each
/// signature checked; none when it leads to no root. Validity in time is not looked at.
///
/// # Errors
/// When a text holds no certificate, or one does not parse.
pub fn root_of(chain: &str, roots: &str) -> Result<Option<Facts>, PemError> {
    let (chain, roots) = (certificates(chain.as_bytes())?, certificates(roots.as_bytes())?);
    let parse = |der: &'_ [u8]| -> Result<(), PemError> {
        X509Certificate::from_der(der).map(drop).map_err(|e| PemError::Certificate(e.to_string()))
    };
    chain.iter().chain(&roots).try_for_each(|der| parse(der))?;
    let mut current = 0;
    for _ in 0..LONGEST {
        if let Some(root) = roots.iter().find(|root| *root == &chain[current] || signs(root, &chain[current]))
        {
            return PeerCertificate::from_der(root).map(|root| Some(root.into()));
        }
        let others = (0..chain.len()).filter(|at| *at != current);
        match others.into_iter().find(|at| signs(&chain[*at], &chain[current])) {
            Some(next) => current = next,
            None => return Ok(None),
        }
    }
    Ok(None)
}

/// Whether one certificate's holder signed the other.
fn signs(issuer: &[u8], certificate: &[u8]) -> bool {
    let (Ok((_, issuer)), Ok((_, certificate))) =
        (X509Certificate::from_der(issuer), X509Certificate::from_der(certificate))
    else {
        return false;
    };
    issuer.subject() == certificate.issuer()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make::{Kind, Maker};

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_chain_leads_to_its_root_whatever_the_order_between() {
        let maker = Maker { key: Kind::EcdsaP256, now: SystemTime::now(), lifetime: DAY };
        let root = maker.root("Org", "Root").unwrap();
        let other = maker.root("Org", "Root").unwrap();
        let first = root.intermediate(&maker, "Org", "One", "a", None).unwrap();
        let second = first.intermediate(&maker, "Org", "Two", "b", None).unwrap();
        let bundle = format!("{}{}", other.certificate_pem(), root.certificate_pem());
        let serial = facts(root.certificate_pem()).unwrap()[0].serial.clone();
        for between in [
            format!("{}{}", first.certificate_pem(), root.certificate_pem()),
            format!("{}{}", root.certificate_pem(), first.certificate_pem()),
        ] {
            let chain = format!("{}{between}", second.certificate_pem());
            assert_eq!(root_of(&chain, &bundle).unwrap().unwrap().serial, serial);
            assert_eq!(root_of(&chain, other.certificate_pem()).unwrap(), None);
        }
        assert_eq!(root_of(second.certificate_pem(), &bundle).unwrap(), None, "a link is missing");
        assert_eq!(root_of(root.certificate_pem(), &bundle).unwrap().unwrap().serial, serial);
        assert!(root_of("nothing", &bundle).is_err());
    }
}
