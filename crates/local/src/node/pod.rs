//! One pod: its address, volumes and containers, from its arrival on the node to its end.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::addresses;
use crate::api::{Part, deletion, namespace_of};
use crate::instant;
use crate::net::http_proxy;
use crate::node::Node;
use crate::node::board::Board;
use crate::node::container::{Supervisor, container_root};
use crate::node::events::{Severity, full_name};
use crate::node::image;
use crate::node::launch::{HTTP_PROXY_PORT, has_sidecar};
use crate::node::status::{Facts, Report, Role, State, pod_status};
use crate::node::tokens::TokenKeeper;
use crate::node::volumes::Volumes;

/// How long a failed mount waits for its next try, and how soon changed objects reach a pod's files.
const MOUNT_RETRY: Duration = Duration::from_secs(2);
const REFRESH: Duration = Duration::from_millis(500);
/// How long a process gets when the whole node ends.
const NODE_GRACE: Duration = Duration::from_secs(2);

/// The pod as the API has it; none when it is there no more.
pub(super) type Updates = watch::Receiver<Option<Arc<Pod>>>;

/// Runs a pod until it is deleted or the node ends.
pub(super) async fn run(node: Arc<Node>, pod: Arc<Pod>, updates: Updates) {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let Some(uid) = pod.metadata.uid.clone() else { return };
    let folder = node.pods.join(uid);
    if matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some() {
        // It ended, or was to end, in an earlier run: nothing of it is left to stop.
        wait_for_deletion(&node, updates).await;
        return forget(&node, &pod, &folder).await;
    }
    let former = addresses::parse(pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()));
    let Some(ip) = node.take_address(former) else {
        node.events.warning(&pod, "FailedCreatePodSandBox", "no pod address is left on this node");
        return wait_for_deletion(&node, updates).await;
    };
    if former.is_none() {
        let message = format!("Successfully assigned {} to {}", full_name(&pod.metadata), node.name);
        node.events.say(&*pod, "default-scheduler", Severity::Normal, "Scheduled", message);
    }
    let worker = Worker::new(node.clone(), pod, ip, folder, updates);
    worker.run().await;
    node.release_address(ip);
}

struct Worker {
    node: Arc<Node>,
    /// The pod with its address filled in, for the downward API.
    pod: Arc<Pod>,
    ip: Ipv4Addr,
    folder: PathBuf,
    updates: Updates,
    board: Board,
    main: CancellationToken,
    sidecars: CancellationToken,
    publish: watch::Sender<bool>,
}

impl Worker {
    fn new(node: Arc<Node>, pod: Arc<Pod>, ip: Ipv4Addr, folder: PathBuf, updates: Updates) -> Self {
        let own = own(&node, &pod, ip);
        let board = Board::new(first_reports(&own));
        Self {
            node,
            pod: Arc::new(own),
            ip,
            folder,
            updates,
            board,
            main: CancellationToken::new(),
            sidecars: CancellationToken::new(),
            publish: watch::Sender::new(false),
        }
    }

    async fn run(mut self) {
        let publisher = tokio::spawn(publish(
            self.node.clone(),
            self.pod.clone(),
            self.ip,
            self.board.clone(),
            self.publish.subscribe(),
        ));
        let forwarder = self.forwarder();
        let mut running = JoinSet::new();
        let mut sidecars = JoinSet::new();
        let mut updates = self.updates.clone();
        let node = self.node.clone();
        tokio::select! {
            () = self.live(&mut running, &mut sidecars) => {}
            () = wait_for_deletion(&node, updates.clone()) => {}
        }
        let ends = *self.node.ending.borrow();
        let grace = if ends { NODE_GRACE } else { grace(updates.borrow_and_update().as_deref()) };
        self.publish.send_replace(true);
        self.finish(running, sidecars, grace).await;
        if let Some(forwarder) = forwarder {
            forwarder.abort();
        }
        if ends {
            publisher.abort();
            return;
        }
        drop(self.publish);
        let _ = publisher.await;
        forget(&self.node, &self.pod, &self.folder).await;
    }

