//! The signing authority: Istio's `istio-ca-secret` (made by us) or `cacerts` (plugged in), and what it signs.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use lateen_base::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::chain::{Facts, facts, root_of};
use crate::request;

/// How far a certificate's start lies in the past, for clocks that disagree.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Keys of the secret that holds an authority, as Istio names them.
pub mod secret_keys {
    /// The signing certificate.
    pub const CA_CERT: &str = "ca-cert.pem";
    /// The signing key.
    pub const CA_KEY: &str = "ca-key.pem";
    /// Intermediate certificates between the signing certificate and the root.
    pub const CERT_CHAIN: &str = "cert-chain.pem";
    /// A key of an older layout, empty.
    pub const KEY: &str = "key.pem";
    /// The root certificates; empty when the signing certificate is the only one.
    pub const ROOT_CERT: &str = "root-cert.pem";
}

/// Why the authority cannot be used, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key of the secret is missing.
    #[error("the CA secret has no {0}")]
    Missing(&'static str),
    /// A key of the secret is not the PEM it should be.
    #[error("{key} of the CA secret: {reason}")]
    Malformed {
        /// The key.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The signing certificate cannot sign, or not any more.
    #[error("the CA certificate cannot be used: {0}")]
    Unusable(String),
    /// The request is refused.
    #[error("certificate request refused: {0}")]
    Request(#[from] request::RequestError),
    /// The cryptographic library gave up.
    #[error("signing failed: {0}")]
    Sign(#[from] rcgen::Error),
}

/// A certificate with its key, both PEM. `Debug` leaves the key out.
#[derive(Clone)]
pub struct Certified {
    /// The certificate, and its intermediates.
    pub chain_pem: String,
    /// The private key, PKCS #8.
    pub key_pem: String,
}

impl std::fmt::Debug for Certified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certified").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// The signing authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
    key_pem: String,
    chain_pem: String,
    root_pem: String,
    root: Facts,
    not_after: SystemTime,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new self-signed root of the trust domain.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn self_signed(trust_domain: &str, now: SystemTime, lifetime: Duration) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, trust_domain);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial());
        (params.not_before, params.not_after) = validity(now, lifetime);
        let (ca_pem, key_pem) = (params.self_signed(&key)?.pem(), key.serialize_pem());
        Self::assemble(ca_pem.clone(), key_pem, String::new(), ca_pem, now)
    }

    /// The authority that a secret holds.
    ///
    /// # Errors
    /// When a key is missing or malformed, the certificate is no CA's, has run out, or is of another key.
    pub fn from_secret(secret: &BTreeMap<String, Vec<u8>>, now: SystemTime) -> Result<Self, CaError> {
        let text = |key: &'static str| -> Result<Option<String>, CaError> {
            let Some(value) = secret.get(key).filter(|value| !value.is_empty()) else { return Ok(None) };
            String::from_utf8(value.clone())
                .map(Some)
                .map_err(|_| CaError::Malformed { key, reason: "it is not text".into() })
        };
        let ca = text(secret_keys::CA_CERT)?.ok_or(CaError::Missing(secret_keys::CA_CERT))?;
        let key = text(secret_keys::CA_KEY)?.ok_or(CaError::Missing(secret_keys::CA_KEY))?;
        let chain = text(secret_keys::CERT_CHAIN)?.unwrap_or_default();
        let root = text(secret_keys::ROOT_CERT)?.unwrap_or_else(|| ca.clone());
        Self::assemble(ca, key, chain, root, now)
    }

    /// The data of the secret that holds this authority.
    pub fn secret(&self) -> BTreeMap<String, Vec<u8>> {
        let root = if self.root_pem == self.ca_pem { "" } else { &self.root_pem };
        [
            (secret_keys::CA_CERT, self.ca_pem.as_str()),
            (secret_keys::CA_KEY, &self.key_pem),
            (secret_keys::CERT_CHAIN, &self.chain_pem),
            (secret_keys::KEY, ""),
            (secret_keys::ROOT_CERT, root),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
        .collect()
    }

    /// The root certificates, what every workload trusts: one, or several while one is exchanged for another.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root that what is signed leads to.
    pub fn root(&self) -> &Facts {
        &self.root
    }

    /// All roots that are to be trusted.
    pub fn roots(&self) -> Vec<Facts> {
        // They were read when the authority was put together.
        facts(&self.root_pem).unwrap_or_default()
    }

    /// When the signing certificate runs out.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a workload's request: the certificate, its intermediates, each one PEM block, and last the roots.
    ///
    /// # Errors
    /// When the request is malformed, of a weak key, or asks for another identity than the caller's.
    pub fn sign(
        &self,
        csr_pem: &str,
        caller: &SpiffeId,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Vec<String>, CaError> {
        let csr = request::check(csr_pem, caller)?;
        let name = SanType::URI(caller.to_string().try_into()?);
        let csr = CertificateSigningRequestParams { params: self.leaf(vec![name], now, ttl), ..csr };
        let mut chain = vec![csr.signed_by(&self.issuer)?.pem()];
        chain.extend(blocks(&self.chain_pem));
        chain.push(self.root_pem.clone());
        Ok(chain)
    }

    /// A server's certificate for DNS names, with a key of its own: the control plane's ports use it.
    ///
    /// # Errors
    /// When a name cannot be in a certificate.
    pub fn server(&self, names: &[String], now: SystemTime, ttl: Duration) -> Result<Certified, CaError> {
        let names: Result<Vec<SanType>, rcgen::Error> =
            names.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?))).collect();
        let key = KeyPair::generate()?;
        let leaf = self.leaf(names?, now, ttl).signed_by(&key, &self.issuer)?.pem();
        Ok(Certified { chain_pem: format!("{leaf}{}", self.chain_pem), key_pem: key.serialize_pem() })
    }

    fn leaf(&self, names: Vec<SanType>, now: SystemTime, ttl: Duration) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(serial());
        params.use_authority_key_identifier_extension = true;
        let left = self.not_after.duration_since(now).unwrap_or_default();
        (params.not_before, params.not_after) = validity(now, ttl.min(left));
        params
    }

    fn assemble(
        ca_pem: String,
        key_pem: String,
        chain_pem: String,
        root_pem: String,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let malformed = |key, reason: String| CaError::Malformed { key, reason };
        let key = key_pair(&key_pem)?;
        let der = CertificateDer::from_pem_slice(ca_pem.as_bytes())
            .map_err(|e| malformed(secret_keys::CA_CERT, format!("not a certificate: {e}")))?;
        facts(&root_pem).map_err(|e| malformed(secret_keys::ROOT_CERT, e.to_string()))?;
        if !chain_pem.trim().is_empty() {
            facts(&chain_pem).map_err(|e| malformed(secret_keys::CERT_CHAIN, e.to_string()))?;
        }
        let not_after = examine(&der, &key, now)?;
        let chain = blocks(&format!("{ca_pem}\n{chain_pem}")).concat();
        let root = root_of(&chain, &root_pem)
            .map_err(|e| malformed(secret_keys::CERT_CHAIN, e.to_string()))?
            .ok_or_else(|| CaError::Unusable(unrooted(&ca_pem)))?;
        let chain_pem = presented(&der, &ca_pem, &chain_pem, &root_pem);
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self { issuer, ca_pem, key_pem, chain_pem, root_pem, root, not_after })
    }
}

