//! Any order of events gives what a rebuild from the remaining objects gives.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::parse_json;
use lateen_base::ClusterId;
use lateen_registry::{Event, Key, Registry, Resource, Settings, View};
use proptest::prelude::*;
use serde_json::{Value, json};

/// One object of a small world: kind, which one of its kind, which form of it, and the cluster.
#[derive(Clone, Debug)]
struct Step {
    kind: usize,
    which: usize,
    form: usize,
    cluster: usize,
    remove: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..9usize, 0..3usize, 0..3usize, 0..2usize, prop::bool::weighted(0.3))
        .prop_map(|(kind, which, form, cluster, remove)| Step { kind, which, form, cluster, remove });
    prop::collection::vec(step, 1..60)
}

fn config(value: Value) -> Resource {
    Resource::Config(Arc::new(parse_json(&value).unwrap()))
}

fn kube<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn resource(step: &Step) -> Resource {
    let (which, form) = (step.which, step.form);
    let app = format!("app-{}", form % 2);
    let name = format!("x{which}");
    match step.kind {
        0 => {
            let network = if form == 2 { json!({"topology.istio.io/network": "n2"}) } else { json!({}) };
            let external = if form == 2 { json!(["9.9.9.9"]) } else { json!([]) };
            Resource::Service(kube(json!({
                "metadata": {"name": name, "namespace": "ns", "labels": network},
                "spec": {"clusterIP": format!("10.0.{form}.{which}"), "selector": {"app": app}, "externalIPs": external,
                    "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
            })))
        }
        1 => Resource::EndpointSlice(kube(json!({
            "metadata": {"name": format!("s{which}"), "namespace": "ns",
                "labels": {"kubernetes.io/service-name": format!("x{}", form)}},
            "endpoints": [{"addresses": [format!("1.1.1.{which}")],
                "targetRef": {"kind": "Pod", "name": format!("p{which}")}}, {"addresses": [format!("1.1.1.{form}")]}],
            "ports": [{"name": "http", "port": 8080}],
        }))),
        2 => Resource::Pod(kube(json!({
            "metadata": {"name": format!("p{which}"), "namespace": "ns", "labels": {"app": app}},
            "spec": {"nodeName": format!("node{}", form % 2), "serviceAccountName": format!("sa{form}")},
            "status": {"podIP": format!("1.1.1.{}", (which + form) % 3)},
        }))),
        3 => Resource::Node(kube(json!({
            "metadata": {"name": format!("node{}", which % 2), "labels": {"topology.kubernetes.io/region": format!("r{form}")}},
        }))),
        4 => Resource::Namespace(kube(json!({
            "metadata": {"name": if which == 0 { "istio-system" } else { "ns" },
                "labels": {"topology.istio.io/network": format!("n{form}")}},
        }))),
        5 => config(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": format!("se{which}"), "namespace": "ns"},
            "spec": {"hosts": [format!("h{form}.com"), format!("x{which}.ns.svc.cluster.local")],
                "resolution": if form == 0 { "DNS" } else { "STATIC" },
                "ports": [{"name": "http", "number": 80, "protocol": "HTTP"}],
                "workloadSelector": if form == 1 { json!({"labels": {"app": app}}) } else { Value::Null }},
        })),
        6 => config(json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {"name": format!("we{which}"), "namespace": "ns", "labels": {"app": app}},
            "spec": {"address": format!("1.1.1.{form}"), "serviceAccount": "vm"},
        })),
        7 => Resource::Ingress(kube(json!({
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"ingressClassName": format!("c{form}")},
        }))),
        _ => Resource::Endpoints(kube(json!({
            "metadata": {"name": name, "namespace": "ns"},
            "subsets": [{"addresses": [{"ip": format!("1.1.1.{form}")}], "ports": [{"name": "http", "port": 9}]}],
        }))),
    }
}

fn cluster(step: &Step, resource: &Resource) -> ClusterId {
    match (resource, step.cluster) {
        (Resource::Config(_), _) | (_, 0) => "Kubernetes".into(),
        _ => "other".into(),
    }
}

fn summary(view: &View) -> Vec<String> {
    let mut lines: Vec<String> = view.services.values().map(|s| format!("{s:?}")).collect();
    lines.extend(view.endpoints.iter().map(|(id, set)| format!("{id:?} {set:?}")));
    lines.extend(view.workloads.iter().map(|(ip, all)| format!("{ip} {all:?}")));
    lines.extend(view.hosts_at.iter().map(|(ip, hosts)| format!("{ip} {hosts:?}")));
    lines.extend(view.namespaces.iter().map(|(id, labels)| format!("{id:?} {labels:?}")));
    lines.push(format!("{:?}", view.ingresses));
    lines.push(format!("{:?}", view.gateways));
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn order_does_not_matter(steps in steps()) {
        let mut registry = Registry::new(Settings::default());
        let mut left: BTreeMap<(ClusterId, Key), Resource> = BTreeMap::new();
        for step in &steps {
            let resource = resource(step);
            let (cluster, key) = (cluster(step, &resource), resource.key());
            if step.remove {
                left.remove(&(cluster.clone(), key.clone()));
                registry.apply(&cluster, Event::Removed(key));
            } else {
                left.insert((cluster.clone(), key), resource.clone());
                registry.apply(&cluster, Event::Applied(resource));
            }
        }
        let mut rebuilt = Registry::new(Settings::default());
        for ((cluster, _), resource) in left {
            rebuilt.apply(&cluster, Event::Applied(resource));
        }
        prop_assert_eq!(summary(&registry.view()), summary(&rebuilt.view()));
    }
}

#[test]
fn a_relist_forgets_what_it_does_not_name() {
    let cluster = ClusterId::new("Kubernetes");
    let step = |which| Step { kind: 0, which, form: 0, cluster: 0, remove: false };
    let mut registry = Registry::new(Settings::default());
    registry.apply(&cluster, Event::Applied(resource(&step(0))));
    registry.apply(&cluster, Event::Applied(resource(&step(1))));
    let kept = resource(&step(1));
    let changes = registry.apply(&cluster, Event::Relisted { kind: kept.key(), resources: vec![kept] });
    assert_eq!(registry.view().services.len(), 1);
    assert_eq!(changes.len(), 2, "{changes:?}");
}
