//! Two sidecars, ours and stock Envoy, with the agent beside each: mTLS both ways round, in both forms of discovery.

use std::collections::BTreeSet;
use std::time::SystemTime;

use lateen_ca::rotation::Validity;
use lateen_control::{Input, Watched};
use lateen_kube::WatchEvent;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::client::{Config, Event, Service};
use lateen_xds::transport::Target;
use lateen_xds::types;
use serde_json::json;

use crate::fake::{World, deadline, node};
use crate::pods::{
    addresses, agent, call, calls_arrive, endpoints_at, has_envoy, objects, pair, pod, ready, sync_of,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_and_stock_envoy_speak_mtls_both_ways() {
    if !has_envoy() {
        return;
    }
    let (world, _ours, _stock) = pair([96, 97]).await;
    for proxy in ["ours.default", "stock.default"] {
        assert_eq!(sync_of(&world, proxy).await["dialect"], "delta");
    }
}

/// Stock Envoy on state-of-the-world discovery starts, serves, calls, and follows changes, as on delta.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_envoy_lives_on_state_of_the_world() {
    if !has_envoy() {
        return;
    }
    let (first, second, first_app, second_app) = addresses([240, 241]);
    let world = World::start(objects(&[("ours", first), ("whole", second)])).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[]).await;
    let whole = pod(&world, "whole", (second, second_app), false, &[("ISTIO_DELTA_XDS", "false")]).await;
    ready(&[&ours, &whole]).await;
    calls_arrive(&whole, "ours", "URI=spiffe://cluster.local/ns/default/sa/whole").await;
    calls_arrive(&ours, "whole", "URI=spiffe://cluster.local/ns/default/sa/ours").await;
    let sync = sync_of(&world, "whole.default").await;
    assert_eq!(sync["dialect"], "sotw", "{sync}");

    let service = Watched::Service;
    world.apply(service, crate::fake::service("late", 9080)).await;
    world.apply(Watched::EndpointSlice, endpoints_at("late", first, "ours")).await;
    calls_arrive(&whole, "late", "URI=spiffe://cluster.local/ns/default/sa/whole").await;
    let gone = WatchEvent::Deleted(json!({ "metadata": { "name": "late", "namespace": "default" } }));
    let input = Input { cluster: "Kubernetes".into(), kind: service, event: gone };
    world.inputs.send(input).await.unwrap();
    deadline(async {
        while call(&whole, "late").await.is_ok_and(|answer| answer.contains("URI=")) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    sync_of(&world, "whole.default").await;
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_runs_out() {
    let (own, _, application, _) = addresses([98, 99]);
    let world = World::start(objects(&[("ours", own)])).await;
    let (agent, _root) = agent(&world, "ours", own, application, &[("SECRET_TTL", "4s")]).await;
    let target = Target::Unix(agent.settings().secrets_socket());
    let config = Config { service: Service::Secrets, ..Config::new(target, node("ours")) };
    let (handle, mut events) = lateen_xds::client::connect(config);
    handle.subscribe(types::SECRET, ["default"]);
    let mut versions = BTreeSet::new();
    while versions.len() < 3 {
        if let Event::Update(update) = deadline(events.recv()).await.unwrap() {
            assert!(update.removed.is_empty(), "there is always a certificate");
            let secret: Secret = update.resources[0].any.unpack().unwrap();
            let Some(Type::TlsCertificate(certificate)) = &secret.r#type else { panic!("{secret:?}") };
            let chain = certificate.certificate_chain.as_ref().unwrap();
            let Some(Specifier::InlineBytes(chain)) = &chain.specifier else { panic!("{chain:?}") };
            let validity = Validity::of_pem(std::str::from_utf8(chain).unwrap()).unwrap();
            assert!(validity.not_after > SystemTime::now(), "it came before the former one ran out");
            versions.insert(update.resources[0].version.clone());
            handle.ack(update);
        }
    }
}
