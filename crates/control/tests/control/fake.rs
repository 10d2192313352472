//! A scripted cluster, and clients of the control plane on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use lateen_base::{ObjectRef, SystemClock};
use lateen_control::{
    Cluster, Control, Deps, Input, Ports, Retry, Role, RootWrite, SecretData, Settings, Watched,
};
use lateen_kube::{TokenIdentity, WatchEvent};
use lateen_proto::envoy::config::core::v3::Node;
use lateen_xds::client::{Config, Event, Handle, Update};
use lateen_xds::transport::Target;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A cluster that remembers what it was asked. The token `NAMESPACE:ACCOUNT` is that account's, `NAMESPACE:ACCOUNT:POD` its
/// in that pod. The account `gateway` of the namespace `default` may list secrets.
#[derive(Default)]
pub(crate) struct FakeCluster {
    pub(crate) secrets: Mutex<BTreeMap<String, SecretData>>,
    pub(crate) roots: Mutex<BTreeSet<String>>,
    pub(crate) statuses: Mutex<Vec<(ObjectRef, Value)>>,
    pub(crate) webhook: Mutex<Option<Value>>,
    /// What becomes of the next requests; all others are answered.
    pub(crate) troubles: Mutex<VecDeque<Trouble>>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// It is refused with these words.
    Refused(&'static str),
    /// It is never answered.
    Hangs,
    /// It is carried out, but the answer is lost.
    AnswerLost,
}

impl FakeCluster {
    /// Meets the next trouble before the work is done; true when the answer is to be lost after it.
    async fn meet_trouble(&self) -> Result<bool, String> {
        let next = self.troubles.lock().unwrap().pop_front();
        match next {
            Some(Trouble::Refused(words)) => Err(words.to_owned()),
            Some(Trouble::Hangs) => std::future::pending().await,
            Some(Trouble::AnswerLost) => Ok(true),
            None => Ok(false),
        }
    }
}

impl Cluster for FakeCluster {
    fn review<'a>(
        &'a self,
        token: &'a str,
        _: &'a [String],
    ) -> BoxFuture<'a, Result<Option<TokenIdentity>, String>> {
        let mut parts = token.split(':').map(str::to_owned);
        let identity = parts.next().zip(parts.next()).map(|(namespace, service_account)| TokenIdentity {
            namespace,
            service_account,
            pod: parts.next(),
        });
        Box::pin(async move { Ok(identity) })
    }

    fn may_list_secrets<'a>(
        &'a self,
        namespace: &'a str,
        service_account: &'a str,
    ) -> BoxFuture<'a, Result<bool, String>> {
        let allowed = [namespace, service_account] == ["default", "gateway"];
        Box::pin(async move { Ok(allowed) })
    }

    fn secret<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Option<SecretData>, String>> {
        Box::pin(async move {
            self.meet_trouble().await?;
            Ok(self.secrets.lock().unwrap().get(name).cloned())
        })
    }

    fn create_secret<'a>(
        &'a self,
        _: &'a str,
        name: &'a str,
        _: &'a str,
        data: SecretData,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            let lost = self.meet_trouble().await?;
            let mut secrets = self.secrets.lock().unwrap();
            let new = !secrets.contains_key(name);
            secrets.entry(name.to_owned()).or_insert(data);
            if lost { Err("connection reset by peer".to_owned()) } else { Ok(new) }
        })
    }

    fn role<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Role, String>> {
        Box::pin(async move { Ok(Role::Here(format!("uid of {name}"))) })
    }

    fn publish_root<'a>(&'a self, namespace: &'a str, _: RootWrite) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            self.meet_trouble().await?;
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
            self.meet_trouble().await?;
            self.statuses.lock().unwrap().push((object.clone(), status));
            Ok(())
        })
    }
}

pub(crate) struct World {
    pub(crate) control: Control,
    pub(crate) cluster: Arc<FakeCluster>,
    pub(crate) inputs: mpsc::Sender<Input>,
}

impl World {
    pub(crate) async fn start(objects: Vec<(Watched, Vec<Value>)>) -> Self {
        Self::start_on(Arc::new(FakeCluster::default()), objects).await
    }

    /// A control plane on a cluster that others may use, too.
    pub(crate) async fn start_on(cluster: Arc<FakeCluster>, objects: Vec<(Watched, Vec<Value>)>) -> Self {
        Self::start_with(cluster, objects, Settings::default()).await
    }

