//! From a container to the process that plays it, in loopback isolation.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::addresses::ClusterNumber;
use crate::node::env::expand;
use crate::node::image::Program;
use crate::outside::Outside;

/// The port of the proxy that applications reach others through.
pub(crate) const HTTP_PROXY_PORT: u16 = 15007;
/// The port of the node's DNS server.
pub(crate) const DNS_PORT: u16 = 15053;
/// Ports that the proxy, not the application, answers on a pod.
const PROXY_PORTS: std::ops::RangeInclusive<u16> = 15_000..=15_090;
/// The sidecar's container.
pub(crate) const SIDECAR: &str = "istio-proxy";

/// What runs as the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataPlane {
    /// The proxy of this binary.
    #[default]
    Lateen,
    /// Stock Envoy, found on the PATH.
    Envoy,
}

impl DataPlane {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lateen => "lateen",
            Self::Envoy => "envoy",
        }
    }
}

/// What is the same for all processes of a node.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) cluster: ClusterNumber,
    pub(crate) executable: PathBuf,
    pub(crate) api_server: SocketAddr,
    pub(crate) data_plane: DataPlane,
    /// Variables taken over from the environment of `lateen up`.
    pub(crate) inherited: BTreeMap<String, String>,
    /// What the cluster takes for the internet.
    pub(crate) outside: Option<Outside>,
}

/// A process about to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) folder: PathBuf,
}

impl Launch {
    /// The command, with both streams to be read by the node.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// Whether the pod has a sidecar: an `istio-proxy` beside an application (a gateway has nothing beside it).
pub(crate) fn has_sidecar(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all().any(|container| container.name == SIDECAR)
        && spec.containers.iter().any(|container| container.name != SIDECAR)
}

/// Where a container of the pod binds its ports: the proxy the pod's address, an application behind one its own.
pub(crate) fn bind_address(cluster: ClusterNumber, pod: &Pod, container: &str, ip: Ipv4Addr) -> Ipv4Addr {
    if has_sidecar(pod) && container != SIDECAR { cluster.app(ip) } else { ip }
}

/// Where a port of the pod is bound: the proxy's at the pod's address, any other where the container binds.
pub(crate) fn port_address(
    cluster: ClusterNumber,
    pod: &Pod,
    container: &str,
    ip: Ipv4Addr,
    port: u16,
) -> Ipv4Addr {
    if PROXY_PORTS.contains(&port) { ip } else { bind_address(cluster, pod, container, ip) }
}

/// The process of a container. `variables` are the container's own.
pub(crate) fn launch(
    around: &Surroundings,
    pod: &Pod,
    container: &Container,
    program: Program,
    variables: BTreeMap<String, String>,
    ip: Ipv4Addr,
    root: &Path,
) -> Launch {
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|word| expand(word, &variables)).collect()
    };
    let (command, args) = (words(&container.command), words(&container.args));
    let args = match program {
        Program::App { name, version, port } => application(name, version, port, command, args),
        Program::ControlPlane | Program::Proxy => args,
    };
    let mut env = around.inherited.clone();
    env.extend(general(around, pod, container, ip, root));
    env.extend(variables);
    env.extend(match program {
        Program::ControlPlane => of_control_plane(around, &env),
        Program::Proxy => of_proxy(around, pod, ip),
        Program::App { .. } => of_application(ip),
    });
    Launch { program: around.executable.clone(), args, env, folder: root.to_owned() }
}

/// Programs of the machine that a container may be told to run in the place of what its image is.
const HOST_PROGRAMS: &[&str] = &["ash", "bash", "cat", "curl", "env", "sh", "sleep", "tail"];

/// The application's command line. A command that is a program of the machine is run by `sleep`, which becomes it.
fn application(
    name: &str,
    version: Option<&str>,
    port: Option<u16>,
    command: Vec<String>,
    args: Vec<String>,
) -> Vec<String> {
    let program = command.first().and_then(|word| Path::new(word).file_name()?.to_str());
    if program.is_some_and(|program| HOST_PROGRAMS.contains(&program)) {
        let own = ["app", "sleep", "--"].map(str::to_owned);
        return own.into_iter().chain(command).chain(args).collect();
    }
    let mut out = vec!["app".to_owned(), name.to_owned()];
    if let Some(version) = version {
        out.extend(["--app-version".to_owned(), version.to_owned()]);
    }
    let said: Vec<String> = command.into_iter().chain(args).collect();
    if let Some(port) = port.filter(|_| said.is_empty()) {
        out.extend(["--port".to_owned(), port.to_string()]);
    }
    if !said.is_empty() {
        out.push("--".to_owned());
        out.extend(said);
    }
    out
}

