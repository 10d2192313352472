//! The node agent: runs the pods of its node as child processes.

mod backoff;
mod board;
mod container;
mod downward;
mod env;
pub(crate) mod events;
mod exec;
mod health;
mod hooks;
mod image;
mod input;
pub(crate) mod launch;
pub(crate) mod logs;
mod object;
mod pod;
mod probe;
mod programs;
pub(crate) mod spawn;
mod status;
mod tokens;
mod volumes;

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::addresses::Pool;
use crate::api::{Api, Part, name_of, namespace_of};
use crate::net::directory::DirectoryHandle;
use crate::process::ProcessBook;
use events::Events;
use launch::Surroundings;
use logs::{LogFolder, LogQuery, LogReader};
use spawn::Spawner;

/// A node: what its pods share.
pub(crate) struct Node {
    name: String,
    api: Api,
    events: Events,
    spawner: Spawner,
    book: ProcessBook,
    around: Surroundings,
    directory: DirectoryHandle,
    pods: PathBuf,
    programs: PathBuf,
    first_free_port: u16,
    addresses: Mutex<Pool>,
    inputs: input::Inputs,
    ending: watch::Receiver<bool>,
}

/// What a node is made of.
pub(crate) struct NodeConfig {
    pub(crate) name: String,
    pub(crate) api: Api,
    pub(crate) events: Events,
    pub(crate) book: ProcessBook,
    pub(crate) around: Surroundings,
    pub(crate) directory: DirectoryHandle,
    /// Where pods have their folders.
    pub(crate) pods: PathBuf,
    /// Where the links are that begin the `PATH` of commands in pods.
    pub(crate) programs: PathBuf,
}

/// A running node.
pub(crate) struct RunningNode {
    node: Arc<Node>,
    ending: watch::Sender<bool>,
    agent: tokio::task::JoinHandle<()>,
}

impl RunningNode {
    /// What runs commands in its pods and reaches their ports.
    pub(crate) fn streams(&self) -> Arc<dyn lateen_apiserver::PodStreams> {
        Arc::new(exec::Streams(self.node.clone()))
    }

    /// Ends all processes; the pods stay in the API, for the next run.
    pub(crate) async fn end(self) {
        self.ending.send_replace(true);
        // A panic in the agent would show here; its children are killed with their handles.
        let _ = self.agent.await;
    }
}

impl NodeConfig {
    /// Takes back what pods of an earlier run said of themselves: their processes are gone.
    pub(crate) async fn forget_readiness(&self) {
        for pod in self.api.list::<Pod>().await {
            let mut next = (*pod).clone();
            let own = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&self.name);
            let Some(status) = next.status.as_mut().filter(|_| own) else { continue };
            for condition in status.conditions.iter_mut().flatten() {
                if matches!(&*condition.type_, "Ready" | "ContainersReady") {
                    condition.status = "False".to_owned();
                }
            }
            for container in status.container_statuses.iter_mut().flatten() {
                container.ready = false;
            }
            next.metadata.resource_version = None;
            if next.status != pod.status
                && let Err(error) = self.api.replace(&next, Part::Status).await
            {
                tracing::warn!(%error, pod = name_of(&pod.metadata), "a pod keeps the status of an earlier run");
            }
        }
    }

    /// Starts the agent.
    ///
    /// # Errors
    /// A thread or a folder that cannot be made.
    pub(crate) fn start(self) -> std::io::Result<RunningNode> {
        std::fs::create_dir_all(&self.pods)?;
        programs::link(&self.programs, &self.around.executable)?;
        let (ending, watched) = watch::channel(false);
        let node = Arc::new(Node {
            name: self.name,
            api: self.api,
            events: self.events,
            spawner: Spawner::start()?,
            book: self.book,
            around: self.around,
            directory: self.directory,
            pods: self.pods,
            programs: self.programs,
            first_free_port: launch::first_free_port(),
            addresses: Mutex::new(Pool::new([])),
            inputs: input::Inputs::default(),
            ending: watched,
        });
        let agent = tokio::spawn(node.clone().run());
        Ok(RunningNode { node, ending, agent })
    }
}

