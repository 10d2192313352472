//! When to renew a certificate.

use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// When to renew, as shares of what was left of the lifetime when the certificate was got. The defaults are Istio's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renewal {
    /// How much is left then (`SECRET_GRACE_PERIOD_RATIO`), 0 to 1.
    pub grace: f64,
    /// By how much that differs by chance, either way, so that a fleet does not ask at once
    /// (`SECRET_GRACE_PERIOD_RATIO_JITTER`), 0 to 1.
    pub jitter: f64,
}

impl Default for Renewal {
    fn default() -> Self {
        Self { grace: 0.5, jitter: 0.01 }
    }
}

impl Renewal {
    /// When to renew a certificate that holds as `validity` says and was got at `got`. `entropy` is the chance.
    pub fn at(&self, validity: &Validity, got: SystemTime, entropy: u64) -> SystemTime {
        let left = validity.not_after.duration_since(got).unwrap_or_default();
        // 53 bits: what a double can hold; from -1 to 1.
        let chance = (entropy >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
        let grace = (self.grace + self.jitter * chance).clamp(0.0, 1.0);
        got + left.mul_f64(1.0 - grace)
    }
}

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
}

fn at(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_around_half_life_or_where_it_is_told() {
        let got = at(1_000_000);
        let day = Duration::from_secs(86_400);
        let validity = Validity { not_before: at(999_000), not_after: got + day };
        let exactly = Renewal { jitter: 0.0, ..Renewal::default() };
        assert_eq!(exactly.at(&validity, got, 77), got + day / 2);
        assert_eq!(Renewal { grace: 0.25, ..exactly }.at(&validity, got, 77), got + day * 3 / 4);
        let times = [0, 1 << 63, u64::MAX].map(|entropy| Renewal::default().at(&validity, got, entropy));
        assert!(times[0] > times[1] && times[1] > times[2], "{times:?}");
        assert!(times.iter().all(|time| *time >= got + day / 100 * 49 && *time <= got + day / 100 * 51));
        let wild = Renewal { grace: 1.0, jitter: 1.0 };
        for entropy in [0, 77, u64::MAX] {
            let renewal = wild.at(&validity, got, entropy);
            assert!(renewal >= got && renewal <= got + day, "{entropy}");
        }
        let past = Validity { not_before: at(0), not_after: at(10) };
        assert_eq!(Renewal::default().at(&past, got, 5), got);
    }
}
