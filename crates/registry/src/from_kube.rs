//! Kubernetes objects as services, workloads, endpoints and gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lateen_base::{ClusterId, Host, Labels, Locality, Namespace, Network, ObjectRef, SpiffeId};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::kube_objects::{self as kube, IntOrString, ObjectMeta};
use crate::network::{GATEWAY_PORT, GATEWAY_PORT_LABEL, NETWORK_LABEL};
use crate::{
    Endpoint, EndpointAddress, ExportTo, Health, Port, Protocol, Resolution, Service, Settings, Source,
    TargetPort, Workload, WorkloadSource, workload,
};

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const OLD_REGION: &str = "failure-domain.beta.kubernetes.io/region";
const OLD_ZONE: &str = "failure-domain.beta.kubernetes.io/zone";
const SUBZONE: &str = "topology.istio.io/subzone";
const CLUSTER_LABEL: &str = "topology.istio.io/cluster";
const LOCALITY_LABEL: &str = "topology.istio.io/locality";
const OLD_LOCALITY_LABEL: &str = "istio-locality";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
pub(crate) const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const NODE_SELECTOR: &str = "traffic.istio.io/nodeSelector";

/// The host of a Kubernetes service.
pub(crate) fn host_of(name: &str, namespace: &str, domain: &str) -> Host {
    Host::new(format!("{name}.{namespace}.svc.{domain}"))
}

/// Seconds since 1970, or 0 where the text is missing or no RFC 3339.
pub(crate) fn seconds(timestamp: Option<&str>) -> i64 {
    timestamp.and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok()).map_or(0, OffsetDateTime::unix_timestamp)
}

/// One service out of its objects in several clusters; the first one decides all but the addresses.
pub(crate) fn service(objects: &[(ClusterId, &kube::Service)], settings: &Settings) -> Option<Service> {
    let (_, first) = objects.first()?;
    let (meta, spec) = (&first.metadata, &first.spec);
    let headless = spec.cluster_ip == "None";
    let alias = (spec.kind == "ExternalName" && !spec.external_name.is_empty())
        .then(|| Host::new(&spec.external_name));
    let addresses: BTreeMap<ClusterId, Vec<String>> =
        objects.iter().map(|(cluster, object)| (cluster.clone(), cluster_addresses(&object.spec))).collect();
    let annotation = |key: &str| meta.annotations.get(key).map(String::as_str);
    Some(Service {
        host: host_of(&meta.name, &meta.namespace, &settings.domain),
        namespace: Namespace::new(&meta.namespace),
        name: meta.name.clone(),
        source: Source::Kubernetes,
        object: ObjectRef {
            kind: "Service".to_owned(),
            namespace: Namespace::new(&meta.namespace),
            name: meta.name.clone(),
        },
        ports: spec.ports.iter().map(port).collect(),
        targets: spec.ports.iter().filter_map(target).collect(),
        default_addresses: cluster_addresses(spec),
        addresses,
        allocated: Vec::new(),
        resolution: match (&alias, headless) {
            (Some(_), _) => Resolution::Alias,
            (None, true) => Resolution::None,
            (None, false) => Resolution::Static,
        },
        mesh_external: false,
        export_to: annotation("networking.istio.io/exportTo")
            .map(|text| ExportTo::parse(text.split(',')))
            .unwrap_or_default(),
        labels: meta.labels.clone(),
        created: objects.iter().map(|(_, o)| seconds(o.metadata.creation_timestamp.as_deref())).min()?,
        clusters: objects.iter().map(|(cluster, _)| cluster.clone()).collect(),
        selector: spec.selector.clone(),
        alias_of: alias,
        subject_alt_names: declared_accounts(meta, settings),
        publish_not_ready: spec.publish_not_ready_addresses,
        node_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        traffic_distribution: spec
            .traffic_distribution
            .clone()
            .or_else(|| annotation("networking.istio.io/traffic-distribution").map(str::to_owned)),
    })
}

