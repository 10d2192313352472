//! A control plane on a scripted cluster, asked by discovery and certificate clients over real sockets.

#![allow(clippy::unwrap_used)]

mod attacks;
mod callers;
mod envoy_filters;
mod fake;
mod jwks;
mod mtls;
mod patches;
mod pods;
mod refusals;
mod rotation;
mod scoping;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use lateen_ca::request::KeyRequest;
use lateen_control::{Input, Watched};
use lateen_kube::WatchEvent;
use lateen_xds::client::{Config, Update};
use lateen_xds::types;
use serde_json::{Value, json};

use fake::{Client, World, deadline, eventually, node, service, slice, virtual_service};

fn bookinfo() -> Vec<(Watched, Vec<Value>)> {
    let namespace = |name: &str| json!({ "metadata": { "name": name } });
    vec![
        (Watched::Namespace, vec![namespace("default"), namespace("istio-system"), namespace("kube-system")]),
        (Watched::Service, vec![service("reviews", 9080)]),
        (Watched::EndpointSlice, vec![slice("reviews", "10.0.0.1", 9080)]),
        (Watched::Istio(lateen_api::Kind::VirtualService), vec![virtual_service("v1")]),
    ]
}

const REVIEWS: &str = "outbound|9080||reviews.default.svc.cluster.local";

#[tokio::test]
async fn a_change_in_the_cluster_reaches_the_proxy() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::CLUSTER, ["*"]);
    client.handle.subscribe(types::ENDPOINT, [REVIEWS]);
    let clusters = client.until(types::CLUSTER, |_| true).await;
    assert!(clusters.resources.iter().any(|r| &*r.name == REVIEWS), "{clusters:?}");
    let endpoints = client.until(types::ENDPOINT, |_| true).await;
    assert_eq!(endpoints.resources.len(), 1);

    world.apply(Watched::EndpointSlice, slice("reviews", "10.0.0.2", 9080)).await;
    let endpoints = client.until(types::ENDPOINT, |_| true).await;
    let text = format!("{:?}", endpoints.resources[0].any.value);
    assert!(text.contains("10.0.0.2") && !text.contains("10.0.0.1"), "{text}");

    world.apply(Watched::Service, service("ratings", 9080)).await;
    let name = "outbound|9080||ratings.default.svc.cluster.local";
    client.until(types::CLUSTER, |update| update.resources.iter().any(|r| &*r.name == name)).await;
    let event = WatchEvent::Deleted(service("ratings", 9080));
    world.inputs.send(Input { cluster: "Kubernetes".into(), kind: Watched::Service, event }).await.unwrap();
    client.until(types::CLUSTER, |update| update.removed.iter().any(|r| &**r == name)).await;
}

#[tokio::test]
async fn a_bad_object_is_rejected_by_name_and_the_last_good_one_stays() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::ROUTE, ["9080"]);
    let routes = client.until(types::ROUTE, |_| true).await;
    let text = |update: &Update| format!("{:?}", update.resources[0].any.value);
    assert!(text(&routes).contains("|v1|"), "{}", text(&routes));

    let kind = Watched::Istio(lateen_api::Kind::VirtualService);
    let mut bad = virtual_service("v9");
    bad["spec"]["http"][0]["timeuot"] = json!("1s");
    world.apply(kind, bad).await;
    deadline(async {
        loop {
            let configs = world.debug("/debug/configz").await;
            let reviews = configs.as_array().unwrap().iter().find(|c| c["name"] == "reviews").unwrap();
            if reviews["rejected"].as_str().is_some_and(|reason| reason.contains("timeuot")) {
                assert_eq!(reviews["spec"]["http"][0]["route"][0]["destination"]["subset"], "v1");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    world.apply(kind, virtual_service("v2")).await;
    client.until(types::ROUTE, |update| text(update).contains("|v2|")).await;
}

#[tokio::test]
async fn the_secure_port_knows_who_asks() {
    let world = World::start(bookinfo()).await;
    let channel = deadline(world.secure().channel()).await.unwrap();
    let reviews = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".parse().unwrap();
    let request = KeyRequest::new(&reviews).unwrap();
    let day = Duration::from_secs(86_400);
    let sign = |token: &'static str| {
        lateen_ca::client::request(channel.clone(), Some(token), request.csr_pem.clone(), day)
    };
    let issued = deadline(sign("default:bookinfo-reviews")).await.unwrap();
    assert_eq!(issued.root_pem, world.control.root_pem());
    let refused = deadline(sign("default:bookinfo-ratings")).await.unwrap_err();
    assert!(refused.to_string().contains("bookinfo-ratings"), "{refused}");
    assert!(deadline(sign("nonsense")).await.is_err());

    let connect = |token: &'static str| {
        let mut config = Config::new(world.secure(), node("productpage"));
        config.token = Some(Arc::new(move || Some(token.to_owned())));
        let (handle, events) = lateen_xds::client::connect(config);
        handle.subscribe(types::CLUSTER, ["*"]);
        Client { handle, events }
    };
    let mut own = connect("default:bookinfo-productpage");
    assert!(!own.update(types::CLUSTER).await.resources.is_empty());
    let reason = connect("other:intruder").refusal().await;
    assert!(reason.contains("not in the namespace"), "{reason}");
}

#[tokio::test]
async fn roots_webhook_and_mesh_config_are_kept() {
    let mut objects = bookinfo();
    let webhook = json!({ "metadata": { "name": "istio-sidecar-injector" }, "webhooks": [{ "clientConfig": {
            "service": { "name": "istiod", "namespace": "istio-system" } } }] });
    objects.push((Watched::Webhook, vec![webhook]));
    let world = World::start(objects).await;
    eventually(|| world.cluster.roots.lock().unwrap().len() == 2).await;
    assert!(!world.cluster.roots.lock().unwrap().contains("kube-system"));
    assert_eq!(world.cluster.secrets.lock().unwrap()["istio-ca-secret"].len(), 5);
    eventually(|| world.cluster.webhook.lock().unwrap().is_some()).await;
    world.apply(Watched::Namespace, json!({ "metadata": { "name": "new" } })).await;
    eventually(|| world.cluster.roots.lock().unwrap().contains("new")).await;

    let mut client = world.connect("productpage");
    client.handle.subscribe(types::CLUSTER, ["*"]);
    client.until(types::CLUSTER, |_| true).await;
    let map = json!({
        "metadata": { "name": "istio", "namespace": "istio-system" },
        "data": { "mesh": "connectTimeout: 3s\n" },
    });
    world.apply(Watched::ConfigMap, map.clone()).await;
    client.until(types::CLUSTER, |update| update.resources.iter().any(|r| &*r.name == REVIEWS)).await;

    let mut bad = map;
    bad["data"]["mesh"] = json!("connectTimeout: 0s\n");
    world.apply(Watched::ConfigMap, bad).await;
    deadline(async {
        loop {
            let mesh = world.debug("/debug/mesh").await;
            let refused =
                mesh["refused"]["ConfigMap istio-system/istio"].as_str().unwrap_or_default().to_owned();
            if refused.contains("mesh: connectTimeout: ") {
                assert_eq!(mesh["mesh"]["connectTimeout"], "3s", "{mesh}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
