//! CustomResourceDefinitions.

use serde_json::{Value, json};

use crate::rest::Server;

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["hosts"], "properties": {
            "hosts": {"type": "array", "items": {"type": "string", "minLength": 1}},
            "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let columns = json!([
        {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"},
        {"name": "Mode", "type": "string", "jsonPath": ".spec.mode", "priority": 1},
    ]);
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}}, "additionalPrinterColumns": columns,
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "routes.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "routes", "kind": "Route", "shortNames": ["rt"]},
            "versions": [version("v1beta1", false), version("v1", true)],
        },
    })
}

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROUTES: &str = "/apis/example.com/v1/namespaces/default/routes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_served_from_the_moment_it_is_made() {
    let server = Server::start().await;
    let rest = &server.rest;
    assert_eq!(rest.get(ROUTES).await.code, 404);
    let made = rest.post(CRDS, &definition()).await.expect(201);
    assert_eq!(
        made["status"]["conditions"][1],
        json!({"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
        "message": "the initial names have been accepted", "lastTransitionTime": made["status"]["conditions"][1]["lastTransitionTime"]})
    );
    assert_eq!(rest.get("/apis/example.com").await.expect(200)["preferredVersion"]["version"], "v1");

    let route = rest
        .post(ROUTES, &json!({"metadata": {"name": "r"}, "spec": {"hosts": ["a", "b"], "extra": 1}}))
        .await;
    assert_eq!(route.warnings(), [r#"299 - "unknown field \"spec.extra\"""#]);
    let route = route.expect(201);
    assert_eq!(
        (&route["spec"], &route["metadata"]["generation"]),
        (&json!({"hosts": ["a", "b"], "mode": "A"}), &json!(1))
    );
    let beta = rest.get("/apis/example.com/v1beta1/namespaces/default/routes/r").await.expect(200);
    assert_eq!((&beta["apiVersion"], &beta["spec"]), (&json!("example.com/v1beta1"), &route["spec"]));
    for (spec, field) in [
        (json!({}), "spec.hosts"),
        (json!({"hosts": [""]}), "spec.hosts[0]"),
        (json!({"hosts": "a"}), "spec.hosts"),
        (json!({"hosts": [], "mode": "C"}), "spec.mode"),
    ] {
        let status = rest.post(ROUTES, &json!({"metadata": {"name": "x"}, "spec": spec})).await.expect(422);
        assert_eq!(status["details"]["causes"][0]["field"], field, "{status}");
    }
    let table = rest
        .call("GET", ROUTES, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await
        .expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["r", r#"["a","b"]"#, "A"]));
    assert_eq!(table["columnDefinitions"][2]["priority"], 1);

    let status =
        rest.patch(&format!("{ROUTES}/r/status"), "merge", &json!({"status": {"any": 1}})).await.expect(200);
    assert_eq!((&status["status"], &status["metadata"]["generation"]), (&json!({"any": 1}), &json!(1)));
    assert_eq!(rest.patch(&format!("{ROUTES}/r"), "strategic-merge", &json!({})).await.code, 415);

    rest.delete(&format!("{CRDS}/routes.example.com")).await.expect(200);
    assert_eq!(rest.get(ROUTES).await.code, 404);
    rest.post(CRDS, &definition()).await.expect(201);
    assert_eq!(rest.get(ROUTES).await.expect(200)["items"], json!([]), "its objects went with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_definitions_are_refused() {
    let server = Server::start().await;
    for (path, value) in [
        ("/metadata/name", json!("other.example.com")),
        ("/spec/scope", json!("Galaxy")),
        ("/spec/versions/0/storage", json!(true)),
        ("/spec/versions/0/schema/openAPIV3Schema/type", json!("thing")),
        ("/spec/versions/1/additionalPrinterColumns/0/jsonPath", json!("spec[")),
    ] {
        let mut bad = definition();
        *bad.pointer_mut(path).unwrap() = value;
        let status = server.rest.post(CRDS, &bad).await;
        assert_eq!(status.code, 422, "{path}: {}", status.text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn istios_definitions_are_served() {
    let server = Server::start().await;
    let client = server.handle.client();
    let definitions = lateen_api::crds();
    assert!(definitions.len() >= 14);
    for definition in definitions {
        client.create("customresourcedefinitions.apiextensions.k8s.io", definition).await.unwrap();
    }
    let route = json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews", "subset": "v1"}}]}]},
    });
    client.create("virtualservices.networking.istio.io", route).await.unwrap();
    let path = "/apis/networking.istio.io/v1/namespaces/default/virtualservices";
    let accept = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table: Value = server.rest.call("GET", path, &[accept], "").await.expect(200);
    let headers: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(headers, ["Name", "Gateways", "Hosts", "Age"]);
    assert_eq!(table["rows"][0]["cells"][2], r#"["reviews"]"#);
    let typo = json!({"metadata": {"name": "x"}, "spec": {"hots": ["a"]}});
    assert_eq!(server.rest.post(&format!("{path}?fieldValidation=Strict"), &typo).await.code, 400);
}
