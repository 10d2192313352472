//! The proxy that configuration is made for: who it is, where it is, and what it can do.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lateen_base::{ClusterId, Labels, Locality, Namespace, Network};
use lateen_proto::envoy::config::core::v3::Node;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

/// The kind of a proxy, which decides the generator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProxyKind {
    /// Beside a workload.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
}

impl ProxyKind {
    /// The word in node ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        }
    }
}

/// How the workload's traffic gets into the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interception {
    /// The kernel redirects connections.
    #[default]
    Redirect,
    /// The kernel hands connections over, source address kept.
    Tproxy,
    /// It does not: the workload has to be told.
    None,
}

/// Why a proxy's identity could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The node id is not of Istio's form.
    #[error("node id {0:?} is not of the form TYPE~IP~POD.NAMESPACE~DOMAIN, TYPE one of sidecar, router")]
    Id(String),
    /// The type is none that configuration can be made for.
    #[error("proxy type {0:?} is not supported: use sidecar or router")]
    Kind(String),
    /// The identity is not a JSON object.
    #[error(
        "a proxy is described by a JSON object with type, id, ipAddresses, configNamespace, dnsDomain, labels, metadata"
    )]
    Shape,
}

/// A proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proxy {
    /// Its kind.
    pub kind: ProxyKind,
    /// Its name: `POD.NAMESPACE`.
    pub id: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The namespace whose configuration it has.
    pub namespace: Namespace,
    /// The domain that short names are completed by: `NAMESPACE.svc.cluster.local`.
    pub dns_domain: String,
    /// Its workload's labels.
    pub labels: Labels,
    /// What else it says.
    pub metadata: Metadata,
    /// Where it runs, as it says itself.
    pub locality: Locality,
    /// The extensions that it has, by name.
    pub extensions: BTreeSet<String>,
    /// Whether it speaks state-of-the-world discovery, in which nothing can be asked for beside everything.
    pub state_of_the_world: bool,
    /// Whether it loads clusters on demand; [`crate::Scoping`] decides, when resources are made.
    pub(crate) loads_on_demand: bool,
}

/// What a proxy says about itself: the `ISTIO_META_` environment of its agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// The namespace of its pod.
    pub namespace: Namespace,
    /// The cluster it is in.
    pub cluster: ClusterId,
    /// The network it is in.
    pub network: Network,
    /// The networks it wants endpoints of; empty means all.
    pub network_view: BTreeSet<Network>,
    /// The service account of its pod.
    pub service_account: String,
    /// The name of its workload.
    pub workload: String,
    /// The node it is on.
    pub node: String,
    /// How traffic gets in.
    pub interception: Interception,
    /// Whether the agent answers DNS.
    pub dns_capture: bool,
    /// Whether hosts without address get one.
    pub dns_auto_allocate: bool,
    /// Whether HTTP/1.0 is taken.
    pub http10: bool,
    /// The port of the HTTP proxy that applications are told of; 0 for none.
    pub http_proxy_port: u16,
    /// Where the application listens, in loopback isolation.
    pub app_address: Option<IpAddr>,
    /// Whether ports below 1024 cannot be bound.
    pub unprivileged: bool,
    /// When idle connections end, as Istio's metadata has it.
    pub idle_timeout: String,
    /// The version of Istio that it is of.
    pub istio_version: String,
    /// Its generator.
    pub generator: String,
    /// File of the certificate that servers of mode ISTIO_MUTUAL use in the place of the agent's.
    pub tls_server_cert_chain: String,
    /// File of its key.
    pub tls_server_key: String,
    /// File of the roots that it trusts clients by.
    pub tls_server_root_cert: String,
    /// File of the certificate that clients of mode ISTIO_MUTUAL use in the place of the agent's.
    pub tls_client_cert_chain: String,
    /// File of its key.
    pub tls_client_key: String,
    /// File of the roots that it trusts servers by.
    pub tls_client_root_cert: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its own proxy configuration.
    pub proxy_config: Option<Value>,
    /// Everything it said, by the names it used.
    pub raw: Map<String, Value>,
}

