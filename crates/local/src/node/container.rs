//! One container: its process, started, watched, restarted, ended.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use lateen_sys::process::{Signal, signal_group};
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, namespace_of};
use crate::instant;
use crate::node::Node;
use crate::node::backoff::{Backoff, go_duration};
use crate::node::board::Board;
use crate::node::env::{self, Lookup};
use crate::node::events::full_name;
use crate::node::health::Checks;
use crate::node::image::{self, Program};
use crate::node::launch::{self, Launch};
use crate::node::logs::{LogFolder, LogWriter};
use crate::node::status::{Exit, Role, State};
use crate::node::{exec, hooks, input};

/// How long a configuration that is not there is waited for before it is looked up again.
const CONFIG_RETRY: Duration = Duration::from_secs(2);

/// The supervisor of one container.
pub(super) struct Supervisor {
    pub(super) node: Arc<Node>,
    pub(super) pod: Arc<Pod>,
    pub(super) ip: Ipv4Addr,
    pub(super) folder: PathBuf,
    pub(super) container: Container,
    pub(super) role: Role,
    pub(super) index: usize,
    pub(super) board: Board,
    /// Ends the container and its supervision.
    pub(super) stop: CancellationToken,
    /// Seconds between the request to end and the end.
    pub(super) grace: Duration,
}

