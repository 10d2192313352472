//! Commands in running containers (`kubectl exec`), and connections to pods' ports (`kubectl port-forward`).
//!
//! In loopback isolation a container is an environment and a folder, not a namespace. So a command is a program of the
//! host, or of this binary, with the container's variables; paths below a mount are translated, and curl is told where
//! `localhost` is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use lateen_apiserver::{BoxWrite, CommandRequest, Connection, PodStreams, RunningCommand, Status};
use lateen_sys::process::{Signal, signal_group};
use lateen_sys::terminal;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::process::Child;
use tokio::sync::mpsc;

use crate::addresses;
use crate::node::container::launch_of;
use crate::node::launch::{self, Launch};
use crate::node::probe::Runner;
use crate::node::{Node, image, input, pod, programs};
use crate::process::ProcessBook;

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// What the proxy of a pod listens on, at the pod's address (Istio's ports).
const PROXY_LISTENERS: &[u16] = &[15000, 15001, 15004, 15006, 15007, 15008, 15020, 15021, 15053, 15090];

/// The node agent's side of `pods/exec` and `pods/portforward`.
pub(crate) struct Streams(pub(crate) Arc<Node>);

/// A container that runs.
struct Place {
    pod: Pod,
    container: Container,
    ip: Ipv4Addr,
}

#[async_trait]
impl PodStreams for Streams {
    async fn exec(&self, request: CommandRequest) -> Result<RunningCommand, Status> {
        let place = self.place(&request.namespace, &request.pod, Some(&request.container)).await?;
        let program = image::program(place.container.image.as_deref().unwrap_or_default());
        let program = program.ok_or_else(|| not_running(&request.container))?;
        let folder = self.0.pods.join(place.pod.metadata.uid.as_deref().unwrap_or_default());
        let failed = |why: String| Status::internal(format!("error executing command in container: {why}"));
        let launch = launch_of(&self.0, &place.pod, &place.container, program, place.ip, &folder)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let command =
            command(&self.0, &place.pod, &place.container, &launch, &request.command).map_err(failed)?;
        write_curl_settings(&launch.folder, &localhost(&self.0, &place))
            .map_err(|error| failed(format!("settings of curl: {error}")))?;
        let started = if request.tty {
            self.on_terminal(command).await
        } else {
            self.piped(command, request.stdin).await
        };
        started.map_err(|error| failed(format!("exec: \"{}\": {error}", request.command[0])))
    }

    async fn input(&self, namespace: &str, pod: &str, container: &str) -> Result<BoxWrite, Status> {
        let found = self.0.api.get::<Pod>(Some(namespace), pod).await;
        let found = found.ok_or_else(|| Status::not_found("pods", pod))?;
        let attached = self.0.inputs.attach(&input::place(&found, container));
        attached.map(|stream| Box::pin(stream) as _).ok_or_else(|| not_running(container))
    }

    async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<Box<dyn Connection>, Status> {
        let place = self.place(namespace, pod, None).await?;
        let ip =
            launch::port_address(self.0.around.cluster, &place.pod, &place.container.name, place.ip, port);
        let address = SocketAddr::from((ip, port));
        let failed = |why: &str| {
            let why = format!("failed to connect to localhost:{port} of the pod: dial tcp {address}: {why}");
            Status::new(503, "ServiceUnavailable", why)
        };
        match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                Err(failed("connect: connection refused"))
            }
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed("i/o timeout")),
        }
    }
}

impl Streams {
    /// The pod with a container of it that runs: the one of this name, or the first that is no proxy.
    async fn place(&self, namespace: &str, name: &str, container: Option<&str>) -> Result<Place, Status> {
        let found = self.0.api.get::<Pod>(Some(namespace), name).await;
        let found = found.ok_or_else(|| Status::not_found("pods", name))?;
        let status = found.status.clone().unwrap_or_default();
        let statuses = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let running = |wanted: &str| {
            statuses
                .clone()
                .any(|one| one.name == wanted && one.state.as_ref().is_some_and(|s| s.running.is_some()))
        };
        let all: Vec<&Container> = pod::containers(&found).map(|(container, _)| container).collect();
        let own = match container {
            Some(wanted) => all.into_iter().find(|one| one.name == wanted && running(&one.name)),
            None => {
                let first = all.iter().find(|one| one.name != launch::SIDECAR && running(&one.name));
                first.or_else(|| all.iter().find(|one| running(&one.name))).copied()
            }
        };
        let own = own.cloned().ok_or_else(|| not_running(container.unwrap_or(name)))?;
        let ip = addresses::parse(status.pod_ip.as_deref()).ok_or_else(|| not_running(&own.name))?;
        Ok(Place { pod: pod::own(&self.0, &found, ip), container: own, ip })
    }

