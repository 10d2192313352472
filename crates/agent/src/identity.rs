//! The workload's certificate: where it comes from, and that a valid one is always published.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lateen_base::Clock;
use lateen_ca::client::Issued;
use lateen_ca::request::KeyRequest;
use lateen_ca::rotation::{Renewal, Validity};
use lateen_xds::Backoff;
use tokio::sync::watch;

use crate::certificate_files::{self, CertificateFiles};
use crate::foreign;
use crate::roots::RootFile;
use crate::settings::Settings;
use crate::upstream;
use crate::workload_api;

/// A key with its certificate and the roots to trust.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    pub(crate) root_pem: String,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workload").field("chain_pem", &self.chain_pem).finish_non_exhaustive()
    }
}

/// The certificate now; none until there is one.
pub(crate) type Published = watch::Sender<Option<Arc<Workload>>>;

/// Who gives the workload its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The certificate authority of the mesh.
    Authority,
    /// Somebody who puts files into the pod.
    Files(CertificateFiles),
    /// Another's secret discovery on the socket of the workload, such as SPIRE's.
    Socket(PathBuf),
    /// A socket of SPIFFE's Workload API.
    WorkloadApi(PathBuf),
}

impl Source {
    /// Keeps a valid certificate published, for ever.
    pub(crate) async fn follow(self, settings: Arc<Settings>, clock: Arc<dyn Clock>, publish: Published) {
        match self {
            Self::Authority => renewed(settings, clock, publish).await,
            Self::Files(files) => certificate_files::follow(files, publish).await,
            Self::Socket(path) => {
                foreign::follow(path, settings.node_id(), settings.identity.clone(), publish).await;
            }
            Self::WorkloadApi(path) => {
                workload_api::follow(path, settings.identity.clone(), publish).await;
            }
        }
    }
}

/// Asks the authority, again before each certificate runs out, and when the roots that are mounted change.
async fn renewed(settings: Arc<Settings>, clock: Arc<dyn Clock>, publish: Published) {
    let mut backoff = Backoff::default();
    let mut roots = RootFile::new(settings.root_certificate_file());
    loop {
        let asked = Instant::now();
        let wait = match obtain(&settings, &publish).await {
            Ok(workload) => {
                let got = clock.now();
                backoff.reset();
                let due = renewal(&workload, &settings.renewal, got);
                let wait = roots.look_again(&workload.root_pem).map_or(due, |soon| soon.min(due));
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
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = roots.changed() => {
                tracing::info!(target: "cache", "the mounted root certificates changed; asking for a certificate");
            }
        }
    }
}

async fn obtain(settings: &Settings, publish: &Published) -> Result<Workload, String> {
    let request = KeyRequest::new(&settings.identity).map_err(|e| e.to_string())?;
    let token = upstream::token_or_certificate(settings)?;
    let target = upstream::target(settings, &settings.ca_address, Some(publish.subscribe()));
    let channel = target.channel().await.map_err(|e| e.to_string())?;
    let Issued { chain_pem, root_pem } =
        lateen_ca::client::request(channel, token.as_deref(), request.csr_pem, settings.certificate_ttl)
            .await
            .map_err(|e| e.to_string())?;
    Ok(Workload { chain_pem, key_pem: request.key_pem, root_pem })
}

fn renewal(workload: &Workload, policy: &Renewal, got: SystemTime) -> Duration {
    const SOONEST: Duration = Duration::from_secs(1);
    match Validity::of_pem(&workload.chain_pem) {
        Ok(validity) => {
            let at = policy.at(&validity, got, rand::random());
            at.duration_since(got).unwrap_or_default().max(SOONEST)
        }
        Err(_) => SOONEST,
    }
}
