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

/// A server of webhooks; returns its address and certificate.
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
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                let answer = judge(&path, &review).await.to_string();
                Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(answer))))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, certificate.pem())
}

/// The path says what the webhook does.
async fn judge(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let patch = |operations: Value| json!(STANDARD.encode(operations.to_string()));
    match path {
        "/inject" if request["name"] == "denied" => {
            response["allowed"] = json!(false);
            response["status"] = json!({"message": "no"});
        }
        "/inject" => {
            response["warnings"] = json!(["injected"]);
            response["patchType"] = json!("JSONPatch");
            response["patch"] = patch(
                json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "sidecar", "image": "proxy:1"}}]),
            );
        }
        // Counts how often it saw the object.
        "/count" => {
            let seen =
                request["object"]["metadata"]["annotations"]["seen"].as_str().unwrap_or_default().to_owned();
            response["patchType"] = json!("JSONPatch");
            response["patch"] = patch(
                json!([{"op": "add", "path": "/metadata/annotations", "value": {"seen": format!("{seen}x")}}]),
            );
        }
        "/label" => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] =
                patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"by": "webhook"}}]));
        }
        "/hang" => std::future::pending().await,
        // Refuses, and says what it was asked.
        _ => {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (kind, wanted) = (&request["kind"], &request["requestKind"]);
            response["allowed"] = json!(false);
            let asked = format!(
                "{} {}/{} as {} sub {:?} dry {} old {}",
                word(&request["operation"]),
                word(&wanted["version"]),
                word(&wanted["kind"]),
                word(&kind["version"]),
                word(&request["subResource"]),
                request["dryRun"],
                !request["oldObject"].is_null(),
            );
            response["status"] = json!({"code": 403, "message": asked});
        }
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

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A server with webhooks at hand.
struct World {
    server: Server,
    url: String,
    bundle: String,
}

impl World {
    async fn start() -> Self {
        let (address, certificate) = webhook("localhost").await;
        let url = format!("https://localhost:{}", address.port());
        Self { server: Server::start().await, url, bundle: STANDARD.encode(certificate) }
    }

    /// Configures a webhook at `path`; `with` are its further fields.
    async fn configure(&self, kind: &str, name: &str, path: &str, rule: Value, with: Value) {
        let mut webhook = json!({
            "name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": format!("{}{path}", self.url), "caBundle": self.bundle}, "rules": [rule],
        });
        webhook.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let configuration = json!({"metadata": {"name": name}, "webhooks": [webhook]});
        let path = format!("{CONFIGURATIONS}/{kind}webhookconfigurations");
        self.server.rest.post(&path, &configuration).await.expect(201);
    }
}