/// Why a run did not begin.
enum Unstarted {
    /// Nothing will change until the pod does.
    Never(&'static str, String),
    /// Try again.
    Later(&'static str, String),
}

impl Supervisor {
    /// Runs the container until it is stopped or, by its restart policy, done.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut run = self.first_run();
        loop {
            if self.stop.is_cancelled() {
                return self.never_ran();
            }
            let Some(program) = self.image().await else { return self.never_ran() };
            let began = Instant::now();
            match self.once(program, run).await {
                Ok(()) => {}
                Err(Unstarted::Never(reason, message)) => {
                    self.refuse(reason, message);
                    self.stop.cancelled().await;
                    return self.never_ran();
                }
                Err(Unstarted::Later(reason, message)) => {
                    self.refuse(reason, message);
                    if !self.sleep(CONFIG_RETRY).await {
                        return self.never_ran();
                    }
                    continue;
                }
            }
            if self.stop.is_cancelled() || !self.restarts() {
                return;
            }
            run += 1;
            if !self.back_off(backoff.after_run(began.elapsed())).await {
                return;
            }
        }
    }

    /// A pod that an earlier run of the node had started goes on counting.
    fn first_run(&self) -> i32 {
        let latest = self.logs().latest(false).map_or(0, |latest| latest + 1);
        self.board.update(self.index, |report| report.restarts = latest);
        latest
    }

    fn logs(&self) -> LogFolder {
        LogFolder::new(&self.folder, &self.container.name)
    }

    /// The program of the image. An unknown image is a status, tried again as kubelets do, in case the pod is edited.
    async fn image(&self) -> Option<Program> {
        let image = self.container.image.clone().unwrap_or_default();
        let mut backoff = Backoff::default();
        loop {
            if let Some(program) = image::program(&image) {
                return Some(program);
            }
            if !image::is_reference(&image) {
                let message = format!("couldn't parse image name \"{image}\": invalid reference format");
                self.refuse("InvalidImageName", message);
                self.stop.cancelled().await;
                return None;
            }
            let message = image::unknown(&image);
            let events = &self.node.events;
            events.warning(&self.pod, "Failed", format!("Failed to pull image \"{image}\": {message}"));
            self.board.waiting(self.index, "ErrImagePull", message);
            if !self.sleep(Duration::from_secs(3)).await {
                return None;
            }
            let message = format!("Back-off pulling image \"{image}\": {}", image::unknown(&image));
            events.normal(&self.pod, "BackOff", format!("Back-off pulling image \"{image}\""));
            self.board.waiting(self.index, "ImagePullBackOff", message);
            if !self.sleep(backoff.after_failure()).await {
                return None;
            }
        }
    }

    /// One run, from start to end.
    async fn once(&self, program: Program, run: i32) -> Result<(), Unstarted> {
        let id = format!("lateen://{:032x}", rand::random::<u128>());
        let log = self
            .logs()
            .start(run)
            .map_err(|error| Unstarted::Later("CreateContainerError", format!("its log: {error}")))?;
        if self.is_interception() {
            self.skip_interception(&log, id);
            return Ok(());
        }
        let checks = self.checks()?;
        let launch = self.launch(program).await?;
        let started = instant::whole(instant::now());
        let mut command = launch.command();
        if self.container.stdin == Some(true) {
            command.stdin(Stdio::piped());
        }
        let mut child = self.node.spawner.spawn(command).await.map_err(|error| {
            Unstarted::Later("CreateContainerError", format!("{}: {error}", launch.program.display()))
        })?;
        let pid = child.id();
        let _input = child.stdin.take().map(|stdin| {
            let place = input::place(&self.pod, &self.container.name);
            self.node.inputs.open(place, stdin, self.container.stdin_once == Some(true))
        });
        self.began(pid, &id, run);
        let pumps = pump(&mut child, &log);
        let status = self.supervise(&mut child, &launch, &checks).await;
        if let Some(pid) = pid {
            self.node.book.strike(pid);
        }
        for pump in pumps {
            // The streams stay open as long as a grandchild has them: wait a moment only.
            let _ = tokio::time::timeout(Duration::from_millis(200), pump).await;
        }
        self.ended(&status, started, id);
        Ok(())
    }

    fn checks(&self) -> Result<Checks, Unstarted> {
        let (cluster, pod, name) = (self.node.around.cluster, &self.pod, &self.container.name);
        let address = |port: u16| IpAddr::V4(launch::port_address(cluster, pod, name, self.ip, port));
        Checks::new(&self.container, address)
            .map_err(|error| Unstarted::Never("ProbeNotSupported", error.to_string()))
    }

    async fn launch(&self, program: Program) -> Result<Launch, Unstarted> {
        let low = launch::forbidden_ports(&self.pod, self.node.first_free_port);
        if !low.is_empty() && self.role == Role::Main {
            let advice = launch::privilege_advice(&low, self.node.first_free_port);
            return Err(Unstarted::Never("PortNeedsPrivilege", advice));
        }
        let launch = launch_of(&self.node, &self.pod, &self.container, program, self.ip, &self.folder)
            .await
            .map_err(|error| Unstarted::Later("CreateContainerConfigError", error.to_string()))?;
        if let Some(outside) = &self.node.around.outside
            && program == Program::ControlPlane
        {
            outside.trust(&launch.folder).map_err(|error| {
                Unstarted::Later("CreateContainerError", format!("cacerts/extra.pem: {error}"))
            })?;
        }
        Ok(launch)
    }

    /// Containers that redirect traffic have nothing to do where applications are told their proxy.
    fn is_interception(&self) -> bool {
        let first = self.container.args.iter().flatten().next();
        self.role == Role::Init
            && (matches!(&*self.container.name, "istio-init" | "istio-validation")
                || first.is_some_and(|word| word == "istio-iptables"))
    }

    fn skip_interception(&self, log: &LogWriter, id: String) {
        log.say("loopback isolation: traffic is not intercepted, applications get http_proxy; nothing to do");
        self.tell_start();
        let at = instant::whole(instant::now());
        let exit = Exit { code: 0, signal: None, message: None, started: at, finished: at, container_id: id };
        self.board.update(self.index, |report| {
            report.id = Some(exit.container_id.clone());
            report.state = State::Terminated(exit);
        });
    }

    fn began(&self, pid: Option<u32>, id: &str, run: i32) {
        if let Some(pid) = pid
            && let Err(error) = self.node.book.note(pid)
        {
            tracing::warn!(%error, pid, "cannot remember a process for the next run");
        }
        self.tell_start();
        let since = instant::whole(instant::now());
        self.board.update(self.index, |report| {
            report.state = State::Running { since };
            report.id = Some(id.to_owned());
            report.restarts = run;
            (report.started, report.ready) = (false, false);
        });
    }

    fn tell_start(&self) {
        let name = &self.container.name;
        let image = self.container.image.as_deref().unwrap_or_default();
        let pulled = format!("Container image \"{image}\" is built in");
        self.node.events.normal(&self.pod, "Pulled", pulled);
        self.node.events.normal(&self.pod, "Created", format!("Created container: {name}"));
        self.node.events.normal(&self.pod, "Started", format!("Started container {name}"));
    }

    /// Watches the process until it has ended, for whatever reason.
    async fn supervise(&self, child: &mut Child, launch: &Launch, checks: &Checks) -> Option<ExitStatus> {
        let watch = async {
            if !hooks::post_start(&self.node, &self.pod, &self.container, launch).await {
                return "postStart hook";
            }
            let (node, pod, container) = (&self.node, &self.pod, &self.container);
            let commands = exec::Commands { node, pod, container, launch };
            checks.run(pod, &self.board, self.index, &node.events, &commands).await
        };
        tokio::select! {
            status = child.wait() => return status.ok(),
            which = watch => {
                let name = &self.container.name;
                let message = format!("Container {name} failed {which} probe, will be restarted");
                self.node.events.normal(&self.pod, "Killing", message);
            }
            () = self.stop.cancelled() => {
                let name = &self.container.name;
                self.node.events.normal(&self.pod, "Killing", format!("Stopping container {name}"));
                let hook = hooks::pre_stop(&self.node, &self.pod, &self.container, launch);
                let _ = tokio::time::timeout(self.grace, hook).await;
            }
        }
        end(child, self.grace).await
    }

    fn ended(&self, status: &Option<ExitStatus>, started: k8s_openapi::jiff::Timestamp, id: String) {
        let signal = status.as_ref().and_then(ExitStatus::signal);
        let code = status.as_ref().and_then(ExitStatus::code);
        let exit = Exit {
            code: code.unwrap_or(128 + signal.unwrap_or(9)),
            signal,
            message: None,
            started,
            finished: instant::whole(instant::now()),
            container_id: id,
        };
        self.board.update(self.index, |report| {
            report.state = State::Terminated(exit);
            (report.started, report.ready) = (false, false);
        });
    }

    /// Whether the container is started again after the run that just ended.
    fn restarts(&self) -> bool {
        let policy = self.pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let failed = self
            .board
            .report(self.index)
            .is_some_and(|report| matches!(report.state, State::Terminated(exit) if exit.code != 0));
        match (self.role, policy.unwrap_or("Always")) {
            (Role::Sidecar, _) | (Role::Main, "Always") => true,
            (Role::Main | Role::Init, "Never") => false,
            (Role::Main | Role::Init, _) => failed,
        }
    }

    /// Waits before the next run; false when the container is stopped meanwhile.
    async fn back_off(&self, delay: Duration) -> bool {
        if !delay.is_zero() {
            let (name, pod) = (&self.container.name, full_name(&self.pod.metadata));
            let message =
                format!("back-off {} restarting failed container={name} pod={pod}", go_duration(delay));
            self.node.events.warning(
                &self.pod,
                "BackOff",
                format!("Back-off restarting failed container {name}"),
            );
            self.board.update(self.index, |report| {
                if let State::Terminated(exit) = &report.state {
                    report.last = Some(exit.clone());
                }
            });
            self.board.waiting(self.index, "CrashLoopBackOff", message);
            return self.sleep(delay).await;
        }
        self.board.update(self.index, |report| {
            if let State::Terminated(exit) = &report.state {
                report.last = Some(exit.clone());
            }
        });
        true
    }

    fn refuse(&self, reason: &'static str, message: String) {
        self.node.events.warning(&self.pod, "Failed", format!("Error: {message}"));
        self.board.waiting(self.index, reason, message);
    }

    /// Stopped before it ran: a pod on its way out shows its containers as ended.
    fn never_ran(&self) {
        self.board.update(self.index, |report| (report.started, report.ready) = (false, false));
    }

    async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.stop.cancelled() => false,
        }
    }
}