fn general(
    around: &Surroundings,
    pod: &Pod,
    container: &Container,
    ip: Ipv4Addr,
    root: &Path,
) -> Vec<(String, String)> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let port = around.api_server.port().to_string();
    let node = around.cluster.node();
    [
        ("HOSTNAME", name),
        ("HOME", "/".to_owned()),
        ("KUBERNETES_SERVICE_HOST", around.api_server.ip().to_string()),
        ("KUBERNETES_SERVICE_PORT", port.clone()),
        ("KUBERNETES_SERVICE_PORT_HTTPS", port),
        ("LATEEN_POD_ROOT", root.to_string_lossy().into_owned()),
        ("LATEEN_BIND_ADDRESS", bind_address(around.cluster, pod, &container.name, ip).to_string()),
        ("LATEEN_POD_IP", ip.to_string()),
        ("LATEEN_DNS", format!("{node}:{DNS_PORT}")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// The variable with private addresses that the control plane may fetch keys from.
const ALLOWED: &str = "LATEEN_JWKS_ALLOWED_CIDRS";

/// The control plane may fetch keys from the outside: its addresses are private, but it stands for the internet.
fn of_control_plane(around: &Surroundings, env: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let Some(outside) = &around.outside else { return Vec::new() };
    let own = env.get(ALLOWED).filter(|own| !own.is_empty());
    let all = own.map_or_else(|| outside.range.clone(), |own| format!("{own},{}", outside.range));
    vec![(ALLOWED.to_owned(), all)]
}

fn of_proxy(around: &Surroundings, pod: &Pod, ip: Ipv4Addr) -> Vec<(String, String)> {
    let mut env = vec![
        ("ISTIO_META_INTERCEPTION_MODE".to_owned(), "NONE".to_owned()),
        // Also for gateways: this tells the control plane that the pod shares its host with others.
        ("ISTIO_META_HTTP_PROXY_PORT".to_owned(), HTTP_PROXY_PORT.to_string()),
        ("LATEEN_DATA_PLANE".to_owned(), around.data_plane.name().to_owned()),
    ];
    if has_sidecar(pod) {
        let app = around.cluster.app(ip).to_string();
        env.push(("ISTIO_META_LATEEN_APP_ADDRESS".to_owned(), app));
    }
    env
}

/// Applications reach everything through the proxy at the pod's own address: the sidecar, or the node's forwarder.
fn of_application(ip: Ipv4Addr) -> Vec<(String, String)> {
    let proxy = format!("http://{ip}:{HTTP_PROXY_PORT}");
    vec![
        ("http_proxy".to_owned(), proxy.clone()),
        ("https_proxy".to_owned(), proxy),
        ("no_proxy".to_owned(), "localhost,127.0.0.1".to_owned()),
    ]
}

/// Declared ports that this process may not bind, `from` being the first one that needs no privilege.
pub(crate) fn forbidden_ports(pod: &Pod, from: u16) -> Vec<u16> {
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|spec| spec.containers.iter());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let numbers = ports.filter_map(|port| u16::try_from(port.container_port).ok());
    let mut low: Vec<u16> = numbers.filter(|port| *port < from).collect();
    low.sort_unstable();
    low.dedup();
    low
}

/// What to tell somebody whose pod has such a port.
pub(crate) fn privilege_advice(ports: &[u16], from: u16) -> String {
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!(
        "port {} is below {from}, which only privileged processes may bind on this machine. Ways out: start \
         `lateen up` as root; allow it with `sysctl net.ipv4.ip_unprivileged_port_start={}`; or use higher \
         container and target ports",
        list.join(", "),
        ports.first().copied().unwrap_or_default()
    )
}

/// The first port that this process may bind.
pub(crate) fn first_free_port() -> u16 {
    if may_bind_low_ports() {
        return 0;
    }
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

/// Whether CAP_NET_BIND_SERVICE is effective.
fn may_bind_low_ports() -> bool {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0) & NET_BIND_SERVICE != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::image;
    use crate::outside::Names;
    use serde_json::{Value, json};

    fn pod(containers: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
            .unwrap()
    }

    fn around() -> Surroundings {
        Surroundings {
            cluster: ClusterNumber::new(2).unwrap(),
            executable: "/bin/lateen".into(),
            api_server: "127.12.0.1:6443".parse().unwrap(),
            data_plane: DataPlane::Envoy,
            inherited: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
            outside: Some(Outside {
                names: Names::default(),
                range: "127.12.254.0/24".to_owned(),
                root: "PEM".into(),
            }),
        }
    }

    fn launched(pod: &Pod, at: usize) -> Launch {
        let around = around();
        let container = &pod.spec.as_ref().unwrap().containers[at];
        let program = image::program(container.image.as_deref().unwrap()).unwrap();
        let variables = BTreeMap::from([("POD_NAMESPACE".to_owned(), "ns".to_owned())]);
        let ip = Ipv4Addr::new(127, 12, 0, 9);
        launch(&around, pod, container, program, variables, ip, Path::new("/state/root"))
    }

    #[test]
    fn an_application_behind_a_sidecar_binds_its_own_address() {
        let pod = pod(json!([
            {"name": "httpbin", "image": "docker.io/kennethreitz/httpbin", "command": ["gunicorn", "-b", "0.0.0.0:80"]},
            {"name": "istio-proxy", "image": "istio/proxyv2:1.26",
             "args": ["proxy", "sidecar", "--domain", "$(POD_NAMESPACE).svc.cluster.local"]}]));
        let app = launched(&pod, 0);
        assert_eq!(app.args, ["app", "httpbin", "--", "gunicorn", "-b", "0.0.0.0:80"]);
        assert_eq!(app.env["LATEEN_BIND_ADDRESS"], "127.112.0.9");
        assert_eq!(app.env["http_proxy"], "http://127.12.0.9:15007");
        assert_eq!(app.env["https_proxy"], app.env["http_proxy"]);
        let proxy = launched(&pod, 1);
        assert_eq!(proxy.args, ["proxy", "sidecar", "--domain", "ns.svc.cluster.local"]);
        assert_eq!(proxy.env["ISTIO_META_LATEEN_APP_ADDRESS"], "127.112.0.9");
        assert_eq!(proxy.env["LATEEN_BIND_ADDRESS"], "127.12.0.9");
        assert_eq!(proxy.env["LATEEN_DATA_PLANE"], "envoy");
        assert!(!proxy.env.contains_key("http_proxy"));
        assert_eq!(proxy.env["LATEEN_DNS"], "127.12.0.1:15053");
    }

    #[test]
    fn a_pod_alone_and_a_gateway_bind_the_pods_address() {
        let alone = pod(json!([{"name": "r", "image": "istio/examples-bookinfo-reviews-v3:1"}]));
        let app = launched(&alone, 0);
        assert_eq!(app.args, ["app", "reviews", "--app-version", "v3"]);
        assert_eq!(app.env["LATEEN_BIND_ADDRESS"], "127.12.0.9");
        let gateway = pod(json!([{"name": "istio-proxy", "image": "proxyv2", "args": ["proxy", "router"]}]));
        assert!(!launched(&gateway, 0).env.contains_key("ISTIO_META_LATEEN_APP_ADDRESS"));
        let shell =
            pod(json!([{"name": "h", "image": "httpbin", "command": ["/bin/sh", "-c"], "args": ["true"]}]));
        assert_eq!(launched(&shell, 0).args, ["app", "sleep", "--", "/bin/sh", "-c", "true"]);
        let go = pod(json!([{"name": "h", "image": "mccutchen/go-httpbin"}]));
        assert_eq!(launched(&go, 0).args, ["app", "httpbin", "--port", "8080"]);
    }

    #[test]
    fn the_control_plane_may_fetch_keys_from_the_outside() {
        let plain = pod(json!([{"name": "discovery", "image": "istio/pilot:1"}]));
        assert_eq!(launched(&plain, 0).env[ALLOWED], "127.12.254.0/24");
        let around =
            Surroundings { inherited: [(ALLOWED.to_owned(), "10.0.0.0/8".to_owned())].into(), ..around() };
        let told = of_control_plane(&around, &around.inherited);
        assert_eq!(told, [(ALLOWED.to_owned(), "10.0.0.0/8,127.12.254.0/24".to_owned())]);
        let none = Surroundings { outside: None, ..around };
        assert!(of_control_plane(&none, &none.inherited).is_empty());
    }

    #[test]
    fn low_ports_are_found_and_explained() {
        let pod = pod(json!([{"name": "h", "ports": [{"containerPort": 80}, {"containerPort": 8080}]}]));
        assert_eq!(forbidden_ports(&pod, 1024), [80]);
        assert_eq!(forbidden_ports(&pod, 0), [0_u16; 0]);
        assert!(privilege_advice(&[80], 1024).contains("ip_unprivileged_port_start=80"));
    }
}
