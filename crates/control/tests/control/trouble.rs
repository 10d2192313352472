//! An API server that refuses, hangs, or loses answers: everything is tried again until it is done.

use std::sync::Arc;

use lateen_control::Watched;
use lateen_kube::WatchEvent;
use lateen_xds::{Rejection, types};

use crate::fake::{FakeCluster, Trouble, World, eventually};
use crate::{REVIEWS, bookinfo};

fn cluster(troubles: &[Trouble]) -> Arc<FakeCluster> {
    let cluster = FakeCluster::default();
    cluster.troubles.lock().unwrap().extend(troubles);
    Arc::new(cluster)
}

#[tokio::test]
async fn the_authority_waits_for_a_server_that_refuses_and_hangs() {
    let troubles = [
        Trouble::Refused("connection refused"),
        Trouble::Refused("secrets is forbidden: 403"),
        Trouble::Hangs,
        Trouble::Refused("too many requests: 429"),
    ];
    let world = World::start_on(cluster(&troubles), bookinfo()).await;
    assert!(world.cluster.troubles.lock().unwrap().is_empty());
    assert_eq!(world.cluster.secrets.lock().unwrap()["istio-ca-secret"].len(), 5);
}

#[tokio::test]
async fn an_authority_whose_creation_was_not_answered_is_the_one_that_is_used() {
    // The first request only looks, so that it loses nothing; the second creates.
    let cluster = cluster(&[Trouble::AnswerLost, Trouble::AnswerLost]);
    let world = World::start_on(cluster.clone(), bookinfo()).await;
    assert!(cluster.troubles.lock().unwrap().is_empty());
    let kept = cluster.secrets.lock().unwrap()["istio-ca-secret"]["ca-cert.pem"].clone();
    assert_eq!(world.control.root_pem().as_bytes(), kept);
}

#[tokio::test]
async fn replicas_that_start_at_once_share_one_authority() {
    let cluster = Arc::new(FakeCluster::default());
    let (one, two) = tokio::join!(
        World::start_on(cluster.clone(), bookinfo()),
        World::start_on(cluster.clone(), bookinfo())
    );
    assert_eq!(one.control.root_pem(), two.control.root_pem());
}

#[tokio::test]
async fn roots_and_statuses_are_written_when_the_server_is_back() {
    let world = World::start(bookinfo()).await;
    eventually(|| world.cluster.roots.lock().unwrap().len() == 2).await;
    world.cluster.troubles.lock().unwrap().extend([Trouble::Refused("500"), Trouble::Hangs]);
    world.apply(Watched::Namespace, serde_json::json!({ "metadata": { "name": "new" } })).await;
    eventually(|| world.cluster.roots.lock().unwrap().contains("new")).await;

    let mut client = world.connect("productpage");
    client.handle.subscribe(types::ROUTE, ["9080"]);
    let update = client.update(types::ROUTE).await;
    world.cluster.troubles.lock().unwrap().extend([Trouble::Refused("429"), Trouble::Refused("429")]);
    let rejection = Rejection { resource: "9080".into(), reason: "no".into() };
    client.handle.nack(update, vec![rejection]);
    eventually(|| world.cluster.statuses.lock().unwrap().iter().any(|(object, _)| object.name == "reviews"))
        .await;
}

#[tokio::test]
async fn a_watch_that_fails_loses_nothing() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::CLUSTER, ["*"]);
    client.until(types::CLUSTER, |update| update.resources.iter().any(|r| &*r.name == REVIEWS)).await;
    for event in [
        WatchEvent::Failed("500 Internal Server Error".into()),
        WatchEvent::Replaced(vec![
            crate::fake::service("reviews", 9080),
            crate::fake::service("ratings", 9080),
        ]),
    ] {
        let input = lateen_control::Input { cluster: "Kubernetes".into(), kind: Watched::Service, event };
        world.inputs.send(input).await.unwrap();
    }
    let update = client
        .until(types::CLUSTER, |update| update.resources.iter().any(|r| r.name.contains("ratings")))
        .await;
    assert!(update.removed.is_empty(), "{update:?}");
}
