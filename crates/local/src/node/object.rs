//! The node's own object.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::addresses::ClusterNumber;
use crate::api::{Api, Part};
use crate::instant;

/// Makes the object, or brings it up to date. Labels that users have set stay.
pub(super) async fn register(api: &Api, name: &str, cluster: ClusterNumber) {
    let present = api.get::<Node>(None, name).await;
    let mut node = match present {
        Some(node) => (*node).clone(),
        None => {
            let made = api.create(&fresh(name, cluster)).await;
            match made {
                Ok(node) => node,
                Err(error) => return tracing::warn!(%error, name, "cannot make the node's object"),
            }
        }
    };
    node.status = Some(status(name, cluster));
    store(api, node).await;
}

/// Says that the node is there no more.
pub(super) async fn leave(api: &Api, name: &str) {
    let Some(node) = api.get::<Node>(None, name).await else { return };
    let mut node = (*node).clone();
    if let Some(status) = &mut node.status {
        let message = "lateen up has ended";
        status.conditions = Some(vec![ready(false, "NodeStatusUnknown", message)]);
    }
    store(api, node).await;
}

async fn store(api: &Api, mut node: Node) {
    node.metadata.resource_version = None;
    if let Err(error) = api.replace(&node, Part::Status).await {
        tracing::warn!(%error, "cannot write the node's status");
    }
}

fn fresh(name: &str, cluster: ClusterNumber) -> Node {
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("node-role.kubernetes.io/control-plane", ""),
    ];
    Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: Some(cluster.pod_range()),
            pod_cidrs: Some(vec![cluster.pod_range()]),
            provider_id: Some(format!("lateen://{name}")),
            ..NodeSpec::default()
        }),
        status: Some(status(name, cluster)),
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(name: &str, cluster: ClusterNumber) -> NodeStatus {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).to_string();
    let capacity: BTreeMap<String, Quantity> =
        [("cpu", cores), ("memory", format!("{}Ki", memory_kibibytes())), ("pods", "1000".to_owned())]
            .map(|(name, value)| (name.to_owned(), Quantity(value)))
            .into();
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", cluster.node().to_string()),
            address("Hostname", name.to_owned()),
        ]),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(vec![ready(
            true,
            "KubeletReady",
            "lateen runs pods as processes (loopback isolation)",
        )]),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: boot.trim().to_owned(),
            container_runtime_version: format!("lateen://{}", env!("CARGO_PKG_VERSION")),
            kernel_version: kernel.trim().to_owned(),
            kubelet_version: format!("v1.32.0-lateen.{}", env!("CARGO_PKG_VERSION")),
            kube_proxy_version: String::new(),
            machine_id: String::new(),
            operating_system: "linux".to_owned(),
            os_image: os_image(),
            system_uuid: String::new(),
            swap: None,
        }),
        ..NodeStatus::default()
    }
}

fn memory_kibibytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn ready(holds: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: "Ready".to_owned(),
        status: if holds { "True" } else { "Unknown" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(instant::time()),
        last_transition_time: Some(instant::time()),
    }
}