    /// Sets the pod up and keeps it; returns only by being dropped.
    async fn live(&mut self, running: &mut JoinSet<()>, sidecars: &mut JoinSet<()>) {
        let mut files = Files {
            node: self.node.clone(),
            pod: self.pod.clone(),
            volumes: Volumes::new(&self.folder),
            tokens: TokenKeeper::default(),
        };
        self.mount(&mut files).await;
        let refresh = tokio::spawn(refresh(files, self.updates.clone()));
        let _refresh = AbortOnDrop(refresh);
        self.start(running, sidecars).await;
        while running.join_next().await.is_some() {}
        // All applications have ended for good: nothing is left for native sidecars to serve.
        self.sidecars.cancel();
        while sidecars.join_next().await.is_some() {}
        std::future::pending::<()>().await;
    }

    async fn mount(&self, files: &mut Files) {
        loop {
            let roots = containers(&self.pod).try_for_each(|(container, _)| {
                let root = container_root(&self.folder, &container.name);
                files.volumes.mount(&self.pod, container, &root)
            });
            let done = match files.materialise().await {
                Ok(()) => roots.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            let Err(error) = done else { return };
            self.node.events.warning(&self.pod, "FailedMount", error);
            tokio::time::sleep(MOUNT_RETRY).await;
        }
    }

    async fn start(&self, running: &mut JoinSet<()>, sidecars: &mut JoinSet<()>) {
        for (index, (container, role)) in containers(&self.pod).enumerate() {
            let stop = if role == Role::Sidecar { &self.sidecars } else { &self.main };
            let supervisor = Supervisor {
                node: self.node.clone(),
                pod: self.pod.clone(),
                ip: self.ip,
                folder: self.folder.clone(),
                container: container.clone(),
                role,
                index,
                board: self.board.clone(),
                stop: stop.clone(),
                grace: grace(Some(&self.pod)),
            };
            let set = if role == Role::Sidecar { &mut *sidecars } else { &mut *running };
            set.spawn(supervisor.run());
            let hooked = container.lifecycle.as_ref().is_some_and(|hooks| hooks.post_start.is_some());
            match role {
                Role::Main if hooked => self.board.until(index, |report| report.started).await,
                Role::Main => {}
                Role::Init | Role::Sidecar => self.board.until(index, Report::is_passed).await,
            }
        }
    }

    /// Applications first, native sidecars after them.
    async fn finish(&self, mut running: JoinSet<()>, mut sidecars: JoinSet<()>, grace: Duration) {
        for (token, set) in [(&self.main, &mut running), (&self.sidecars, &mut sidecars)] {
            token.cancel();
            let all = async { while set.join_next().await.is_some() {} };
            // A pre-stop hook and the process itself may each take the whole time.
            if tokio::time::timeout(grace * 2 + Duration::from_millis(500), all).await.is_err() {
                // Dropping a supervisor kills its process.
                set.shutdown().await;
            }
        }
    }

    /// A pod without a sidecar reaches services through the node.
    fn forwarder(&self) -> Option<tokio::task::JoinHandle<()>> {
        let is_application = |(container, _): (&Container, Role)| {
            let program = image::program(container.image.as_deref().unwrap_or_default());
            matches!(program, Some(image::Program::App { .. }))
        };
        if has_sidecar(&self.pod) || !containers(&self.pod).any(is_application) {
            return None;
        }
        let directory = self.node.directory.clone();
        let home = namespace_of(&self.pod.metadata).to_owned();
        let at = (self.ip, HTTP_PROXY_PORT).into();
        Some(tokio::spawn(http_proxy::serve(at, self.ip, home, directory)))
    }
}

/// The pod as its containers see it: with its addresses.
pub(super) fn own(node: &Node, pod: &Pod, ip: Ipv4Addr) -> Pod {
    let mut own = pod.clone();
    let status = own.status.get_or_insert_default();
    status.pod_ip = Some(ip.to_string());
    status.host_ip = Some(node.around.cluster.node().to_string());
    own
}

/// All containers in the order of their start.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = (&Container, Role)> {
    let spec = pod.spec.iter();
    let init = spec.clone().flat_map(|spec| spec.init_containers.iter().flatten()).map(|container| {
        let always = container.restart_policy.as_deref() == Some("Always");
        (container, if always { Role::Sidecar } else { Role::Init })
    });
    init.chain(spec.flat_map(|spec| &spec.containers).map(|container| (container, Role::Main)))
}

