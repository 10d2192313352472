//! Two sidecars, ours and stock Envoy, with the agent beside each: mTLS both ways round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::http::HeaderMap;
use lateen_agent::{Agent, Arguments, Envoy, Role, Settings};
use lateen_api::Kind;
use lateen_base::SystemClock;
use lateen_ca::rotation::Validity;
use lateen_control::Watched;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::client::{Config, Event, Service};
use lateen_xds::transport::Target;
use lateen_xds::types;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{World, deadline, node};

const PORT: u16 = 9080;

/// What runs the data plane of a pod.
enum Plane {
    Ours(#[expect(dead_code, reason = "the proxy runs as long as its handle is kept")] lateen_proxy::Handle),
    Stock(#[expect(dead_code, reason = "Envoy runs as long as its handle is kept")] Box<Envoy>),
}

struct Pod {
    address: Ipv4Addr,
    agent: Agent,
    _plane: Plane,
    _root: tempfile::TempDir,
}

/// Addresses of the loopback that no other run of this test has.
fn addresses() -> (Ipv4Addr, Ipv4Addr, Ipv4Addr, Ipv4Addr) {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let at = |net: u8, last: u8| Ipv4Addr::new(127, net, high.max(1), last);
    let (first, second) = (low & 0xfe, low | 1);
    (at(96, first), at(96, second), at(97, first), at(97, second))
}

fn objects(pods: &[(&str, Ipv4Addr)]) -> Vec<(Watched, Vec<Value>)> {
    let namespace = json!({ "metadata": { "name": "default" } });
    let service = |(name, _): &(&str, Ipv4Addr)| {
        json!({
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "clusterIP": "10.9.9.9", "selector": { "app": name },
                      "ports": [{ "name": "http", "port": PORT, "targetPort": PORT }] },
        })
    };
    let slice = |(name, address): &(&str, Ipv4Addr)| {
        json!({
            "metadata": { "name": format!("{name}-1"), "namespace": "default",
                          "labels": { "kubernetes.io/service-name": name } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true },
                            "targetRef": { "kind": "Pod", "name": name, "namespace": "default" } }],
            "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }],
        })
    };
    let pod = |(name, address): &(&str, Ipv4Addr)| {
        json!({
            "metadata": { "name": name, "namespace": "default",
                          "labels": { "app": name, "security.istio.io/tlsMode": "istio" } },
            "spec": { "serviceAccountName": name },
            "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
                        "conditions": [{ "type": "Ready", "status": "True" }] },
        })
    };
    let strict = json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": { "name": "default", "namespace": "default" },
        "spec": { "mtls": { "mode": "STRICT" } },
    });
    vec![
        (Watched::Namespace, vec![namespace]),
        (Watched::Service, pods.iter().map(service).collect()),
        (Watched::EndpointSlice, pods.iter().map(slice).collect()),
        (Watched::Pod, pods.iter().map(pod).collect()),
        (Watched::Istio(Kind::PeerAuthentication), vec![strict]),
    ]
}

/// An application that answers with the identity that its sidecar saw.
async fn serve_application(address: Ipv4Addr) {
    let listener = tokio::net::TcpListener::bind((address, PORT)).await.unwrap();
    let seen = |headers: HeaderMap| async move {
        let header = headers.get("x-forwarded-client-cert").and_then(|value| value.to_str().ok());
        header.unwrap_or("no identity").to_owned()
    };
    let router = Router::new().fallback(seen);
    tokio::spawn(async move { axum::serve(listener, router).await });
}

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

async fn pod(world: &World, name: &str, address: Ipv4Addr, application: Ipv4Addr, ours: bool) -> Pod {
    serve_application(application).await;
    let (agent, root) = agent(world, name, address, application, "24h").await;
    let plane = match ours {
        true => {
            let bootstrap = agent.typed_bootstrap();
            let config = lateen_proxy::Config { bootstrap, concurrency: 1, ..Default::default() };
            Plane::Ours(tokio::task::spawn_blocking(move || config.build()).await.unwrap().unwrap())
        }
        false => Plane::Stock(Box::new(agent.envoy().unwrap())),
    };
    Pod { address, agent, _plane: plane, _root: root }
}

async fn agent(
    world: &World,
    name: &str,
    address: Ipv4Addr,
    application: Ipv4Addr,
    ttl: &str,
) -> (Agent, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "var/run/secrets/tokens/istio-token", &format!("default:{name}"));
    write(root.path(), "var/run/secrets/istio/root-cert.pem", world.control.root_pem());
    write(root.path(), "etc/istio/pod/labels", &format!("app=\"{name}\"\n"));
    let discovery = world.control.bound().secure.to_string();
    let config = json!({ "discoveryAddress": discovery }).to_string();
    let env: BTreeMap<String, String> = [
        ("POD_NAME", name),
        ("POD_NAMESPACE", "default"),
        ("INSTANCE_IP", &address.to_string()),
        ("SERVICE_ACCOUNT", name),
        ("PROXY_CONFIG", &config),
        ("ISTIOD_SAN", "istiod.istio-system.svc"),
        ("SECRET_TTL", ttl),
        ("ISTIO_META_INTERCEPTION_MODE", "NONE"),
        ("ISTIO_META_HTTP_PROXY_PORT", "15007"),
        ("ISTIO_META_LATEEN_APP_ADDRESS", &application.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    let settings =
        Settings::read(Role::Sidecar, &Arguments::default(), root.path().to_owned(), &env).unwrap();
    (Agent::start(settings, Arc::new(SystemClock)).await.unwrap(), root)
}

/// Calls a host through a pod's sidecar, as an application of the pod does.
async fn call(from: &Pod, host: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(SocketAddr::from((from.address, 15007))).await?;
    let request =
        format!("GET http://{host}:{PORT}/ HTTP/1.1\r\nhost: {host}:{PORT}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn calls_arrive(from: &Pod, host: &str, identity: &str) {
    let mut last = String::new();
    let arrived = async {
        loop {
            match call(from, host).await {
                Ok(answer) if answer.contains(identity) => return,
                Ok(answer) => last = answer,
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let arrived = tokio::time::timeout(std::time::Duration::from_secs(60), arrived).await;
    assert!(arrived.is_ok(), "calls to {host} do not arrive as {identity}; last: {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_and_stock_envoy_speak_mtls_both_ways() {
    if std::process::Command::new("envoy").arg("--version").output().is_err() {
        eprintln!("skipped, no envoy on PATH");
        return;
    }
    let (first, second, first_app, second_app) = addresses();
    let world = World::start(objects(&[("ours", first), ("stock", second)])).await;
    let ours = pod(&world, "ours", first, first_app, true).await;
    let stock = pod(&world, "stock", second, second_app, false).await;
    deadline(async {
        while ours.agent.ready().await.is_err() || stock.agent.ready().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    calls_arrive(&ours, "stock", "URI=spiffe://cluster.local/ns/default/sa/ours").await;
    calls_arrive(&stock, "ours", "URI=spiffe://cluster.local/ns/default/sa/stock").await;
    let syncz = world.debug("/debug/syncz").await;
    for proxy in syncz.as_array().unwrap() {
        for (kind, of) in proxy["types"].as_object().unwrap() {
            assert!(of.get("rejected").is_none(), "{} refuses {kind}: {of}", proxy["proxy"]);
        }
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_runs_out() {
    let (first, _, application, _) = addresses();
    let own = Ipv4Addr::from(u32::from(first) ^ 0x80);
    let world = World::start(objects(&[("ours", own)])).await;
    let (agent, _root) = agent(&world, "ours", own, application, "4s").await;
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