/// The process of a container, with its environment as the objects are now.
pub(super) async fn launch_of(
    node: &Node,
    pod: &Pod,
    container: &Container,
    program: Program,
    ip: Ipv4Addr,
    folder: &Path,
) -> Result<Launch, env::EnvError> {
    let objects = Objects::of(&node.api, namespace_of(&pod.metadata)).await;
    let variables = env::variables(pod, container, &objects)?;
    let root = container_root(folder, &container.name);
    Ok(launch::launch(&node.around, pod, container, program, variables, ip, &root))
}

/// The folder that is `/` to a container.
pub(super) fn container_root(pod: &Path, container: &str) -> PathBuf {
    pod.join("roots").join(container)
}

fn pump(child: &mut Child, log: &LogWriter) -> Vec<tokio::task::JoinHandle<()>> {
    let mut pumps = Vec::new();
    if let Some(stream) = child.stdout.take() {
        pumps.push(tokio::spawn(log.clone().copy("stdout", stream)));
    }
    if let Some(stream) = child.stderr.take() {
        pumps.push(tokio::spawn(log.clone().copy("stderr", stream)));
    }
    pumps
}

/// Asks the process and all it started to end; makes them after the grace period.
async fn end(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    let Some(pid) = child.id() else { return child.wait().await.ok() };
    let send = |signal| {
        if let Err(error) = signal_group(pid, signal) {
            tracing::warn!(%error, pid, "cannot signal a container's processes");
        }
    };
    send(Signal::Terminate);
    match tokio::time::timeout(grace, child.wait()).await {
        Ok(status) => {
            // What it started and left behind.
            send(Signal::Kill);
            status.ok()
        }
        Err(_) => {
            send(Signal::Kill);
            child.wait().await.ok()
        }
    }
}

/// The config maps and secrets of a namespace, as they are now.
pub(super) struct Objects {
    maps: Vec<Arc<ConfigMap>>,
    secrets: Vec<Arc<Secret>>,
}

impl Objects {
    pub(super) async fn of(api: &Api, namespace: &str) -> Self {
        Self { maps: api.list_in(namespace).await, secrets: api.list_in(namespace).await }
    }
}

impl Lookup for Objects {
    fn config_map(&self, name: &str) -> Option<ConfigMap> {
        self.maps.iter().find(|map| map.metadata.name.as_deref() == Some(name)).map(|map| (**map).clone())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let found = self.secrets.iter().find(|secret| secret.metadata.name.as_deref() == Some(name));
        found.map(|secret| (**secret).clone())
    }
}