impl Proxy {
    /// Reads `{type, id, ipAddresses, configNamespace, dnsDomain, labels, metadata, locality, extensions, dialect}`, each
    /// optional, as the offline commands take it.
    ///
    /// # Errors
    /// When it is no object, or the type is unknown.
    pub fn from_json(json: &Value) -> Result<Self, ProxyError> {
        let object = json.as_object().ok_or(ProxyError::Shape)?;
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let metadata = Metadata::read(object.get("metadata").and_then(Value::as_object));
        let mut labels = labels_of(object.get("labels"));
        if labels.is_empty() {
            labels = metadata.labels();
        }
        let words = |key: &str| {
            let list = object.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let (id, given) = (text("id"), text("configNamespace"));
        let from_id = id.rsplit_once('.').map(|(_, namespace)| Namespace::new(namespace));
        let namespace = match (given.is_empty(), metadata.namespace.is_empty()) {
            (false, _) => Namespace::new(given),
            (true, false) => metadata.namespace.clone(),
            (true, true) => from_id.unwrap_or_else(|| "default".into()),
        };
        let dns_domain = match text("dnsDomain") {
            domain if domain.is_empty() => format!("{namespace}.svc.cluster.local"),
            domain => domain,
        };
        Ok(Self {
            kind: kind_of(&text("type"))?,
            addresses: words("ipAddresses").iter().filter_map(|ip| ip.parse().ok()).collect(),
            locality: locality_of(object.get("locality")).unwrap_or_default(),
            extensions: words("extensions").into_iter().collect(),
            state_of_the_world: text("dialect") == "sotw",
            loads_on_demand: false,
            id,
            namespace,
            dns_domain,
            labels,
            metadata,
        })
    }

    /// Reads the node that a proxy presents over xDS.
    ///
    /// # Errors
    /// When its id is not of Istio's form, or the type is unknown.
    pub fn from_node(node: &Node) -> Result<Self, ProxyError> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, address, id, domain] = parts[..] else { return Err(ProxyError::Id(node.id.clone())) };
        let raw = node.metadata.as_ref().map(struct_to_json).unwrap_or_default();
        let metadata = Metadata::read(Some(&raw));
        let from_id = id.rsplit_once('.').map(|(_, namespace)| namespace).unwrap_or_default();
        let namespace = match metadata.namespace.is_empty() {
            true => Namespace::new(from_id),
            false => metadata.namespace.clone(),
        };
        let mut addresses: Vec<IpAddr> = address.parse().into_iter().collect();
        let more = raw.get("INSTANCE_IPS").and_then(Value::as_str).unwrap_or_default();
        addresses.extend(more.split(',').filter_map(|ip| ip.trim().parse::<IpAddr>().ok()));
        let mut seen = BTreeSet::new();
        addresses.retain(|ip| seen.insert(*ip));
        let locality = node.locality.as_ref().map(|l| Locality {
            region: l.region.clone(),
            zone: l.zone.clone(),
            subzone: l.sub_zone.clone(),
        });
        Ok(Self {
            kind: kind_of(kind)?,
            id: id.to_owned(),
            addresses,
            namespace,
            dns_domain: domain.to_owned(),
            labels: metadata.labels(),
            locality: locality.unwrap_or_default(),
            extensions: node.extensions.iter().map(|extension| extension.name.clone()).collect(),
            state_of_the_world: false,
            loads_on_demand: false,
            metadata,
        })
    }

    /// What of the proxy others may share: these labels, no name, no place, and no addresses unless they matter.
    pub(crate) fn shared(&self, labels: Labels, with_address: bool) -> Self {
        let metadata = &self.metadata;
        let anywhere = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut addresses: Vec<IpAddr> = match with_address {
            true => self.addresses.clone(),
            false => self.addresses.iter().map(anywhere).collect(),
        };
        addresses.dedup();
        Self {
            id: if with_address { self.id.clone() } else { String::new() },
            addresses,
            labels,
            locality: Locality::default(),
            metadata: Metadata {
                node: String::new(),
                service_account: String::new(),
                istio_version: String::new(),
                generator: String::new(),
                annotations: BTreeMap::new(),
                raw: Map::new(),
                ..metadata.clone()
            },
            kind: self.kind,
            namespace: self.namespace.clone(),
            dns_domain: self.dns_domain.clone(),
            extensions: self.extensions.clone(),
            state_of_the_world: false,
            loads_on_demand: self.loads_on_demand,
        }
    }

    /// A number by which proxies that differ can mostly be told apart.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        let metadata = &self.metadata;
        (self.kind, &self.id, &self.addresses, &self.namespace, &self.labels).hash(&mut hasher);
        (&metadata.cluster, &metadata.network, &metadata.workload, &self.extensions).hash(&mut hasher);
        self.loads_on_demand.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether it is a gateway.
    pub fn is_router(&self) -> bool {
        self.kind == ProxyKind::Router
    }

    /// Whether it lives in loopback isolation: its application has an address of its own.
    pub fn is_loopback(&self) -> bool {
        self.metadata.app_address.is_some() || (self.metadata.http_proxy_port != 0 && !self.captures())
    }

    /// Whether the kernel hands it the workload's traffic.
    pub fn captures(&self) -> bool {
        self.kind == ProxyKind::Sidecar && self.metadata.interception != Interception::None
    }

    /// Whether it has an extension.
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.contains(name)
    }

    /// Whether it has addresses of IPv4 (or says nothing).
    pub fn is_ipv4(&self) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(IpAddr::is_ipv4)
    }

    /// Whether it has addresses of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// The address to bind for all addresses, in the family that comes first.
    pub fn wildcard(&self) -> &'static str {
        match self.is_ipv4() {
            true => "0.0.0.0",
            false => "::",
        }
    }

    /// The loopback address of the family that comes first.
    pub fn localhost(&self) -> &'static str {
        match self.is_ipv4() {
            true => "127.0.0.1",
            false => "::1",
        }
    }
}

