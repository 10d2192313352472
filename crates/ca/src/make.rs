//! Roots and intermediates, made as `Makefile.selfsigned.mk` makes them with openssl.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::authority::{CaError, key_pair, secret_keys, serial, validity};

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RSA of 2048 bits.
    Rsa2048,
    /// RSA of 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
}

impl Kind {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
            Self::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "rsa2048" => Ok(Self::Rsa2048),
            "rsa4096" | "rsa" => Ok(Self::Rsa4096),
            "ecdsa-p256" | "ecdsa" => Ok(Self::EcdsaP256),
            "ecdsa-p384" => Ok(Self::EcdsaP384),
            _ => Err("expected rsa2048, rsa4096, ecdsa-p256 or ecdsa-p384".to_owned()),
        }
    }
}

/// How certificates are made.
#[derive(Clone, Copy, Debug)]
pub struct Maker {
    /// The kind of the keys.
    pub key: Kind,
    /// The time now.
    pub now: SystemTime,
    /// How long they hold.
    pub lifetime: Duration,
}

/// A certificate that may sign others, with its key.
pub struct Signer {
    certificate_pem: String,
    key: KeyPair,
}

impl Maker {
    /// A self-signed root of that organization and common name.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn root(&self, organization: &str, common_name: &str) -> Result<Signer, CaError> {
        let mut params = self.params(organization, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = self.key.generate()?;
        Ok(Signer { certificate_pem: params.self_signed(&key)?.pem(), key })
    }

    fn params(&self, organization: &str, common_name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::ContentCommitment,
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyCertSign,
        ];
        params.serial_number = Some(serial());
        (params.not_before, params.not_after) = validity(self.now, self.lifetime);
        params
    }
}

impl Signer {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// When one does not parse, or they do not belong together.
    pub fn read(certificate_pem: String, key_pem: &str, now: SystemTime) -> Result<Self, CaError> {
        let key = key_pair(key_pem)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|e| CaError::Malformed { key: secret_keys::CA_CERT, reason: e.to_string() })?;
        crate::authority::examine(&der, &key, now)?;
        Ok(Self { certificate_pem, key })
    }

    /// The certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key, PKCS #8.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// An intermediate for a cluster, which may sign leaves. With `path_length` 0 it may sign nothing else.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn intermediate(
        &self,
        maker: &Maker,
        organization: &str,
        common_name: &str,
        cluster: &str,
        path_length: Option<u8>,
    ) -> Result<Self, CaError> {
        let mut params = maker.params(organization, common_name);
        params.distinguished_name.push(DnType::LocalityName, cluster);
        params.is_ca = IsCa::Ca(match path_length {
            Some(length) => BasicConstraints::Constrained(length),
            None => BasicConstraints::Unconstrained,
        });
        params.subject_alt_names = vec![SanType::DnsName("istiod.istio-system.svc".try_into()?)];
        params.use_authority_key_identifier_extension = true;
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|e| CaError::Malformed { key: secret_keys::CA_CERT, reason: e.to_string() })?;
        let issuer = Issuer::from_ca_cert_der(&der, &self.key)?;
        let key = maker.key.generate()?;
        Ok(Self { certificate_pem: params.signed_by(&key, &issuer)?.pem(), key })
    }
}
