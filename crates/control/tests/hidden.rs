//! Keys and tokens are nowhere to be read: not in dumps of our proxy, of stock Envoy, of the control plane; not in logs at level
//! debug, nor in files beside the one of the token.

#![allow(clippy::unwrap_used, dead_code)]

#[path = "control/fake.rs"]
mod fake;
#[path = "control/pods.rs"]
mod pods;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use lateen_xds::client::{Config, Event, Service};
use lateen_xds::transport::Target;
use lateen_xds::types;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use fake::{deadline, node};
use pods::{Pod, has_envoy, pair, token_of};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Texts that must not be found, in each form that they may take.
struct Hidden(Vec<(String, String)>);

impl Hidden {
    fn add(&mut self, what: &str, text: &str) {
        // By lines: a dump may break or escape them.
        for line in text.lines().filter(|line| line.len() >= 16 && !line.starts_with("-----")) {
            self.0.push((what.to_owned(), line.to_owned()));
            // Base64 of it, wherever in a group of three it starts, without what depends on its neighbours.
            for shift in 0..3 {
                let encoded = STANDARD.encode(["x".repeat(shift), line.to_owned()].concat());
                let inner = &encoded[4..encoded.len() - 4];
                self.0.push((format!("{what}, in base64"), inner.to_owned()));
            }
        }
    }

    fn is_not_in(&self, place: &str, text: &str) {
        for mark in
            ["BEGIN PRIVATE KEY", "BEGIN EC PRIVATE KEY", "BEGIN RSA PRIVATE KEY", "LS0tLS1CRUdJTiBQUklWQVRF"]
        {
            assert!(!text.contains(mark), "{place} has {mark}");
        }
        for (what, secret) in &self.0 {
            assert!(!text.contains(secret.as_str()), "{place} has {what}");
        }
    }
}

/// The workload's key, as its proxy gets it.
async fn key_of(pod: &Pod, name: &str) -> String {
    let target = Target::Unix(pod.agent.settings().secrets_socket());
    let config = Config { service: Service::Secrets, ..Config::new(target, node(name)) };
    let (handle, mut events) = lateen_xds::client::connect(config);
    handle.subscribe(types::SECRET, ["default"]);
    loop {
        let Event::Update(update) = deadline(events.recv()).await.unwrap() else { continue };
        let secret: Secret = update.resources[0].any.unpack().unwrap();
        let Some(Type::TlsCertificate(certificate)) = secret.r#type else { panic!("no certificate") };
        let Some(Specifier::InlineBytes(key)) = certificate.private_key.unwrap().specifier else {
            panic!("no key")
        };
        return String::from_utf8(key.to_vec()).unwrap();
    }
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    deadline(tcp.read_to_end(&mut bytes)).await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.starts_with("HTTP/1.1 200"), "{path}: {text}");
    text
}

/// All files below a folder but the token's.
fn files(folder: &Path, out: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.is_file() && !path.ends_with("istio-token") {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            out.push((path.display().to_string(), text));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_tokens_are_nowhere_to_be_read() {
    if !has_envoy() {
        return;
    }
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let (world, ours, stock) = pair([236, 237]).await;

    let mut hidden = Hidden(Vec::new());
    for (name, pod) in [("ours", &ours), ("stock", &stock)] {
        hidden.add("a token", &token_of(name));
        hidden.add("a workload's key", &key_of(pod, name).await);
    }
    let authority = world.cluster.secrets.lock().unwrap()["istio-ca-secret"]["ca-key.pem"].clone();
    hidden.add("the authority's key", std::str::from_utf8(&authority).unwrap());
    // The marks would be found where they are.
    assert!(
        std::panic::catch_unwind(|| hidden.is_not_in("a token", &format!("x{}", token_of("ours")))).is_err()
    );
    let key = STANDARD.encode(key_of(&ours, "ours").await);
    assert!(std::panic::catch_unwind(|| hidden.is_not_in("a dump", &key[40..])).is_err());

    for (name, pod) in [("ours", &ours), ("stock", &stock)] {
        for path in [
            "/config_dump?include_eds",
            "/certs",
            "/clusters?format=json",
            "/listeners?format=json",
            "/stats",
            "/server_info",
        ] {
            let text = get(pod.agent.settings().admin(), path).await;
            hidden.is_not_in(&format!("{path} of {name}"), &text);
        }
        let dump = get(pod.agent.settings().admin(), "/config_dump").await;
        assert!(dump.contains("W3JlZGFjdGVkXQ=="), "{name} says that it leaves the key out");
        let mut all = Vec::new();
        files(pod.root.path(), &mut all);
        assert!(!all.is_empty());
        for (path, text) in all {
            hidden.is_not_in(&path, &text);
        }
    }
    let bound = world.control.bound();
    for path in [
        "/metrics",
        "/version",
        "/debug/syncz",
        "/debug/connections",
        "/debug/configz",
        "/debug/mesh",
        "/debug/registryz",
        "/debug/endpointz",
        "/debug/ca",
        "/debug/config_dump?proxyID=ours.default",
        "/debug/config_dump?proxyID=stock.default",
    ] {
        hidden.is_not_in(path, &get(bound.monitoring, path).await);
    }
    let statuses = format!("{:?}", world.cluster.statuses.lock().unwrap());
    hidden.is_not_in("a status", &statuses);
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("DEBUG") && logged.contains("new connection for node:ours.default"), "{logged}");
    hidden.is_not_in("the log", &logged);
}
