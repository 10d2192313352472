//! Certificates of the suite: one authority, leaves by name, also as files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Problem;

/// The identity of every proxy and pod of the mesh.
const MESH_IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/client";

/// A certificate authority.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
    folder: PathBuf,
    leaves: Mutex<BTreeMap<String, Arc<Leaf>>>,
}

/// A certificate and its key, in PEM.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one, which writes `root.pem`, and `NAME.pem` and `NAME.key` for these names, into the folder.
    pub(crate) fn new(folder: &Path, names: &[&str]) -> Result<Self, Problem> {
        let failed = |error: rcgen::Error| error.to_string();
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "differential root");
        let root = params.self_signed(&key).map_err(failed)?.pem();
        let out = Self {
            issuer: Issuer::new(params, key),
            root,
            folder: folder.to_owned(),
            leaves: Mutex::default(),
        };
        out.write("root.pem", &out.root)?;
        for name in names {
            let leaf = out.leaf(name)?;
            out.write(&format!("{name}.pem"), &leaf.chain)?;
            out.write(&format!("{name}.key"), &leaf.key)?;
        }
        Ok(out)
    }

    /// The anchor.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Where the files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The certificate of that name: its common name, and a DNS name; `mesh` is the mesh's identity.
    pub(crate) fn leaf(&self, name: &str) -> Result<Arc<Leaf>, Problem> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(name) {
            return Ok(leaf.clone());
        }
        let failed = |error: rcgen::Error| error.to_string();
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let uri = |uri: &str| Ok::<_, Problem>(SanType::URI(uri.try_into().map_err(failed)?));
        params.subject_alt_names = match name {
            "mesh" => vec![uri(MESH_IDENTITY)?],
            name if !name.contains('-') => {
                vec![SanType::DnsName(format!("{name}.test").try_into().map_err(failed)?)]
            }
            name => {
                // The service account of a pod is its service, whatever the namespace.
                let service = name.split('-').next().unwrap_or(name);
                let identity =
                    |namespace: &str| uri(&format!("spiffe://cluster.local/ns/{namespace}/sa/{service}"));
                let dns = SanType::DnsName(format!("{name}.test").try_into().map_err(failed)?);
                vec![dns, identity("default")?, identity("istio")?]
            }
        };
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        let leaf = Arc::new(Leaf { chain: certificate.pem(), key: key.serialize_pem() });
        leaves.insert(name.to_owned(), leaf.clone());
        Ok(leaf)
    }

    /// What a server of that name presents; it asks for a client's certificate and takes whatever the authority signed.
    pub(crate) fn server(&self, name: &str) -> Result<rustls::ServerConfig, Problem> {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root.as_bytes()).map_err(|error| error.to_string())?;
        roots.add(root).map_err(|error| error.to_string())?;
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
            .allow_unauthenticated()
            .build()
            .map_err(|error| error.to_string())?;
        let (chain, key) = parts(&*self.leaf(name)?)?;
        let mut config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| error.to_string())?;
        // The last ones are what the mesh's own TLS offers.
        let names = ["h2", "http/1.1", "istio-http/1.1", "istio-http/1.0", "istio-h2", "istio"];
        config.alpn_protocols = names.map(|name| name.as_bytes().to_vec()).to_vec();
        Ok(config)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Problem> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// A leaf as rustls takes it.
pub(crate) fn parts(leaf: &Leaf) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
    let chain = CertificateDer::from_pem_slice(leaf.chain.as_bytes()).map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).map_err(|error| error.to_string())?;
    Ok((vec![chain], key))
}

/// The common name of a certificate, which is what the suite calls it by.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return "?".into() };
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or("?").to_owned()
}