fn unrooted(ca_pem: &str) -> String {
    let subject = facts(ca_pem).ok().and_then(|all| all.into_iter().next()).map(|first| first.subject);
    format!(
        "{}, subject {:?}, does not lead by {} to a certificate of {}",
        secret_keys::CA_CERT,
        subject.unwrap_or_default(),
        secret_keys::CERT_CHAIN,
        secret_keys::ROOT_CERT
    )
}

/// What is shown between a leaf and the root: the signing certificate first, unless it is a root itself.
fn presented(der: &CertificateDer<'_>, ca_pem: &str, chain_pem: &str, root_pem: &str) -> String {
    let has = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok).any(|one| one == *der)
    };
    let mut all = blocks(chain_pem);
    if !has(chain_pem) && !has(root_pem) {
        all.splice(0..0, blocks(ca_pem));
    }
    all.concat()
}

/// Reads a private key: PKCS #8, or the older forms of RSA and EC keys.
pub(crate) fn key_pair(pem: &str) -> Result<KeyPair, CaError> {
    let malformed = |reason: String| CaError::Malformed { key: secret_keys::CA_KEY, reason };
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| malformed(format!("not a private key without passphrase: {e}")))?;
    KeyPair::try_from(&key)
        .map_err(|e| malformed(format!("not an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key: {e}")))
}

