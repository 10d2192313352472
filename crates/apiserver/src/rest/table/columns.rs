//! The columns of the built-in kinds.

use serde_json::{Value, json};

use super::cells::{age, duration, join, labels, list, or, selector, text};
use super::pods;
use crate::resource::{PrinterColumn, Resource};

/// Columns after the name.
pub(super) enum Columns<'a> {
    BuiltIn(Vec<Column>),
    Custom(&'a [PrinterColumn]),
}

#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    /// 1: only with `-o wide`.
    pub(super) priority: i64,
    pub(super) cell: fn(&Value) -> Value,
}

const fn column(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", priority: 0, cell }
}

const fn number(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "integer", priority: 0, cell }
}

const fn wide(name: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, kind: "string", priority: 1, cell }
}

const AGE: Column =
    column("Age", |v| json!(v["metadata"]["creationTimestamp"].as_str().map_or("<unknown>".into(), age)));
const CONTAINERS: Column = wide("Containers", |v| json!(join(templated(v, "name"))));
const IMAGES: Column = wide("Images", |v| json!(join(templated(v, "image"))));
const SELECTOR: Column = wide("Selector", |v| json!(selector(&v["spec"]["selector"])));

fn templated(value: &Value, key: &str) -> Vec<String> {
    list(&value["spec"]["template"]["spec"]["containers"]).iter().map(|c| text(&c[key])).collect()
}

fn count(value: &Value) -> Value {
    json!(value.as_u64().unwrap_or(0))
}

fn size(value: &Value) -> Value {
    json!(value.as_array().map(Vec::len).or(value.as_object().map(serde_json::Map::len)).unwrap_or(0))
}

fn ratio(part: &Value, whole: &Value) -> Value {
    json!(format!("{}/{}", part.as_u64().unwrap_or(0), whole.as_u64().unwrap_or(0)))
}

/// The columns of a kind; those without their own have the age.
pub(super) fn built_in(resource: &Resource) -> Columns<'static> {
    Columns::BuiltIn(match resource.kind.as_str() {
        "Pod" => pod(),
        "Service" => service(),
        "Deployment" => deployment(),
        "ReplicaSet" | "ReplicationController" => replica_set(),
        "StatefulSet" => vec![
            column("Ready", |v| ratio(&v["status"]["readyReplicas"], &v["spec"]["replicas"])),
            AGE,
            CONTAINERS,
            IMAGES,
        ],
        "DaemonSet" => daemon_set(),
        "Job" => job(),
        "Node" => node(),
        "Namespace" => vec![column("Status", |v| json!(or(&v["status"]["phase"], ""))), AGE],
        "ConfigMap" => vec![
            number("Data", |v| {
                json!(size(&v["data"]).as_u64().unwrap_or(0) + size(&v["binaryData"]).as_u64().unwrap_or(0))
            }),
            AGE,
        ],
        "Secret" => vec![column("Type", |v| v["type"].clone()), number("Data", |v| size(&v["data"])), AGE],
        "ServiceAccount" => vec![number("Secrets", |v| size(&v["secrets"])), AGE],
        "Endpoints" => vec![column("Endpoints", |v| json!(endpoints(v))), AGE],
        "EndpointSlice" => endpoint_slice(),
        "Event" => event(),
        "Ingress" => ingress(),
        "NetworkPolicy" => vec![column("Pod-Selector", |v| json!(selector(&v["spec"]["podSelector"]))), AGE],
        "HorizontalPodAutoscaler" => autoscaler(),
        "PodDisruptionBudget" => disruption_budget(),
        "PersistentVolumeClaim" => claim(),
        "Lease" => vec![column("Holder", |v| json!(or(&v["spec"]["holderIdentity"], ""))), AGE],
        "CustomResourceDefinition" => {
            vec![column("Created At", |v| v["metadata"]["creationTimestamp"].clone())]
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            vec![number("Webhooks", |v| size(&v["webhooks"])), AGE]
        }
        "Role" | "ClusterRole" => vec![column("Created At", |v| v["metadata"]["creationTimestamp"].clone())],
        "RoleBinding" | "ClusterRoleBinding" => binding(),
        _ => vec![AGE],
    })
}

fn pod() -> Vec<Column> {
    vec![
        column("Ready", pods::ready),
        column("Status", pods::status),
        column("Restarts", pods::restarts),
        AGE,
        wide("IP", |v| json!(or(&v["status"]["podIP"], "<none>"))),
        wide("Node", |v| json!(or(&v["spec"]["nodeName"], "<none>"))),
        wide("Nominated Node", |v| json!(or(&v["status"]["nominatedNodeName"], "<none>"))),
        wide("Readiness Gates", pods::gates),
    ]
}

fn service() -> Vec<Column> {
    vec![
        column("Type", |v| v["spec"]["type"].clone()),
        column("Cluster-IP", |v| json!(or(&v["spec"]["clusterIP"], "<none>"))),
        column("External-IP", |v| json!(external_ip(v))),
        column("Port(s)", |v| json!(join(list(&v["spec"]["ports"]).iter().map(port)))),
        AGE,
        wide("Selector", |v| json!(labels(&v["spec"]["selector"]))),
    ]
}

