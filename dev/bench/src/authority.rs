//! A control plane without a cluster, and clients that ask it for certificates.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use lateen_base::{ObjectRef, SpiffeId, SystemClock};
use lateen_ca::Rate;
use lateen_ca::request::KeyRequest;
use lateen_control::{Cluster, Control, Deps, Input, Ports, Role, RootWrite, SecretData, Settings, Watched};
use lateen_kube::{TokenIdentity, WatchEvent};
use lateen_xds::transport::Target;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::BenchError;

/// A token that the control plane takes.
pub(crate) const TOKEN: &str = "bench";
/// The name of its certificate.
const NAME: &str = "istiod.istio-system.svc";

/// A cluster in which there is nothing, and that knows one token.
struct Empty;

impl Cluster for Empty {
    fn review<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<Option<TokenIdentity>, String>> {
        let known = (token == TOKEN).then(|| TokenIdentity {
            namespace: "default".to_owned(),
            service_account: TOKEN.to_owned(),
            pod: None,
        });
        Box::pin(async move { Ok(known) })
    }

    fn may_list_secrets<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async { Ok(false) })
    }

    fn secret<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Option<SecretData>, String>> {
        Box::pin(async { Ok(None) })
    }

    fn create_secret<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
        _: SecretData,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async { Ok(true) })
    }

    fn role<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Role, String>> {
        Box::pin(async { Ok(Role::Here(String::new())) })
    }

    fn publish_root<'a>(&'a self, _: &'a str, _: RootWrite) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn replace_webhook(&self, _: Value) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn patch_status<'a>(&'a self, _: &'a ObjectRef, _: Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}

/// Runs the control plane in this process; its root goes into a file.
///
/// # Errors
/// When the port is taken, or the file cannot be written.
pub(crate) async fn serve(port: u16, root: &Path) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Text(error.to_string());
    let (inputs, receiver) = mpsc::channel(64);
    for kind in Watched::all() {
        let event = WatchEvent::Replaced(Vec::new());
        let listed = Input { cluster: "Kubernetes".into(), kind, event };
        inputs.send(listed).await.map_err(|e| failed(&e))?;
    }
    let mut settings = Settings {
        // A folder without files: nothing is plugged in.
        root: root.with_extension("none"),
        ports: Ports { secure: SocketAddr::from(([127, 0, 0, 1], port)), ..Ports::free() },
        ..Settings::default()
    };
    settings.certificates.rate = Rate { burst: u32::MAX, per_second: u32::MAX };
    let deps = Deps { inputs: receiver, cluster: Arc::new(Empty), clock: Arc::new(SystemClock) };
    let control = Control::start(settings, deps).await.map_err(|e| failed(&e))?;
    std::fs::write(root, control.root_pem())?;
    lateen_runtime::signals::terminated().await?;
    control.stop().await;
    Ok(())
}

/// Asks for certificates as fast as so many clients can, each on a connection of its own; tells how many came.
///
/// # Errors
/// When one is refused.
pub(crate) async fn ask(
    address: SocketAddr,
    root: &Path,
    clients: usize,
    duration: Duration,
) -> Result<u64, BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Text(error.to_string());
    let mut roots = RootCertStore::empty();
    let pem = root_when_there(root).await?;
    roots.add(CertificateDer::from_pem_slice(&pem).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let target = Target::Tls {
        address: address.to_string(),
        server_name: NAME.to_owned(),
        config: Arc::new(move || Ok(config.clone())),
        resolver: None,
    };
    let caller: SpiffeId = "spiffe://cluster.local/ns/default/sa/bench".parse().map_err(|e| failed(&e))?;
    let csr = KeyRequest::new(&caller).map_err(|e| failed(&e))?.csr_pem;
    let end = Instant::now() + duration;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (channel, csr) = (target.channel().await.map_err(|e| failed(&e))?, csr.clone());
        tasks.spawn(async move {
            let mut issued = 0;
            while Instant::now() < end {
                let day = Duration::from_secs(86_400);
                let asked = lateen_ca::client::request(channel.clone(), Some(TOKEN), csr.clone(), day).await;
                asked.map_err(|error| BenchError::Text(error.to_string()))?;
                issued += 1;
            }
            Ok::<u64, BenchError>(issued)
        });
    }
    let mut issued = 0;
    while let Some(done) = tasks.join_next().await {
        issued += done.map_err(|error| failed(&error))??;
    }
    Ok(issued)
}

/// The root, which is written once the control plane runs: its port is bound before.
async fn root_when_there(path: &Path) -> Result<Vec<u8>, BenchError> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match std::fs::read(path) {
            Ok(pem) if pem.ends_with(b"-----\n") => return Ok(pem),
            _ if Instant::now() > deadline => {
                return Err(BenchError::Text(format!("the control plane wrote no {}", path.display())));
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
