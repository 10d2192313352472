//! Starting, watching and ending a proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_route::listener::ListenAddress;
use lateen_runtime::Drain;
use lateen_telemetry::log_file::LogFiles;
use tokio::sync::{Notify, oneshot};

use crate::admin::Admin;
use crate::rest::Rest;
use crate::source::{self, Resources};
use crate::store::{Rejected, Store};
use crate::worker::{Command, Shared, WorkerHandle};

/// How often it is looked whether a cluster's interval of outlier detection is over.
const OUTLIER_SWEEP: Duration = Duration::from_millis(250);

/// How a proxy is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Node, static resources, where dynamic ones come from, admin.
    pub bootstrap: Bootstrap,
    /// A file of resources, in place of a control plane: JSON as `x dump-xds` prints it, or (`.pb`) an encoded
    /// `DiscoveryResponse`.
    pub xds_file: Option<PathBuf>,
    /// Workers; each is a thread.
    pub concurrency: usize,
    /// How long connections may go on after a drain began.
    pub drain_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap: Bootstrap::default(),
            xds_file: None,
            concurrency: 2,
            drain_time: Duration::from_secs(5),
        }
    }
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A thread or runtime is missing.
    #[error("the proxy cannot start: {0}")]
    System(#[from] std::io::Error),
    /// The log thread is missing.
    #[error(transparent)]
    Log(#[from] lateen_telemetry::log_file::LogFileError),
    /// The file of resources cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The admin address is taken.
    #[error("admin: cannot bind '{0}': {1}")]
    Admin(SocketAddr, std::io::Error),
    /// Resources of the bootstrap or the file are refused.
    #[error("{} refused: {}", if .0.len() == 1 { "one resource was" } else { "several resources were" }, list(.0))]
    Rejected(Vec<Rejected>),
    /// The bootstrap asks for something that is not done.
    #[error("bootstrap: {0}")]
    Bootstrap(String),
}

fn list(rejected: &[Rejected]) -> String {
    rejected.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A running proxy. It ends when it is drained, or its process does.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    store: Arc<Mutex<Store>>,
    drain: Drain,
    drain_time: Duration,
    logs: Arc<LogFiles>,
    quit: Arc<Notify>,
    control: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Config {
    /// Starts workers and control thread, and takes the static resources.
    ///
    /// # Errors
    /// When a resource of the bootstrap or the file is refused, an address is taken, or the system gives no thread.
    pub fn build(self) -> Result<Handle, ProxyError> {
        let resources = self.static_resources()?;
        let logs = Arc::new(LogFiles::start()?);
        let (on_demand, questions) = crate::on_demand::Asked::new();
        let node_cluster = self.bootstrap.node.as_ref().map_or("", |node| &node.cluster).into();
        let shared = Arc::new(Shared {
            node_cluster,
            found: Arc::default(),
            on_demand,
            snapshot: ArcSwap::default(),
            stats: crate::stats::Stats::default(),
            draining: tokio_util::sync::CancellationToken::new(),
            drain_grace: self.drain_time,
        });
        let drain = Drain::new();
        let workers = (0..self.concurrency.max(1))
            .map(|index| WorkerHandle::start(index, shared.clone(), drain.guard()))
            .collect::<Result<Vec<_>, _>>()?;
        let store = Arc::new(Mutex::new(Store::new(
            shared.clone(),
            workers,
            logs.clone(),
            source::resolver_addresses(&self.bootstrap),
            source::bind_address(&self.bootstrap),
        )));
        let quit = Arc::new(Notify::new());
        let (stop, stopped) = oneshot::channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let control = {
            let store = store.clone();
            let bootstrap = self.bootstrap;
            let admin = Admin::new(store.clone(), bootstrap.clone(), self.concurrency, quit.clone());
            std::thread::Builder::new().name("control".into()).spawn(move || {
                control(&store, resources, bootstrap, admin, questions, &started, stopped);
            })?
        };
        let handle = Handle {
            shared,
            store,
            drain,
            drain_time: self.drain_time,
            logs,
            quit,
            control: Some((stop, control)),
        };
        match start.recv() {
            Ok(Ok(())) => {
                // Resources that came by file were read by this thread.
                lateen_sys::heap::give_back();
                Ok(handle)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ProxyError::Bootstrap("the control thread ended while it started".to_owned())),
        }
    }

    fn static_resources(&self) -> Result<Resources, ProxyError> {
        let mut resources = Resources::of_bootstrap(&self.bootstrap);
        if let Some(path) = &self.xds_file {
            let more = Resources::read(path)
                .map_err(|reason| ProxyError::File { path: path.display().to_string(), reason })?;
            resources.extend(more);
        }
        Ok(resources)
    }
}

/// The control thread: everything but traffic.
fn control(
    store: &Arc<Mutex<Store>>,
    resources: Resources,
    bootstrap: Bootstrap,
    admin: Arc<Admin>,
    questions: crate::on_demand::Questions,
    started: &std::sync::mpsc::SyncSender<Result<(), ProxyError>>,
    stopped: oneshot::Receiver<()>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(started.send(Err(error.into()))),
    };
    runtime.block_on(async {
        if let Some(address) = Admin::address(&bootstrap) {
            match tokio::net::TcpListener::bind(address).await {
                Ok(listener) => drop(tokio::spawn(admin.serve(listener))),
                Err(error) => return drop(started.send(Err(ProxyError::Admin(address, error)))),
            }
        }
        let rejected = {
            let mut store = lock(store);
            let rejected = resources.apply(&mut store, true);
            store.publish();
            rejected
        };
        let result = if rejected.is_empty() { Ok(()) } else { Err(ProxyError::Rejected(rejected)) };
        let failed = result.is_err();
        if started.send(result).is_err() || failed {
            return;
        }
        let work = source::discovery::run(store.clone(), bootstrap, questions);
        let sweeps = async {
            let found = lock(store).shared.found.clone();
            let mut rest = Rest::default();
            loop {
                let ticked = tokio::select! {
                    () = tokio::time::sleep(OUTLIER_SWEEP) => true,
                    () = found.notified() => false,
                };
                let updates = {
                    let mut store = lock(store);
                    store.sweep_hosts();
                    store.warm_found_clusters();
                    store.publish();
                    store.updates()
                };
                if ticked && rest.begins(updates) {
                    lateen_sys::heap::give_back();
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = sweeps => {}
            _ = stopped => {}
        }
    });
}

/// A lock whose data stays of use after a panic.
pub(crate) fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// The address that a listener is bound to.
    pub fn listener_address(&self, name: &str) -> Option<SocketAddr> {
        let store = lock(&self.store);
        let bound = store.listeners.get(name)?.bound.first()?.clone();
        match (bound.actual.get(), &bound.address) {
            (Some(address), _) => Some(*address),
            (None, ListenAddress::Tcp(address)) => Some(*address),
            (None, ListenAddress::Pipe(_)) => None,
        }
    }

    /// Changes resources as a control plane would.
    ///
    /// # Errors
    /// The resources that were refused; the others hold.
    pub fn update(&self, resources: Resources) -> Result<(), Vec<Rejected>> {
        let mut store = lock(&self.store);
        let rejected = resources.apply(&mut store, false);
        store.publish();
        if rejected.is_empty() { Ok(()) } else { Err(rejected) }
    }

    /// A figure by its full name, as `/stats` has it; 0 when there is none.
    pub fn figure(&self, name: &str) -> u64 {
        let store = lock(&self.store);
        let mut found = 0;
        store.shared.stats.each(|other, _, value| {
            if other == name {
                found = value;
            }
        });
        for cluster in store.clusters.values() {
            let stat_name = &cluster.newest.compiled.stat_name;
            if let Some(figure) =
                name.strip_prefix("cluster.").and_then(|rest| rest.strip_prefix(&**stat_name))
            {
                cluster.newest.each_figure(|other, _, value| {
                    if figure.strip_prefix('.') == Some(other) {
                        found = value;
                    }
                });
            }
        }
        found
    }

    /// Whether every worker answers.
    pub async fn is_alive(&self) -> bool {
        let workers = lock(&self.store).workers().to_vec();
        for worker in workers {
            let (answer, wait) = oneshot::channel();
            worker.tell(Command::Ping(answer));
            if wait.await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits until the admin server is asked to end the process.
    pub async fn quit(&self) {
        self.quit.notified().await;
    }

    /// Stops accepting and lets connections finish; returns when they have, or the drain time is over.
    pub async fn drain(mut self) {
        self.shared.draining.cancel();
        self.drain.start();
        let all = self.drain.wait_finished(self.drain_time + Duration::from_secs(1)).await;
        if !all {
            tracing::warn!("connections were still open when the drain time was over");
        }
        if let Some((stop, _)) = self.control.take() {
            // The thread may have ended by itself.
            let _ = stop.send(());
        }
        let logs = self.logs.clone();
        // Flushing blocks; a runtime that is being shut down has nobody to do it.
        let _ = tokio::task::spawn_blocking(move || logs.flush()).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        self.drain.start();
        if let Some((stop, _)) = self.control.take() {
            let _ = stop.send(());
        }
    }
}