impl Metadata {
    /// Reads metadata by either of its spellings: `ClusterID` and `CLUSTER_ID`, values as texts, booleans or numbers.
    fn read(raw: Option<&Map<String, Value>>) -> Self {
        let Some(raw) = raw else { return Self::default() };
        let by_name: BTreeMap<String, &Value> = raw.iter().map(|(key, value)| (plain(key), value)).collect();
        let value = |key: &str| by_name.get(key).copied();
        let text = |key: &str| value(key).map(text_of).unwrap_or_default();
        let flag = |key: &str| value(key).is_some_and(is_true);
        Self {
            namespace: Namespace::new(text("namespace")),
            cluster: ClusterId::new(text("clusterid")),
            network: Network::new(text("network")),
            network_view: words_of(value("requestednetworkview")).into_iter().map(Network::from).collect(),
            service_account: text("serviceaccount"),
            workload: text("workloadname"),
            node: text("nodename"),
            interception: match text("interceptionmode").as_str() {
                "NONE" => Interception::None,
                "TPROXY" => Interception::Tproxy,
                _ => Interception::Redirect,
            },
            dns_capture: flag("dnscapture"),
            dns_auto_allocate: flag("dnsautoallocate"),
            http10: flag("http10"),
            http_proxy_port: text("httpproxyport").parse().unwrap_or(0),
            app_address: text("lateenappaddress").parse().ok(),
            unprivileged: flag("unprivilegedpod"),
            idle_timeout: text("idletimeout"),
            istio_version: text("istioversion"),
            generator: text("generator"),
            tls_server_cert_chain: text("tlsservercertchain"),
            tls_server_key: text("tlsserverkey"),
            tls_server_root_cert: text("tlsserverrootcert"),
            tls_client_cert_chain: text("tlsclientcertchain"),
            tls_client_key: text("tlsclientkey"),
            tls_client_root_cert: text("tlsclientrootcert"),
            annotations: labels_of(value("annotations")).0,
            proxy_config: value("proxyconfig").filter(|v| v.is_object()).cloned(),
            raw: raw.clone(),
        }
    }

