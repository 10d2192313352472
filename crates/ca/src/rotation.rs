//! When to renew a certificate.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The share of the lifetime, in percent, that passes before renewal: Istio's grace ratio.
const RENEW_AFTER_PERCENT: u32 = 50;
/// Renewals of a fleet are spread over this share of the lifetime, in percent, before that point.
const SPREAD_PERCENT: u64 = 1;

/// When a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub not_before: SystemTime,
    /// Until.
    pub not_after: SystemTime,
}

/// Why the validity cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("not a PEM certificate: {0}")]
pub struct ValidityError(String);

impl Validity {
    /// That of the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_pem(pem: &str) -> Result<Self, ValidityError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| ValidityError(e.to_string()))?;
        let (_, certificate) =
            x509_parser::parse_x509_certificate(&der).map_err(|e| ValidityError(e.to_string()))?;
        let validity = certificate.validity();
        Ok(Self {
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }

    /// When to renew a certificate that was got at `got`: at half of what was left of it then, a little earlier
    /// by chance so that a fleet does not ask at once.
    pub fn renewal(&self, got: SystemTime, entropy: u64) -> SystemTime {
        let left = self.not_after.duration_since(got).unwrap_or_default();
        let spread = u64::try_from(left.as_millis()).unwrap_or(u64::MAX) / 100 * SPREAD_PERCENT;
        let early = Duration::from_millis(if spread == 0 { 0 } else { entropy % spread });
        got + (left * RENEW_AFTER_PERCENT / 100).saturating_sub(early)
    }
}

fn at(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_at_half_life() {
        let got = at(1_000_000);
        let day = Duration::from_secs(86_400);
        let validity = Validity { not_before: at(999_000), not_after: got + day };
        assert_eq!(validity.renewal(got, 0), got + day / 2);
        for entropy in [1, 77, u64::MAX] {
            let renewal = validity.renewal(got, entropy);
            assert!(renewal <= got + day / 2 && renewal > got + day / 100 * 48, "{entropy}");
        }
        let past = Validity { not_before: at(0), not_after: at(10) };
        assert_eq!(past.renewal(got, 5), got);
    }
}
