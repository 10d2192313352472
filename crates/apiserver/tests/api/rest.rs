//! A server in a temporary folder and a plain HTTPS client for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use lateen_apiserver::{Config, Handle};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// No wait of a test is longer.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running server; its state goes with it.
pub(crate) struct Server {
    pub(crate) handle: Handle,
    pub(crate) rest: Rest,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let handle = Config::new(dir.path(), SocketAddr::from(([127, 0, 0, 1], 0))).build().await.unwrap();
        let rest = Rest::administrator(&std::fs::read_to_string(handle.kubeconfig_path()).unwrap());
        Self { handle, rest, _dir: dir }
    }
}

/// A client with one identity.
#[derive(Clone)]
pub(crate) struct Rest {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The body of an answer that has to be of this code.
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.json()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        self.headers.get_all("warning").iter().filter_map(|v| v.to_str().ok()).collect()
    }
}

fn field<'a>(kubeconfig: &'a str, key: &str) -> &'a str {
    let start = kubeconfig.find(key).unwrap() + key.len() + 2;
    kubeconfig[start..].lines().next().unwrap().trim()
}

fn pem(kubeconfig: &str, key: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(field(kubeconfig, key)).unwrap()
}

impl Rest {
    /// The holder of the kubeconfig.
    pub(crate) fn administrator(kubeconfig: &str) -> Self {
        let certificate =
            CertificateDer::from_pem_slice(&pem(kubeconfig, "client-certificate-data")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&pem(kubeconfig, "client-key-data")).unwrap();
        let tls = builder(kubeconfig).with_client_auth_cert(vec![certificate], key).unwrap();
        Self { address: address(kubeconfig), tls: Arc::new(tls), token: None }
    }

    /// The holder of a token, or nobody.
    pub(crate) fn bearer(kubeconfig: &str, token: Option<&str>) -> Self {
        let tls = builder(kubeconfig).with_no_client_auth();
        Self { address: address(kubeconfig), tls: Arc::new(tls), token: token.map(str::to_owned) }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &[("content-type", "application/json")], &body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], "").await
    }

    /// `kind`: json, merge, strategic-merge or apply.
    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let form = if kind == "apply" { "yaml" } else { "json" };
        let media = format!("application/{kind}-patch+{form}");
        self.call("PATCH", path, &[("content-type", &media)], &body.to_string()).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let work = async {
            let response = self.send(method, path, headers, body).await;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            Answer { code: parts.status.as_u16(), headers: parts.headers, text }
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("no answer to {method} {path}"))
    }

    /// Creates all of them, one after the other over one connection.
    pub(crate) async fn post_all(&self, path: &str, bodies: impl Iterator<Item = Value>) {
        let mut connection = self.connect().await;
        for body in bodies {
            let headers = [("content-type", "application/json")];
            let request = self.request("POST", path, &headers, &body.to_string());
            let answer = connection.send_request(request).await.unwrap();
            assert_eq!(answer.status(), 201, "{path}");
            answer.into_body().collect().await.unwrap();
        }
    }

    /// The lines of a watch.
    pub(crate) async fn watch(&self, path: &str) -> Lines {
        self.watch_as(path, "application/json").await
    }

    /// The lines of a watch in the form that `accept` asks for.
    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Lines {
        let response = self.send("GET", path, &[("accept", accept)], "").await;
        assert_eq!(response.status(), 200, "{path}");
        Lines { body: response.into_body(), rest: Vec::new() }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Response<Incoming> {
        self.connect().await.send_request(self.request(method, path, headers, body)).await.unwrap()
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> http::Request<Full<Bytes>> {
        let mut request = http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    }
}

/// A watch, line by line.
pub(crate) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` when the server ended the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("the watch says nothing")?;
            self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// Reads this many events and looks at none of them.
    pub(crate) async fn pass(&mut self, mut events: usize) {
        while events > 0 {
            let frame =
                tokio::time::timeout(DEADLINE, self.body.frame()).await.expect("the watch says nothing");
            let bytes = frame.expect("the watch has ended").unwrap().into_data().unwrap();
            events -= bytes.iter().filter(|byte| **byte == b'\n').count().min(events);
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn told(&mut self) -> String {
        let event = self.next().await.unwrap();
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or("-")
        )
    }
}

fn address(kubeconfig: &str) -> SocketAddr {
    field(kubeconfig, "server").trim_start_matches("https://").parse().unwrap()
}

fn builder(kubeconfig: &str) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem(kubeconfig, "certificate-authority-data")).unwrap())
        .unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}
