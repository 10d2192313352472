//! What a control plane is told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use lateen_base::ClusterId;
use lateen_ca::service::Policy;

/// The settings of a control plane. Addresses with port 0 take any free one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The namespace it runs in, whose configuration holds for the whole mesh.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its revision; `default` has no suffix in the names of its objects.
    pub revision: String,
    /// The cluster that it runs in.
    pub cluster: ClusterId,
    /// The DNS domain of the cluster.
    pub domain: String,
    /// The root of the files that it reads.
    pub root: PathBuf,
    /// Audiences of tokens, of which a proxy's must have one.
    pub token_audiences: Vec<String>,
    /// The lifetime of a root that it makes itself.
    pub root_lifetime: Duration,
    /// The lifetime of its own serving certificate.
    pub serving_lifetime: Duration,
    /// What is granted to workloads that ask for certificates.
    pub certificates: Policy,
    /// The age at which connections of proxies are told to come again (`--keepaliveMaxServerConnectionAge`).
    pub connection_age: Duration,
    /// How pushes are held back.
    pub debounce: Debounce,
    /// Further names of its serving certificate (`ISTIOD_CUSTOM_HOST`).
    pub custom_hosts: Vec<String>,
    /// How requests to the API server are tried again.
    pub retry: Retry,
    /// How the keys of token issuers are fetched.
    pub jwks: JwksSettings,
    /// Who may read debug endpoints.
    pub debug: DebugAccess,
    /// How much of it anybody may take up.
    pub connections: Connections,
    /// Where it listens.
    pub ports: Ports,
}

/// Who may read debug endpoints, beside the control plane's own namespace and its own pod.
#[derive(Clone, Debug)]
pub struct DebugAccess {
    /// Whether a token is wanted at all (`ENABLE_DEBUG_ENDPOINT_AUTH`).
    pub authenticated: bool,
    /// Namespaces that may read everything, too (`DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES`).
    pub namespaces: Vec<String>,
}

impl Default for DebugAccess {
    fn default() -> Self {
        Self { authenticated: true, namespaces: Vec::new() }
    }
}

/// How many connections and streams there may be at once. Of what is beyond, connections are closed, and streams answered
/// with `RESOURCE_EXHAUSTED`.
#[derive(Clone, Copy, Debug)]
pub struct Connections {
    /// Connections of a port.
    pub most: usize,
    /// Connections of a port from one address, and discovery streams from there. Proxies of another cluster may all come
    /// by the address of one gateway (`LATEEN_CONNECTIONS_PER_ADDRESS`).
    pub per_address: usize,
    /// Requests under way on one connection.
    pub streams: u32,
    /// Discovery streams of one proxy.
    pub per_proxy: usize,
    /// How long a connection may ask for nothing.
    pub first_request: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            most: 20_000,
            per_address: 2_000,
            streams: 128,
            per_proxy: 16,
            first_request: Duration::from_secs(10),
        }
    }
}

/// How the keys of token issuers are fetched.
#[derive(Clone, Debug)]
pub struct JwksSettings {
    /// When they are fetched again (`PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`).
    pub refresh: Duration,
    /// Private addresses that may be called (`LATEEN_JWKS_ALLOWED_CIDRS`).
    pub allowed: Vec<IpNet>,
    /// An HTTP proxy to call through (`HTTPS_PROXY`).
    pub proxy: Option<http::Uri>,
    /// Hosts that are called without it, and all below them (`NO_PROXY`); `*` for all.
    pub no_proxy: Vec<String>,
    /// The DNS server to ask in the place of the system's resolver (`LATEEN_DNS`).
    pub dns: Option<SocketAddr>,
}

impl Default for JwksSettings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(20 * 60),
            allowed: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            dns: None,
        }
    }
}

/// How requests to the API server are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long an answer may take.
    pub answer_within: Duration,
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            answer_within: Duration::from_secs(10),
            first: Duration::from_millis(500),
            longest: Duration::from_secs(30),
        }
    }
}

/// How long changes are collected before they are pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// The wait after a change that comes alone.
    pub first: Duration,
    /// The wait after the last of several changes (`PILOT_DEBOUNCE_AFTER`).
    pub after: Duration,
    /// The longest wait (`PILOT_DEBOUNCE_MAX`).
    pub longest: Duration,
}

/// Where a control plane listens.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Discovery in the clear.
    pub plain: SocketAddr,
    /// Discovery and certificates over TLS.
    pub secure: SocketAddr,
    /// Webhooks over TLS.
    pub webhook: SocketAddr,
    /// Readiness and debugging.
    pub debug: SocketAddr,
    /// Metrics, and the same.
    pub monitoring: SocketAddr,
    /// Levels of the log, to be shown and changed (Istio's ControlZ), by whom debug endpoints are open to.
    pub introspection: SocketAddr,
}

impl Default for Debounce {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(10),
            after: Duration::from_millis(100),
            longest: Duration::from_secs(10),
        }
    }
}

impl Ports {
    /// Istio's ports on an address.
    pub fn on(address: std::net::IpAddr) -> Self {
        let at = |port| SocketAddr::new(address, port);
        Self {
            plain: at(15010),
            secure: at(15012),
            webhook: at(15017),
            debug: at(8080),
            monitoring: at(15014),
            introspection: SocketAddr::from(([127, 0, 0, 1], 9876)),
        }
    }

    /// Any free ports of the loopback, for tests.
    pub fn free() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { plain: any, secure: any, webhook: any, debug: any, monitoring: any, introspection: any }
    }
}

impl Default for Settings {
    fn default() -> Self {
        const YEAR: u64 = 365 * 24 * 3600;
        Self {
            namespace: "istio-system".into(),
            pod: "istiod".into(),
            revision: "default".into(),
            cluster: "Kubernetes".into(),
            domain: "cluster.local".into(),
            root: "/".into(),
            token_audiences: vec!["istio-ca".into()],
            root_lifetime: Duration::from_secs(10 * YEAR),
            serving_lifetime: Duration::from_secs(YEAR),
            certificates: Policy::default(),
            connection_age: Duration::from_secs(30 * 60),
            debounce: Debounce::default(),
            custom_hosts: Vec::new(),
            retry: Retry::default(),
            jwks: JwksSettings::default(),
            debug: DebugAccess::default(),
            connections: Connections::default(),
            ports: Ports::on([0, 0, 0, 0].into()),
        }
    }
}

impl Settings {
    /// A name with the revision behind it, as the objects of a revision have it.
    pub fn revisioned(&self, name: &str) -> String {
        match self.revision.as_str() {
            "default" | "" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }

    /// The `ClusterRole` of its installation and revision, which owns what it makes in other namespaces.
    pub fn role(&self) -> String {
        format!("{}-clusterrole-{}", self.revisioned("istiod"), self.namespace)
    }

    /// The names that the serving certificate has.
    pub fn serving_names(&self) -> Vec<String> {
        let mut names =
            vec![self.revisioned("istiod"), "istiod".into(), "istiod-remote".into(), "istio-pilot".into()];
        names.dedup();
        let mut names: Vec<String> =
            names.into_iter().map(|name| format!("{name}.{}.svc", self.namespace)).collect();
        for host in &self.custom_hosts {
            if !names.contains(host) {
                names.push(host.clone());
            }
        }
        names
    }

    /// Whether an object that is labelled for a revision is for this one.
    pub fn is_for_us(&self, revision: Option<&str>) -> bool {
        revision.is_none_or(|revision| revision.is_empty() || revision == self.revision)
    }
}