/// Whether the certificate can sign, with this key, now; when it runs out.
pub(crate) fn examine(
    der: &CertificateDer<'_>,
    key: &KeyPair,
    now: SystemTime,
) -> Result<SystemTime, CaError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|e| CaError::Malformed { key: secret_keys::CA_CERT, reason: e.to_string() })?;
    if !certificate.is_ca() {
        return Err(CaError::Unusable("its basic constraints do not say CA:TRUE".into()));
    }
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err(CaError::Unusable(format!(
            "{} and {} do not belong together",
            secret_keys::CA_CERT,
            secret_keys::CA_KEY
        )));
    }
    let not_after = rotation_time(certificate.validity().not_after.timestamp());
    if not_after <= now {
        return Err(CaError::Unusable(format!("it ran out on {}", certificate.validity().not_after)));
    }
    Ok(not_after)
}

fn rotation_time(timestamp: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(timestamp).unwrap_or_default())
}

/// Start and end of a certificate; whole seconds, as certificates know no finer ones.
pub(crate) fn validity(now: SystemTime, lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let whole = |time: SystemTime| {
        let time = OffsetDateTime::from(time);
        time - Duration::from_nanos(u64::from(time.nanosecond()))
    };
    (whole(now - CLOCK_SKEW), whole(now + lifetime))
}

/// A random serial number, positive and not zero.
pub(crate) fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x01;
    SerialNumber::from_slice(&bytes)
}

