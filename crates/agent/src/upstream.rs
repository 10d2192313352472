//! The way to the control plane: TLS verified by the mesh's root, named as the service is.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_ca::rotation::Validity;
use lateen_xds::resolve::by_server;
use lateen_xds::transport::Target;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;

use crate::certificate_files::CertificateFiles;
use crate::identity::Workload;
use crate::settings::Settings;

/// The roots that the control plane itself gave, the newest: they count where it is met again, too.
pub(crate) type Learned = Option<watch::Receiver<Option<Arc<Workload>>>>;

/// The target of an address of the control plane. The root certificates are read anew for every connection.
pub(crate) fn target(settings: &Settings, address: &str, learned: Learned) -> Target {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let file = settings.root_certificate_file();
    let provisioned = settings.provisioned.clone().map(Provisioned);
    Target::Tls {
        address: address.to_owned(),
        server_name: settings.control_plane_name.clone().unwrap_or_else(|| host.to_owned()),
        config: Arc::new(move || {
            let mut pem = std::fs::read(&file)
                .map_err(|e| format!("cannot read the root certificate {}: {e}", file.display()))?;
            if let Some(workload) = learned.as_ref().and_then(|learned| learned.borrow().clone()) {
                pem.push(b'\n');
                pem.extend(workload.root_pem.as_bytes());
            }
            let own = provisioned.as_ref().and_then(Provisioned::identity);
            client_config(&pem, own)
                .map_err(|reason| format!("root certificate {}: {reason}", file.display()))
        }),
        resolver: settings.dns.map(by_server),
    }
}

fn client_config(pem: &[u8], own: Option<Arc<CertifiedKey>>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|e| e.to_string())?;
        roots.add(certificate).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = builder.with_root_certificates(roots);
    Ok(Arc::new(match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    }))
}

/// The certificate of `PROV_CERT`, by which an agent without a good token is known.
#[derive(Clone)]
struct Provisioned(CertificateFiles);

impl Provisioned {
    /// It, while it is good; one that has run out would end every handshake.
    fn identity(&self) -> Option<Arc<CertifiedKey>> {
        self.read().inspect_err(|reason| tracing::warn!("PROV_CERT: {reason}; it is not shown")).ok()
    }

    fn read(&self) -> Result<Arc<CertifiedKey>, String> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let (chain, key) = (text(&self.0.chain)?, text(&self.0.key)?);
        let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", self.0.chain.display());
        match Validity::of_pem(&chain).map_err(|e| wrong(&e))?.not_after > SystemTime::now() {
            true => lateen_ca::tls::identity(chain.as_bytes(), key.as_bytes()).map_err(|e| wrong(&e)),
            false => Err(wrong(&"the certificate has run out")),
        }
    }
}

/// The workload's token. Without one the certificate of `PROV_CERT` has to do.
pub(crate) fn token_or_certificate(settings: &Settings) -> Result<Option<String>, String> {
    match (token(settings), &settings.provisioned) {
        (Ok(token), _) => Ok(Some(token)),
        (Err(_), Some(files)) if Provisioned(files.clone()).read().is_ok() => Ok(None),
        (Err(reason), _) => Err(reason),
    }
}

/// The workload's service-account token, read anew since it rotates.
fn token(settings: &Settings) -> Result<String, String> {
    let file = settings.token_file();
    let token = std::fs::read_to_string(&file)
        .map_err(|e| format!("cannot read the service-account token {}: {e}", file.display()))?;
    match token.trim() {
        "" => Err(format!("the service-account token {} is empty", file.display())),
        token => Ok(token.to_owned()),
    }
}
