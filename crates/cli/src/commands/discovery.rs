//! `lateen discovery`: the control plane, with pilot-discovery's flags and environment.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lateen_base::{SystemClock, parse_duration};
use lateen_ca::service::Policy;
use lateen_control::{
    Connections, Control, Debounce, DebugAccess, Deps, JwksSettings, Ports, Settings, watch,
};
use lateen_kube::{Access, Client};

use super::{CliError, Outcome};
use crate::globals::Globals;

/// Arguments of `lateen discovery`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Address of discovery in the clear
    #[arg(long = "grpcAddr", default_value = ":15010", value_name = "ADDRESS")]
    grpc: String,
    /// Address of discovery and certificates over TLS
    #[arg(long = "secureGRPCAddr", default_value = ":15012", value_name = "ADDRESS")]
    secure_grpc: String,
    /// Address of the webhooks
    #[arg(long = "httpsAddr", default_value = ":15017", value_name = "ADDRESS")]
    https: String,
    /// Address of readiness and debugging
    #[arg(long = "httpAddr", default_value = ":8080", value_name = "ADDRESS")]
    http: String,
    /// Address of metrics
    #[arg(long = "monitoringAddr", default_value = ":15014", value_name = "ADDRESS")]
    monitoring: String,
    /// DNS domain of the cluster
    #[arg(long, default_value = "cluster.local")]
    domain: String,
    /// Levels of logs, as scope:level,...
    #[arg(long = "log_output_level", value_name = "LEVELS")]
    log_output_level: Option<String>,
    /// Logs as JSON
    #[arg(long = "log_as_json")]
    log_as_json: bool,
    /// Identity of the cluster it runs in
    #[arg(long = "clusterID", env = "CLUSTER_ID", default_value = "Kubernetes", value_name = "ID")]
    cluster_id: String,
    /// Revision of this control plane
    #[arg(long, env = "REVISION", default_value = "default")]
    revision: String,
    /// Name of its pod
    #[arg(long = "podName", env = "POD_NAME", default_value = "istiod", hide = true)]
    pod: String,
    /// Namespace of its pod
    #[arg(long = "podNamespace", env = "POD_NAMESPACE", hide = true)]
    pod_namespace: Option<String>,
    /// Audiences of tokens
    #[arg(long, env = "TOKEN_AUDIENCES", default_value = "istio-ca", value_delimiter = ',', hide = true)]
    token_audiences: Vec<String>,
    /// Wait after the last of several changes before they are pushed
    #[arg(long, env = "PILOT_DEBOUNCE_AFTER", default_value = "100ms", value_parser = parse_duration, hide = true)]
    debounce_after: Duration,
    /// Longest wait before changes are pushed
    #[arg(long, env = "PILOT_DEBOUNCE_MAX", default_value = "10s", value_parser = parse_duration, hide = true)]
    debounce_max: Duration,
    /// Age at which connections of proxies are told to come again
    #[arg(long = "keepaliveMaxServerConnectionAge", default_value = "30m", value_parser = parse_duration, value_name = "DURATION")]
    connection_age: Duration,
    /// Lifetime of a root certificate that it makes
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", default_value = "87600h", value_parser = parse_duration, hide = true)]
    root_lifetime: Duration,
    /// Lifetime of a workload's certificate when none is asked for
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = parse_duration, hide = true)]
    certificate_ttl: Duration,
    /// Longest lifetime of a workload's certificate
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = parse_duration, hide = true)]
    longest_certificate_ttl: Duration,
    /// Further names of its serving certificate
    #[arg(long, env = "ISTIOD_CUSTOM_HOST", value_delimiter = ',', hide = true)]
    custom_hosts: Vec<String>,
    /// When keys of token issuers are fetched again
    #[arg(long, env = "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", default_value = "20m", value_parser = parse_duration, hide = true)]
    jwks_refresh: Duration,
    /// Private addresses from which keys of token issuers may be fetched
    #[arg(long, env = "LATEEN_JWKS_ALLOWED_CIDRS", value_delimiter = ',', hide = true)]
    jwks_allowed: Vec<ipnet::IpNet>,
    /// HTTP proxy through which keys of token issuers are fetched
    #[arg(long, env = "HTTPS_PROXY", hide = true)]
    https_proxy: Option<String>,
    /// Hosts that are called without it
    #[arg(long, env = "NO_PROXY", value_delimiter = ',', hide = true)]
    no_proxy: Vec<String>,
    /// DNS server to ask for the names of token issuers
    #[arg(long, env = "LATEEN_DNS", hide = true)]
    dns: Option<SocketAddr>,
    /// Whether debug endpoints want a token
    #[arg(long, env = "ENABLE_DEBUG_ENDPOINT_AUTH", default_value_t = true, action = clap::ArgAction::Set, hide = true)]
    debug_endpoint_auth: bool,
    /// Namespaces whose tokens may read all debug endpoints
    #[arg(long, env = "DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES", value_delimiter = ',', hide = true)]
    debug_namespaces: Vec<String>,
    /// Connections that a port takes from one address
    #[arg(long, env = "LATEEN_CONNECTIONS_PER_ADDRESS", default_value_t = Connections::default().per_address, hide = true)]
    connections_per_address: usize,
    /// Root of the pod's files
    #[arg(long, env = "LATEEN_POD_ROOT", default_value = "/", hide = true)]
    pod_root: PathBuf,
    /// Port where levels of the log are shown and changed (/scopej)
    #[arg(long = "ctrlz_port", default_value_t = 9876, value_name = "PORT")]
    ctrlz_port: u16,
    /// Address of that port; the pod's loopback when not given
    #[arg(long = "ctrlz_address", value_name = "ADDRESS", value_parser = loopback_or_address)]
    ctrlz_address: Option<IpAddr>,
    /// Address for ports whose flag names none
    #[arg(long, env = "LATEEN_BIND_ADDRESS", default_value = "0.0.0.0", hide = true)]
    bind_address: IpAddr,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let logs =
            lateen_runtime::logs::Config { levels: self.log_output_level.clone(), json: self.log_as_json };
        lateen_runtime::logs::init(&logs).map_err(CliError::new)?;
        let settings = self.settings(globals)?;
        let access = access(&settings, globals);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::new)?;
        runtime.block_on(async {
            let client = Client::connect(&access).await.map_err(CliError::new)?;
            let deps = Deps {
                inputs: watch(&client, &settings),
                cluster: Arc::new(client),
                clock: Arc::new(SystemClock),
            };
            tokio::select! {
                started = Control::start(settings, deps) => {
                    let control = started.map_err(CliError::new)?;
                    let signal = lateen_runtime::signals::terminated().await.map_err(CliError::new)?;
                    tracing::info!("{signal}: shutting down");
                    control.stop().await;
                    Ok(ExitCode::SUCCESS)
                }
                signal = lateen_runtime::signals::terminated() => {
                    tracing::info!("{}: shutting down before the cluster was read", signal.map_err(CliError::new)?);
                    Ok(ExitCode::SUCCESS)
                }
            }
        })
    }

    /// Where nothing else is said the pod's own loopback, which port-forward reaches; a pod without a loopback of its own
    /// has but its address.
    fn introspection_address(&self) -> IpAddr {
        match self.ctrlz_address {
            Some(address) => address,
            None if self.bind_address.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            None => self.bind_address,
        }
    }

    fn settings(&self, globals: &Globals) -> Result<Settings, CliError> {
        let at = |flag: &str, text: &str| address(flag, text, self.bind_address);
        Ok(Settings {
            namespace: self.pod_namespace.clone().unwrap_or_else(|| globals.istio_namespace.clone()),
            pod: self.pod.clone(),
            revision: self.revision.clone(),
            cluster: self.cluster_id.as_str().into(),
            domain: self.domain.clone(),
            root: self.pod_root.clone(),
            token_audiences: self.token_audiences.clone(),
            root_lifetime: self.root_lifetime,
            certificates: Policy {
                default_ttl: self.certificate_ttl,
                longest_ttl: self.longest_certificate_ttl,
                ..Policy::default()
            },
            custom_hosts: self.custom_hosts.iter().filter(|host| !host.is_empty()).cloned().collect(),
            connection_age: self.connection_age,
            debounce: Debounce {
                after: self.debounce_after,
                longest: self.debounce_max,
                ..Debounce::default()
            },
            jwks: JwksSettings {
                refresh: self.jwks_refresh,
                allowed: self.jwks_allowed.clone(),
                proxy: self.proxy()?,
                no_proxy: self.no_proxy.iter().filter(|host| !host.is_empty()).cloned().collect(),
                dns: self.dns,
            },
            debug: DebugAccess {
                authenticated: self.debug_endpoint_auth,
                namespaces: self.debug_namespaces.iter().map(|name| name.trim().to_owned()).collect(),
            },
            connections: Connections { per_address: self.connections_per_address, ..Connections::default() },
            ports: Ports {
                plain: at("--grpcAddr", &self.grpc)?,
                secure: at("--secureGRPCAddr", &self.secure_grpc)?,
                webhook: at("--httpsAddr", &self.https)?,
                debug: at("--httpAddr", &self.http)?,
                monitoring: at("--monitoringAddr", &self.monitoring)?,
                introspection: SocketAddr::new(self.introspection_address(), self.ctrlz_port),
            },
            ..Settings::default()
        })
    }
}

