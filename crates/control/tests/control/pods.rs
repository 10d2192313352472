//! Pods on a scripted cluster: an application, an agent, and a sidecar that is ours or stock Envoy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::http::HeaderMap;
use lateen_agent::{Agent, Arguments, Envoy, Role, Settings};
use lateen_api::Kind;
use lateen_base::SystemClock;
use lateen_control::Watched;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fake::{World, deadline};

const PORT: u16 = 9080;

/// What runs the data plane of a pod.
enum Plane {
    Ours(#[expect(dead_code, reason = "the proxy runs as long as its handle is kept")] lateen_proxy::Handle),
    Stock(#[expect(dead_code, reason = "Envoy runs as long as its handle is kept")] Box<Envoy>),
}

pub(crate) struct Pod {
    pub(crate) address: Ipv4Addr,
    pub(crate) agent: Agent,
    _plane: Plane,
    /// Its files.
    pub(crate) root: tempfile::TempDir,
}

/// Two pods' addresses, then their applications', in nets of the loopback that no other run of this test has. Each test
/// brings nets of its own.
pub(crate) fn addresses(nets: [u8; 2]) -> (Ipv4Addr, Ipv4Addr, Ipv4Addr, Ipv4Addr) {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let at = |net: u8, last: u8| Ipv4Addr::new(127, net, high.max(1), last);
    let (first, second) = (low & 0xfe, low | 1);
    (at(nets[0], first), at(nets[0], second), at(nets[1], first), at(nets[1], second))
}

pub(crate) fn objects(pods: &[(&str, Ipv4Addr)]) -> Vec<(Watched, Vec<Value>)> {
    let namespace = json!({ "metadata": { "name": "default" } });
    let service = |(name, _): &(&str, Ipv4Addr)| {
        json!({
            "metadata": { "name": name, "namespace": "default" },
            "spec": { "clusterIP": "10.9.9.9", "selector": { "app": name },
                      "ports": [{ "name": "http", "port": PORT, "targetPort": PORT }] },
        })
    };
    let slice = |(name, address): &(&str, Ipv4Addr)| endpoints_at(name, *address, name);
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

pub(crate) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A pod, its sidecar ours or stock Envoy; `more` is environment of the agent's.
pub(crate) async fn pod(
    world: &World,
    name: &str,
    (address, application): (Ipv4Addr, Ipv4Addr),
    ours: bool,
    more: &[(&str, &str)],
) -> Pod {
    serve_application(application).await;
    let (agent, root) = agent(world, name, address, application, more).await;
    let plane = match ours {
        true => {
            let bootstrap = agent.typed_bootstrap();
            let config = lateen_proxy::Config { bootstrap, concurrency: 1, ..Default::default() };
            Plane::Ours(tokio::task::spawn_blocking(move || config.build()).await.unwrap().unwrap())
        }
        false => Plane::Stock(Box::new(agent.envoy().unwrap())),
    };
    Pod { address, agent, _plane: plane, root }
}

/// The token of a pod, bound to it; what is behind the last colon is nowhere else.
pub(crate) fn token_of(pod: &str) -> String {
    format!("default:{pod}:{pod}:the-token-of-{pod}-is-told-to-nobody-but-the-control-plane")
}

pub(crate) async fn agent(
    world: &World,
    name: &str,
    address: Ipv4Addr,
    application: Ipv4Addr,
    more: &[(&str, &str)],
) -> (Agent, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "var/run/secrets/tokens/istio-token", &token_of(name));
    write(root.path(), "var/run/secrets/istio/root-cert.pem", &world.control.root_pem());
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
        ("ISTIO_META_INTERCEPTION_MODE", "NONE"),
        ("ISTIO_META_HTTP_PROXY_PORT", "15007"),
        ("ISTIO_META_LATEEN_APP_ADDRESS", &application.to_string()),
    ]
    .iter()
    .chain(more)
    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
    .collect();
    let settings =
        Settings::read(Role::Sidecar, &Arguments::default(), root.path().to_owned(), &env).unwrap();
    (Agent::start(settings, Arc::new(SystemClock)).await.unwrap(), root)
}

/// Calls a host through a pod's sidecar, as an application of the pod does.
pub(crate) async fn call(from: &Pod, host: &str) -> std::io::Result<String> {
    call_with(from.address, host, "").await
}

/// The same from the pod at an address, with these lines in the head.
pub(crate) async fn call_with(from: Ipv4Addr, host: &str, lines: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(SocketAddr::from((from, 15007))).await?;
    let request = format!(
        "GET http://{host}:{PORT}/ HTTP/1.1\r\nhost: {host}:{PORT}\r\n{lines}connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

pub(crate) async fn calls_arrive(from: &Pod, host: &str, identity: &str) {
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

/// The endpoints of a service: a pod at an address.
pub(crate) fn endpoints_at(service: &str, address: Ipv4Addr, pod: &str) -> Value {
    json!({
        "metadata": { "name": format!("{service}-1"), "namespace": "default",
                      "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true },
                        "targetRef": { "kind": "Pod", "name": pod, "namespace": "default" } }],
        "ports": [{ "name": "http", "port": PORT, "protocol": "TCP" }],
    })
}

/// Waits until every pod is ready.
pub(crate) async fn ready(pods: &[&Pod]) {
    for pod in pods {
        deadline(async {
            while pod.agent.ready().await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Whether there is an Envoy; without, a test says that it is skipped.
pub(crate) fn has_envoy() -> bool {
    let found = std::process::Command::new("envoy").arg("--version").output().is_ok();
    if !found {
        assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "envoy is not on PATH");
        eprintln!("skipped, no envoy on PATH");
    }
    found
}

/// What the control plane says of a proxy; nothing of it may be refused.
pub(crate) async fn sync_of(world: &World, proxy: &str) -> Value {
    let syncz = world.debug("/debug/syncz").await;
    let found = syncz.as_array().unwrap().iter().find(|sync| sync["proxy"] == proxy);
    let sync = found.unwrap_or_else(|| panic!("{proxy} is not connected: {syncz}")).clone();
    for (kind, of) in sync["types"].as_object().unwrap() {
        assert!(of.get("rejected").is_none(), "{proxy} refuses {kind}: {of}");
    }
    sync
}

/// The pods `ours` (our proxy) and `stock` (stock Envoy), which call each other by mutual TLS.
pub(crate) async fn pair(nets: [u8; 2]) -> (World, Pod, Pod) {
    let (first, second, first_app, second_app) = addresses(nets);
    let world = World::start(objects(&[("ours", first), ("stock", second)])).await;
    let ours = pod(&world, "ours", (first, first_app), true, &[]).await;
    let stock = pod(&world, "stock", (second, second_app), false, &[]).await;
    ready(&[&ours, &stock]).await;
    calls_arrive(&ours, "stock", "URI=spiffe://cluster.local/ns/default/sa/ours").await;
    calls_arrive(&stock, "ours", "URI=spiffe://cluster.local/ns/default/sa/stock").await;
    (world, ours, stock)
}