    /// A control plane with some settings; it waits for answers and tries again quickly.
    pub(crate) async fn start_with(
        cluster: Arc<FakeCluster>,
        objects: Vec<(Watched, Vec<Value>)>,
        settings: Settings,
    ) -> Self {
        let root = std::env::temp_dir().join("lateen-no-such-folder");
        Self::start_in(cluster, objects, Settings { root, ..settings }).await
    }

    /// The same, with the files of its pod.
    pub(crate) async fn start_in(
        cluster: Arc<FakeCluster>,
        objects: Vec<(Watched, Vec<Value>)>,
        settings: Settings,
    ) -> Self {
        let (inputs, receiver) = mpsc::channel(64);
        let deps = Deps { inputs: receiver, cluster: cluster.clone(), clock: Arc::new(SystemClock) };
        let retry = Retry {
            answer_within: Duration::from_millis(200),
            first: Duration::from_millis(5),
            longest: Duration::from_millis(20),
        };
        let settings = Settings { ports: Ports::free(), retry, ..settings };
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

    pub(crate) async fn apply(&self, kind: Watched, object: Value) {
        let event = WatchEvent::Applied(object);
        self.inputs.send(Input { cluster: "Kubernetes".into(), kind, event }).await.unwrap();
    }

    pub(crate) fn connect(&self, name: &str) -> Client {
        self.connect_as(node(name))
    }

    pub(crate) fn connect_as(&self, node: Node) -> Client {
        let target = Target::Tcp(self.control.bound().plain.to_string());
        let (handle, events) = lateen_xds::client::connect(Config::new(target, node));
        Client { handle, events }
    }

    pub(crate) fn secure(&self) -> Target {
        self.secure_as(None)
    }

    /// The secure port, shown this chain with its key.
    pub(crate) fn secure_as(&self, shown: Option<(&str, &str)>) -> Target {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.control.root_pem().as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = Arc::new(match shown {
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        });
        Target::Tls {
            address: self.control.bound().secure.to_string(),
            server_name: "istiod.istio-system.svc".into(),
            config: Arc::new(move || Ok(config.clone())),
            resolver: None,
        }
    }

    pub(crate) async fn debug(&self, path: &str) -> Value {
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

pub(crate) struct Client {
    pub(crate) handle: Handle,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Client {
    pub(crate) async fn update(&mut self, type_url: &str) -> Update {
        loop {
            match deadline(self.events.recv()).await.expect("the client lives") {
                Event::Update(update) if *update.type_url == *type_url => return update,
                Event::Update(update) => self.handle.ack(update),
                Event::Connected | Event::Disconnected { .. } => {}
            }
        }
    }

    /// Why the connection was ended, before anything was told on it.
    pub(crate) async fn refusal(&mut self) -> String {
        loop {
            match deadline(self.events.recv()).await.expect("the client lives") {
                Event::Disconnected { reason, .. } => return reason,
                Event::Update(update) => panic!("it was told {update:?}"),
                Event::Connected => {}
            }
        }
    }

    /// Accepts updates until one satisfies.
    pub(crate) async fn until(&mut self, type_url: &str, good: impl Fn(&Update) -> bool) -> Update {
        loop {
            let update = self.update(type_url).await;
            self.handle.ack(update.clone());
            if good(&update) {
                return update;
            }
        }
    }
}

pub(crate) async fn deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within the deadline")
}

pub(crate) async fn eventually(mut what: impl FnMut() -> bool) {
    deadline(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn node(name: &str) -> Node {
    Node { id: format!("sidecar~10.0.0.9~{name}.default~default.svc.cluster.local"), ..Default::default() }
}

pub(crate) fn service(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name, "namespace": "default" },
        "spec": { "clusterIP": "10.1.0.1", "selector": { "app": name },
                  "ports": [{ "name": "http", "port": port, "targetPort": port }] },
    })
}

pub(crate) fn slice(name: &str, address: &str, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{name}-1"), "namespace": "default",
                      "labels": { "kubernetes.io/service-name": name } },
        "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }],
    })
}

pub(crate) fn virtual_service(subset: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "reviews", "namespace": "default" },
        "spec": { "hosts": ["reviews"], "http": [{ "route": [{ "destination": { "host": "reviews", "subset": subset } }] }] },
    })
}
