//! EnvoyFilters that reach a proxy otherwise than by its listeners: bootstraps that agents ask for, and configurations of
//! extensions that filters ask for by name.

use std::time::Duration;

use lateen_api::Kind;
use lateen_control::Watched;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{World, eventually};
use crate::pods::{Pod, addresses, call, calls_arrive, has_envoy, objects, pod, ready};

const FILTERS: Watched = Watched::Istio(Kind::EnvoyFilter);
const ASKS: (&str, &str) = ("BOOTSTRAP_XDS_AGENT", "true");

fn filter(name: &str, app: &str, patches: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "workloadSelector": { "labels": { "app": app } }, "configPatches": patches },
    })
}

fn bootstrap(name: &str, app: &str, value: &Value) -> Value {
    filter(name, app, &json!([{ "applyTo": "BOOTSTRAP", "patch": { "operation": "MERGE", "value": value } }]))
}

/// A static cluster that leads nowhere.
fn cluster(name: &str) -> Value {
    json!({ "static_resources": { "clusters": [{ "name": name, "type": "STATIC", "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
            "socket_address": { "address": "127.0.0.1", "port_value": 9 } } } }] }] } }] } })
}

/// What the condition on the patches of an EnvoyFilter says, once it has this status and these words.
async fn says(world: &World, name: &str, status: &str, words: &str) {
    eventually(|| {
        let statuses = world.cluster.statuses.lock().unwrap();
        let last =
            statuses.iter().rev().find(|(object, _)| object.kind == "EnvoyFilter" && object.name == name);
        let conditions = last.and_then(|(_, status)| status["conditions"].as_array());
        conditions.into_iter().flatten().any(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["type"] == "lateen.dev/PatchesApplied"
                && condition["status"] == status
                && message.contains(words)
        })
    })
    .await;
}

async fn admin(pod: &Pod, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(pod.agent.settings().admin()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstraps_are_patched_when_proxies_start() {
    if !has_envoy() {
        return;
    }
    let (first, second, first_app, second_app) = addresses([244, 245]);
    let mut all = objects(&[("ours", first), ("stock", second)]);
    // Envoy takes no two clusters of one name.
    let broken = cluster("xds-grpc");
    all.push((
        FILTERS,
        vec![bootstrap("good", "ours", &cluster("extra")), bootstrap("broken", "stock", &broken)],
    ));
    let world = World::start(all).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[ASKS]).await;
    let stock = pod(&world, "stock", (second, second_app), false, &[ASKS]).await;
    ready(&[&ours, &stock]).await;
    assert!(admin(&ours, "/clusters").await.contains("extra::"));
    says(&world, "good", "True", "changed bootstrap").await;
    says(&world, "broken", "False", "not applied: ").await;
    calls_arrive(&stock, "ours", "URI=spiffe://cluster.local/ns/default/sa/stock").await;

    // What comes later is for the next start.
    world.apply(FILTERS, bootstrap("good", "ours", &cluster("later"))).await;
    says(&world, "good", "False", "restart the pod").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_is_patched_with_what_the_proxy_takes() {
    if !has_envoy() {
        return;
    }
    let (first, second, first_app, second_app) = addresses([250, 251]);
    let mut all = objects(&[("ours", first), ("stock", second)]);
    let stats = json!({ "stats_config": { "use_all_default_tags": true } });
    all.push((
        FILTERS,
        vec![bootstrap("good", "stock", &cluster("extra")), bootstrap("other", "ours", &stats)],
    ));
    let world = World::start(all).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[ASKS]).await;
    let stock = pod(&world, "stock", (second, second_app), false, &[ASKS]).await;
    ready(&[&ours, &stock]).await;
    assert!(admin(&stock, "/clusters").await.contains("extra::"));
    says(&world, "good", "True", "changed bootstrap").await;
    says(&world, "other", "False", "stats_config: Lateen's proxy does not act on it").await;
    calls_arrive(&stock, "ours", "URI=spiffe://cluster.local/ns/default/sa/stock").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_whose_agent_does_not_ask_is_named() {
    let (first, _, first_app, _) = addresses([246, 247]);
    let mut all = objects(&[("ours", first)]);
    all.push((FILTERS, vec![bootstrap("good", "ours", &cluster("extra"))]));
    let world = World::start(all).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[]).await;
    ready(&[&ours]).await;
    says(&world, "good", "False", "BOOTSTRAP_XDS_AGENT").await;
    assert!(!admin(&ours, "/clusters").await.contains("extra::"));
}

fn fault(status: u32) -> Value {
    const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    let config =
        json!({ "@type": FAULT, "abort": { "http_status": status, "percentage": { "numerator": 100 } } });
    let discovery =
        json!({ "config_source": { "ads": {}, "resource_api_version": "V3" }, "type_urls": [FAULT] });
    let at = json!({ "context": "SIDECAR_OUTBOUND", "listener": { "filterChain": { "filter": {
        "name": "envoy.filters.network.http_connection_manager" } } } });
    filter(
        "named",
        "stock",
        &json!([
            { "applyTo": "HTTP_FILTER", "match": at,
              "patch": { "operation": "INSERT_FIRST", "value": { "name": "by-name", "config_discovery": discovery } } },
            { "applyTo": "EXTENSION_CONFIG",
              "patch": { "operation": "ADD", "value": { "name": "by-name", "typed_config": config } } },
        ]),
    )
}

/// Stock Envoy fetches the configuration of a filter by its name, and follows its changes without a new listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extension_configurations_are_fetched_by_name() {
    if !has_envoy() {
        return;
    }
    let (first, second, first_app, second_app) = addresses([248, 249]);
    let mut all = objects(&[("ours", first), ("stock", second)]);
    all.push((FILTERS, vec![fault(418)]));
    let world = World::start(all).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[]).await;
    let stock = pod(&world, "stock", (second, second_app), false, &[]).await;
    ready(&[&ours, &stock]).await;
    for status in [418, 451] {
        world.apply(FILTERS, fault(status)).await;
        let mut last = String::new();
        let answered = tokio::time::timeout(Duration::from_secs(60), async {
            while !last.starts_with(&format!("HTTP/1.1 {status} ")) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                last = call(&stock, "ours").await.unwrap_or_else(|error| error.to_string());
            }
        });
        assert!(answered.await.is_ok(), "no {status}: {last}");
    }
    says(&world, "named", "True", "changed by-name").await;
}
