//! What an agent is told: by its arguments, by the environment of the pod, and by `PROXY_CONFIG`.

mod environment;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lateen_base::SpiffeId;
use lateen_ca::rotation::Renewal;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::environment::Environment;
use crate::certificate_files::CertificateFiles;
use crate::files;
use crate::metadata;
use crate::metrics::Scrape;
use crate::probes::Probes;

/// Beside an application, or alone at the mesh's edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `proxy sidecar`.
    Sidecar,
    /// `proxy router`.
    Router,
}

impl Role {
    /// The word in the node's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// The flags of `pilot-agent proxy` that have an effect.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--domain`; the default is `NAMESPACE.svc.cluster.local`.
    pub domain: Option<String>,
    /// `--concurrency`: worker threads, 0 for all processors.
    pub concurrency: Option<u32>,
    /// `--proxyLogLevel`.
    pub log_level: Option<String>,
    /// `--proxyComponentLogLevel`.
    pub component_log_level: Option<String>,
}

/// What an agent does, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The role.
    pub role: Role,
    /// The pod's root folder; every path of the agent lies in it.
    pub root: PathBuf,
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's addresses, the first of which the proxy uses.
    pub addresses: Vec<IpAddr>,
    /// The identity that is asked for.
    pub identity: SpiffeId,
    /// The proxy configuration.
    pub config: ProxyConfig,
    /// `host:port` of the certificate authority.
    pub ca_address: String,
    /// The name that the control plane's certificate must have, where it is not the address's host (`ISTIOD_SAN`).
    pub control_plane_name: Option<String>,
    /// The lifetime that is asked for (`SECRET_TTL`).
    pub certificate_ttl: Duration,
    /// When a certificate is renewed (`SECRET_GRACE_PERIOD_RATIO`, `SECRET_GRACE_PERIOD_RATIO_JITTER`).
    pub renewal: Renewal,
    /// The files that hold the certificate (`FILE_MOUNTED_CERTS`); none where the authority gives it.
    pub(crate) certificate_files: Option<CertificateFiles>,
    /// The files by which the agent shows the control plane who it is (`PROV_CERT`), beside its token.
    pub(crate) provisioned: Option<CertificateFiles>,
    /// The socket of a SPIFFE Workload API that gives the certificate (`SPIFFE_ENDPOINT_SOCKET`).
    pub(crate) workload_api: Option<PathBuf>,
    /// The folder that certificates are written into, too (`OUTPUT_CERTS`).
    pub output: Option<PathBuf>,
    /// The file name of the workload's socket.
    socket_file: String,
    /// Somebody else has to serve that socket (`WORKLOAD_IDENTITY_SOCKET_FILE`).
    pub(crate) needs_socket: bool,
    /// Somebody else does.
    pub(crate) socket_is_anothers: bool,
    /// The DNS domain of the node.
    pub domain: String,
    /// The node's metadata.
    pub metadata: Map<String, Value>,
    /// The node's cluster, as `app.namespace`.
    pub service_cluster: String,
    /// Worker threads; 0 is one for each processor.
    pub concurrency: u32,
    /// Envoy's log level.
    pub log_level: String,
    /// Envoy's log levels by component.
    pub component_log_level: String,
    /// The DNS server to use instead of the system's.
    pub dns: Option<SocketAddr>,
    /// Whether discovery is incremental (`ISTIO_DELTA_XDS`), or each answer the state of the world. Ours always is.
    pub delta: bool,
    /// Whether the control plane is asked for patches of the bootstrap (`BOOTSTRAP_XDS_AGENT`).
    pub patched_bootstrap: bool,
    /// The application's probes, which the agent answers for (`ISTIO_KUBE_APP_PROBERS`).
    pub probes: Probes,
    /// Where the application has its metrics (`ISTIO_PROMETHEUS_ANNOTATIONS`).
    pub scrape: Option<Scrape>,
}

