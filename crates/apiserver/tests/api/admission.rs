//! Mutating webhooks, and logs: what the server asks of others.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lateen_apiserver::{LogRequest, LogStream, PodLogs, ServiceResolver, Status};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::rest::Server;

/// A webhook that labels pods and denies those named `denied`; returns its address and certificate.
async fn webhook(host: &str) -> (SocketAddr, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    let private = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async {
                let body = request.into_body().collect().await?.to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(judge(&review).to_string()))))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, certificate.pem())
}

fn judge(review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true, "warnings": ["injected"]});
    if request["name"] == "denied" {
        response["allowed"] = json!(false);
        response["status"] = json!({"message": "no"});
    } else {
        let patch = json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "proxy:1"}}]);
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
        response["patchType"] = json!("JSONPatch");
    }
    json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})
}

struct Services(SocketAddr);

#[async_trait]
impl ServiceResolver for Services {
    async fn resolve(&self, namespace: &str, service: &str, port: u16) -> Result<SocketAddr, Status> {
        assert_eq!((namespace, service, port), ("istio-system", "istiod", 443));
        Ok(self.0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_changes_new_pods() {
    let server = Server::start().await;
    let rest = &server.rest;
    let (address, certificate) = webhook("istiod.istio-system.svc").await;
    let configuration = json!({"metadata": {"name": "injector"}, "webhooks": [{
        "name": "inject.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"service": {"namespace": "istio-system", "name": "istiod", "path": "/inject"}, "caBundle": STANDARD.encode(certificate)},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        "namespaceSelector": {"matchLabels": {"inject": "yes"}},
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
    }]});
    rest.post("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", &configuration)
        .await
        .expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "app", "image": "x:1"}]}});
    let containers = |pod: Value| pod["spec"]["containers"].as_array().unwrap().len();
    assert_eq!(
        containers(rest.post(pods, &pod("before", json!({}))).await.expect(201)),
        1,
        "the namespace is not labelled"
    );
    rest.patch("/api/v1/namespaces/default", "merge", &json!({"metadata": {"labels": {"inject": "yes"}}}))
        .await
        .expect(200);
    let unreachable = rest.post(pods, &pod("early", json!({}))).await.expect(500);
    assert!(
        unreachable["message"].as_str().unwrap().contains("failed calling webhook \"inject.example.com\""),
        "{unreachable}"
    );

    server.handle.resolve_services(Arc::new(Services(address)));
    let injected = rest.post(pods, &pod("good", json!({}))).await;
    assert_eq!(injected.warnings(), [r#"299 - "injected""#]);
    let injected = injected.expect(201);
    assert_eq!(injected["spec"]["containers"][1]["imagePullPolicy"], "IfNotPresent", "defaulted, too");
    assert_eq!(containers(rest.post(pods, &pod("skipped", json!({"skip": "1"}))).await.expect(201)), 1);
    let denied = rest.post(pods, &pod("denied", json!({}))).await.expect(400);
    assert_eq!(denied["message"], "admission webhook \"inject.example.com\" denied the request: no");
}

struct Logs;

#[async_trait]
impl PodLogs for Logs {
    async fn open(&self, request: LogRequest) -> Result<LogStream, Status> {
        let text =
            format!("{} {} {:?} {}\n", request.pod, request.container, request.tail_lines, request.previous);
        Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(text)), Ok(Bytes::from("end\n"))])))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_node_agent() {
    let server = Server::start().await;
    let rest = &server.rest;
    let pods = "/api/v1/namespaces/default/pods";
    let spec = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]});
    rest.post(pods, &json!({"metadata": {"name": "p"}, "spec": spec})).await.expect(201);
    assert_eq!(rest.get(&format!("{pods}/p/log?container=a")).await.code, 501, "nobody runs pods yet");
    server.handle.serve_logs(Arc::new(Logs));
    let log = rest.get(&format!("{pods}/p/log?container=b&tailLines=5&previous=true")).await;
    assert_eq!((log.code, log.text.as_str()), (200, "p b Some(5) true\nend\n"));
    let which = rest.get(&format!("{pods}/p/log")).await.expect(400);
    assert_eq!(which["message"], "a container name must be specified for pod p, choose one of: [a b]");
    assert_eq!(rest.get(&format!("{pods}/p/log?container=c")).await.code, 400);
    assert_eq!(rest.get(&format!("{pods}/q/log")).await.code, 404);
}
