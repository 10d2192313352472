//! Certificates in words, as Istio's control plane logs them.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::tls::rfc2253;

/// A line for each certificate of a PEM text: issuer, subject, serial number, validity. What is no certificate is said.
pub fn describe(pem: &str) -> Vec<String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(|der| match der {
            Ok(der) => line(&der),
            Err(error) => format!("x509 cert - unreadable: {error}"),
        })
        .collect()
}

fn line(der: &[u8]) -> String {
    let certificate = match x509_parser::parse_x509_certificate(der) {
        Ok((_, certificate)) => certificate,
        Err(error) => return format!("x509 cert - unreadable: {error}"),
    };
    let validity = certificate.validity();
    let time = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
    format!(
        "x509 cert - Issuer: {:?}, Subject: {:?}, SN: {:x}, NotBefore: {:?}, NotAfter: {:?}",
        rfc2253(certificate.issuer()),
        rfc2253(certificate.subject()),
        certificate.serial,
        time(validity.not_before.to_datetime()),
        time(validity.not_after.to_datetime()),
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::Authority;

    #[test]
    fn a_chain_is_a_line_each() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let authority = Authority::self_signed("td.example", now, Duration::from_secs(86_400)).unwrap();
        let lines = describe(authority.root_pem());
        assert_eq!(lines.len(), 1);
        let expected = "x509 cert - Issuer: \"O=td.example\", Subject: \"O=td.example\", SN: ";
        assert!(lines[0].starts_with(expected), "{lines:?}");
        assert!(lines[0].contains("NotAfter: \"2023-11-15T22:13:20Z\""), "{lines:?}");
        assert!(
            describe("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")[0]
                .contains("unreadable")
        );
        assert!(describe("nothing").is_empty());
    }
}
