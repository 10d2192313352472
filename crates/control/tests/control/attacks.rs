//! Callers that want what is not theirs, or too much of it: none gets through, and the others are served meanwhile.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lateen_ca::Rate;
use lateen_ca::request::KeyRequest;
use lateen_ca::service::Policy;
use lateen_control::{Connections, DebugAccess, Settings, Watched};
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::istio::v1::auth::IstioCertificateRequest;
use lateen_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use lateen_proto::json::from_value;
use lateen_xds::client::Config;
use lateen_xds::transport::Target;
use lateen_xds::types;
use serde_json::{Value, json};
use testkit::abuse::{Abuse, abuse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tonic::{Code, Request, Status};

use crate::bookinfo;
use crate::fake::{Client, FakeCluster, World, deadline, node};

const DAY: Duration = Duration::from_secs(86_400);
/// Another pod's address, on the loopback.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn world_with(settings: Settings) -> World {
    World::start_with(Arc::new(FakeCluster::default()), bookinfo(), settings).await
}

/// A client of the secure port.
fn connect(world: &World, token: Option<&str>, node: Node) -> Client {
    connect_to(world.secure(), token, node)
}

fn connect_to(target: Target, token: Option<&str>, node: Node) -> Client {
    let mut config = Config::new(target, node);
    let token = token.map(str::to_owned);
    config.token = Some(Arc::new(move || token.clone()));
    let (handle, events) = lateen_xds::client::connect(config);
    Client { handle, events }
}

/// A good client is served.
async fn is_served(world: &World) {
    let mut good = connect(world, Some("default:bookinfo-productpage"), node("productpage"));
    good.handle.subscribe(types::CLUSTER, ["*"]);
    assert!(!good.update(types::CLUSTER).await.resources.is_empty());
}

/// Why a client was sent away.
async fn refusal(mut client: Client) -> String {
    client.handle.subscribe(types::CLUSTER, ["*"]);
    client.refusal().await
}

fn claiming(id: &str, metadata: Value) -> Node {
    from_value(&json!({ "id": id, "metadata": metadata })).unwrap()
}

#[tokio::test]
async fn a_token_is_good_for_its_own_proxy_alone() {
    let world = World::start(bookinfo()).await;
    let productpage = || node("productpage");
    let id = "sidecar~10.0.0.9~productpage.default~default.svc.cluster.local";
    let giant = format!("default:{}", "a".repeat(17 << 10));
    for (what, token, node, reason) in [
        ("no token", None, productpage(), "no bearer token"),
        ("an empty one", Some(""), productpage(), "no bearer token"),
        ("nonsense", Some("nonsense"), productpage(), "not good for istio-ca"),
        (
            "of another namespace",
            Some("other:productpage"),
            productpage(),
            "not in the namespace of the node, default",
        ),
        (
            "of another account",
            Some("default:ratings"),
            claiming(id, json!({ "SERVICE_ACCOUNT": "productpage" })),
            "not of the service account",
        ),
        (
            "of another pod",
            Some("default:productpage:productpage-2"),
            productpage(),
            "bound to pod productpage-2",
        ),
        (
            "with another namespace's metadata",
            Some("default:productpage"),
            claiming(id, json!({ "NAMESPACE": "other" })),
            "not in the namespace of the node, other",
        ),
        (
            "with another namespace's name",
            Some("other:productpage"),
            claiming(id, json!({ "NAMESPACE": "other" })),
            "not in the namespace of the node, default",
        ),
        (
            "as a gateway elsewhere",
            Some("default:productpage"),
            claiming("router~10.0.0.9~gateway.istio-system~istio-system.svc.cluster.local", json!({})),
            "not in the namespace of the node, istio-system",
        ),
        ("without a name", Some("default:productpage"), claiming("", json!({})), "node"),
        ("too long", Some(&giant), productpage(), ""),
    ] {
        let reason_told = refusal(connect(&world, token, node)).await;
        assert!(reason_told.contains(reason), "{what}: {reason_told}");
    }
    let mut own = connect(&world, Some("default:productpage:productpage"), productpage());
    own.handle.subscribe(types::CLUSTER, ["*"]);
    assert!(!own.update(types::CLUSTER).await.resources.is_empty());
}

