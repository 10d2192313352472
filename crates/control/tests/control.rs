//! A control plane on a scripted cluster, asked by discovery and certificate clients over real sockets.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use lateen_base::{ObjectRef, SystemClock};
use lateen_ca::request::KeyRequest;
use lateen_control::{Cluster, Control, Deps, Input, Ports, SecretData, Settings, Watched};
use lateen_kube::WatchEvent;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_xds::client::{Config, Event, Handle, Update};
use lateen_xds::transport::Target;
use lateen_xds::{Rejection, types};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A cluster that remembers what it was asked. The token `NAMESPACE:ACCOUNT` is that account's.
#[derive(Default)]
struct FakeCluster {
    secrets: Mutex<BTreeMap<String, SecretData>>,
    roots: Mutex<BTreeSet<String>>,
    statuses: Mutex<Vec<(ObjectRef, Value)>>,
    webhook: Mutex<Option<Value>>,
}

impl Cluster for FakeCluster {
    fn review<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<Option<(String, String)>, String>> {
        let identity = token.split_once(':').map(|(ns, account)| (ns.to_owned(), account.to_owned()));
        Box::pin(async move { Ok(identity) })
    }

    fn secret<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<SecretData>, String>> {
        Box::pin(async move { Ok(self.secrets.lock().unwrap().get(name).cloned()) })
    }

    fn create_secret<'a>(
        &'a self,
        _: &'a str,
        name: &'a str,
        _: &'a str,
        data: SecretData,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move { Ok(self.secrets.lock().unwrap().insert(name.to_owned(), data).is_none()) })
    }

    fn publish_root<'a>(&'a self, namespace: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.roots.lock().unwrap().insert(namespace.to_owned());
            Ok(())
        })
    }

    fn replace_webhook(&self, object: Value) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            *self.webhook.lock().unwrap() = Some(object);
            Ok(())
        })
    }

    fn patch_status<'a>(&'a self, object: &'a ObjectRef, status: Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.statuses.lock().unwrap().push((object.clone(), status));
            Ok(())
        })
    }
}

struct World {
    control: Control,
    cluster: Arc<FakeCluster>,
    inputs: mpsc::Sender<Input>,
}

impl World {
    async fn start(objects: Vec<(Watched, Vec<Value>)>) -> Self {
        let (inputs, receiver) = mpsc::channel(64);
        let cluster = Arc::new(FakeCluster::default());
        let deps = Deps { inputs: receiver, cluster: cluster.clone(), clock: Arc::new(SystemClock) };
        let root = std::env::temp_dir().join("lateen-no-such-folder");
        let settings = Settings { ports: Ports::free(), root, ..Settings::default() };
        let mut listed: BTreeMap<Watched, Vec<Value>> = objects.into_iter().collect();
        let sender = inputs.clone();
        tokio::spawn(async move {
            for kind in Watched::all() {
                let event = WatchEvent::Replaced(listed.remove(&kind).unwrap_or_default());
                sender.send(Input { cluster: "Kubernetes".into(), kind, event }).await.unwrap();
            }
        });
        let control = deadline(Control::start(settings, deps)).await.unwrap();
        Self { control, cluster, inputs }
    }

    async fn apply(&self, kind: Watched, object: Value) {
        let event = WatchEvent::Applied(object);
        self.inputs.send(Input { cluster: "Kubernetes".into(), kind, event }).await.unwrap();
    }

    fn connect(&self, name: &str) -> Client {
        let target = Target::Tcp(self.control.bound().plain.to_string());
        let (handle, events) = lateen_xds::client::connect(Config::new(target, node(name)));
        Client { handle, events }
    }

    fn secure(&self) -> Target {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.control.root_pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let config = Arc::new(config);
        Target::Tls {
            address: self.control.bound().secure.to_string(),
            server_name: "istiod.istio-system.svc".into(),
            config: Arc::new(move || Ok(config.clone())),
            resolver: None,
        }
    }

    async fn debug(&self, path: &str) -> Value {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.control.bound().debug).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        deadline(stream.read_to_string(&mut answer)).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let start = body.find(['{', '[']).unwrap_or(0);
        let end = body.rfind(['}', ']']).map_or(body.len(), |at| at + 1);
        serde_json::from_str(&body[start..end]).unwrap_or(Value::String(answer))
    }
}