impl Cmd {
    fn proxy(&self) -> Result<Option<http::Uri>, CliError> {
        let Some(text) = self.https_proxy.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let uri = text.parse().map_err(|error| CliError::new(format!("HTTPS_PROXY={text}: {error}")));
        uri.map(Some)
    }
}

/// By the kubeconfig that somebody named; else as the pod that this is.
fn access(settings: &Settings, globals: &Globals) -> Access {
    match globals.kubeconfig.is_some() || globals.context.is_some() {
        true => Access::Kubeconfig { path: globals.kubeconfig.clone(), context: globals.context.clone() },
        false => Access::Pod { root: settings.root.clone() },
    }
}

fn loopback_or_address(text: &str) -> Result<IpAddr, std::net::AddrParseError> {
    if text == "localhost" { Ok(IpAddr::from([127, 0, 0, 1])) } else { text.parse() }
}

/// `:PORT` or `ADDRESS:PORT`.
fn address(flag: &str, text: &str, default: IpAddr) -> Result<SocketAddr, CliError> {
    let bad = || CliError::new(format!("{flag}={text}: write :PORT or ADDRESS:PORT"));
    match text.strip_prefix(':') {
        Some(port) => Ok(SocketAddr::new(default, port.parse().map_err(|_| bad())?)),
        None => text.parse().map_err(|_| bad()),
    }
}