    /// What it said under exactly this name, as text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        self.raw.get(key).map(text_of)
    }

    fn labels(&self) -> Labels {
        let labels = self.raw.iter().find(|(key, _)| plain(key) == "labels");
        labels_of(labels.map(|(_, value)| value))
    }
}

/// A name without what the two spellings differ in.
fn plain(key: &str) -> String {
    key.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) => match number.as_f64() {
            // Metadata travels as protobuf's Struct, in which every number is a double.
            Some(float) if float.fract() == 0.0 => format!("{float:.0}"),
            _ => number.to_string(),
        },
        _ => String::new(),
    }
}

fn is_true(value: &Value) -> bool {
    matches!(text_of(value).as_str(), "true" | "1" | "True" | "TRUE" | "t")
}

fn words_of(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(list)) => list.iter().map(text_of).filter(|word| !word.is_empty()).collect(),
        Some(Value::String(text)) => {
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn labels_of(value: Option<&Value>) -> Labels {
    let object = value.and_then(Value::as_object).into_iter().flatten();
    object.map(|(key, value)| (key.clone(), text_of(value))).collect()
}

fn locality_of(value: Option<&Value>) -> Option<Locality> {
    match value? {
        Value::String(text) => text.parse().ok(),
        object => serde_json::from_value(object.clone()).ok(),
    }
}

fn kind_of(word: &str) -> Result<ProxyKind, ProxyError> {
    match word {
        "" | "sidecar" => Ok(ProxyKind::Sidecar),
        "router" => Ok(ProxyKind::Router),
        other => Err(ProxyError::Kind(other.to_owned())),
    }
}

fn struct_to_json(message: &lateen_proto::Struct) -> Map<String, Value> {
    message.fields.iter().map(|(key, value)| (key.clone(), value_to_json(value))).collect()
}

fn value_to_json(value: &lateen_proto::Value) -> Value {
    use lateen_proto::value::Kind;
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => Value::from(*number),
        Some(Kind::StringValue(text)) => Value::from(text.as_str()),
        Some(Kind::BoolValue(flag)) => Value::from(*flag),
        Some(Kind::StructValue(object)) => Value::Object(struct_to_json(object)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value_to_json).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_spellings_and_all_types_are_read() {
        for metadata in [
            json!({"Namespace": "a", "ClusterID": "c1", "DNSCapture": true, "InterceptionMode": "NONE", "HTTPProxyPort": "15007"}),
            json!({"NAMESPACE": "a", "CLUSTER_ID": "c1", "DNS_CAPTURE": "true", "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": 15007.0}),
        ] {
            let proxy = Proxy::from_json(&json!({"ipAddresses": ["1.1.1.1"], "metadata": metadata})).unwrap();
            assert_eq!(proxy.namespace, "a".into());
            assert_eq!(proxy.metadata.cluster, "c1".into());
            assert!(proxy.metadata.dns_capture && proxy.is_loopback());
            assert_eq!(proxy.metadata.http_proxy_port, 15007);
            assert_eq!(proxy.dns_domain, "a.svc.cluster.local");
        }
    }

    #[test]
    fn node_ids_are_istios() {
        let node =
            Node { id: "sidecar~10.0.0.1~web-0.shop~shop.svc.cluster.local".into(), ..Node::default() };
        let proxy = Proxy::from_node(&node).unwrap();
        assert_eq!((proxy.id.as_str(), proxy.namespace.as_str()), ("web-0.shop", "shop"));
        for bad in ["", "sidecar~x", "ztunnel~10.0.0.1~a.b~c"] {
            let node = Node { id: bad.into(), ..Node::default() };
            assert!(Proxy::from_node(&node).is_err(), "{bad}");
        }
    }
}