impl Node {
    async fn run(self: Arc<Self>) {
        let mut changes = self.api.changes();
        let mut ending = self.ending.clone();
        let mut workers: HashMap<String, watch::Sender<Option<Arc<Pod>>>> = HashMap::new();
        let mut running = JoinSet::new();
        object::register(&self.api, &self.name, self.around.cluster).await;
        self.clean_up(&self.own_pods().await);
        while !*ending.borrow() {
            changes.borrow_and_update();
            let pods = self.own_pods().await;
            self.follow(&pods, &mut workers, &mut running);
            while running.try_join_next().is_some() {}
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                _ = ending.changed() => break,
            }
        }
        object::leave(&self.api, &self.name).await;
        while running.join_next().await.is_some() {}
    }

    async fn own_pods(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.api.list::<Pod>().await;
        pods.retain(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&self.name));
        pods
    }

    /// Starts workers for new pods, tells the others what has changed.
    fn follow(
        self: &Arc<Self>,
        pods: &[Arc<Pod>],
        workers: &mut HashMap<String, watch::Sender<Option<Arc<Pod>>>>,
        running: &mut JoinSet<()>,
    ) {
        let mut present = BTreeSet::new();
        // Addresses of earlier runs are taken before anybody new asks for one.
        let mut order: Vec<&Arc<Pod>> = pods.iter().collect();
        order.sort_by_key(|pod| pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).is_none());
        for pod in &order {
            self.reserve_address(pod, workers);
        }
        for pod in order {
            let Some(uid) = pod.metadata.uid.clone() else { continue };
            present.insert(uid.clone());
            match workers.get(&uid) {
                Some(worker) => {
                    worker.send_if_modified(|known| {
                        let version = |pod: &Option<Arc<Pod>>| {
                            pod.as_ref().and_then(|pod| pod.metadata.resource_version.clone())
                        };
                        let next = Some(pod.clone());
                        let differs = version(known) != version(&next);
                        *known = next;
                        differs
                    });
                }
                None => {
                    let (sender, updates) = watch::channel(Some(pod.clone()));
                    running.spawn(pod::run(self.clone(), pod.clone(), updates));
                    workers.insert(uid, sender);
                }
            }
        }
        workers.retain(|uid, worker| {
            let here = present.contains(uid);
            if !here {
                worker.send_replace(None);
            }
            here
        });
    }

    fn reserve_address(&self, pod: &Pod, workers: &HashMap<String, watch::Sender<Option<Arc<Pod>>>>) {
        let known = pod.metadata.uid.as_ref().is_some_and(|uid| workers.contains_key(uid));
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        if let Some(index) = crate::addresses::parse(ip).and_then(|ip| self.around.cluster.pod_index(ip))
            && !known
        {
            self.addresses.lock().claim(index);
        }
    }

    /// The pod's former address (reserved for it), or a new one.
    fn take_address(&self, former: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let cluster = self.around.cluster;
        match former.filter(|ip| cluster.pod_index(*ip).is_some()) {
            Some(ip) => Some(ip),
            None => self.addresses.lock().take().map(|index| cluster.pod(index)),
        }
    }

    fn release_address(&self, ip: Ipv4Addr) {
        if let Some(index) = self.around.cluster.pod_index(ip) {
            self.addresses.lock().release(index);
        }
    }

    /// Removes the folders of pods that were deleted while no node was there.
    fn clean_up(&self, pods: &[Arc<Pod>]) {
        let living: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        for entry in std::fs::read_dir(&self.pods).into_iter().flatten().flatten() {
            let gone = entry.file_name().to_str().is_some_and(|name| !living.contains(name));
            if gone && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, folder = %entry.path().display(), "cannot remove a pod's folder");
            }
        }
    }
}

/// Where the logs of a node's pods are, for `kubectl logs`.
#[derive(Clone, Debug)]
pub(crate) struct PodLogs {
    pub(crate) pods: PathBuf,
}

impl PodLogs {
    /// The log of a container; none when it has not run, or not run before.
    pub(crate) fn open(
        &self,
        pod: &Pod,
        container: &str,
        previous: bool,
        query: LogQuery,
    ) -> Result<LogReader, String> {
        let meta = &pod.metadata;
        let folder = LogFolder::new(&self.pods.join(meta.uid.as_deref().unwrap_or_default()), container);
        match folder.latest(previous) {
            Some(run) => Ok(LogReader::open(folder.file(run), query)),
            None if previous => Err(format!(
                "previous terminated container \"{container}\" in pod \"{}\" not found",
                name_of(meta)
            )),
            None => Err(format!(
                "container \"{container}\" in pod \"{}\" (namespace {}) is waiting to start",
                name_of(meta),
                namespace_of(meta)
            )),
        }
    }
}
