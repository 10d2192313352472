//! The control plane's own certificate.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_base::Clock;
use lateen_ca::rotation::Renewal;
use lateen_ca::rotation::Validity;
use lateen_ca::{Authority, Certified};
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::serve::Tls;
use crate::settings::Settings;

/// Makes a certificate, and renews it for ever: when it is due, and when another authority signs.
pub(crate) async fn start(
    settings: Arc<Settings>,
    mut authority: watch::Receiver<Arc<Authority>>,
    clock: Arc<dyn Clock>,
    trust_domain: &str,
) -> Result<Tls, String> {
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
    let (config, mut wait) = make(&settings, &first, &*clock)?;
    let trust = first.roots().len();
    tracing::info!(target: "spiffe", "Added {trust} certs to trust domain {trust_domain} in peer cert verifier");
    let tls = Arc::new(ArcSwap::from_pointee(config));
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
                Ok((config, wait)) => {
                    renewed.store(Arc::new(config));
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

fn make(
    settings: &Settings,
    authority: &Authority,
    clock: &dyn Clock,
) -> Result<(ServerConfig, Duration), String> {
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
    Ok((server_config(&certified)?, wait.max(Duration::from_secs(1))))
}

fn server_config(certified: &Certified) -> Result<ServerConfig, String> {
    let chain: Result<Vec<CertificateDer<'static>>, _> =
        CertificateDer::pem_slice_iter(certified.chain_pem.as_bytes()).collect();
    let chain = chain.map_err(|e| e.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(certified.key_pem.as_bytes()).map_err(|e| e.to_string())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| e.to_string())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