/// The names and the text of all secrets that a client gets for these names.
async fn secrets_of(mut client: Client, names: &[&str]) -> BTreeMap<String, String> {
    client.handle.subscribe(types::SECRET, names.iter().copied());
    let update = client.update(types::SECRET).await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    update.resources.iter().map(|r| (r.name.to_string(), text(&r.any.value))).collect()
}

#[tokio::test]
async fn secrets_go_to_the_gateways_that_may_read_them() {
    // "own-key" and "foreign-key".
    let secret = |namespace: &str, key: &str| {
        json!({ "metadata": { "namespace": namespace, "name": "web" }, "type": "kubernetes.io/tls",
                "data": { "tls.crt": "Y2VydA==", "tls.key": key } })
    };
    let mut objects = bookinfo();
    objects.push((
        Watched::Secret,
        vec![secret("default", "b3duLWtleQ=="), secret("istio-system", "Zm9yZWlnbi1rZXk=")],
    ));
    let world = World::start(objects).await;
    let gateway = |namespace: &str| {
        claiming(&format!("router~10.0.0.9~gateway.{namespace}~{namespace}.svc.cluster.local"), json!({}))
    };
    let own = "kubernetes://web";
    let tricks = [
        own,
        "kubernetes://istio-system/web",
        "kubernetes://default/../istio-system/web",
        "kubernetes://../istio-system/web",
        "kubernetes://default//istio-system/web",
        "kubernetes://istio-system%2fweb",
        "kubernetes://istio-system/web-cacert",
        "kubernetes-gateway://istio-system/web",
        "kubernetes://",
        "kubernetes:///web",
        "web",
        "default",
        "ROOTCA",
        "istio-ca-secret",
        "file-cert:/var/run/secrets/tokens/istio-token~/etc/passwd",
    ];
    let got = secrets_of(connect(&world, Some("default:gateway"), gateway("default")), &tricks).await;
    assert_eq!(got.keys().collect::<Vec<_>>(), [own], "{got:?}");
    assert!(got[own].contains("own-key") && !got[own].contains("foreign-key"));

    let plain = || Target::Tcp(world.control.bound().plain.to_string());
    for (who, client) in [
        ("a sidecar of the same account", connect(&world, Some("default:gateway"), node("gateway"))),
        (
            "an account that may not list secrets",
            connect(&world, Some("default:productpage"), gateway("default")),
        ),
        ("a gateway without a token", connect_to(plain(), None, gateway("default"))),
        (
            "a gateway whose token nobody looks at",
            connect_to(plain(), Some("default:gateway"), gateway("default")),
        ),
        ("the mesh's gateway, without a token", connect_to(plain(), None, gateway("istio-system"))),
    ] {
        let got = secrets_of(client, &[own]).await;
        assert!(got.is_empty(), "{who}: {got:?}");
    }
}

/// Asks for a certificate as an attacker may.
async fn certificate(
    world: &World,
    token: &str,
    change: impl FnOnce(&mut IstioCertificateRequest),
) -> Result<(), Status> {
    let channel = deadline(world.secure().channel()).await.unwrap();
    let own = "spiffe://cluster.local/ns/default/sa/cart".parse().unwrap();
    let mut request = IstioCertificateRequest {
        csr: KeyRequest::new(&own).unwrap().csr_pem,
        validity_duration: 3600,
        metadata: None,
    };
    change(&mut request);
    let mut request = Request::new(request);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut client = IstioCertificateServiceClient::new(channel);
    deadline(client.create_certificate(request)).await.map(drop)
}

