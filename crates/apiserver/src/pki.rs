//! Keys and certificates of the server, made once and kept in the state folder.

use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Why keys or certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A key or certificate cannot be made or understood.
    #[error("{path}: {source}; move the file away to have a new one made")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rcgen::Error,
    },
}

/// The server's authority and what it signed.
pub(crate) struct Pki {
    /// Certificate of the authority, PEM.
    pub(crate) ca: String,
    /// The server's certificate, PEM.
    pub(crate) server_certificate: String,
    /// The server's key, PEM (PKCS#8).
    pub(crate) server_key: String,
    /// Certificate of the user in the kubeconfig, PEM.
    pub(crate) admin_certificate: String,
    /// Key of the user in the kubeconfig, PEM.
    pub(crate) admin_key: String,
    /// Key that signs service-account tokens, PEM.
    pub(crate) token_key: String,
}

impl Pki {
    /// Reads the authority below `dir` or makes it, and signs certificates for this start.
    pub(crate) fn load(dir: &Path, names: &[String]) -> Result<Self, PkiError> {
        std::fs::create_dir_all(dir).map_err(|source| PkiError::File { path: dir.into(), source })?;
        let ca_path = dir.join("ca.crt");
        let content = |source| PkiError::Content { path: ca_path.clone(), source };
        let ca_key = key(&dir.join("ca.key"))?;
        let ca = match std::fs::read_to_string(&ca_path) {
            Ok(pem) => pem,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let pem = authority().self_signed(&ca_key).map_err(content)?.pem();
                write_private(&ca_path, pem.as_bytes())?;
                pem
            }
            Err(source) => return Err(PkiError::File { path: ca_path, source }),
        };
        let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).map_err(content)?;
        let sign = |params: CertificateParams| -> Result<(String, String), rcgen::Error> {
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        let (server_certificate, server_key) = server(names).and_then(sign).map_err(content)?;
        let (admin_certificate, admin_key) = sign(admin()).map_err(content)?;
        let token_key = key(&dir.join("sa.key"))?.serialize_pem();
        Ok(Self { ca, server_certificate, server_key, admin_certificate, admin_key, token_key })
    }
}

/// Writes a file that only its owner reads, at once or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { path: path.into(), source };
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)
}

fn key(path: &Path) -> Result<KeyPair, PkiError> {
    let content = |source| PkiError::Content { path: path.into(), source };
    match std::fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(content),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(content)?;
            write_private(path, key.serialize_pem().as_bytes())?;
            Ok(key)
        }
        Err(source) => Err(PkiError::File { path: path.into(), source }),
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(3650);
    params
}

fn authority() -> CertificateParams {
    let mut params = params("lateen-apiserver-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn server(names: &[String]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params("lateen-apiserver");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    Ok(params)
}

fn admin() -> CertificateParams {
    let mut params = params("kubernetes-admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
