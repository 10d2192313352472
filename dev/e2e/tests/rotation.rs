//! Certificates exchanged in a whole cluster, under load, on our proxy and on stock Envoy: the mesh's root by
//! `lateen x ca rotate`, killed on the way, gone on with, and turned around; and a gateway's own by its secret.

#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{Cluster, DataPlane, curl, eventually, repository};
use serde_json::Value;

const TOOLS: &[&str] = &["kubectl", "curl", "openssl"];

#[test]
fn on_our_proxy() {
    DataPlane::Lateen.with_cluster(TOOLS, |cluster| rotations(cluster, &[root, killed, turned_around]));
}

#[test]
fn on_stock_envoy() {
    DataPlane::Envoy.with_cluster(TOOLS, |cluster| rotations(cluster, &[root]));
}

/// The way to httpbin: through the gateway in the clear and by TLS, then by mutual TLS, each request on a connection of
/// its own.
const WAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: rotation, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['httpbin.example.com']}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ['httpbin.example.com']
    tls: {mode: SIMPLE, credentialName: rotation}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rotation, namespace: default}
spec:
  hosts: ['httpbin.example.com']
  gateways: [rotation]
  http: [{route: [{destination: {host: httpbin, port: {number: 8000}}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: rotation, namespace: default}
spec:
  host: httpbin
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

/// The gateway's certificates, one after the other.
const CERTIFICATES: [&str; 3] = ["first", "second", "third"];

fn rotations(cluster: &Cluster, of_root: &[fn(&Cluster)]) {
    let sample = repository().join("samples/httpbin/httpbin.yaml");
    let injected = cluster.lateen(&["kube-inject", "-f", sample.to_str().unwrap()]);
    cluster.apply(&injected);
    cluster.kubectl(&["rollout", "status", "deploy/httpbin", "--timeout=60s"]);
    let folder = tempfile::tempdir().unwrap();
    CERTIFICATES.iter().for_each(|name| make_certificate(folder.path(), name));
    serve(cluster, folder.path(), CERTIFICATES[0]);
    cluster.apply(WAY);
    let plain = cluster.gateway().to_owned();
    eventually("httpbin answers through the gateway", || match ask(&plain) {
        Ok(200) => Ok(()),
        other => Err(format!("{other:?}")),
    });

    let load: Vec<Load> = (0..2)
        .map(|_| {
            let plain = plain.clone();
            Load::start(move || ask(&plain))
        })
        .collect();
    of_root.iter().for_each(|exchange| exchange(cluster));
    load.into_iter().for_each(Load::end);
    of_gateway(cluster, folder.path());
}

/// One request through the gateway, on a connection of its own.
fn ask(gateway: &str) -> Result<u16, String> {
    let answer = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(
            b"GET /status/200 HTTP/1.1\r\nhost: httpbin.example.com\r\nconnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| error.to_string())?;
    match answer.split_whitespace().nth(1).and_then(|code| code.parse().ok()) {
        Some(200) => Ok(200),
        Some(_) | None => Err(answer),
    }
}

/// Requests that follow each other without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl Load {
    fn start(ask: impl Fn() -> Result<u16, String> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut good, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                match ask() {
                    Ok(_) => good += 1,
                    Err(failure) => failures.push(failure),
                }
            }
            (good, failures)
        });
        Self { stop, thread }
    }

    /// Ends it: requests were made, and none failed.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (good, failures) = self.thread.join().unwrap();
        assert!(good > 0 && failures.is_empty(), "{good} good, {} failed: {failures:?}", failures.len());
    }
}

fn status(cluster: &Cluster) -> Value {
    serde_json::from_str(&cluster.lateen(&["x", "ca", "status", "-o", "json"])).unwrap()
}

fn rotate(cluster: &Cluster, flags: &[&str]) -> Value {
    let args = [&["x", "ca", "rotate", "-o", "json"], flags].concat();
    serde_json::from_str(&cluster.lateen(&args)).unwrap()
}

/// All proxies trust the root that signs, and it alone, and have certificates of it.
fn assert_whole(report: &Value) {
    assert_eq!((&report["stage"], &report["lagging"]), (&"none".into(), &Value::Array(vec![])), "{report:#}");
    let proxies = report["proxies"].as_array().unwrap();
    assert!(proxies.len() >= 2, "{report:#}");
    for proxy in proxies {
        assert_eq!(proxy["shows"], report["signs"]["sha256"], "{report:#}");
        assert_eq!(proxy["trusts"], Value::Array(vec![report["signs"]["sha256"].clone()]), "{report:#}");
    }
}

