//! The way to the control plane: TLS verified by the mesh's root, named as the service is.

use std::sync::Arc;

use lateen_xds::resolve::by_server;
use lateen_xds::transport::Target;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use tokio::sync::watch;

use crate::identity::Workload;
use crate::settings::Settings;

/// The roots that the control plane itself gave, the newest: they count where it is met again, too.
pub(crate) type Learned = Option<watch::Receiver<Option<Arc<Workload>>>>;

/// The target of an address of the control plane. The root certificates are read anew for every connection.
pub(crate) fn target(settings: &Settings, address: &str, learned: Learned) -> Target {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let file = settings.root_certificate_file();
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
            client_config(&pem).map_err(|reason| format!("root certificate {}: {reason}", file.display()))
        }),
        resolver: settings.dns.map(by_server),
    }
}

fn client_config(pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
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
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The workload's token, read anew since it rotates.
pub(crate) fn token(settings: &Settings) -> Result<String, String> {
    let file = settings.token_file();
    let token = std::fs::read_to_string(&file)
        .map_err(|e| format!("cannot read the service-account token {}: {e}", file.display()))?;
    match token.trim() {
        "" => Err(format!("the service-account token {} is empty", file.display())),
        token => Ok(token.to_owned()),
    }
}