#[tokio::test]
async fn certificates_are_for_the_caller_within_bounds() {
    let world = World::start(bookinfo()).await;
    let year = i64::try_from(DAY.as_secs() * 365).unwrap();
    let impersonating = json!({ "ImpersonatedIdentity": "spiffe://cluster.local/ns/default/sa/payment" });
    let impersonating = from_value::<Node>(&json!({ "metadata": impersonating })).unwrap().metadata;
    let too_much = "x".repeat(1 << 20);
    let refused = [
        (certificate(&world, "", |_| ()).await, Code::Unauthenticated, "no bearer token"),
        (certificate(&world, "nonsense", |_| ()).await, Code::Unauthenticated, "not good for istio-ca"),
        (
            certificate(&world, "default:payment", |_| ()).await,
            Code::InvalidArgument,
            "the caller is spiffe://cluster.local/ns/default/sa/payment",
        ),
        (
            certificate(&world, "other:cart", |_| ()).await,
            Code::InvalidArgument,
            "the caller is spiffe://cluster.local/ns/other/sa/cart",
        ),
        (
            certificate(&world, "default:cart", |r| r.validity_duration = year).await,
            Code::InvalidArgument,
            "the longest is 7776000s",
        ),
        (
            certificate(&world, "default:cart", |r| r.validity_duration = i64::MAX).await,
            Code::InvalidArgument,
            "the longest is 7776000s",
        ),
        (
            certificate(&world, "default:cart", |r| r.metadata = impersonating).await,
            Code::PermissionDenied,
            "granted to nobody",
        ),
        (
            certificate(&world, "default:cart", |r| r.csr = "x".repeat(20_000)).await,
            Code::InvalidArgument,
            "at most 16384",
        ),
        (certificate(&world, "default:cart", |r| r.csr = too_much).await, Code::OutOfRange, "too large"),
    ];
    for (refusal, code, reason) in refused {
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.code(), code, "{refusal}");
        assert!(refusal.message().contains(reason), "{refusal}");
    }
    certificate(&world, "default:cart", |_| ()).await.unwrap();
}

#[tokio::test]
async fn who_asks_too_often_is_told_so_and_others_are_served() {
    let rate = Rate { burst: 5, per_second: 1 };
    let certificates = Policy { rate, ..Policy::default() };
    let world = world_with(Settings { certificates, ..Settings::default() }).await;
    let mut refusals = 0;
    while refusals < 20 {
        match certificate(&world, "default:cart", |_| ()).await {
            Ok(()) => {}
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                assert!(status.message().contains("5 at once and 1 per second are granted"), "{status}");
                refusals += 1;
            }
        }
    }
    let own = |request: &mut IstioCertificateRequest| {
        let payment = "spiffe://cluster.local/ns/default/sa/payment".parse().unwrap();
        request.csr = KeyRequest::new(&payment).unwrap().csr_pem;
    };
    certificate(&world, "default:payment", own).await.unwrap();
    is_served(&world).await;
}

async fn tcp_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::V4(source), 0).into()).unwrap();
    deadline(socket.connect(to)).await.unwrap()
}