fn port(port: &kube::ServicePort) -> Port {
    Port {
        name: port.name.clone(),
        number: port.port,
        protocol: Protocol::of_service_port(
            &port.protocol,
            port.port,
            &port.name,
            port.app_protocol.as_deref(),
        ),
    }
}

fn target(port: &kube::ServicePort) -> Option<(u16, TargetPort)> {
    let target = match port.target_port.as_ref()? {
        IntOrString::Int(0) => return None,
        other => other.number().map_or_else(|| name_of(other), TargetPort::Number),
    };
    Some((port.port, target))
}

fn name_of(port: &IntOrString) -> TargetPort {
    match port {
        IntOrString::Int(number) => TargetPort::Number(*number),
        IntOrString::String(name) => TargetPort::Name(name.clone()),
    }
}

fn cluster_addresses(spec: &kube::ServiceSpec) -> Vec<String> {
    if spec.cluster_ip == "None" || spec.kind == "ExternalName" {
        return Vec::new();
    }
    let all = match spec.cluster_ips.is_empty() {
        true => std::slice::from_ref(&spec.cluster_ip),
        false => &spec.cluster_ips[..],
    };
    all.iter().filter(|address| !address.is_empty()).cloned().collect()
}

/// Identities that annotations name: Kubernetes accounts by name, or whole identities.
fn declared_accounts(meta: &ObjectMeta, settings: &Settings) -> BTreeSet<String> {
    let words = |key: &str| meta.annotations.get(key).map(String::as_str).unwrap_or_default().split(',');
    let kube = words("alpha.istio.io/kubernetes-serviceaccounts")
        .filter(|name| !name.is_empty())
        .map(|name| identity(settings, &meta.namespace, name));
    let whole = words("alpha.istio.io/canonical-serviceaccounts")
        .filter(|name| !name.is_empty())
        .map(|name| if name.contains("://") { name.to_owned() } else { format!("spiffe://{name}") });
    kube.chain(whole).collect()
}

/// The identity of a service account.
pub(crate) fn identity(settings: &Settings, namespace: &str, account: &str) -> String {
    SpiffeId {
        trust_domain: settings.trust_domain.clone(),
        namespace: namespace.to_owned(),
        service_account: account.to_owned(),
    }
    .to_string()
}

/// Where a workload runs: its own label, else its node's.
pub(crate) fn locality(labels: &Labels, node: Option<&kube::Node>) -> Locality {
    let own = labels.value(LOCALITY_LABEL).or_else(|| labels.value(OLD_LOCALITY_LABEL));
    if let Some(text) = own.filter(|text| !text.is_empty()) {
        // A label cannot hold a slash, so dots stand for it; a text with slashes is taken as it is.
        let text = if text.contains('/') { text.to_owned() } else { text.replace('.', "/") };
        return text.parse().unwrap_or_default();
    }
    let Some(node) = node else { return Locality::default() };
    let label = |key: &str, old: &str| {
        let labels = &node.metadata.labels;
        labels.value(key).or_else(|| labels.value(old)).unwrap_or_default().to_owned()
    };
    Locality { region: label(REGION, OLD_REGION), zone: label(ZONE, OLD_ZONE), subzone: label(SUBZONE, "") }
}

/// The labels by which subsets and failover may choose: the workload's own, and where it is.
pub(crate) fn augmented(
    labels: &Labels,
    cluster: &ClusterId,
    locality: &Locality,
    network: &Network,
    node: &str,
) -> Labels {
    let mut all = labels.clone();
    let place = [
        (REGION, locality.region.as_str()),
        (ZONE, &locality.zone),
        (SUBZONE, &locality.subzone),
        (CLUSTER_LABEL, cluster.as_str()),
        (HOSTNAME_LABEL, node),
    ];
    for (key, value) in place.into_iter().filter(|(_, value)| !value.is_empty()) {
        all.0.insert(key.to_owned(), value.to_owned());
    }
    if !network.is_empty() {
        all.0.entry(NETWORK_LABEL.to_owned()).or_insert_with(|| network.to_string());
    }
    all
}