struct Client {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

impl Client {
    async fn update(&mut self, type_url: &str) -> Update {
        loop {
            match deadline(self.events.recv()).await.expect("the client lives") {
                Event::Update(update) if *update.type_url == *type_url => return update,
                Event::Update(update) => self.handle.ack(update),
                Event::Connected | Event::Disconnected { .. } => {}
            }
        }
    }

    /// Accepts updates until one satisfies.
    async fn until(&mut self, type_url: &str, good: impl Fn(&Update) -> bool) -> Update {
        loop {
            let update = self.update(type_url).await;
            self.handle.ack(update.clone());
            if good(&update) {
                return update;
            }
        }
    }
}

async fn deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within the deadline")
}

async fn eventually(mut what: impl FnMut() -> bool) {
    deadline(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn node(name: &str) -> Node {
    Node { id: format!("sidecar~10.0.0.9~{name}.default~default.svc.cluster.local"), ..Default::default() }
}

fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": "10.1.0.1", "selector": { "app": name },
                  "ports": [{ "name": "http", "port": port, "targetPort": port }] },
    })
}

fn slice(name: &str, address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{name}-1"), "namespace": "default",
                      "labels": { "kubernetes.io/service-name": name } },
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
    })
}

fn virtual_service(subset: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "reviews", "namespace": "default" },
        "spec": { "hosts": ["reviews"], "http": [{ "route": [{ "destination": { "host": "reviews", "subset": subset } }] }] },
    })
}

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
async fn a_refusal_shows_in_syncz_and_on_the_object() {
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("productpage");
    client.handle.subscribe(types::ROUTE, ["9080"]);
    let update = client.update(types::ROUTE).await;
    let rejection = Rejection { resource: "9080".into(), reason: "retry policy: not supported".into() };
    client.handle.nack(update, vec![rejection]);
    eventually(|| {
        let statuses = world.cluster.statuses.lock().unwrap();
        statuses.iter().any(|(object, status)| {
            object.name == "reviews"
                && status["conditions"][0]["status"] == "False"
                && status["conditions"][0]["message"].as_str().unwrap().contains("retry policy")
        })
    })
    .await;
    let syncz = world.debug("/debug/syncz").await;
    assert_eq!(syncz[0]["proxy"], "productpage.default");
    assert_eq!(syncz[0]["types"]["RDS"]["state"], "ERROR");
    assert_eq!(syncz[0]["types"]["RDS"]["rejected"][0]["resource"], "9080");
    let dump = world.debug("/debug/config_dump?proxyID=productpage.default").await;
    assert_eq!(dump["configs"].as_array().unwrap().len(), 4, "{dump}");
}

#[tokio::test]
async fn the_secure_port_knows_who_asks() {
    let world = World::start(bookinfo()).await;
    let channel = deadline(world.secure().channel()).await.unwrap();
    let reviews = "spiffe://cluster.local/ns/default/sa/bookinfo-reviews".parse().unwrap();
    let request = KeyRequest::new(&reviews).unwrap();
    let day = Duration::from_secs(86_400);
    let sign = |token: &'static str| {
        lateen_ca::client::request(channel.clone(), token, request.csr_pem.clone(), day)
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
    let mut foreign = connect("other:intruder");
    loop {
        match deadline(foreign.events.recv()).await.unwrap() {
            Event::Disconnected { reason, .. } => {
                assert!(reason.contains("not in the namespace"), "{reason}");
                break;
            }
            Event::Update(update) => panic!("an intruder was told {update:?}"),
            Event::Connected => {}
        }
    }
}

#[tokio::test]
async fn roots_webhook_and_mesh_config_are_kept() {
    let mut objects = bookinfo();
    let webhook =
        json!({ "metadata": { "name": "istio-sidecar-injector" }, "webhooks": [{ "clientConfig": {} }] });
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
    world.apply(Watched::ConfigMap, map).await;
    client.until(types::CLUSTER, |update| update.resources.iter().any(|r| &*r.name == REVIEWS)).await;
}
