//! Workloads: what runs, before any service is asked about.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lateen_base::{ClusterId, Labels, Locality, Namespace, Network};

use crate::kube_objects::Pod;

/// What a workload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadSource {
    /// A pod.
    Pod,
    /// A WorkloadEntry.
    WorkloadEntry,
}

/// A port by which a service names one of a workload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By a name that the workload defines.
    Name(String),
}

/// A pod or a WorkloadEntry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What it is.
    pub source: WorkloadSource,
    /// The cluster it is in.
    pub cluster: ClusterId,
    /// Its namespace.
    pub namespace: Namespace,
    /// The name of its object.
    pub name: String,
    /// The name of the Deployment or the like that it belongs to.
    pub workload_name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its identity: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, or empty.
    pub service_account: String,
    /// Where it runs.
    pub locality: Locality,
    /// The network it is in.
    pub network: Network,
    /// The node it is on.
    pub node: String,
    /// Its named ports.
    pub ports: BTreeMap<String, u16>,
    /// Whether it takes traffic.
    pub ready: bool,
}

/// The name of what manages a pod, as Istio derives it: a Deployment from its ReplicaSet's name, a CronJob from
/// its Job's, the owner itself otherwise, and the pod's own name without an owner.
pub(crate) fn workload_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller) else {
        return meta.name.clone();
    };
    let trimmed = match owner.kind.as_str() {
        "ReplicaSet" => meta
            .labels
            .value("pod-template-hash")
            .and_then(|hash| owner.name.strip_suffix(hash)?.strip_suffix('-')),
        "ReplicationController" if meta.labels.value("deploymentconfig").is_some() => {
            meta.labels.value("deploymentconfig").filter(|config| owner.name.starts_with(*config))
        }
        "Job" => owner.name.rsplit_once('-').filter(|(_, tail)| is_cron_time(tail)).map(|(head, _)| head),
        _ => None,
    };
    trimmed.unwrap_or(&owner.name).to_owned()
}

/// CronJobs end their jobs' names with minutes or seconds since 1970.
fn is_cron_time(tail: &str) -> bool {
    (8..=10).contains(&tail.len()) && tail.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(kind: &str, owner: &str, labels: &[(&str, &str)]) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "labels": labels.iter().copied().collect::<BTreeMap<_, _>>(),
                "ownerReferences": [{"kind": kind, "name": owner, "controller": true}]},
        }))
        .unwrap()
    }

    #[test]
    fn names_come_from_owners() {
        let hash = [("pod-template-hash", "6d5f8b")];
        assert_eq!(workload_name(&pod("ReplicaSet", "reviews-v1-6d5f8b", &hash)), "reviews-v1");
        assert_eq!(workload_name(&pod("ReplicaSet", "lone", &[])), "lone");
        assert_eq!(workload_name(&pod("StatefulSet", "db", &[])), "db");
        assert_eq!(workload_name(&pod("Job", "tidy-28491720", &[])), "tidy");
        assert_eq!(workload_name(&Pod::default()), "");
    }
}
