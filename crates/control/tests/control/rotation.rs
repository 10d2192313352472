//! Certificates, roots and keys are exchanged while calls go both ways between our proxy and stock Envoy: none fails.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use lateen_api::Kind;
use lateen_ca::chain;
use lateen_ca::exchange::{Holding, SecretData};
use lateen_control::{JwksSettings, Settings, Watched};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::fake::{FakeCluster, World, deadline};
use crate::pods::{Pod, addresses, call_with, calls_arrive, has_envoy, objects, pod, ready, write};

const SECRET: &str = "istio-ca-secret";
const ROOT_FILE: &str = "var/run/secrets/istio/root-cert.pem";

/// Calls that follow each other without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, Vec<String>)>,
}

impl Load {
    /// Calls a host from a pod; every answer has to be good and to hold these words.
    fn start(from: &Pod, host: &'static str, headers: String, words: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, from) = (stop.clone(), from.address);
        let task = tokio::spawn(async move {
            let (mut good, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                match call_with(from, host, &headers).await {
                    Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.contains(words) => good += 1,
                    Ok(answer) => failures.push(answer),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            (good, failures)
        });
        Self { stop, task }
    }

    /// Ends it: calls were made, and none failed.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (good, failures) = deadline(self.task).await.unwrap();
        assert!(good > 0 && failures.is_empty(), "{good} good, {} failed: {failures:?}", failures.len());
    }
}

struct Pair {
    world: World,
    ours: Pod,
    stock: Pod,
}

impl Pair {
    /// None, with a word, where there is no Envoy.
    async fn start(nets: [u8; 2], ttl: &str, settings: Settings) -> Option<Self> {
        if !has_envoy() {
            return None;
        }
        let (first, second, first_app, second_app) = addresses(nets);
        let objects = objects(&[("ours", first), ("stock", second)]);
        let world = World::start_with(Arc::new(FakeCluster::default()), objects, settings).await;
        let ours = pod(&world, "ours", (first, first_app), true, &[("SECRET_TTL", ttl)]).await;
        let stock = pod(&world, "stock", (second, second_app), false, &[("SECRET_TTL", ttl)]).await;
        ready(&[&ours, &stock]).await;
        calls_arrive(&ours, "stock", "sa/ours").await;
        calls_arrive(&stock, "ours", "sa/stock").await;
        Some(Self { world, ours, stock })
    }

    fn load(&self, headers: &str) -> [Load; 2] {
        [
            Load::start(&self.ours, "stock", headers.to_owned(), "sa/ours"),
            Load::start(&self.stock, "ours", headers.to_owned(), "sa/stock"),
        ]
    }

    fn pods(&self) -> [&Pod; 2] {
        [&self.ours, &self.stock]
    }

    fn holding(&self) -> Holding {
        Holding::read(&self.world.cluster.secrets.lock().unwrap()[SECRET]).unwrap()
    }

