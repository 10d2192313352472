//! The mesh, installed into a local cluster by the manifests of any cluster.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use lateen_apiserver::{Client, Patch};
use lateen_kube::install::{InstallError as Refusal, Installer, Step};
use lateen_kube::{Access, KubeError};
use lateen_manifests::{Installation, render};
use serde_json::json;
use tokio::time::Instant;

use crate::api::{Api, name_of};
use crate::controllers::replica_sets;
use crate::controllers::selector::selects;
use crate::node::PodLogs;
use crate::node::logs::LogQuery;
use crate::progress::Progress;
use crate::state::StateFolder;

/// Where the control plane lives.
pub(crate) const NAMESPACE: &str = "istio-system";
/// The gateway through which the world comes in.
pub(crate) const INGRESS: &str = "istio-ingressgateway";

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// An object was refused.
    #[error("installing the mesh: {0}")]
    Refused(#[from] Refusal),
    /// The cluster's own API server cannot be reached.
    #[error("installing the mesh: {0}")]
    Unreachable(#[from] KubeError),
    /// The state folder.
    #[error("installing the mesh: {0}")]
    State(std::io::Error),
    /// Something does not become ready.
    #[error("the mesh is not ready after {seconds} s:\n{what}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// Every deployment that is not ready, its pods, what they last said.
        what: String,
    },
}

/// What local clusters get.
const PROFILE: &str = "demo";

/// Installs the mesh as `lateen install` does, unless this very one was installed before: what users changed since
/// stays.
pub(crate) async fn mesh(
    client: &Client,
    state: &StateFolder,
    progress: &Progress,
) -> Result<(), InstallError> {
    let installation = Installation::of(PROFILE).map_err(Refusal::from)?;
    let mark = state.path().join("installed");
    let digest = digest(&installation)?;
    if std::fs::read_to_string(&mark).is_ok_and(|applied| applied == digest) {
        return Ok(());
    }
    let first = !mark.exists();
    progress.say(format!("Installing the mesh (profile {PROFILE})"));
    let access = Access::Kubeconfig { path: Some(state.kubeconfig()), context: None };
    // Readiness is waited for by what the node knows itself, logs included.
    let installer = Installer::new(lateen_kube::Client::connect(&access).await?, None);
    let tell = |step: Step| {
        if let Step::Removed(object) = step {
            progress.say(format!("Removed {object}, which this version does not have"));
        }
    };
    installer.install(&installation, &tell).await?;
    if first {
        let labels = json!({"metadata": {"labels": {"istio-injection": "enabled"}}});
        let done = client.patch("namespaces", None, "default", Patch::Merge(labels)).await;
        done.map_err(|status| InstallError::State(std::io::Error::other(status.message)))?;
        progress.say("Namespace default gets sidecars (label istio-injection=enabled)");
    }
    crate::state::write_whole(&mark, digest.as_bytes()).map_err(InstallError::State)
}

fn digest(installation: &Installation) -> Result<String, InstallError> {
    let mut hasher = std::hash::DefaultHasher::new();
    for object in render(installation).map_err(Refusal::from)?.iter().flat_map(|part| &part.objects) {
        object.to_string().hash(&mut hasher);
    }
    Ok(format!("{} {:016x}", env!("CARGO_PKG_VERSION"), hasher.finish()))
}

/// Until when the mesh has to be ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    whole: Duration,
    at: Instant,
}

impl Deadline {
    /// So much time from now on.
    pub(crate) fn after(whole: Duration) -> Self {
        Self { whole, at: Instant::now() + whole }
    }

    /// What the work comes to, unless the time is over before.
    pub(crate) async fn keep<T>(
        self,
        api: &Api,
        logs: &PodLogs,
        work: impl Future<Output = T>,
    ) -> Result<T, InstallError> {
        match tokio::time::timeout_at(self.at, work).await {
            Ok(done) => Ok(done),
            Err(_) => {
                let all = api.list_in::<Deployment>(NAMESPACE).await;
                let what = not_ready(api, logs, &all).await;
                Err(InstallError::NotReady { seconds: self.whole.as_secs(), what })
            }
        }
    }
}

/// Waits until every deployment of the control plane's namespace is ready.
pub(crate) async fn wait(
    api: &Api,
    logs: &PodLogs,
    deadline: Deadline,
    progress: &Progress,
) -> Result<(), InstallError> {
    let mut changes = api.changes();
    let mut told: Vec<String> = Vec::new();
    loop {
        changes.borrow_and_update();
        let all = api.list_in::<Deployment>(NAMESPACE).await;
        let pods = api.list_in::<Pod>(NAMESPACE).await;
        for deployment in all.iter().filter(|deployment| is_ready(deployment, &pods)) {
            let name = name_of(&deployment.metadata).to_owned();
            if !told.contains(&name) {
                progress.say(format!("{name} is ready"));
                told.push(name);
            }
        }
        if !all.is_empty() && all.iter().all(|deployment| is_ready(deployment, &pods)) {
            return Ok(());
        }
        // A server that has gone changes nothing any more.
        let changed = async {
            if changes.changed().await.is_err() {
                std::future::pending().await
            }
        };
        deadline.keep(api, logs, changed).await?;
    }
}

/// Whether as many pods as wanted are ready. Asked of the pods: a deployment's own status may be of an earlier run.
fn is_ready(deployment: &Deployment, pods: &[Arc<Pod>]) -> bool {
    let Some(spec) = &deployment.spec else { return false };
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let own = pods.iter().filter(|pod| {
        selects(spec.selector.match_labels.as_ref(), pod.metadata.labels.as_ref())
            && pod.metadata.deletion_timestamp.is_none()
            && replica_sets::is_ready(pod)
    });
    own.count() >= wanted
}

async fn not_ready(api: &Api, logs: &PodLogs, all: &[Arc<Deployment>]) -> String {
    let mut lines = Vec::new();
    let pods = api.list_in::<Pod>(NAMESPACE).await;
    for deployment in all.iter().filter(|deployment| !is_ready(deployment, &pods)) {
        let name = name_of(&deployment.metadata);
        lines.push(format!("  deployment {name}"));
        for pod in pods.iter().filter(|pod| name_of(&pod.metadata).starts_with(name)) {
            lines.extend(pod_lines(pod, logs));
        }
    }
    if lines.is_empty() {
        lines.push("  no deployment exists".to_owned());
    }
    lines.join("\n")
}

fn pod_lines(pod: &Pod, logs: &PodLogs) -> Vec<String> {
    let statuses: Vec<&ContainerStatus> = pod
        .status
        .iter()
        .flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        })
        .filter(|status| !status.ready)
        .collect();
    let mut lines = Vec::new();
    for status in statuses {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or("not ready");
        let pod_name = name_of(&pod.metadata);
        lines.push(format!("    pod {pod_name}, container {}: {reason}", status.name));
        let tail = LogQuery { tail: Some(5), ..LogQuery::default() };
        let opened = logs
            .open(pod, &status.name, false, tail.clone())
            .and_then(|mut log| log.begin().map_err(|error| error.to_string()));
        let text = opened.unwrap_or_default();
        lines.extend(String::from_utf8_lossy(&text).lines().map(|line| format!("      {line}")));
    }
    lines
}