fn port(port: &Value) -> String {
    let protocol = or(&port["protocol"], "TCP");
    match port["nodePort"].as_u64().filter(|n| *n > 0) {
        Some(node) => format!("{}:{node}/{protocol}", port["port"]),
        None => format!("{}/{protocol}", port["port"]),
    }
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<String> = list(&spec["externalIPs"]).iter().map(text).collect();
    match spec["type"].as_str() {
        Some("ExternalName") => return or(&spec["externalName"], "<none>"),
        Some("LoadBalancer") => {
            let given = list(&service["status"]["loadBalancer"]["ingress"]);
            addresses.extend(given.iter().map(|i| or(&i["ip"], &or(&i["hostname"], "<none>"))));
            if addresses.is_empty() {
                return "<pending>".into();
            }
        }
        _ => {}
    }
    join(addresses)
}

fn deployment() -> Vec<Column> {
    vec![
        column("Ready", |v| ratio(&v["status"]["readyReplicas"], &v["spec"]["replicas"])),
        number("Up-to-date", |v| count(&v["status"]["updatedReplicas"])),
        number("Available", |v| count(&v["status"]["availableReplicas"])),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ]
}

fn replica_set() -> Vec<Column> {
    vec![
        number("Desired", |v| count(&v["spec"]["replicas"])),
        number("Current", |v| count(&v["status"]["replicas"])),
        number("Ready", |v| count(&v["status"]["readyReplicas"])),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ]
}

fn daemon_set() -> Vec<Column> {
    vec![
        number("Desired", |v| count(&v["status"]["desiredNumberScheduled"])),
        number("Current", |v| count(&v["status"]["currentNumberScheduled"])),
        number("Ready", |v| count(&v["status"]["numberReady"])),
        number("Up-to-date", |v| count(&v["status"]["updatedNumberScheduled"])),
        number("Available", |v| count(&v["status"]["numberAvailable"])),
        column("Node Selector", |v| json!(labels(&v["spec"]["template"]["spec"]["nodeSelector"]))),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ]
}

