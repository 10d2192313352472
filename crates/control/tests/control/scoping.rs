//! Automatic scoping: sidecars that load clusters when a request wants them, ours and stock Envoy.

use std::time::Duration;

use lateen_control::{Input, Watched};
use lateen_kube::WatchEvent;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::json::from_value;
use lateen_xds::types;
use serde_json::{Value, json};

use crate::bookinfo;
use crate::fake::{World, node, service, slice};
use crate::pods::{addresses, calls_arrive, endpoints_at, has_envoy, objects, pod, ready, sync_of};

const AUTOMATIC: (&str, &str) = ("ISTIO_METAJSON_ANNOTATIONS", r#"{"lateen.dev/scoping": "automatic"}"#);
/// Services that nobody calls.
const OTHERS: usize = 30;

fn cluster(name: &str) -> String {
    format!("outbound|9080||{name}.default.svc.cluster.local")
}

/// What a proxy has, when `good` holds of it.
async fn until(world: &World, proxy: &str, good: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            last = sync_of(world, proxy).await;
            if good(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(found.await.is_ok(), "{proxy}: {last}");
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_come_when_requests_want_them_and_are_kept_up_to_date() {
    if !has_envoy() {
        return;
    }
    let (first, second, first_app, second_app) = addresses([242, 243]);
    let mut all = objects(&[("ours", first), ("stock", second)]);
    for (kind, list) in &mut all {
        let names = (0..OTHERS).map(|index| format!("other-{index}"));
        match kind {
            Watched::Service => list.extend(names.map(|name| service(&name, 9080))),
            Watched::EndpointSlice => list.extend(names.map(|name| slice(&name, "10.0.0.1", 9080))),
            _ => {}
        }
    }
    let world = World::start(all).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[AUTOMATIC]).await;
    let stock = pod(&world, "stock", (second, second_app), false, &[AUTOMATIC]).await;
    ready(&[&ours, &stock]).await;
    for proxy in ["ours.default", "stock.default"] {
        let sync = until(&world, proxy, |sync| sync["types"]["RDS"]["state"] == "SYNCED").await;
        let scoping = &sync["scoping"];
        assert_eq!(scoping["loaded"], json!([]), "{sync}");
        assert!(
            scoping["obstacle"].is_null() && scoping["clusters"].as_u64().unwrap() > OTHERS as u64,
            "{sync}"
        );
        assert_eq!(scoping["atStart"], sync["types"]["CDS"]["resources"], "{sync}");
        assert!(scoping["atStart"].as_u64().unwrap() < 6, "{sync}");
    }
    calls_arrive(&ours, "stock", "URI=spiffe://cluster.local/ns/default/sa/ours").await;
    calls_arrive(&stock, "ours", "URI=spiffe://cluster.local/ns/default/sa/stock").await;
    for (proxy, other) in [("ours.default", "stock"), ("stock.default", "ours")] {
        until(&world, proxy, |sync| sync["scoping"]["loaded"] == json!([cluster(other)])).await;
    }

    // What was loaded follows changes: now each name leads to the caller itself.
    for (name, own, address) in [("stock", "ours", first), ("ours", "stock", second)] {
        world.apply(Watched::EndpointSlice, endpoints_at(name, address, own)).await;
    }
    for (caller, name, own) in [(&ours, "stock", "ours"), (&stock, "ours", "stock")] {
        calls_arrive(caller, name, &format!("By=spiffe://cluster.local/ns/default/sa/{own}")).await;
    }

    // A service that goes takes its cluster along; requests for it are not held for ever.
    for name in ["ours", "stock"] {
        let event = WatchEvent::Deleted(json!({ "metadata": { "name": name, "namespace": "default" } }));
        let input = Input { cluster: "Kubernetes".into(), kind: Watched::Service, event };
        world.inputs.send(input).await.unwrap();
    }
    for proxy in ["ours.default", "stock.default"] {
        until(&world, proxy, |sync| sync["scoping"]["loaded"] == json!([])).await;
    }
}

/// A proxy whose pod has this annotation.
fn annotated(scoping: &str) -> Node {
    let id = node("productpage").id;
    let annotations = json!({ "ANNOTATIONS": { "lateen.dev/scoping": scoping } });
    from_value(&json!({ "id": id, "metadata": annotations })).unwrap()
}

#[tokio::test]
async fn where_it_cannot_be_everything_comes_and_the_reason_is_said() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect_as(annotated("sometimes"));
    client.handle.subscribe(types::CLUSTER, ["*"]);
    client
        .until(types::CLUSTER, |update| update.resources.iter().any(|r| *r.name == *cluster("reviews")))
        .await;
    let sync = sync_of(&world, "productpage.default").await;
    let obstacle = sync["scoping"]["obstacle"].as_str().unwrap();
    assert!(obstacle.contains("lateen.dev/scoping") && obstacle.contains("sometimes"), "{sync}");
}

#[tokio::test]
async fn only_what_is_shown_can_be_loaded() {
    let mut objects = bookinfo();
    let mut hidden = service("hidden", 9080);
    hidden["metadata"]["annotations"] = json!({ "networking.istio.io/exportTo": "elsewhere" });
    objects
        .iter_mut()
        .filter(|(kind, _)| *kind == Watched::Service)
        .for_each(|(_, list)| list.push(hidden.clone()));
    let world = World::start(objects).await;
    let mut client = world.connect_as(annotated("automatic"));
    client.handle.subscribe(types::CLUSTER, ["*"]);
    let start = client.until(types::CLUSTER, |_| true).await;
    assert!(start.resources.iter().all(|resource| !resource.name.starts_with("outbound|")), "{start:?}");
    client.handle.subscribe(types::CLUSTER, [&*cluster("reviews"), &*cluster("hidden")]);
    let answer = client.until(types::CLUSTER, |_| true).await;
    assert_eq!(
        answer.resources.iter().map(|resource| &*resource.name).collect::<Vec<_>>(),
        [cluster("reviews")]
    );
    assert_eq!(answer.removed.iter().map(|name| &**name).collect::<Vec<_>>(), [cluster("hidden")]);
    let sync = sync_of(&world, "productpage.default").await;
    assert_eq!(sync["scoping"]["missing"], json!([cluster("hidden")]), "{sync}");
}