    async fn piped(&self, mut command: Command, stdin: bool) -> std::io::Result<RunningCommand> {
        if stdin {
            command.stdin(Stdio::piped());
        }
        let mut child = self.0.spawner.spawn(command).await?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        Ok(RunningCommand {
            stdin: stdin.map(|stdin| Box::pin(stdin) as _),
            stdout: stdout.map(|stdout| Box::pin(stdout) as _),
            stderr: stderr.map(|stderr| Box::pin(stderr) as _),
            resize: None,
            exit: Box::pin(Running::new(child, self.0.book.clone()).exit()),
        })
    }

    async fn on_terminal(&self, mut command: Command) -> std::io::Result<RunningCommand> {
        let opened = terminal::open()?;
        command.stdin(opened.end.try_clone()?).stdout(opened.end.try_clone()?).stderr(opened.end);
        command.env("TERM", "xterm");
        let child = self.0.spawner.spawn_on_terminal(command).await?;
        // A terminal is no pipe, but is read, written and waited for like one.
        let read = pipe::Receiver::from_file_unchecked(opened.controller.try_clone()?)?;
        let write = pipe::Sender::from_file_unchecked(opened.controller.try_clone()?)?;
        let sizes = opened.controller;
        let (resize, mut asked) = mpsc::channel::<lateen_apiserver::TerminalSize>(4);
        tokio::spawn(async move {
            while let Some(size) = asked.recv().await {
                // The command may have ended meanwhile.
                let _ = terminal::resize(&sizes, size.columns, size.rows);
            }
        });
        Ok(RunningCommand {
            stdin: Some(Box::pin(write)),
            stdout: Some(Box::pin(read)),
            stderr: None,
            resize: Some(resize),
            exit: Box::pin(Running::new(child, self.0.book.clone()).exit()),
        })
    }
}

fn not_running(container: &str) -> Status {
    Status::bad_request(format!("unable to upgrade connection: container not found (\"{container}\")"))
}

/// A command of a container whose process would be started by `launch`.
///
/// # Errors
/// A program that is not there, in the words of a container engine.
pub(super) fn command(
    node: &Node,
    pod: &Pod,
    container: &Container,
    launch: &Launch,
    words: &[String],
) -> Result<Command, String> {
    let (word, args) = words.split_first().ok_or("no command")?;
    let root = &launch.folder;
    let inherited = launch.env.get("PATH").map_or("", String::as_str);
    let path = programs::path(&node.programs, inherited);
    let program = programs::find(word, &path, &node.programs, root)
        .ok_or_else(|| format!("exec: \"{word}\": executable file not found in $PATH"))?;
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
    let mut env: BTreeMap<String, String> = launch.env.clone();
    env.insert("PATH".to_owned(), path);
    env.insert("CURL_HOME".to_owned(), root.join(".lateen").display().to_string());
    env.insert("LATEEN_POD_IP".to_owned(), ip);
    let args = args.iter().map(|arg| inside(arg, container, root)).collect();
    Ok(Launch { program, args, env, folder: root.clone() }.command())
}

/// Runs the commands of hooks and probes in the container whose process was started by `launch`; what they print is not kept.
pub(super) struct Commands<'a> {
    pub(super) node: &'a Node,
    pub(super) pod: &'a Pod,
    pub(super) container: &'a Container,
    pub(super) launch: &'a Launch,
}

#[async_trait]
impl Runner for Commands<'_> {
    async fn run(&self, words: &[String]) -> Result<(), String> {
        let mut command = command(self.node, self.pod, self.container, self.launch, words)?;
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.node.spawner.spawn(command).await.map_err(|error| error.to_string())?;
        match Running::new(child, self.node.book.clone()).exit().await {
            Ok(0) => Ok(()),
            Ok(code) => Err(format!("{words:?} ended with exit status {code}")),
            Err(status) => Err(status.message),
        }
    }
}