fn first_reports(pod: &Pod) -> Vec<Report> {
    let init = pod.spec.as_ref().is_some_and(|spec| spec.init_containers.iter().flatten().next().is_some());
    let reason = if init { "PodInitializing" } else { "ContainerCreating" };
    containers(pod)
        .map(|(container, role)| {
            let mut report =
                Report::new(&container.name, container.image.as_deref().unwrap_or_default(), role);
            report.state = State::Waiting { reason, message: None };
            report
        })
        .collect()
}

/// The time a pod's processes get: what the deletion says, else the pod, else 30 s.
fn grace(pod: Option<&Pod>) -> Duration {
    let Some(pod) = pod else { return Duration::from_secs(1) };
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds))
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

async fn wait_for_deletion(node: &Node, mut updates: Updates) {
    let mut ending = node.ending.clone();
    let going =
        |pod: &Option<Arc<Pod>>| pod.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
    tokio::select! {
        _ = updates.wait_for(going) => {}
        _ = ending.wait_for(|ending| *ending) => {}
    }
}

/// Removes what is left of a deleted pod, last of all the object itself.
async fn forget(node: &Node, pod: &Pod, folder: &std::path::Path) {
    if *node.ending.borrow() {
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "cannot remove a pod's folder");
    }
    let mut deletion = deletion(pod);
    deletion.grace = Some(0);
    if let Err(error) = node.api.delete(deletion).await {
        tracing::debug!(%error, pod = full_name(&pod.metadata), "a pod's object is gone already");
    }
}

/// Writes the pod's status whenever its containers change, until the board's worker is gone.
async fn publish(
    node: Arc<Node>,
    pod: Arc<Pod>,
    ip: Ipv4Addr,
    board: Board,
    terminating: watch::Receiver<bool>,
) {
    let mut changes = board.changes();
    let mut terminating = terminating;
    let mut last = pod.status.clone().unwrap_or_default();
    last.host_ip = None;
    let started = instant::whole(instant::now());
    loop {
        changes.borrow_and_update();
        let facts = Facts {
            pod_ip: Some(ip.to_string()),
            host_ip: node.around.cluster.node().to_string(),
            started,
            now: instant::whole(instant::now()),
            terminating: *terminating.borrow_and_update(),
        };
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod_status(&spec, &board.reports(), &facts, &last);
        if status != last && write(&node, &pod, &status).await {
            last = status;
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = terminating.changed() => if changed.is_err() { return },
        }
    }
}

async fn write(node: &Node, pod: &Pod, status: &PodStatus) -> bool {
    let mut next = pod.clone();
    // The node is the one writer of this status: it does not matter what else of the pod has changed.
    next.metadata.resource_version = None;
    next.status = Some(status.clone());
    match node.api.replace(&next, Part::Status).await {
        Ok(_) => true,
        Err(error) => {
            tracing::debug!(%error, pod = full_name(&pod.metadata), "a pod's status was not written");
            false
        }
    }
}

/// What the volumes of a pod are made of.
struct Files {
    node: Arc<Node>,
    pod: Arc<Pod>,
    volumes: Volumes,
    tokens: TokenKeeper,
}

impl Files {
    async fn materialise(&mut self) -> Result<(), String> {
        let objects = super::container::Objects::of(&self.node.api, namespace_of(&self.pod.metadata)).await;
        self.tokens.renew(&self.node.api, &self.pod).await?;
        self.volumes.materialise(&self.pod, &objects, self.tokens.tokens()).map_err(|error| error.to_string())
    }
}

/// Brings the files up to date with the pod's labels, its objects and its tokens.
async fn refresh(mut files: Files, mut updates: Updates) {
    let mut changes = files.node.api.changes();
    loop {
        let renewal = files.tokens.next_renewal();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = updates.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(renewal) => {}
        }
        tokio::time::sleep(REFRESH).await;
        changes.borrow_and_update();
        let Some(latest) = updates.borrow_and_update().clone() else { return };
        let mut own = (*latest).clone();
        own.status.clone_from(&files.pod.status);
        files.pod = Arc::new(own);
        if let Err(error) = files.materialise().await {
            tracing::debug!(%error, pod = full_name(&files.pod.metadata), "volumes keep their last contents");
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
