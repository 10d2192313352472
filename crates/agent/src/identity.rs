//! The workload's certificate: asked for, published, renewed.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lateen_base::Clock;
use lateen_ca::client::Issued;
use lateen_ca::request::KeyRequest;
use lateen_ca::rotation::Validity;
use lateen_xds::Backoff;
use tokio::sync::watch;

use crate::settings::Settings;
use crate::upstream;

/// A key with its certificate and the root to trust.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    pub(crate) root_pem: String,
}

/// Keeps a valid certificate published, for ever.
pub(crate) async fn maintain(
    settings: Arc<Settings>,
    clock: Arc<dyn Clock>,
    publish: watch::Sender<Option<Arc<Workload>>>,
) {
    let mut backoff = Backoff::default();
    loop {
        let asked = Instant::now();
        let wait = match obtain(&settings).await {
            Ok(workload) => {
                let got = clock.now();
                backoff.reset();
                let wait = renewal(&workload, got);
                let left = Validity::of_pem(&workload.chain_pem)
                    .ok()
                    .and_then(|v| v.not_after.duration_since(got).ok())
                    .unwrap_or_default();
                tracing::info!(
                    target: "cache",
                    "generated new workload certificate latency={:?} ttl={}s",
                    asked.elapsed(),
                    left.as_secs()
                );
                publish.send_replace(Some(Arc::new(workload)));
                wait
            }
            Err(reason) => {
                let wait = backoff.next(rand::random());
                tracing::warn!(target: "cache", "failed to warm certificate: {reason}; next try in {wait:?}");
                wait
            }
        };
        tokio::time::sleep(wait).await;
    }
}

async fn obtain(settings: &Settings) -> Result<Workload, String> {
    let request = KeyRequest::new(&settings.identity).map_err(|e| e.to_string())?;
    let token = upstream::token(settings)?;
    let target = upstream::target(settings, &settings.ca_address);
    let channel = target.channel().await.map_err(|e| e.to_string())?;
    let Issued { chain_pem, root_pem } =
        lateen_ca::client::request(channel, &token, request.csr_pem, settings.certificate_ttl)
            .await
            .map_err(|e| e.to_string())?;
    Ok(Workload { chain_pem, key_pem: request.key_pem, root_pem })
}

fn renewal(workload: &Workload, got: SystemTime) -> Duration {
    const SOONEST: Duration = Duration::from_secs(1);
    match Validity::of_pem(&workload.chain_pem) {
        Ok(validity) => {
            let at = validity.renewal(got, rand::random());
            at.duration_since(got).unwrap_or_default().max(SOONEST)
        }
        Err(_) => SOONEST,
    }
}