#[tokio::test]
async fn connections_that_ask_for_nothing_neither_stay_nor_crowd_out_others() {
    const EACH: usize = 8;
    let limits = Connections {
        per_address: EACH,
        first_request: Duration::from_millis(300),
        ..Connections::default()
    };
    let world = world_with(Settings { connections: limits, ..Settings::default() }).await;
    let bound = world.control.bound();
    for port in [bound.plain, bound.monitoring] {
        let mut held = Vec::new();
        for _ in 0..EACH * 5 {
            held.push(tcp_from(ELSEWHERE, port).await);
        }
        is_served(&world).await;
        for mut tcp in held {
            let mut said = Vec::new();
            // A reset is an end, too.
            let _ = deadline(tcp.read_to_end(&mut said)).await;
            assert!(!String::from_utf8_lossy(&said).contains("200"));
        }
        // Their places are free again.
        let answer = ask(ELSEWHERE, bound.monitoring, "/version", None).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn streams_of_one_proxy_have_an_end() {
    let connections = Connections { per_proxy: 4, ..Connections::default() };
    let world = world_with(Settings { connections, ..Settings::default() }).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&world, Some("default:greedy"), node("greedy"));
        client.handle.subscribe(types::CLUSTER, ["*"]);
        client.update(types::CLUSTER).await;
        held.push(client);
    }
    let reason = refusal(connect(&world, Some("default:greedy"), node("greedy"))).await;
    assert!(reason.contains("greedy.default has 4 discovery streams: no more are granted"), "{reason}");
    is_served(&world).await;
    held.pop();
    // Its place is free as soon as the server has heard of its end; until then the client comes again.
    let mut late = connect(&world, Some("default:greedy"), node("greedy"));
    late.handle.subscribe(types::CLUSTER, ["*"]);
    assert!(!late.update(types::CLUSTER).await.resources.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misuse_of_http2_is_ended_or_bounded_and_others_are_served() {
    let world = World::start(bookinfo()).await;
    let bound = world.control.bound();
    for port in [bound.plain, bound.monitoring] {
        for how in Abuse::ALL {
            let outcome = deadline(abuse(port, how, 3_000)).await.unwrap();
            if how.has_to_end() {
                assert!(outcome.ended, "{how:?}: {outcome:?}");
            }
            is_served(&world).await;
        }
    }
}

/// The whole answer to a GET from an address.
async fn ask(source: Ipv4Addr, port: SocketAddr, path: &str, token: Option<&str>) -> String {
    let mut tcp = tcp_from(source, port).await;
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{token}connection: close\r\n\r\n");
    deadline(tcp.write_all(request.as_bytes())).await.unwrap();
    let mut answer = String::new();
    deadline(tcp.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn debug_endpoints_want_a_token_of_the_control_planes_namespace() {
    let debug = DebugAccess { namespaces: vec!["monitoring".to_owned()], ..DebugAccess::default() };
    let world = world_with(Settings { debug, ..Settings::default() }).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::CLUSTER, ["*"]);
    client.update(types::CLUSTER).await;
    let bound = world.control.bound();
    let status = |answer: &str| answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let own_dump = "/debug/config_dump?proxyID=productpage.default";
    let all = [
        "/debug/syncz",
        "/debug/connections",
        "/debug/adsz",
        "/debug/configz",
        "/debug/mesh",
        "/debug/registryz",
        "/debug/endpointz",
        "/debug/ca",
        own_dump,
    ];
    for port in [bound.debug, bound.monitoring] {
        for path in all {
            let answer = ask(ELSEWHERE, port, path, None).await;
            assert_eq!(status(&answer), "401", "{path}: {answer}");
            assert!(answer.contains("www-authenticate: Bearer") && answer.contains("istio-ca"), "{answer}");
            assert_eq!(status(&ask(ELSEWHERE, port, path, Some("nonsense")).await), "401", "{path}");
            for token in ["istio-system:istiod", "monitoring:kiali"] {
                assert_eq!(status(&ask(ELSEWHERE, port, path, Some(token)).await), "200", "{path} {token}");
            }
            assert_eq!(status(&ask(Ipv4Addr::LOCALHOST, port, path, None).await), "200", "{path}");
            // A namespace reads what its own proxies have.
            let expected = if path == own_dump { "200" } else { "403" };
            assert_eq!(status(&ask(ELSEWHERE, port, path, Some("default:x")).await), expected, "{path}");
            assert_eq!(status(&ask(ELSEWHERE, port, path, Some("other:x")).await), "403", "{path}");
        }
        for path in [
            "/debug/config_dump?proxyID=x.other&proxyID=productpage.default",
            "/debug/config_dump?x=proxyID=productpage.other",
            "/debug/config_dump",
        ] {
            let answer = ask(ELSEWHERE, port, path, Some("other:x")).await;
            assert_eq!(status(&answer), "403", "{path}: {answer}");
        }
        for path in [
            "//debug/configz",
            "/debug/../debug/configz",
            "/%64ebug/configz",
            "/debug/configz/",
            "/DEBUG/configz",
        ] {
            let answer = ask(ELSEWHERE, port, path, None).await;
            assert_ne!(status(&answer), "200", "{path}: {answer}");
        }
        for path in ["/ready", "/metrics", "/version"] {
            assert_eq!(status(&ask(ELSEWHERE, port, path, None).await), "200", "{path}");
        }
    }
    let levels = bound.introspection.unwrap();
    assert_eq!(status(&ask(ELSEWHERE, levels, "/scopej", None).await), "401");
    assert_eq!(status(&ask(ELSEWHERE, levels, "/scopej/ads", Some("default:x")).await), "403");
}
