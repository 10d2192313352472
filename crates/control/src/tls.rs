//! The control plane's own certificate.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use lateen_base::Clock;
use lateen_ca::rotation::Renewal;
use lateen_ca::rotation::Validity;
use lateen_ca::service::Holder;
use lateen_ca::tls::PeerCertificate;
use lateen_ca::{Authority, Certified};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection};

use crate::serve::Tls;
use crate::settings::Settings;

/// The configurations of the ports, under one certificate.
#[derive(Clone)]
pub(crate) struct Configurations {
    /// Discovery and certificates: clients may show a certificate of the mesh.
    pub(crate) secure: Tls,
    /// Webhooks: the API server's client certificate, if it has one, is of another authority, and not asked for.
    pub(crate) webhook: Tls,
}

/// Both at one moment.
struct Made {
    secure: ServerConfig,
    webhook: ServerConfig,
}

/// Makes a certificate, and renews it for ever: when it is due, and when another authority signs.
pub(crate) async fn start(
    settings: Arc<Settings>,
    mut authority: watch::Receiver<Arc<Authority>>,
    clock: Arc<dyn Clock>,
    trust_domain: &str,
) -> Result<Configurations, String> {
    let custom = settings.custom_hosts.join(",");
    let own = settings.revisioned("istiod");
    tracing::info!(
        "initializing Istiod DNS certificates host: {own}.{}.svc, custom host: {custom}",
        settings.namespace
    );
    for host in &settings.custom_hosts {
        tracing::info!("Adding custom hostname {host}");
    }
    let first = authority.borrow_and_update().clone();
    let (made, mut wait) = make(&settings, &first, &*clock)?;
    let trust = first.roots().len();
    tracing::info!(target: "spiffe", "Added {trust} certs to trust domain {trust_domain} in peer cert verifier");
    let (secure, webhook) = (ArcSwap::from_pointee(made.secure), ArcSwap::from_pointee(made.webhook));
    let tls = Configurations { secure: Arc::new(secure), webhook: Arc::new(webhook) };
    let renewed = tls.clone();
    tokio::spawn(async move {
        const RETRY: Duration = Duration::from_secs(10);
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = authority.changed() => if changed.is_err() { return },
            }
            let now = authority.borrow_and_update().clone();
            wait = match make(&settings, &now, &*clock) {
                Ok((made, wait)) => {
                    renewed.secure.store(Arc::new(made.secure));
                    renewed.webhook.store(Arc::new(made.webhook));
                    wait
                }
                Err(reason) => {
                    tracing::error!("renewing the serving certificate: {reason}");
                    RETRY
                }
            };
        }
    });
    Ok(tls)
}

fn make(settings: &Settings, authority: &Authority, clock: &dyn Clock) -> Result<(Made, Duration), String> {
    let names = settings.serving_names();
    tracing::info!("Generating istiod-signed cert for [{}]", names.join(" "));
    let now = clock.now();
    let certified = authority.server(&names, now, settings.serving_lifetime).map_err(|e| e.to_string())?;
    let validity = Validity::of_pem(&certified.chain_pem).map_err(|e| e.to_string())?;
    for line in lateen_ca::describe(&certified.chain_pem) {
        tracing::info!("{line}");
    }
    tracing::info!("Istiod certificates are reloaded");
    let due = Renewal::default().at(&validity, now, 0);
    let wait = due.duration_since(now).unwrap_or_default();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority.root_pem().as_bytes()) {
        roots.add(root.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| e.to_string())?;
    let made = Made {
        secure: server_config(&certified, &provider, clients)?,
        webhook: server_config(&certified, &provider, WebPkiClientVerifier::no_client_auth())?,
    };
    Ok((made, wait.max(Duration::from_secs(1))))
}

/// The holder of the certificate that a client has shown, if it is for one identity of a mesh.
pub(crate) fn holder(connection: &ServerConnection) -> Option<Holder> {
    let leaf = PeerCertificate::from_der(connection.peer_certificates()?.first()?).ok()?;
    let [id] = leaf.uris.as_slice() else { return None };
    let not_after = Duration::from_secs(u64::try_from(leaf.not_after).ok()?);
    Some(Holder { id: id.parse().ok()?, not_after: SystemTime::UNIX_EPOCH + not_after })
}

fn server_config(
    certified: &Certified,
    provider: &Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<ServerConfig, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(certified.chain_pem.as_bytes()).collect();
    let chain = chain.map_err(|e| e.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(certified.key_pem.as_bytes()).map_err(|e| e.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