/// The part of Istio's `ProxyConfig` that an agent acts on.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfig {
    /// `host:port` of the control plane.
    pub discovery_address: String,
    /// The folder of the bootstrap and of the discovery socket.
    pub config_path: PathBuf,
    /// The port of the proxy's admin interface.
    pub proxy_admin_port: u16,
    /// The agent's own port: readiness and merged metrics.
    pub status_port: u16,
    /// Worker threads.
    pub concurrency: Option<u32>,
    /// How long a drain of listeners takes.
    #[serde(deserialize_with = "duration")]
    pub drain_duration: Duration,
    /// How long the proxy goes on serving after SIGTERM.
    #[serde(deserialize_with = "duration")]
    pub termination_drain_duration: Duration,
    /// More environment.
    pub proxy_metadata: BTreeMap<String, String>,
    /// The Envoy binary.
    pub binary_path: String,
    /// Statistics to keep beside the usual ones.
    pub proxy_stats_matcher: StatsMatcher,
}

/// Statistics that are kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatsMatcher {
    /// By the start of the name.
    pub inclusion_prefixes: Vec<String>,
    /// By its end.
    pub inclusion_suffixes: Vec<String>,
    /// By pattern.
    pub inclusion_regexps: Vec<String>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            discovery_address: "istiod.istio-system.svc:15012".into(),
            config_path: "./etc/istio/proxy".into(),
            proxy_admin_port: 15000,
            status_port: 15020,
            concurrency: None,
            drain_duration: Duration::from_secs(45),
            termination_drain_duration: Duration::from_secs(5),
            proxy_metadata: BTreeMap::new(),
            binary_path: "envoy".into(),
            proxy_stats_matcher: StatsMatcher::default(),
        }
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A variable of the environment is missing.
    #[error("environment variable {name} is missing: {why}")]
    Missing {
        /// The variable.
        name: &'static str,
        /// What it is for.
        why: &'static str,
    },
    /// The mounted configuration of the mesh is malformed.
    #[error("{}: {reason}", .path.display())]
    Mesh {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A variable of the environment is malformed.
    #[error("environment variable {name}={value:?}: {reason}")]
    Malformed {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

/// Worker threads when nobody says how many.
const DEFAULT_CONCURRENCY: u32 = 2;

impl Settings {
    /// Reads arguments and environment, and the pod's labels and annotations under the root folder.
    ///
    /// # Errors
    /// When a variable that has no default is missing, or one is malformed.
    pub fn read(
        role: Role,
        arguments: &Arguments,
        root: PathBuf,
        env: &BTreeMap<String, String>,
    ) -> Result<Self, SettingsError> {
        let env = Environment(env);
        let config = env.proxy_config(&root)?;
        let pod = env.required("POD_NAME", "it is part of the proxy's id")?;
        let namespace = env.required("POD_NAMESPACE", "it is part of the proxy's identity")?;
        let addresses = env.addresses()?;
        let account = env.text("SERVICE_ACCOUNT").unwrap_or("default");
        let identity = SpiffeId {
            trust_domain: env.text("TRUST_DOMAIN").unwrap_or("cluster.local").to_owned(),
            namespace: namespace.clone(),
            service_account: account.to_owned(),
        };
        let ttl = env.duration("SECRET_TTL", Duration::from_secs(24 * 3600))?;
        let socket_file = env.socket_file()?;
        let dns = env.dns(addresses.first())?;
        let probes = env.parsed("ISTIO_KUBE_APP_PROBERS", Probes::parse)?.unwrap_or_default();
        let status_port = config.status_port;
        let scrape = env.parsed("ISTIO_PROMETHEUS_ANNOTATIONS", |text| Scrape::parse(text, status_port))?;
        let of_proxy = |name: &str| {
            let given = env.text(name).or(config.proxy_metadata.get(name).map(String::as_str));
            given.map(|text| text.trim().to_ascii_lowercase())
        };
        let patched_bootstrap = of_proxy("BOOTSTRAP_XDS_AGENT").is_some_and(|text| text == "true");
        let delta = of_proxy("ISTIO_DELTA_XDS").is_none_or(|text| text != "false");
        let pod_info = files::PodInfo::read(&root);
        let facts = metadata::Facts { pod: &pod, namespace: &namespace, account, addresses: &addresses };
        let metadata = metadata::of_node(env.0, &config, &pod_info, &facts);
        Ok(Self {
            role,
            pod,
            identity,
            ca_address: env.text("CA_ADDR").unwrap_or(&config.discovery_address).to_owned(),
            control_plane_name: env.text("ISTIOD_SAN").map(str::to_owned),
            certificate_ttl: ttl,
            renewal: env.renewal()?,
            certificate_files: env.certificate_files(&root)?,
            provisioned: env.provisioned(&root),
            workload_api: env.workload_api(&root)?,
            output: env.text("OUTPUT_CERTS").map(|path| root.join(files::relative(Path::new(path)))),
            socket_file: socket_file.unwrap_or("socket").to_owned(),
            needs_socket: socket_file.is_some(),
            socket_is_anothers: false,
            domain: arguments.domain.clone().unwrap_or_else(|| format!("{namespace}.svc.cluster.local")),
            service_cluster: metadata::service_cluster(&pod_info, &namespace),
            concurrency: arguments.concurrency.or(config.concurrency).unwrap_or(DEFAULT_CONCURRENCY),
            log_level: arguments.log_level.clone().unwrap_or_else(|| "warning".into()),
            component_log_level: arguments.component_log_level.clone().unwrap_or_else(|| "misc:error".into()),
            namespace,
            addresses,
            config,
            metadata,
            dns,
            patched_bootstrap,
            delta,
            probes,
            scrape: scrape.flatten(),
            root,
        })
    }

    /// The node's id: `sidecar~ADDRESS~POD.NAMESPACE~DOMAIN`.
    pub fn node_id(&self) -> String {
        format!("{}~{}~{}.{}~{}", self.role.as_str(), self.address(), self.pod, self.namespace, self.domain)
    }

    /// The pod's first address.
    pub fn address(&self) -> IpAddr {
        self.addresses.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// The address that the application binds: its own in loopback isolation, else the pod's loopback.
    pub fn application(&self) -> IpAddr {
        let own = self.metadata.get("LATEEN_APP_ADDRESS").and_then(Value::as_str);
        own.and_then(|text| text.parse().ok()).unwrap_or(match self.address() {
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        })
    }

    /// Whether many pods share this host's loopback: then every port binds the pod's own address.
    pub fn shares_loopback(&self) -> bool {
        self.address().is_loopback() && self.address() != IpAddr::from([127, 0, 0, 1])
    }

    /// The address of the proxy's admin interface.
    pub fn admin(&self) -> SocketAddr {
        let address = match self.shares_loopback() {
            true => self.address(),
            false => IpAddr::from([127, 0, 0, 1]),
        };
        SocketAddr::new(address, self.config.proxy_admin_port)
    }

    /// Where ports that other pods reach are bound.
    pub fn wildcard(&self) -> IpAddr {
        match (self.shares_loopback(), self.address()) {
            (true, address) => address,
            (false, IpAddr::V4(_)) => IpAddr::from([0, 0, 0, 0]),
            (false, IpAddr::V6(_)) => IpAddr::from([0u16; 8]),
        }
    }

    /// The agent's own port.
    pub fn status(&self) -> SocketAddr {
        SocketAddr::new(self.wildcard(), self.config.status_port)
    }

    /// The workload's socket: the agent's, unless somebody else serves it.
    pub(crate) fn workload_socket(&self) -> PathBuf {
        self.root.join("var/run/secrets/workload-spiffe-uds").join(&self.socket_file)
    }

    /// The socket on which the agent serves secrets to its proxy.
    pub fn secrets_socket(&self) -> PathBuf {
        match self.socket_is_anothers {
            false => self.workload_socket(),
            true => self.root.join(files::relative(&self.config.config_path)).join("SDS"),
        }
    }

    /// The socket on which discovery is forwarded.
    pub fn discovery_socket(&self) -> PathBuf {
        self.root.join(files::relative(&self.config.config_path)).join("XDS")
    }

    /// The bootstrap file.
    pub fn bootstrap_file(&self) -> PathBuf {
        self.root.join(files::relative(&self.config.config_path)).join("envoy-rev.json")
    }

    /// The service-account token for the control plane.
    pub fn token_file(&self) -> PathBuf {
        self.root.join("var/run/secrets/tokens/istio-token")
    }

    /// The root certificate of the control plane.
    pub fn root_certificate_file(&self) -> PathBuf {
        self.root.join("var/run/secrets/istio/root-cert.pem")
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    lateen_base::parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(extra: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = [
            ("POD_NAME", "reviews-v1-abc"),
            ("POD_NAMESPACE", "default"),
            ("INSTANCE_IP", "127.10.0.7"),
            ("SERVICE_ACCOUNT", "bookinfo-reviews"),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        env.extend(extra.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        env
    }

    fn read(extra: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::read(Role::Sidecar, &Arguments::default(), ".".into(), &env(extra))
    }

    #[test]
    fn defaults_are_istios() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.node_id(), "sidecar~127.10.0.7~reviews-v1-abc.default~default.svc.cluster.local");
        assert_eq!(settings.ca_address, "istiod.istio-system.svc:15012");
        assert_eq!(settings.identity.to_string(), "spiffe://cluster.local/ns/default/sa/bookinfo-reviews");
        assert_eq!(settings.concurrency, 2);
    }

    #[test]
    fn a_shared_loopback_binds_the_pods_address_and_asks_the_nodes_dns() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.admin().to_string(), "127.10.0.7:15000");
        assert_eq!(settings.status().to_string(), "127.10.0.7:15020");
        assert_eq!(settings.dns.unwrap().to_string(), "127.10.0.1:15053");
        let real = read(&[("INSTANCE_IP", "10.1.2.3")]).unwrap();
        assert_eq!(real.admin().to_string(), "127.0.0.1:15000");
        assert_eq!(real.status().to_string(), "0.0.0.0:15020");
        assert!(real.dns.is_none());
    }

    #[test]
    fn the_mounted_mesh_says_where_the_control_plane_is_and_the_pod_has_the_last_word() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(files::MESH);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let read = |mesh: &str, own: &str| {
            std::fs::write(&file, mesh).unwrap();
            let env = env(&[("PROXY_CONFIG", own)]);
            Settings::read(Role::Router, &Arguments::default(), root.path().to_owned(), &env)
        };
        let mesh =
            "defaultConfig:\n  discoveryAddress: istiod-canary.istio-system.svc:15012\n  concurrency: 3\n";
        let settings = read(mesh, r#"{"concurrency":4}"#).unwrap();
        assert_eq!(settings.config.discovery_address, "istiod-canary.istio-system.svc:15012");
        assert_eq!(settings.concurrency, 4);
        assert_eq!(read("rootNamespace: x", "").unwrap().config.status_port, 15020);
        let error = read("defaultConfig: {concurrency: many}", "").unwrap_err().to_string();
        assert!(error.contains("etc/istio/config/mesh"), "{error}");
    }

    #[test]
    fn proxy_config_is_read_and_errors_name_the_variable() {
        let settings = read(&[(
            "PROXY_CONFIG",
            r#"{"discoveryAddress":"istiod.mesh.svc:15012","concurrency":4,"drainDuration":"1s","tracing":{}}"#,
        )])
        .unwrap();
        assert_eq!(settings.ca_address, "istiod.mesh.svc:15012");
        assert_eq!(settings.concurrency, 4);
        for (name, value) in [
            ("PROXY_CONFIG", "{"),
            ("INSTANCE_IP", "x"),
            ("SECRET_TTL", "1 day"),
            ("SECRET_GRACE_PERIOD_RATIO", "1.5"),
            ("FILE_MOUNTED_CERTS", "yes"),
            ("WORKLOAD_IDENTITY_SOCKET_FILE", "../socket"),
            ("SPIFFE_ENDPOINT_SOCKET", "tcp://127.0.0.1:8000"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let error = read(&[("POD_NAME", "")]).unwrap_err().to_string();
        assert!(error.contains("POD_NAME is missing"), "{error}");
    }
}
