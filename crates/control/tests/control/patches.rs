//! EnvoyFilters: proxies get what is patched, and the object's status says what each patch did.

use lateen_control::Watched;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_xds::types;
use serde_json::{Value, json};

use crate::fake::{World, eventually};
use crate::{REVIEWS, bookinfo};

fn filter(timeout: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": { "name": "timeouts", "namespace": "default" },
        "spec": { "configPatches": [
            { "applyTo": "CLUSTER", "match": { "cluster": { "name": REVIEWS } },
              "patch": { "operation": "MERGE", "value": { "connect_timeout": timeout } } },
            { "applyTo": "CLUSTER", "match": { "cluster": { "service": "reviews.default.svc.cluster.local", "subset": "v9" } },
              "patch": { "operation": "MERGE", "value": { "connect_timeout": "1s" } } },
        ] },
    })
}

/// The condition on patches of the last status that was written.
fn condition(world: &World) -> Option<Value> {
    let statuses = world.cluster.statuses.lock().unwrap();
    let (_, last) = statuses.iter().rev().find(|(object, _)| object.kind == "EnvoyFilter")?;
    let conditions = last["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "lateen.dev/PatchesApplied").cloned()
}

async fn says(world: &World, status: &str, words: &[&str]) {
    eventually(|| {
        condition(world).is_some_and(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["status"] == status && words.iter().all(|word| message.contains(word))
        })
    })
    .await;
}

#[tokio::test]
async fn a_proxy_gets_what_is_patched_and_the_object_says_what_was_done() {
    let world = World::start(bookinfo()).await;
    let kind = Watched::Istio(lateen_api::Kind::EnvoyFilter);
    world.apply(kind, filter("3s")).await;
    says(&world, "Unknown", &["no proxy is connected"]).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::CLUSTER, ["*"]);
    let connect_timeout = |update: &lateen_xds::client::Update| {
        let reviews = update.resources.iter().find(|resource| &*resource.name == REVIEWS)?;
        Some(reviews.any.unpack::<Cluster>().unwrap().connect_timeout?.seconds)
    };
    client.until(types::CLUSTER, |update| connect_timeout(update) == Some(3)).await;
    let changed = format!("patch 0 (CLUSTER MERGE): changed {REVIEWS} on 1 of 1 proxies");
    let nothing = format!(
        "patch 1 (CLUSTER MERGE): productpage.default: matched nothing: no cluster has service \
         reviews.default.svc.cluster.local, subset v9; that host has {REVIEWS}"
    );
    says(&world, "False", &[&changed, &nothing]).await;

    world.apply(kind, filter("0s")).await;
    client.until(types::CLUSTER, |update| connect_timeout(update) == Some(10)).await;
    says(
        &world,
        "False",
        &["patch 0 (CLUSTER MERGE): not applied: ", "connect_timeout: 0s has to be greater than 0s"],
    )
    .await;
}