fn job() -> Vec<Column> {
    vec![
        column("Status", |v| {
            let is = |kind: &str| {
                list(&v["status"]["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True")
            };
            json!(["Complete", "Failed", "Suspended"].into_iter().find(|k| is(k)).unwrap_or("Running"))
        }),
        column("Completions", |v| ratio(&v["status"]["succeeded"], &v["spec"]["completions"])),
        column("Duration", |v| {
            let at = |key: &str| {
                let text = v["status"][key].as_str()?;
                time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
            };
            let Some(start) = at("startTime") else { return json!("") };
            let end = at("completionTime").unwrap_or_else(time::OffsetDateTime::now_utc);
            json!(duration((end - start).whole_seconds()))
        }),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ]
}

fn node() -> Vec<Column> {
    vec![
        column("Status", |v| json!(node_status(v))),
        column("Roles", |v| json!(roles(v))),
        AGE,
        column("Version", |v| json!(or(&v["status"]["nodeInfo"]["kubeletVersion"], ""))),
        wide("Internal-IP", |v| json!(address(v, "InternalIP"))),
        wide("External-IP", |v| json!(address(v, "ExternalIP"))),
        wide("OS-Image", |v| json!(or(&v["status"]["nodeInfo"]["osImage"], "<unknown>"))),
        wide("Kernel-Version", |v| json!(or(&v["status"]["nodeInfo"]["kernelVersion"], "<unknown>"))),
        wide("Container-Runtime", |v| {
            json!(or(&v["status"]["nodeInfo"]["containerRuntimeVersion"], "<unknown>"))
        }),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = list(&node["status"]["conditions"]).iter().find(|c| c["type"] == "Ready");
    let mut words = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".into(),
        None => "Unknown".into(),
    };
    if node["spec"]["unschedulable"] == true {
        words.push_str(",SchedulingDisabled");
    }
    words
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<String> = labels
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/").map(str::to_owned))
        .collect();
    roles.sort();
    join(roles)
}

fn address(node: &Value, kind: &str) -> String {
    let found = list(&node["status"]["addresses"]).iter().find(|a| a["type"] == kind);
    found.map_or("<none>".into(), |a| or(&a["address"], "<none>"))
}

fn endpoints(value: &Value) -> String {
    let mut words = Vec::new();
    for subset in list(&value["subsets"]) {
        for address in list(&subset["addresses"]) {
            let ip = text(&address["ip"]);
            let ports = list(&subset["ports"]);
            words.extend(ports.iter().map(|port| format!("{ip}:{}", port["port"])));
            words.extend(ports.is_empty().then(|| ip.clone()));
        }
    }
    shortened(words)
}

/// The first three, and how many more.
fn shortened(words: Vec<String>) -> String {
    let more = words.len().saturating_sub(3);
    let shown = join(words.into_iter().take(3));
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

fn endpoint_slice() -> Vec<Column> {
    vec![
        column("AddressType", |v| v["addressType"].clone()),
        column("Ports", |v| {
            json!(ports_or_unset(list(&v["ports"]).iter().map(|p| text(&p["port"])).collect()))
        }),
        column("Endpoints", |v| {
            let all = list(&v["endpoints"])
                .iter()
                .flat_map(|e| list(&e["addresses"]))
                .map(text)
                .collect::<Vec<_>>();
            json!(ports_or_unset(all))
        }),
        AGE,
    ]
}

fn ports_or_unset(words: Vec<String>) -> String {
    if words.is_empty() { "<unset>".into() } else { shortened(words) }
}

fn event() -> Vec<Column> {
    let seen = |v: &Value| {
        let at =
            ["lastTimestamp", "deprecatedLastTimestamp", "eventTime"].into_iter().find_map(|k| v[k].as_str());
        json!(at.or(v["metadata"]["creationTimestamp"].as_str()).map_or("<unknown>".into(), age))
    };
    vec![
        column("Last Seen", seen),
        column("Type", |v| json!(or(&v["type"], ""))),
        column("Reason", |v| json!(or(&v["reason"], ""))),
        column("Object", |v| {
            let about = if v["regarding"].is_object() { &v["regarding"] } else { &v["involvedObject"] };
            json!(format!("{}/{}", or(&about["kind"], "").to_lowercase(), or(&about["name"], "")))
        }),
        column("Message", |v| json!(or(&v["message"], &or(&v["note"], "")).trim())),
    ]
}

fn ingress() -> Vec<Column> {
    vec![
        column("Class", |v| json!(or(&v["spec"]["ingressClassName"], "<none>"))),
        column("Hosts", |v| {
            let hosts =
                list(&v["spec"]["rules"]).iter().filter_map(|r| r["host"].as_str()).map(str::to_owned);
            let hosts: Vec<String> = hosts.collect();
            json!(if hosts.is_empty() { "*".to_owned() } else { shortened(hosts) })
        }),
        column("Address", |v| {
            let given = list(&v["status"]["loadBalancer"]["ingress"])
                .iter()
                .map(|i| or(&i["ip"], &or(&i["hostname"], "")));
            json!(given.collect::<Vec<_>>().join(","))
        }),
        column("Ports", |v| json!(if list(&v["spec"]["tls"]).is_empty() { "80" } else { "80, 443" })),
        AGE,
    ]
}

fn autoscaler() -> Vec<Column> {
    vec![
        column("Reference", |v| {
            let target = &v["spec"]["scaleTargetRef"];
            json!(format!("{}/{}", or(&target["kind"], ""), or(&target["name"], "")))
        }),
        column("Targets", |v| {
            let metric = |m: &Value| match m["resource"]["target"]["averageUtilization"].as_u64() {
                Some(percent) => format!("{}: <unknown>/{percent}%", or(&m["resource"]["name"], "")),
                None => "<unknown>".into(),
            };
            json!(join(list(&v["spec"]["metrics"]).iter().map(metric)))
        }),
        column("MinPods", |v| {
            json!(v["spec"]["minReplicas"].as_u64().map_or("<unset>".into(), |n| n.to_string()))
        }),
        number("MaxPods", |v| count(&v["spec"]["maxReplicas"])),
        number("Replicas", |v| count(&v["status"]["currentReplicas"])),
        AGE,
    ]
}

fn disruption_budget() -> Vec<Column> {
    vec![
        column("Min Available", |v| or_na(&v["spec"]["minAvailable"])),
        column("Max Unavailable", |v| or_na(&v["spec"]["maxUnavailable"])),
        number("Allowed Disruptions", |v| count(&v["status"]["disruptionsAllowed"])),
        AGE,
    ]
}

fn or_na(value: &Value) -> Value {
    json!(if value.is_null() { "N/A".to_owned() } else { text(value) })
}

fn claim() -> Vec<Column> {
    vec![
        column("Status", |v| json!(or(&v["status"]["phase"], ""))),
        column("Volume", |v| json!(or(&v["spec"]["volumeName"], ""))),
        column("Capacity", |v| json!(or(&v["status"]["capacity"]["storage"], ""))),
        column("Access Modes", |v| {
            json!(list(&v["status"]["accessModes"]).iter().map(text).collect::<Vec<_>>().join(","))
        }),
        column("StorageClass", |v| json!(or(&v["spec"]["storageClassName"], ""))),
        AGE,
    ]
}

fn binding() -> Vec<Column> {
    vec![
        column("Role", |v| {
            json!(format!("{}/{}", or(&v["roleRef"]["kind"], ""), or(&v["roleRef"]["name"], "")))
        }),
        AGE,
        wide("Users", |v| subjects(v, "User")),
        wide("Groups", |v| subjects(v, "Group")),
        wide("ServiceAccounts", |v| subjects(v, "ServiceAccount")),
    ]
}

fn subjects(value: &Value, kind: &str) -> Value {
    let word = |s: &Value| match s["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{}", or(&s["name"], "")),
        None => or(&s["name"], ""),
    };
    json!(
        list(&value["subjects"])
            .iter()
            .filter(|s| s["kind"] == kind)
            .map(word)
            .collect::<Vec<_>>()
            .join(", ")
    )
}