fn root(cluster: &Cluster) {
    let before = status(cluster);
    assert_whole(&before);
    let done = rotate(cluster, &[]);
    assert_whole(&done);
    assert_ne!(done["signs"]["sha256"], before["signs"]["sha256"]);
    let secret = cluster.kubectl(&["-n", "istio-system", "get", "secret", "istio-ca-secret", "-o", "json"]);
    assert!(!secret.contains("rotation-"), "the old key is gone");
}

/// The command and the control plane are killed on the way; the same command goes on.
fn killed(cluster: &Cluster) {
    let before = status(cluster);
    let mut killed = cluster.start_lateen(Path::new(cluster.kubeconfig()), &["x", "ca", "rotate"]);
    let key = "jsonpath={.data.rotation-stage}";
    eventually("an exchange begins", || {
        let stage = cluster.kubectl(&["-n", "istio-system", "get", "secret", "istio-ca-secret", "-o", key]);
        if stage.is_empty() { Err("no stage".into()) } else { Ok(()) }
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    cluster.kubectl(&[
        "-n",
        "istio-system",
        "delete",
        "pod",
        "-l",
        "app=istiod",
        "--grace-period=0",
        "--force",
    ]);
    eventually("the control plane is back", || {
        let status = cluster.try_lateen(Path::new(cluster.kubeconfig()), &["x", "ca", "status"]);
        if status.status.success() { Ok(()) } else { Err(format!("{status:?}")) }
    });
    let done = rotate(cluster, &[]);
    assert_whole(&done);
    assert_ne!(done["signs"]["sha256"], before["signs"]["sha256"]);
}

/// An exchange is undone before the new root signs, and after.
fn turned_around(cluster: &Cluster) {
    let before = status(cluster);
    assert_eq!(rotate(cluster, &["--step"])["stage"], "trusting");
    assert_eq!(rotate(cluster, &["--abort"])["stage"], "none");
    assert_eq!(rotate(cluster, &["--step"])["stage"], "trusting");
    let switched = rotate(cluster, &["--step"]);
    assert_eq!(switched["stage"], "switched");
    assert_eq!(switched["other"]["sha256"], before["signs"]["sha256"]);
    let back = rotate(cluster, &["--abort"]);
    assert_whole(&back);
    assert_eq!(back["signs"]["sha256"], before["signs"]["sha256"]);
}

/// Self-signed certificates for the gateway's host, in files.
fn make_certificate(folder: &Path, name: &str) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=httpbin.example.com", "-addext", "subjectAltName=DNS:httpbin.example.com"])
        .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// Puts a certificate and its key into the gateway's secret.
fn serve(cluster: &Cluster, folder: &Path, name: &str) {
    let (key, certificate) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")));
    let (key, certificate) =
        (format!("--key={}", key.display()), format!("--cert={}", certificate.display()));
    let create = ["-n", "istio-system", "create", "secret", "tls", "rotation"];
    let secret =
        cluster.kubectl(&[&create[..], &[&key, &certificate, "--dry-run=client", "-o", "yaml"]].concat());
    cluster.apply(&secret);
}

fn of_gateway(cluster: &Cluster, folder: &Path) {
    let path = "jsonpath={.spec.ports[?(@.name==\"https\")].nodePort}";
    let port = cluster.kubectl(&["-n", "istio-system", "get", "service", "istio-ingressgateway", "-o", path]);
    let host = cluster.gateway().split(':').next().unwrap().to_owned();
    let trusting = |certificates: &[&str]| {
        let file = folder.join(format!("{}.pem", certificates.join("-")));
        let pem: String = certificates
            .iter()
            .map(|name| std::fs::read_to_string(folder.join(format!("{name}.crt"))).unwrap())
            .collect();
        std::fs::write(&file, pem).unwrap();
        let resolve = format!("httpbin.example.com:{port}:{host}");
        let file = file.to_str().unwrap().to_owned();
        let url = format!("https://httpbin.example.com:{port}/status/200");
        move || {
            let answer = curl(&url, &["--resolve", &resolve, "--cacert", &file]);
            if answer.status == 200 { Ok(200) } else { Err(format!("{answer:?}")) }
        }
    };
    eventually("the first certificate is served", trusting(&[CERTIFICATES[0]]));
    // The load trusts all three before they are served.
    let load = Load::start(trusting(&CERTIFICATES));
    for pair in CERTIFICATES.windows(2) {
        serve(cluster, folder, pair[1]);
        eventually("the new certificate is served", trusting(&[pair[1]]));
        assert!(trusting(&[pair[0]])().is_err(), "the former one is not");
    }
    load.end();
}
