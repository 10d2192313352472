//! Which ciphers and which groups of the key exchange are offered.

use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};

use super::pem::provider;
use super::settings::{SettingsError, Version};

/// What narrows the offers of the library. Names are OpenSSL's, as Envoy has them; those that the library does not have are
/// passed over, as long as something is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// Ciphers of TLS 1.2, as `ECDHE-RSA-AES128-GCM-SHA256`; all when empty. Those of TLS 1.3 are always offered.
    pub ciphers: Vec<String>,
    /// Groups, as `X25519MLKEM768` or `P-256`; all when empty.
    pub groups: Vec<String>,
}

impl Offers {
    /// The library's provider with no more than these, in the library's order.
    ///
    /// # Errors
    /// When nothing is left that could be spoken.
    pub(super) fn provider(&self, highest: Version) -> Result<CryptoProvider, SettingsError> {
        let mut provider = provider();
        if !self.ciphers.is_empty() {
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || self.has_cipher(*suite));
            let old = provider.cipher_suites.iter().any(|suite| suite.tls13().is_none());
            if !old && highest == Version::Tls12 {
                return Err(SettingsError::Ciphers(self.ciphers.clone()));
            }
        }
        if !self.groups.is_empty() {
            provider.kx_groups.retain(|group| self.has_group(*group));
            if provider.kx_groups.is_empty() {
                return Err(SettingsError::Groups(self.groups.clone()));
            }
        }
        Ok(provider)
    }

    fn has_cipher(&self, suite: SupportedCipherSuite) -> bool {
        let name = openssl_name(suite.suite());
        // BoringSSL writes ciphers of equal rank as `[A|B]`.
        let names = self.ciphers.iter().flat_map(|text| text.split(['[', '|', ']']));
        names.into_iter().any(|wanted| wanted == name)
    }

    fn has_group(&self, group: &dyn SupportedKxGroup) -> bool {
        let names: &[&str] = match group.name() {
            NamedGroup::X25519MLKEM768 => &["X25519MLKEM768"],
            NamedGroup::X25519 => &["X25519"],
            NamedGroup::secp256r1 => &["P-256", "prime256v1", "secp256r1"],
            NamedGroup::secp384r1 => &["P-384", "secp384r1"],
            _ => &[],
        };
        self.groups.iter().any(|wanted| names.contains(&wanted.as_str()))
    }
}

fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(ciphers: &[&str], groups: &[&str]) -> Offers {
        let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Offers { ciphers: text(ciphers), groups: text(groups) }
    }

    #[test]
    fn only_what_is_named_is_left() {
        let all = provider();
        let same = Offers::default().provider(Version::Tls13).unwrap();
        assert_eq!(same.cipher_suites.len(), all.cipher_suites.len());
        let named = offers(&["[ECDHE-RSA-AES128-GCM-SHA256|AES128-SHA]", "AES256-SHA"], &["P-256", "P-521"]);
        let narrow = named.provider(Version::Tls12).unwrap();
        let old: Vec<_> = narrow.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).collect();
        assert_eq!((old.len(), narrow.kx_groups.len()), (1, 1));
        assert_eq!(narrow.cipher_suites.len(), 4, "TLS 1.3 keeps its own");
    }

    #[test]
    fn nothing_left_is_an_error() {
        let old = offers(&["AES256-SHA"], &[]);
        assert!(old.provider(Version::Tls13).is_ok(), "TLS 1.3 is left");
        assert!(matches!(old.provider(Version::Tls12), Err(SettingsError::Ciphers(_))));
        assert!(matches!(offers(&[], &["P-521"]).provider(Version::Tls13), Err(SettingsError::Groups(_))));
    }
}