/// A path below a mount of the container, as it is on this host, links of mounts followed; any other argument as it is.
fn inside(arg: &str, container: &Container, root: &Path) -> String {
    let mounts = container.volume_mounts.iter().flatten();
    let below =
        mounts.map(|mount| Path::new(&mount.mount_path)).any(|mount| Path::new(arg).starts_with(mount));
    let Some(relative) = arg.strip_prefix('/').filter(|_| below) else { return arg.to_owned() };
    let place = root.join(relative);
    // A mount is a link here and a folder to who asks: `ls -l` shows what is in it.
    let folder = std::fs::read_link(&place).ok().filter(|to| to.is_absolute() && to.is_dir());
    folder.unwrap_or(place).display().to_string()
}

/// (host, port, address) triples in the order in which they are tried; a missing port is any.
type Redirections = Vec<(&'static str, Option<u16>, Ipv4Addr)>;

/// Where the ports of a pod's `localhost` are bound.
fn localhost(node: &Node, place: &Place) -> Redirections {
    // No container is named so: this is where the applications bind.
    let app = launch::bind_address(node.around.cluster, &place.pod, "", place.ip);
    let mut out = Vec::new();
    for host in ["localhost", "127.0.0.1"] {
        if app != place.ip {
            out.extend(PROXY_LISTENERS.iter().map(|port| (host, Some(*port), place.ip)));
        }
        out.push((host, None, app));
    }
    out
}

fn write_curl_settings(root: &Path, redirections: &Redirections) -> std::io::Result<()> {
    let mut text = String::from("# Where localhost is in this pod (loopback isolation)\n");
    for (host, port, ip) in redirections {
        let port = port.map(|port| port.to_string()).unwrap_or_default();
        text.push_str(&format!("connect-to = \"{host}:{port}:{ip}:\"\n"));
    }
    let folder = root.join(".lateen");
    std::fs::create_dir_all(&folder)?;
    crate::state::write_whole(&folder.join(".curlrc"), text.as_bytes())
}

/// A process that ends with this value, with all that it has started.
struct Running {
    child: Child,
    pid: Option<u32>,
    book: ProcessBook,
}

impl Running {
    fn new(child: Child, book: ProcessBook) -> Self {
        let pid = child.id();
        if let Some(pid) = pid
            && let Err(error) = book.note(pid)
        {
            tracing::warn!(%error, pid, "cannot remember a process for the next run");
        }
        Self { child, pid, book }
    }

    async fn exit(mut self) -> Result<i32, Status> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(9)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(pid) = self.pid else { return };
        if let Err(error) = signal_group(pid, Signal::Kill) {
            tracing::warn!(%error, pid, "cannot end a command's processes");
        }
        self.book.strike(pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_below_a_mount_are_translated() {
        let container =
            json!({"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/etc/istio/certs"}]});
        let container: Container = serde_json::from_value(container).unwrap();
        let of = |arg: &str| inside(arg, &container, Path::new("/state/files"));
        assert_eq!(of("/etc/istio/certs"), "/state/files/etc/istio/certs");
        assert_eq!(of("/etc/istio/certs/tls.crt"), "/state/files/etc/istio/certs/tls.crt");
        assert_eq!(of("/etc/istio/certs2"), "/etc/istio/certs2");
        assert_eq!(of("/dev/null"), "/dev/null");
        assert_eq!(of("-al"), "-al");
        let dir = tempfile::tempdir().unwrap();
        let (volume, root) = (dir.path().join("volume"), dir.path().join("root"));
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(root.join("etc/istio")).unwrap();
        std::os::unix::fs::symlink(&volume, root.join("etc/istio/certs")).unwrap();
        assert_eq!(inside("/etc/istio/certs", &container, &root), volume.display().to_string());
    }

    #[test]
    fn curl_is_told_where_localhost_is() {
        let dir = tempfile::tempdir().unwrap();
        let redirections = vec![
            ("localhost", Some(15000), Ipv4Addr::new(127, 10, 0, 9)),
            ("localhost", None, Ipv4Addr::new(127, 110, 0, 9)),
        ];
        write_curl_settings(dir.path(), &redirections).unwrap();
        let text = std::fs::read_to_string(dir.path().join(".lateen/.curlrc")).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            ["connect-to = \"localhost:15000:127.10.0.9:\"", "connect-to = \"localhost::127.110.0.9:\""]
        );
    }
}