/// A pod as a workload. `None` for pods that have ended.
pub(crate) fn workload(
    pod: &kube::Pod,
    node: Option<&kube::Node>,
    cluster: &ClusterId,
    network: impl Fn(Option<IpAddr>, &Labels) -> Network,
    settings: &Settings,
) -> Option<Workload> {
    if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    let meta = &pod.metadata;
    let addresses: Vec<IpAddr> = pod.status.addresses().collect();
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let native = pod.spec.init_containers.iter();
    let containers = pod.spec.containers.iter().chain(native);
    Some(Workload {
        source: WorkloadSource::Pod,
        cluster: cluster.clone(),
        namespace: Namespace::new(&meta.namespace),
        name: meta.name.clone(),
        workload_name: workload::workload_name(pod),
        labels: meta.labels.clone(),
        network: network(addresses.first().copied(), &meta.labels),
        addresses,
        service_account: identity(settings, &meta.namespace, account),
        locality: locality(&meta.labels, node),
        node: pod.spec.node_name.clone(),
        ports: containers
            .flat_map(|c| &c.ports)
            .filter(|port| !port.name.is_empty())
            .map(|port| (port.name.clone(), port.container_port))
            .collect(),
        ready: is_ready(pod),
    })
}

fn is_ready(pod: &kube::Pod) -> bool {
    let condition = pod.status.conditions.iter().find(|condition| condition.kind == "Ready");
    condition.is_none_or(|condition| condition.status == "True")
}

/// An endpoint of a slice or an Endpoints object, before its workload is known.
pub(crate) struct RawEndpoint<'a> {
    pub(crate) address: &'a str,
    pub(crate) health: Health,
    pub(crate) pod: Option<(Namespace, String)>,
    pub(crate) hostname: Option<&'a str>,
    pub(crate) ports: &'a [kube::EndpointPort],
}

/// The endpoints that a slice lists.
pub(crate) fn of_slice(slice: &kube::EndpointSlice) -> impl Iterator<Item = RawEndpoint<'_>> {
    slice.endpoints.iter().flat_map(move |endpoint| {
        endpoint.addresses.iter().map(move |address| RawEndpoint {
            address,
            health: slice_health(&endpoint.conditions),
            pod: endpoint.target_ref.as_ref().and_then(|target| pod_of(target, &slice.metadata)),
            hostname: endpoint.hostname.as_deref(),
            ports: &slice.ports,
        })
    })
}

/// The endpoints that an Endpoints object lists.
pub(crate) fn of_endpoints(object: &kube::Endpoints) -> impl Iterator<Item = RawEndpoint<'_>> {
    object.subsets.iter().flat_map(move |subset| {
        let ready = subset.addresses.iter().map(|address| (address, Health::Healthy));
        let unready = subset.not_ready_addresses.iter().map(|address| (address, Health::Unhealthy));
        ready.chain(unready).map(move |(address, health)| RawEndpoint {
            address: &address.ip,
            health,
            pod: address.target_ref.as_ref().and_then(|target| pod_of(target, &object.metadata)),
            hostname: address.hostname.as_deref(),
            ports: &subset.ports,
        })
    })
}

fn slice_health(conditions: &kube::EndpointConditions) -> Health {
    match (conditions.ready.unwrap_or(true), conditions.terminating.unwrap_or(false)) {
        (true, _) => Health::Healthy,
        (false, true) => Health::Terminating,
        (false, false) => Health::Unhealthy,
    }
}

fn pod_of(target: &kube::ObjectReference, meta: &ObjectMeta) -> Option<(Namespace, String)> {
    let namespace = if target.namespace.is_empty() { &meta.namespace } else { &target.namespace };
    (target.kind == "Pod").then(|| (Namespace::new(namespace), target.name.clone()))
}

