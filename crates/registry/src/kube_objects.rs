//! Kubernetes objects, with only the fields that the mesh reads. Unknown fields are ignored.
//!
//! The control plane decodes watched objects straight into these; offline commands read the same from files.

mod ingress;

use std::collections::BTreeMap;
use std::net::IpAddr;

use lateen_base::Labels;
use serde::{Deserialize, Deserializer, Serialize};

pub use ingress::{
    Ingress, IngressBackend, IngressClass, IngressClassSpec, IngressPath, IngressPaths, IngressRule,
    IngressServiceBackend, IngressServicePort, IngressSpec, IngressTls,
};

/// What every object carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// The name.
    pub name: String,
    /// The prefix that the name was generated from.
    #[serde(deserialize_with = "null_default")]
    pub generate_name: String,
    /// The namespace; empty in objects of the whole cluster.
    #[serde(deserialize_with = "null_default")]
    pub namespace: String,
    /// The labels.
    #[serde(deserialize_with = "null_default")]
    pub labels: Labels,
    /// The annotations.
    #[serde(deserialize_with = "null_default")]
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in RFC 3339.
    pub creation_timestamp: Option<String>,
    /// When it is to go, in RFC 3339: set while it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// The server's version of it.
    #[serde(deserialize_with = "null_default")]
    pub resource_version: String,
    /// Its identity over renames.
    #[serde(deserialize_with = "null_default")]
    pub uid: String,
    /// What owns it.
    #[serde(deserialize_with = "null_default")]
    pub owner_references: Vec<OwnerReference>,
}

impl ObjectMeta {
    /// When it was made, in seconds since 1970; 0 when it does not say.
    pub fn created(&self) -> i64 {
        crate::from_kube::seconds(self.creation_timestamp.as_deref())
    }
}

/// An owner of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// The owner's API group and version.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// Whether it is the one that manages the object.
    #[serde(deserialize_with = "null_default")]
    pub controller: bool,
}

/// `v1/Service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: ServiceSpec,
    /// What is.
    pub status: ServiceStatus,
}

/// The wanted state of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; empty means the first.
    #[serde(rename = "type")]
    pub kind: String,
    /// The first address inside the cluster, or `None`.
    #[serde(rename = "clusterIP", deserialize_with = "null_default")]
    pub cluster_ip: String,
    /// All addresses inside the cluster.
    #[serde(rename = "clusterIPs", deserialize_with = "null_default")]
    pub cluster_ips: Vec<String>,
    /// The name that an `ExternalName` service stands for.
    pub external_name: String,
    /// More addresses that nodes answer on.
    #[serde(rename = "externalIPs", deserialize_with = "null_default")]
    pub external_ips: Vec<String>,
    /// The ports.
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<ServicePort>,
    /// Which pods serve it.
    #[serde(deserialize_with = "null_default")]
    pub selector: Labels,
    /// Whether endpoints count before they are ready.
    #[serde(deserialize_with = "null_default")]
    pub publish_not_ready_addresses: bool,
    /// How clients choose among endpoints: `PreferClose`, `PreferSameZone`, `PreferSameNode`.
    pub traffic_distribution: Option<String>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
}

/// The observed state of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// Addresses outside the cluster.
    pub load_balancer: LoadBalancerStatus,
}

/// The addresses that a load balancer gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// One per address.
    #[serde(deserialize_with = "null_default")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// An address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadBalancerIngress {
    /// By number.
    pub ip: String,
    /// By name.
    pub hostname: String,
}

/// A port of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// The name, which Istio's protocol selection reads.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// The number.
    pub port: u16,
    /// The port of the pods; the number itself where not given.
    pub target_port: Option<IntOrString>,
    /// The port that every node answers on; 0 where none.
    pub node_port: u16,
    /// `TCP`, `UDP` or `SCTP`; empty means the first.
    #[serde(deserialize_with = "null_default")]
    pub protocol: String,
    /// The application protocol.
    pub app_protocol: Option<String>,
}

/// A port by number or by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// By number.
    Int(u16),
    /// By name, or a number in quotes.
    String(String),
}

impl IntOrString {
    /// The number, where it is one.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Int(number) => Some(*number),
            Self::String(text) => text.parse().ok(),
        }
    }
}

/// `discovery.k8s.io/v1` EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Name, labels and the like; label `kubernetes.io/service-name` names the service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`; empty in terse files.
    pub address_type: String,
    /// The endpoints.
    #[serde(deserialize_with = "null_default")]
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports that each has.
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<EndpointPort>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceEndpoint {
    /// Its addresses; the first counts.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<String>,
    /// Whether it serves.
    #[serde(deserialize_with = "null_default")]
    pub conditions: EndpointConditions,
    /// Its own host name, in headless services.
    pub hostname: Option<String>,
    /// What it is, usually a pod.
    pub target_ref: Option<ObjectReference>,
    /// Where it runs.
    pub node_name: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
}

