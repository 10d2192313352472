//! What the control plane's debug API says, as types that both ends share.
//!
//! `GET /debug/syncz` is a list of [`ProxySync`], `/debug/connections` one [`Connections`], `/debug/registryz` a list
//! of [`RegistryService`], `/debug/endpointz` a list of [`ServiceEndpoints`], `/debug/configz` a list of [`Config`],
//! `/debug/ca` one [`Authority`], `/version` one [`Version`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where one connected proxy stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxySync {
    /// The proxy, as `POD.NAMESPACE`.
    pub proxy: String,
    /// `sidecar`, `router`, ...
    pub proxy_type: String,
    /// The cluster it runs in.
    pub cluster_id: String,
    /// The version it says it has.
    pub istio_version: String,
    /// The control plane's pod that it is connected to.
    pub istiod: String,
    /// The form it speaks: `delta` or `sotw`.
    pub dialect: String,
    /// When it connected, RFC 3339.
    pub connected_at: String,
    /// By short name: `CDS`, `LDS`, `EDS`, `RDS`, `SDS`, `ECDS`, `NDS`.
    pub types: BTreeMap<String, TypeSync>,
    /// Whether it loads clusters on demand; absent where nobody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scoping: Option<Scoping>,
}

/// What a proxy has of its clusters, where it is to load them on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scoping {
    /// Why it cannot, so that it has all of them; empty where it does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub obstacle: String,
    /// How many clusters it may have.
    pub clusters: usize,
    /// How many of them it has from the start.
    pub at_start: usize,
    /// Those that it has loaded.
    pub loaded: Vec<String>,
    /// Those that it asked for and that do not exist for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Where one type of one proxy stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TypeSync {
    /// In a word.
    pub state: SyncState,
    /// The last response that was sent.
    pub sent: String,
    /// The last response that was answered.
    pub acked: String,
    /// How many resources the proxy holds.
    pub resources: usize,
    /// What it refuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
}

/// istioctl's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyncState {
    /// Everything that was sent is in use.
    #[serde(rename = "SYNCED")]
    Synced,
    /// Nothing was sent.
    #[serde(rename = "NOT SENT")]
    NotSent,
    /// An answer is awaited.
    #[serde(rename = "STALE")]
    Stale,
    /// Something was refused.
    #[serde(rename = "ERROR")]
    Error,
}

impl SyncState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "SYNCED",
            Self::NotSent => "NOT SENT",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}

/// A resource that a proxy refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its name; empty when the proxy named none.
    pub resource: String,
    /// The proxy's words.
    pub reason: String,
}

/// The proxies that are connected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// How many.
    pub total_clients: usize,
    /// Each.
    pub clients: Vec<Connection>,
}

/// A connected proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its node id.
    pub connection_id: String,
    /// When it connected, RFC 3339.
    pub connected_at: String,
    /// Where from.
    pub address: String,
}

/// A service of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryService {
    /// Its host.
    pub hostname: String,
    /// Its namespace.
    pub namespace: String,
    /// `Kubernetes` or `ServiceEntry`.
    pub registry: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<RegistryPort>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegistryPort {
    /// Its name.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// What is spoken.
    pub protocol: String,
}

/// The endpoints of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceEndpoints {
    /// The host.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// `address:port` and what is known of each.
    pub endpoints: Vec<EndpointInfo>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// Its address.
    pub address: String,
    /// The name of the service's port.
    pub port: String,
    /// Its cluster.
    pub cluster: String,
    /// Its network.
    pub network: String,
    /// Its locality.
    pub locality: String,
    /// Whether it takes traffic.
    pub health: String,
    /// The identity that answers there.
    pub identity: String,
}

/// An Istio object that the control plane holds, or why it does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The kind.
    pub kind: String,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version of the API server.
    pub resource_version: String,
    /// Why its newest version is not used; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rejected: String,
    /// What it says, as far as it is used.
    pub spec: serde_json::Value,
}

/// The control plane's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Lateen's version.
    pub version: String,
    /// The revision it runs as.
    pub revision: String,
    /// Its pod.
    pub pod: String,
}

/// The certificate authority that a control plane uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Where it was found, in words.
    pub source: String,
    /// The secret that it is in, as `NAMESPACE/NAME`.
    pub secret: String,
    /// When its signing certificate runs out, RFC 3339.
    pub signs_until: String,
    /// The root that what it signs leads to.
    pub root: RootCertificate,
    /// The roots that workloads are told to trust.
    pub roots: Vec<RootCertificate>,
    /// Why the newest version of its source is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// A root certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootCertificate {
    /// The subject, as RFC 2253 writes it.
    pub subject: String,
    /// The serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of the certificate, hexadecimal.
    pub sha256: String,
    /// When it runs out, RFC 3339.
    pub not_after: String,
}