/// The PEM blocks of a text, each with its own lines.
fn blocks(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .map(str::trim)
        .filter(|block| block.ends_with(END))
        .map(|block| format!("{block}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::make::{Kind, Maker};
    use crate::request::{KeyRequest, RequestError};
    use crate::rotation::Validity;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn reviews() -> SpiffeId {
        "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".parse().unwrap()
    }

    fn authority() -> Authority {
        Authority::self_signed("cluster.local", now(), DAY * 3650).unwrap()
    }

    #[test]
    fn signs_the_callers_own_identity_for_a_day() {
        let authority = authority();
        let request = KeyRequest::new(&reviews()).unwrap();
        let chain = authority.sign(&request.csr_pem, &reviews(), now(), DAY).unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], authority.root_pem());
        let validity = Validity::of_pem(&chain[0]).unwrap();
        assert_eq!(validity.not_after, now() + DAY);
        let der = CertificateDer::from_pem_slice(chain[0].as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&der).unwrap();
        let san = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(san.critical);
        assert_eq!(format!("{:?}", san.value.general_names), format!("[URI({:?})]", reviews().to_string()));
        let root = CertificateDer::from_pem_slice(chain[1].as_bytes()).unwrap();
        let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
        leaf.verify_signature(Some(root.public_key())).unwrap();
    }

    #[test]
    fn refuses_another_identity_and_a_broken_request() {
        let authority = authority();
        let ratings: SpiffeId = "spiffe://cluster.local/ns/default/sa/bookinfo-ratings".parse().unwrap();
        let request = KeyRequest::new(&ratings).unwrap();
        let refused = authority.sign(&request.csr_pem, &reviews(), now(), DAY);
        assert!(matches!(refused, Err(CaError::Request(RequestError::Identity { .. }))), "{refused:?}");
        for bad in
            ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
        {
            assert!(matches!(
                authority.sign(bad, &reviews(), now(), DAY),
                Err(CaError::Request(RequestError::Malformed(_)))
            ));
        }
    }

    #[test]
    fn a_secret_holds_the_same_authority() {
        let first = authority();
        let secret = first.secret();
        assert_eq!(secret.len(), 5);
        let second = Authority::from_secret(&secret, now()).unwrap();
        assert_eq!(first.root_pem(), second.root_pem());
        let request = KeyRequest::new(&reviews()).unwrap();
        assert!(second.sign(&request.csr_pem, &reviews(), now(), DAY).is_ok());
    }

    #[test]
    fn an_intermediate_is_shown_whether_or_not_the_chain_has_it() {
        let maker = Maker { key: Kind::EcdsaP384, now: now(), lifetime: DAY * 30 };
        let root = maker.root("Org", "Root").unwrap();
        let upper = root.intermediate(&maker, "Org", "Upper", "a", None).unwrap();
        let lower = upper.intermediate(&maker, "Org", "Lower", "b", Some(0)).unwrap();
        let secret = |chain: &str, roots: &str| {
            let pair = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
            BTreeMap::from([
                pair(secret_keys::CA_CERT, lower.certificate_pem()),
                pair(secret_keys::CA_KEY, &lower.key_pem()),
                pair(secret_keys::CERT_CHAIN, chain),
                pair(secret_keys::ROOT_CERT, roots),
            ])
        };
        let without = upper.certificate_pem().to_owned();
        let with = format!("{}{}", lower.certificate_pem(), upper.certificate_pem());
        for chain in [without.as_str(), with.as_str()] {
            let authority = Authority::from_secret(&secret(chain, root.certificate_pem()), now()).unwrap();
            let request = KeyRequest::new(&reviews()).unwrap();
            let issued = authority.sign(&request.csr_pem, &reviews(), now(), DAY).unwrap();
            let wanted = [lower.certificate_pem(), upper.certificate_pem(), root.certificate_pem()];
            assert_eq!(issued[1..], wanted);
        }
        let lost = Authority::from_secret(&secret("", root.certificate_pem()), now()).unwrap_err();
        assert!(
            lost.to_string().contains("CN=Lower") && lost.to_string().contains("cert-chain.pem"),
            "{lost}"
        );
    }

    #[test]
    fn a_bad_secret_says_what_is_wrong() {
        let mut secret = authority().secret();
        let late = Authority::from_secret(&secret, now() + DAY * 4000).unwrap_err();
        assert!(late.to_string().contains("ran out"), "{late}");
        let other = authority().secret();
        secret.insert(secret_keys::CA_KEY.into(), other[secret_keys::CA_KEY].clone());
        let mixed = Authority::from_secret(&secret, now()).unwrap_err();
        assert!(mixed.to_string().contains("do not belong together"), "{mixed}");
        secret.remove(secret_keys::CA_KEY);
        let missing = Authority::from_secret(&secret, now()).unwrap_err();
        assert_eq!(missing.to_string(), "the CA secret has no ca-key.pem");
    }

    #[test]
    fn a_server_certificate_names_its_hosts_and_never_outlives_the_root() {
        let authority = Authority::self_signed("cluster.local", now(), DAY).unwrap();
        let server = authority.server(&["istiod.istio-system.svc".into()], now(), DAY * 365).unwrap();
        assert_eq!(Validity::of_pem(&server.chain_pem).unwrap().not_after, now() + DAY);
        assert!(KeyPair::from_pem(&server.key_pem).is_ok());
    }
}
