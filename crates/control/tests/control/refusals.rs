//! What a proxy refuses by name is shown, on the debug API and on the object, until a version comes that it takes.

use lateen_control::Watched;
use lateen_xds::{Rejection, types};
use serde_json::{Value, json};

use crate::fake::{World, deadline, eventually, virtual_service};
use crate::{REVIEWS, bookinfo};

fn condition(world: &World, status: &str) -> Option<String> {
    let statuses = world.cluster.statuses.lock().unwrap();
    let (object, last) = statuses.last()?;
    let condition = &last["conditions"][0];
    let good = object.name == "reviews" && condition["status"] == status;
    good.then(|| condition["message"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the type of the only proxy stands so.
async fn stands(world: &World, kind: &str, state: &str) -> Value {
    deadline(async {
        loop {
            let syncz = world.debug("/debug/syncz").await;
            if syncz[0]["types"][kind]["state"] == state {
                return syncz[0]["types"][kind].clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_refusal_shows_until_the_next_good_version() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::ROUTE, ["9080"]);
    let update = client.update(types::ROUTE).await;
    let rejection = Rejection { resource: "9080".into(), reason: "retry policy: not supported".into() };
    client.handle.nack(update, vec![rejection]);
    eventually(|| condition(&world, "False").is_some_and(|message| message.contains("retry policy"))).await;
    let routes = stands(&world, "RDS", "ERROR").await;
    assert_eq!(routes["rejected"], json!([{ "resource": "9080", "reason": "retry policy: not supported" }]));
    let syncz = world.debug("/debug/syncz").await;
    assert_eq!((&syncz[0]["proxy"], &syncz[0]["dialect"]), (&json!("productpage.default"), &json!("delta")));
    let dump = world.debug("/debug/config_dump?proxyID=productpage.default").await;
    assert_eq!(dump["configs"].as_array().unwrap().len(), 4, "{dump}");

    world.apply(Watched::Istio(lateen_api::Kind::VirtualService), virtual_service("v2")).await;
    let update = client.update(types::ROUTE).await;
    client.handle.ack(update);
    assert_eq!(stands(&world, "RDS", "SYNCED").await["rejected"], Value::Null);
    eventually(|| condition(&world, "True").is_some()).await;
}

#[tokio::test]
async fn only_the_named_resource_of_a_push_is_refused() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::CLUSTER, ["*"]);
    let update = client.update(types::CLUSTER).await;
    let all = update.resources.len();
    assert!(all > 1, "{update:?}");
    let rejection = Rejection { resource: REVIEWS.into(), reason: "outlier_detection: not supported".into() };
    client.handle.nack(update, vec![rejection]);
    let clusters = stands(&world, "CDS", "ERROR").await;
    assert_eq!(clusters["rejected"].as_array().unwrap().len(), 1, "{clusters}");
    assert_eq!(clusters["rejected"][0]["resource"], REVIEWS);
    // Another resource's next version does not clear it; its own removal does.
    world.apply(Watched::Service, crate::fake::service("ratings", 9080)).await;
    client.until(types::CLUSTER, |update| update.resources.iter().any(|r| r.name.contains("ratings"))).await;
    assert_eq!(stands(&world, "CDS", "ERROR").await["rejected"][0]["resource"], REVIEWS);
    let event = lateen_kube::WatchEvent::Deleted(crate::fake::service("reviews", 9080));
    let kind = Watched::Service;
    world.inputs.send(lateen_control::Input { cluster: "Kubernetes".into(), kind, event }).await.unwrap();
    client.until(types::CLUSTER, |update| update.removed.iter().any(|name| &**name == REVIEWS)).await;
    stands(&world, "CDS", "SYNCED").await;
}