fn rule(operations: &[&str], group: &str, versions: &[&str], resources: &[&str]) -> Value {
    json!({"operations": operations, "apiGroups": [group], "apiVersions": versions, "resources": resources})
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_operation_on_every_resource_is_judged() {
    let world = World::start().await;
    let rest = &world.server.rest;
    let maps = "/api/v1/namespaces/default/configmaps";
    rest.post(maps, &map("old")).await.expect(201);
    let changes = rule(&["UPDATE", "DELETE"], "", &["v1"], &["configmaps"]);
    world.configure("validating", "judge", "/refuse", changes, json!({})).await;
    rest.post(maps, &map("new")).await.expect(201);
    let refusal =
        |asked: &str| format!("admission webhook \"judge.example.com\" denied the request: {asked}");
    let updated = rest.patch(&format!("{maps}/old"), "merge", &json!({"data": {"k": "w"}})).await.expect(403);
    assert_eq!(updated["message"], refusal("UPDATE v1/ConfigMap as v1 sub \"\" dry false old true"));
    assert_eq!(updated["reason"], "Forbidden");
    let deleted = rest.delete(&format!("{maps}/old?dryRun=All")).await.expect(403);
    assert_eq!(deleted["message"], refusal("DELETE v1/ConfigMap as v1 sub \"\" dry true old true"));
    assert_eq!(rest.get(&format!("{maps}/old")).await.expect(200)["data"]["k"], "v");

    let status = rule(&["*"], "apps", &["*"], &["deployments/status"]);
    world.configure("validating", "status", "/refuse", status, json!({})).await;
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    rest.post(deployments, &json!({"metadata": {"name": "d"}, "spec": spec})).await.expect(201);
    let change = json!({"status": {"replicas": 1}});
    let refused = rest.patch(&format!("{deployments}/d/status"), "merge", &change).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("UPDATE v1/Deployment as v1 sub \"status\""));
    let unknown = json!({"metadata": {"name": "bad"}, "webhooks": [{"name": "x", "matchConditions": [{"name": "n", "expression": "objet.kind == 1"}]}]});
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations");
    let refused = rest.post(&path, &unknown).await.expect(422);
    for field in
        ["name", "admissionReviewVersions", "sideEffects", "clientConfig", "matchConditions[0].expression"]
    {
        assert!(
            refused["message"].as_str().unwrap().contains(&format!("webhooks[0].{field}: ")),
            "{refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_fatal_or_ignored_as_the_policy_says() {
    let world = World::start().await;
    let rest = &world.server.rest;
    let maps = "/api/v1/namespaces/default/configmaps";
    let labelled = |value: &str| json!({"matchLabels": {"try": value}});
    let create = || rule(&["CREATE"], "", &["v1"], &["configmaps"]);
    let with = |selector: &str, policy: &str| json!({"timeoutSeconds": 1, "failurePolicy": policy, "objectSelector": labelled(selector)});
    world.configure("validating", "a-hang", "/hang", create(), with("fail", "Fail")).await;
    world.configure("mutating", "b-hang", "/hang", create(), with("ignore", "Ignore")).await;
    let tried = |value: &str| {
        let mut object = map(value);
        object["metadata"]["labels"] = json!({"try": value});
        object
    };
    let failed = rest.post(maps, &tried("fail")).await.expect(500);
    let message = failed["message"].as_str().unwrap();
    assert!(message.starts_with("Internal error occurred: failed calling webhook \"a-hang.example.com\": failed to call webhook: Post \"https://localhost:"), "{message}");
    assert!(message.contains("/hang?timeout=1s\": context deadline exceeded"), "{message}");
    rest.post(maps, &tried("ignore")).await.expect(201);
    rest.post(maps, &tried("neither")).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn match_conditions_choose_the_requests() {
    let world = World::start().await;
    let rest = &world.server.rest;
    let maps = "/api/v1/namespaces/default/configmaps";
    let changes = || rule(&["CREATE", "UPDATE", "DELETE"], "", &["v1"], &["configmaps"]);
    let conditions = |policy: &str, expressions: &[&str]| {
        let named = expressions.iter().enumerate();
        let all: Vec<Value> =
            named.map(|(at, one)| json!({"name": format!("c{at}"), "expression": one})).collect();
        json!({"matchConditions": all, "failurePolicy": policy})
    };
    let chosen = [
        "request.operation != 'DELETE' && !request.userInfo.username.startsWith('system:serviceaccount:')",
        "object.metadata.name.startsWith('judged-') && has(object.data) && has(object.data.k)",
        "oldObject == null || oldObject.data.k != object.data.k",
    ];
    world.configure("validating", "chosen", "/refuse", changes(), conditions("Fail", &chosen)).await;
    rest.post(maps, &map("other")).await.expect(201);
    rest.post(maps, &json!({"metadata": {"name": "judged-empty"}})).await.expect(201);
    rest.delete(&format!("{maps}/judged-empty")).await.expect(200);
    let refused = rest.post(maps, &map("judged-a")).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("denied the request: CREATE"), "{refused}");

    // What cannot be answered is as bad as a webhook that cannot be reached, unless another condition says no.
    let broken = ["object.spec.none == 1", "request.name == 'broken'"];
    world.configure("validating", "fail", "/refuse", changes(), conditions("Fail", &broken)).await;
    world
        .configure("validating", "ignore", "/refuse", changes(), conditions("Ignore", &["object.none == 1"]))
        .await;
    rest.post(maps, &map("fine")).await.expect(201);
    let failed = rest.post(maps, &map("broken")).await.expect(403);
    assert_eq!(
        failed["message"],
        "configmaps \"broken\" is forbidden: admission webhook \"fail.example.com\" failed to evaluate match \
         conditions: no such key: spec"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_trials_and_later_changes_are_respected() {
    let world = World::start().await;
    let rest = &world.server.rest;
    let maps = "/api/v1/namespaces/default/configmaps";
    let create = || rule(&["CREATE"], "", &["v1"], &["configmaps"]);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    world.configure("mutating", "a-count", "/count", create(), again).await;
    world.configure("mutating", "b-label", "/label", create(), json!({})).await;
    let made = rest.post(maps, &map("m")).await.expect(201);
    assert_eq!(made["metadata"]["annotations"]["seen"], "xx", "it saw what the later one had added");
    assert_eq!(made["metadata"]["labels"]["by"], "webhook");

    let old_version = || rule(&["CREATE"], "autoscaling", &["v1"], &["horizontalpodautoscalers"]);
    world.configure("validating", "exact", "/refuse", old_version(), json!({"matchPolicy": "Exact"})).await;
    let scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let scaler = |name: &str| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        json!({"metadata": {"name": name}, "spec": {"scaleTargetRef": target, "maxReplicas": 2}})
    };
    rest.post(scalers, &scaler("one")).await.expect(201);
    world.configure("validating", "same", "/refuse", old_version(), json!({})).await;
    let refused = rest.post(scalers, &scaler("two")).await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("CREATE v2/HorizontalPodAutoscaler as v1"), "{message}");

    let namespaces = rule(&["CREATE"], "", &["v1"], &["namespaces"]);
    let selector = json!({"namespaceSelector": {"matchLabels": {"judged": "yes"}}});
    world.configure("validating", "place", "/refuse", namespaces, selector).await;
    let namespace = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    rest.post("/api/v1/namespaces", &namespace("free", json!({}))).await.expect(201);
    rest.post("/api/v1/namespaces", &namespace("judged", json!({"judged": "yes"}))).await.expect(403);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_container_gets_its_service_account() {
    let world = World::start().await;
    let rest = &world.server.rest;
    world
        .configure("mutating", "inject", "/inject", rule(&["CREATE"], "", &["v1"], &["pods"]), json!({}))
        .await;
    let place = "/var/run/secrets/kubernetes.io/serviceaccount";
    let create = async |name: &str, spec: Value| {
        let mut own = json!({"containers": [{"name": "app", "image": "x"},
            {"name": "other", "image": "x", "volumeMounts": [{"name": "mine", "mountPath": place}]}],
            "volumes": [{"name": "mine", "emptyDir": {}}]});
        own.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let pod = json!({"metadata": {"name": name}, "spec": own});
        rest.post("/api/v1/namespaces/default/pods", &pod).await.expect(201)["spec"].clone()
    };
    let spec = create("with", json!({})).await;
    let volume = &spec["volumes"][1];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let mounted = |index: usize| spec["containers"][index]["volumeMounts"].as_array().unwrap().clone();
    let own = json!({"name": name, "mountPath": place, "readOnly": true});
    assert_eq!((mounted(0), mounted(2)), (vec![own.clone()], vec![own]), "also what a webhook has added");
    assert_eq!((mounted(1).len(), &mounted(1)[0]["name"]), (1, &json!("mine")));
    assert_eq!(spec["volumes"].as_array().unwrap().len(), 2);

    let refusing = json!({"metadata": {"name": "bare"}, "automountServiceAccountToken": false});
    rest.post("/api/v1/namespaces/default/serviceaccounts", &refusing).await.expect(201);
    let none = create("by-account", json!({"serviceAccountName": "bare"})).await;
    assert_eq!(none["volumes"].as_array().unwrap().len(), 1);
    let by_pod = json!({"serviceAccountName": "bare", "automountServiceAccountToken": true});
    assert_eq!(create("by-pod", by_pod).await["volumes"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_needs_its_service_account() {
    let server = Server::start().await;
    let rest = &server.rest;
    let spec =
        |account: &str| json!({"serviceAccountName": account, "containers": [{"name": "app", "image": "x"}]});
    for round in 0..5 {
        let namespace = json!({"metadata": {"name": format!("fresh{round}")}});
        rest.post("/api/v1/namespaces", &namespace).await.expect(201);
        let pods = format!("/api/v1/namespaces/fresh{round}/pods");
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "x"}]}});
        let made = rest.post(&pods, &pod).await.expect(201);
        assert_eq!(made["spec"]["serviceAccountName"], "default", "it waits for the account to come");
    }
    let pods = "/api/v1/namespaces/fresh0/pods";
    let why = "is forbidden: error looking up service account fresh0/bob: serviceaccount \"bob\" not found";
    let named = json!({"metadata": {"name": "q"}, "spec": spec("bob")});
    let refused = rest.post(pods, &named).await.expect(403);
    assert_eq!(
        (refused["message"].as_str(), &refused["reason"]),
        (Some(&*format!("pods \"q\" {why}")), &json!("Forbidden"))
    );
    let generated = json!({"metadata": {"generateName": "set-"}, "spec": spec("bob")});
    assert_eq!(rest.post(pods, &generated).await.expect(403)["message"], format!("pods \"set-\" {why}"));
    let accounts = "/api/v1/namespaces/fresh0/serviceaccounts";
    rest.post(accounts, &json!({"metadata": {"name": "bob"}})).await.expect(201);
    rest.post(pods, &generated).await.expect(201);
    rest.delete(&format!("{accounts}/default")).await.expect(200);
    rest.post(pods, &json!({"metadata": {"name": "late"}, "spec": spec("default")})).await.expect(201);
}
