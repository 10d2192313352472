use super::*;
use serde_json::{Value, json};

fn service(more: Value) -> Arc<Service> {
    let mut spec = json!({"clusterIP": "127.210.0.9", "selector": {"app": "reviews"},
        "ports": [{"name": "http", "port": 9080, "targetPort": "web", "appProtocol": "http"}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let service = json!({"metadata": {"name": "reviews", "namespace": "ns", "uid": "s1"}, "spec": spec});
    Arc::new(serde_json::from_value(service).unwrap())
}

fn pod(name: &str, ip: &str, ready: bool, port: i32) -> Arc<Pod> {
    let status = if ready { "True" } else { "False" };
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": name,
                "labels": {"app": "reviews"}},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
            "status": {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": status}]}}))
        .unwrap(),
    )
}

fn created(changes: &[Change], resource: &str) -> Vec<Value> {
    changes
        .iter()
        .filter_map(|change| match change {
            Change::Create(collection, object) if collection.resource == resource => Some(object.clone()),
            _ => None,
        })
        .collect()
}

fn parsed<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<Arc<T>> {
    values.into_iter().map(|value| Arc::new(serde_json::from_value(value).unwrap())).collect()
}

#[test]
fn ready_and_unready_pods_are_told_apart() {
    let pods = [pod("a", "127.10.0.10", true, 9080), pod("b", "127.10.0.11", false, 9080)];
    let changes = reconcile(&[service(json!({}))], &pods, &[], &[]);
    let slice = &created(&changes, "endpointslices")[0];
    assert_eq!(slice["metadata"]["labels"][SERVICE_NAME], "reviews");
    assert_eq!(
        slice["ports"][0],
        json!({"name": "http", "port": 9080, "protocol": "TCP", "appProtocol": "http"})
    );
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!(slice["endpoints"][1]["conditions"]["ready"], false);
    assert_eq!(slice["endpoints"][0]["targetRef"]["name"], "a");
    let endpoints = &created(&changes, "endpoints")[0];
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "127.10.0.10");
    assert_eq!(endpoints["subsets"][0]["notReadyAddresses"][0]["ip"], "127.10.0.11");
}

#[test]
fn what_is_as_it_should_be_stays() {
    let (services, pods) = ([service(json!({}))], [pod("a", "127.10.0.10", true, 9080)]);
    let changes = reconcile(&services, &pods, &[], &[]);
    let slices = parsed(created(&changes, "endpointslices"));
    let endpoints = parsed(created(&changes, "endpoints"));
    assert_eq!(reconcile(&services, &pods, &slices, &endpoints), []);
    let gone = reconcile(&services, &[], &slices, &endpoints);
    assert!(gone.iter().all(|change| matches!(change, Change::Replace(..))), "{gone:?}");
    assert!(matches!(&reconcile(&[], &pods, &slices, &[])[..], [Change::Delete(_)]));
}

#[test]
fn pods_with_other_ports_get_a_slice_of_their_own() {
    let pods = [pod("a", "127.10.0.10", true, 9080), pod("b", "127.10.0.11", true, 9081)];
    let slices = created(&reconcile(&[service(json!({}))], &pods, &[], &[]), "endpointslices");
    assert_eq!(slices.len(), 2);
    assert_ne!(slices[0]["metadata"]["name"], slices[1]["metadata"]["name"]);
}

#[test]
fn a_pod_on_its_way_out_serves_but_is_not_ready() {
    let mut going = (*pod("a", "127.10.0.10", true, 9080)).clone();
    going.metadata.deletion_timestamp = Some(crate::instant::time());
    let changes = reconcile(&[service(json!({}))], &[Arc::new(going)], &[], &[]);
    let conditions = &created(&changes, "endpointslices")[0]["endpoints"][0]["conditions"];
    assert_eq!(*conditions, json!({"ready": false, "serving": true, "terminating": true}));
    assert_eq!(created(&changes, "endpoints")[0].get("subsets"), None);
}

#[test]
fn endpoints_kept_by_hand_are_mirrored() {
    let by_hand: Endpoints =
        serde_json::from_value(json!({"metadata": {"name": "reviews", "namespace": "ns"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "http", "port": 80}]}]}))
        .unwrap();
    let changes = reconcile(&[service(json!({"selector": null}))], &[], &[], &[Arc::new(by_hand)]);
    let slice = &created(&changes, "endpointslices")[0];
    assert_eq!(slice["metadata"]["labels"][MANAGED_BY], MIRROR);
    assert_eq!(slice["endpoints"][0]["addresses"][0], "10.0.0.1");
    assert!(created(&changes, "endpoints").is_empty());
}