/// The state of an endpoint; what is not given is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Whether it takes traffic; unknown counts as yes.
    pub ready: Option<bool>,
    /// Whether it still answers.
    pub serving: Option<bool>,
    /// Whether it is about to go.
    pub terminating: Option<bool>,
}

/// A port of endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The name of the service port.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// The number.
    pub port: Option<u16>,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(deserialize_with = "null_default")]
    pub protocol: String,
}

/// A reference to an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectReference {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(deserialize_with = "null_default")]
    pub namespace: String,
}

/// `v1/Endpoints`, the older form of slices: read only for services that have no slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    /// Name, labels and the like; the name is the service's.
    pub metadata: ObjectMeta,
    /// Addresses with the same ports.
    #[serde(deserialize_with = "null_default")]
    pub subsets: Vec<EndpointSubset>,
}

/// Addresses with the same ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSubset {
    /// Those that are ready.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<SubsetAddress>,
    /// Those that are not.
    #[serde(deserialize_with = "null_default")]
    pub not_ready_addresses: Vec<SubsetAddress>,
    /// The ports that each has.
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<EndpointPort>,
}

/// An address of a subset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubsetAddress {
    /// The address.
    pub ip: String,
    /// Its own host name, in headless services.
    pub hostname: Option<String>,
    /// Where it runs.
    pub node_name: Option<String>,
    /// What it is, usually a pod.
    pub target_ref: Option<ObjectReference>,
}

/// `v1/Pod`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "null_default")]
    pub spec: PodSpec,
    /// What is.
    #[serde(deserialize_with = "null_default")]
    pub status: PodStatus,
}

/// The wanted state of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its identity; empty means `default`.
    #[serde(deserialize_with = "null_default")]
    pub service_account_name: String,
    /// Where it runs.
    #[serde(deserialize_with = "null_default")]
    pub node_name: String,
    /// Whether it has the node's addresses.
    #[serde(deserialize_with = "null_default")]
    pub host_network: bool,
    /// Its host name.
    #[serde(deserialize_with = "null_default")]
    pub hostname: String,
    /// The headless service it has a name under.
    #[serde(deserialize_with = "null_default")]
    pub subdomain: String,
    /// Its containers.
    #[serde(deserialize_with = "null_default")]
    pub containers: Vec<Container>,
    /// Its containers that run first; those with restart policy `Always` keep running.
    #[serde(deserialize_with = "null_default")]
    pub init_containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// The name.
    pub name: String,
    /// Its ports, by which named target ports are found.
    #[serde(deserialize_with = "null_default")]
    pub ports: Vec<ContainerPort>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// The name.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// The number.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`; empty means the first.
    #[serde(deserialize_with = "null_default")]
    pub protocol: String,
}

/// The observed state of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`; empty in terse files.
    #[serde(deserialize_with = "null_default")]
    pub phase: String,
    /// Its first address.
    #[serde(rename = "podIP", deserialize_with = "null_default")]
    pub pod_ip: String,
    /// All addresses.
    #[serde(rename = "podIPs", deserialize_with = "null_default")]
    pub pod_ips: Vec<PodIp>,
    /// The node's address.
    #[serde(rename = "hostIP", deserialize_with = "null_default")]
    pub host_ip: String,
    /// Its conditions, `Ready` among them.
    #[serde(deserialize_with = "null_default")]
    pub conditions: Vec<Condition>,
}

impl PodStatus {
    /// All addresses, the first one first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let first = self.pod_ip.parse().ok();
        let more = self.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok());
        first.into_iter().chain(more.filter(move |ip| Some(*ip) != first))
    }
}

/// An address of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// A condition of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

/// `v1/Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Name, labels and the like; the labels tell the locality.
    pub metadata: ObjectMeta,
    /// What is.
    #[serde(deserialize_with = "null_default")]
    pub status: NodeStatus,
}

/// The observed state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Its addresses.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<NodeAddress>,
}

/// An address of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address.
    pub address: String,
}

/// `v1/Namespace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Name, labels and the like.
    pub metadata: ObjectMeta,
}

/// `null` reads as nothing given, as Go's decoder has it.
fn null_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(input: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubectl_prints() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "annotations": null, "managedFields": []},
            "spec": {"clusterIP": "None", "ports": [{"port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8081}]},
        }))
        .unwrap();
        assert_eq!(service.spec.cluster_ip, "None");
        assert_eq!(service.spec.ports[0].target_port, Some(IntOrString::String("http".into())));
        assert_eq!(service.spec.ports[1].target_port.as_ref().and_then(IntOrString::number), Some(8081));
    }
}