    /// Writes the secret of the authority, and what the API server would make of it: the pods' files.
    async fn put(&self, holding: &Holding) {
        let data = holding.data();
        self.world.cluster.secrets.lock().unwrap().insert(SECRET.into(), data.clone());
        self.world.apply(Watched::Secret, secret(&data)).await;
        let wanted = serials(std::str::from_utf8(&data["root-cert.pem"]).unwrap());
        deadline(async {
            while serials(&self.world.control.root_pem()) != wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        for pod in self.pods() {
            write(pod.root.path(), ROOT_FILE, &self.world.control.root_pem());
        }
    }

    /// Waits until both proxies use what is wanted.
    async fn both(&self, what: &str, wanted: impl Fn(&InUse) -> bool) {
        for pod in self.pods() {
            let mut last = None;
            let met = async {
                loop {
                    last = in_use(pod.address).await;
                    if last.as_ref().is_some_and(&wanted) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            let met = tokio::time::timeout(Duration::from_secs(60), met).await;
            assert!(met.is_ok(), "{what}: {} has {last:?}", pod.address);
        }
    }
}

fn secret(data: &SecretData) -> Value {
    let data: serde_json::Map<String, Value> =
        data.iter().map(|(key, value)| (key.clone(), json!(STANDARD.encode(value)))).collect();
    json!({ "metadata": { "name": SECRET, "namespace": "istio-system" }, "data": data })
}

fn serials(pem: &str) -> Vec<String> {
    chain::facts(pem).unwrap().into_iter().map(|facts| facts.serial).collect()
}

/// What a proxy uses: its certificates, and the roots that it trusts.
#[derive(Debug)]
struct InUse {
    chain: String,
    roots: String,
}

impl InUse {
    fn is_under(&self, root: &str, all: &str) -> bool {
        chain::root_of(&self.chain, all).unwrap().is_some_and(|found| found.serial == root)
    }
}

async fn in_use(proxy: Ipv4Addr) -> Option<InUse> {
    let path = "/config_dump?resource=dynamic_active_secrets";
    let mut stream = tokio::net::TcpStream::connect((proxy, 15000)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (start, end) = (answer.find("\r\n\r\n")?, answer.rfind('}')?);
    let body = &answer[start..=end];
    let dump: Value = serde_json::from_str(&body[body.find('{')?..]).ok()?;
    let named = |name: &str| {
        let all = dump["configs"].as_array()?;
        all.iter().map(|config| &config["secret"]).find(|secret| secret["name"] == name)
    };
    let pem = |source: &Value| {
        let bytes = STANDARD.decode(source["inline_bytes"].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    Some(InUse {
        chain: pem(&named("default")?["tls_certificate"]["certificate_chain"])?,
        roots: pem(&named("ROOTCA")?["validation_context"]["trusted_ca"])?,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_are_renewed_and_the_root_is_exchanged_and_no_call_fails() {
    let Some(pair) = Pair::start([90, 91], "16s", Settings::default()).await else { return };
    let load = pair.load("");
    for pod in pair.pods() {
        let mut leaves = BTreeSet::new();
        deadline(async {
            while leaves.len() < 3 {
                leaves.extend(in_use(pod.address).await.map(|now| serials(&now.chain).remove(0)));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        })
        .await;
    }

    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let new = lateen_ca::Authority::self_signed("cluster.local", now, day).unwrap();
    let new = Holding::read(&new.secret()).unwrap().signer;
    let (old, start) = (pair.holding().signer.root().unwrap().serial, pair.holding());
    let wanted = new.root().unwrap().serial;

    let trusting = start.begin(new, now).unwrap();
    pair.put(&trusting).await;
    pair.both("both roots are trusted", |used| serials(&used.roots) == [old.clone(), wanted.clone()]).await;
    let all = pair.world.control.root_pem();
    pair.both("the old one signs", |used| used.is_under(&old, &all)).await;

    let switched = trusting.switch(now).unwrap();
    pair.put(&switched).await;
    pair.both("the new one signs", |used| used.is_under(&wanted, &all)).await;
    let ca = pair.world.debug("/debug/ca").await;
    assert_eq!((&ca["root"]["serial"], ca["roots"].as_array().map(Vec::len)), (&json!(wanted), Some(2)));

    pair.put(&switched.finish().unwrap()).await;
    pair.both("the old one is dropped", |used| serials(&used.roots) == [wanted.clone()]).await;
    for load in load {
        load.end().await;
    }
}

#[tokio::test]
async fn a_secret_that_would_part_the_mesh_is_not_taken() {
    let world = World::start(crate::bookinfo()).await;
    let before = world.control.root_pem();
    let day = Duration::from_secs(86_400);
    let foreign = lateen_ca::Authority::self_signed("cluster.local", SystemTime::now(), day).unwrap();
    let mut broken = foreign.secret();
    broken.insert("ca-key.pem".into(), b"nonsense".to_vec());
    for (data, words) in [(foreign.secret(), "x ca rotate"), (broken, "ca-key.pem")] {
        world.apply(Watched::Secret, secret(&data)).await;
        let refused = async {
            loop {
                let ca = world.debug("/debug/ca").await;
                if ca["refused"].as_str().is_some_and(|reason| reason.contains(words)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        deadline(refused).await;
        assert_eq!(world.control.root_pem(), before);
    }
}

#[tokio::test]
async fn what_is_plugged_in_is_taken_once_the_mesh_has_come_over_to_it() {
    let root = tempfile::tempdir().unwrap();
    let settings = Settings { root: root.path().to_owned(), ..Settings::default() };
    let cluster = Arc::new(FakeCluster::default());
    let world = World::start_in(cluster.clone(), crate::bookinfo(), settings).await;
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let plugged = lateen_ca::Authority::self_signed("plugged", now, day).unwrap().secret();
    for (key, text) in &plugged {
        write(root.path(), &format!("etc/cacerts/{key}"), std::str::from_utf8(text).unwrap());
    }
    let until = async |wanted: &str, member: &str| {
        let told = async {
            loop {
                let ca = world.debug("/debug/ca").await;
                if ca[member].as_str().is_some_and(|text| text.contains(wanted)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        deadline(told).await;
    };
    until("x ca rotate", "refused").await;
    let mut holding = Holding::read(&cluster.secrets.lock().unwrap()[SECRET]).unwrap();
    let new = Holding::read(&plugged).unwrap().signer;
    let wanted = new.root().unwrap().serial;
    holding = holding.begin(new, now).unwrap();
    world.apply(Watched::Secret, secret(&holding.data())).await;
    holding = holding.switch(now).unwrap();
    world.apply(Watched::Secret, secret(&holding.data())).await;
    deadline(async {
        while world.debug("/debug/ca").await["root"]["serial"] != wanted.as_str() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let ca = world.debug("/debug/ca").await;
    assert_eq!(ca["secret"], "istio-system/istio-ca-secret", "the old root is trusted still: {ca}");
    assert_eq!(ca["roots"].as_array().map(Vec::len), Some(2));
    world.apply(Watched::Secret, secret(&holding.finish().unwrap().data())).await;
    until("istio-system/cacerts", "secret").await;
    let ca = world.debug("/debug/ca").await;
    assert!(ca.get("refused").is_none() && ca["root"]["serial"] == wanted.as_str(), "{ca}");
}

/// A key of an issuer, and a token signed by it.
struct Key {
    jwk: Value,
    token: String,
}

impl Key {
    fn new(kid: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let point = key.public_key_raw();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": part(1..33), "y": part(33..65) });
        let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::ES256) };
        let until = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 3600;
        let claims = json!({ "iss": "issuer.example", "sub": "caller", "exp": until });
        let signing = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
        Self { jwk, token: jsonwebtoken::encode(&header, &claims, &signing).unwrap() }
    }

    fn header(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.token)
    }
}

/// An issuer's keys, which change.
async fn issuer(keys: Arc<Mutex<Vec<Value>>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/keys", listener.local_addr().unwrap());
    let answer = move || {
        let keys = json!({ "keys": *keys.lock().unwrap() }).to_string();
        async move { keys }
    };
    let router = Router::new().route("/keys", get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    uri
}

async fn until_answered(pair: &Pair, headers: &str, status: &str) {
    for (pod, host) in [(&pair.ours, "stock"), (&pair.stock, "ours")] {
        let mut last = String::new();
        let answered = async {
            loop {
                last = call_with(pod.address, host, headers).await.unwrap_or_else(|error| error.to_string());
                if last.starts_with(&format!("HTTP/1.1 {status}")) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answered = tokio::time::timeout(Duration::from_secs(60), answered).await;
        assert!(answered.is_ok(), "{host} does not answer {status}; last: {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_an_issuer_are_exchanged_and_no_good_token_is_refused() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let keys = Arc::new(Mutex::new(vec![old.jwk.clone()]));
    let uri = issuer(keys.clone()).await;
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    let jwks = JwksSettings { allowed, refresh: Duration::from_millis(300), ..JwksSettings::default() };
    let settings = Settings { jwks, ..Settings::default() };
    let Some(pair) = Pair::start([92, 93], "24h", settings).await else { return };
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": kind,
            "metadata": { "name": "tokens", "namespace": "default" }, "spec": spec,
        })
    };
    let rules = json!({ "jwtRules": [{ "issuer": "issuer.example", "jwksUri": uri }] });
    let authentication = object("RequestAuthentication", rules);
    let from = json!([{ "from": [{ "source": { "requestPrincipals": ["issuer.example/caller"] } }] }]);
    let authorization = object("AuthorizationPolicy", json!({ "rules": from }));
    pair.world.apply(Watched::Istio(Kind::RequestAuthentication), authentication).await;
    pair.world.apply(Watched::Istio(Kind::AuthorizationPolicy), authorization).await;
    until_answered(&pair, "", "403").await;
    until_answered(&pair, &old.header(), "200").await;
    until_answered(&pair, &new.header(), "401").await;

    let by_old = pair.load(&old.header());
    *keys.lock().unwrap() = vec![new.jwk.clone(), old.jwk.clone()];
    until_answered(&pair, &new.header(), "200").await;
    let by_new = pair.load(&new.header());
    for load in by_old {
        load.end().await;
    }
    *keys.lock().unwrap() = vec![new.jwk.clone()];
    until_answered(&pair, &old.header(), "401").await;
    for load in by_new {
        load.end().await;
    }
}