/// A raw endpoint and its workload as the members of a service, one per port.
pub(crate) fn endpoints(
    raw: &RawEndpoint<'_>,
    workload: Option<&Workload>,
    subdomain: &str,
    service: &Service,
    cluster: &ClusterId,
    network: impl Fn(Option<IpAddr>, &Labels) -> Network,
) -> Vec<Endpoint> {
    let address = EndpointAddress::parse(raw.address);
    let empty = Labels::default();
    let own = workload.map_or(&empty, |w| &w.labels);
    let place = workload.map(|w| w.locality.clone()).unwrap_or_else(|| locality(&empty, None));
    let network = network(address.ip(), own);
    let node = workload.map(|w| w.node.as_str()).unwrap_or_default();
    let labels = augmented(own, cluster, &place, &network, node);
    let named = |wanted: &kube::EndpointPort| {
        // A slice of a service with a single unnamed port may name it or not: the number of ports decides.
        match service.ports.as_slice() {
            [only] if wanted.name.is_empty() || only.name.is_empty() => Some(only),
            _ => service.port_named(&wanted.name),
        }
    };
    let members = raw.ports.iter().filter_map(|port| {
        Some(Endpoint {
            address: address.clone(),
            port: port.port?,
            service_port: named(port).map_or_else(|| port.name.clone(), |p| p.name.clone()),
            labels: labels.clone(),
            service_account: workload.map(|w| w.service_account.clone()).unwrap_or_default(),
            namespace: service.namespace.clone(),
            workload: workload.map(|w| w.workload_name.clone()).unwrap_or_default(),
            locality: place.clone(),
            network: network.clone(),
            cluster: cluster.clone(),
            node: node.to_owned(),
            weight: 0,
            health: raw.health,
            mtls: own.value(TLS_MODE_LABEL) == Some("istio"),
            hostname: raw.hostname.unwrap_or_default().to_owned(),
            subdomain: subdomain.to_owned(),
            cluster_local: false,
        })
    });
    members.collect()
}

/// The addresses outside the cluster by which a service is reached, with the port that stands for `port` there:
/// the nodes' for node ports chosen by annotation, else the load balancer's and the external ones.
pub(crate) fn outside<'a>(
    service: &kube::Service,
    port: u16,
    nodes: impl Iterator<Item = &'a kube::Node>,
) -> (Vec<String>, u16) {
    let spec = &service.spec;
    let selector = service.metadata.annotations.get(NODE_SELECTOR);
    if let (Some(selector), true) = (selector, spec.kind == "NodePort") {
        // A selector that is no JSON object selects no node; validation tells its author.
        let Ok(selector) = serde_json::from_str::<Labels>(selector) else { return (Vec::new(), port) };
        let node_port = spec.ports.iter().find(|p| p.port == port).map_or(0, |p| p.node_port);
        let addresses = nodes
            .filter(|node| selector.selects(&node.metadata.labels))
            .filter_map(|node| node.status.addresses.iter().find(|a| a.kind == "ExternalIP"))
            .map(|address| address.address.clone())
            .filter(|address| !address.is_empty())
            .collect();
        return (addresses, if node_port == 0 { port } else { node_port });
    }
    let balancer = service.status.load_balancer.ingress.iter();
    let balancer = balancer.map(|i| if i.ip.is_empty() { i.hostname.clone() } else { i.ip.clone() });
    let mut addresses: Vec<String> = spec.external_ips.iter().cloned().chain(balancer).collect();
    addresses.retain(|address| !address.is_empty());
    (addresses, port)
}

/// The port that a gateway's service says it has.
pub(crate) fn gateway_port(labels: &Labels) -> u16 {
    labels.value(GATEWAY_PORT_LABEL).and_then(|text| text.parse().ok()).unwrap_or(GATEWAY_PORT)
}
