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

/// `widgets.example.com` with this schema of the spec.
fn ruled(spec: Value) -> Value {
    let mut definition = definition();
    definition["metadata"]["name"] = json!("widgets.example.com");
    definition["spec"]["names"] = json!({"plural": "widgets", "kind": "Widget"});
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}});
    definition["spec"]["versions"] =
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
    definition
}

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_judge_objects() {
    let server = Server::start().await;
    let rest = &server.rest;
    let spec = json!({
        "type": "object",
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"},
            "kind": {"type": "string", "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "kind is immutable", "reason": "FieldValueForbidden"}]},
            "wait": {"type": "string", "x-kubernetes-validations": [
                {"rule": "duration(self) >= duration('1ms')"}]},
            "owner": {"type": "string", "x-kubernetes-validations": [
                {"rule": "!oldSelf.hasValue() || oldSelf.value() == self", "optionalOldSelf": true, "message": "one owner"}]},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}},
                    "x-kubernetes-validations": [
                        {"rule": "self.port >= oldSelf.port", "message": "ports only grow", "fieldPath": ".port"}]}},
        },
        "x-kubernetes-validations": [
            {"rule": "!has(self.min) || !has(self.max) || self.min <= self.max", "message": "min is above max",
             "messageExpression": "'%d is above %d'.format([self.min, self.max])", "fieldPath": ".min"},
            {"rule": "!has(self.ports) || self.ports.all(p, p.port > 0)"}],
    });
    let mut definition = ruled(spec);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self.metadata.name.startsWith('w')", "message": "names start with w"}]);
    rest.post(CRDS, &definition).await.expect(201);
    let refusal = async |widget: Value| -> (String, String) {
        let status = rest.post(WIDGETS, &widget).await.expect(422);
        let cause = &status["details"]["causes"][0];
        (cause["field"].as_str().unwrap().to_owned(), cause["message"].as_str().unwrap().to_owned())
    };
    for (name, spec, field, message) in [
        ("x", json!({}), "<nil>", r#"Invalid value: "object": names start with w"#),
        ("w", json!({"min": 3, "max": 2}), "spec.min", r#"Invalid value: "object": 3 is above 2"#),
        (
            "w",
            json!({"wait": "0s"}),
            "spec.wait",
            r#"Invalid value: "string": failed rule: duration(self) >= duration('1ms')"#,
        ),
        (
            "w",
            json!({"ports": [{"name": "a", "port": 0}]}),
            "spec",
            r#"Invalid value: "object": failed rule: !has(self.ports) || self.ports.all(p, p.port > 0)"#,
        ),
    ] {
        assert_eq!(refusal(widget(name, spec)).await, (field.to_owned(), message.to_owned()));
    }
    let (field, message) = refusal(widget("w", json!({"wait": "soon"}))).await;
    assert_eq!(field, "spec.wait");
    assert!(message.contains("evaluating rule: failed rule: duration(self)"), "{message}");

    let spec = json!({"kind": "a", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]});
    rest.post(WIDGETS, &widget("w", spec)).await.expect(201);
    let path = format!("{WIDGETS}/w");
    let patch = async |spec: Value| rest.patch(&path, "merge", &json!({"spec": spec})).await;
    for (spec, field, message) in [
        (json!({"kind": "b"}), "spec.kind", "Forbidden: kind is immutable"),
        (json!({"ports": [{"name": "b", "port": 2}, {"name": "a", "port": 0}]}), "spec", "failed rule"),
        (json!({"ports": [{"name": "b", "port": 1}]}), "spec.ports[0].port", "ports only grow"),
    ] {
        let status = patch(spec).await.expect(422);
        let cause = &status["details"]["causes"][0];
        assert_eq!(cause["field"], field, "{status}");
        assert!(cause["message"].as_str().unwrap().contains(message), "{status}");
    }
    patch(json!({"ports": [{"name": "b", "port": 2}, {"name": "c", "port": 1}], "owner": "me"}))
        .await
        .expect(200);
    let status = patch(json!({"owner": "you"})).await.expect(422);
    assert!(status["message"].as_str().unwrap().contains("one owner"), "{status}");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .starts_with(r#"Widget.example.com "w" is invalid: spec.owner: Invalid value: "string":"#),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_that_do_not_compile_are_refused_with_their_place() {
    let server = Server::start().await;
    for (rule, field, why) in [
        (json!({"rule": "self.nam == ''"}), "rule", "compilation failed: undefined field 'nam'"),
        (json!({"rule": "self.name.reversed() == ''"}), "rule", "undeclared reference to 'reversed'"),
        (json!({"rule": "self.name"}), "rule", "its value is of type string, want bool"),
        (json!({"rule": "self.name =="}), "rule", "compilation failed: ERROR: <input>:1:"),
        (json!({"rule": "true", "messageExpression": "1"}), "messageExpression", "want string"),
        (json!({"rule": "true", "reason": "Whim"}), "reason", "FieldValueInvalid"),
        (json!({"rule": "true", "fieldPath": ".nam"}), "fieldPath", "must be the path of a field"),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf", "oldSelf is not used"),
    ] {
        let spec = json!({"type": "object", "properties": {"name": {"type": "string"}}, "x-kubernetes-validations": [rule]});
        let status = server.rest.post(CRDS, &ruled(spec)).await.expect(422);
        let cause = &status["details"]["causes"][0];
        let place = "spec.versions[0].schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
        assert_eq!(cause["field"], format!("{place}.{field}"), "{status}");
        assert!(cause["message"].as_str().unwrap().contains(why), "{status}");
    }
    let greedy = json!({"type": "object", "properties": {"all": {"type": "array", "items": {"type": "string"}}},
        "x-kubernetes-validations": [{"rule": "self.all.all(a, self.all.all(b, self.all.all(c, self.all.all(d, true))))"}]});
    server.rest.post(CRDS, &ruled(greedy)).await.expect(201);
    let status = server.rest.post(WIDGETS, &widget("w", json!({"all": vec!["x"; 1000]}))).await.expect(422);
    assert!(status["message"].as_str().unwrap().contains("call cost exceeds limit"), "{status}");
    server.rest.post(WIDGETS, &widget("w", json!({"all": ["x", "y"]}))).await.expect(201);
}

/// The definitions of `LATEEN_CORPORA`'s folder `crds`.
fn foreign_definitions() -> Vec<(String, Value)> {
    let Some(corpora) = std::env::var_os("LATEEN_CORPORA") else {
        assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "LATEEN_CORPORA is not set");
        return Vec::new();
    };
    let root = std::path::Path::new(&corpora).join("crds");
    let files = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
        files.sort();
        files
    };
    let mut all = Vec::new();
    for path in ["", "gateway-api/standard", "gateway-api/experimental"].into_iter().flat_map(files) {
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            if document["kind"] == "CustomResourceDefinition" {
                all.push((path.display().to_string(), document));
            }
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_of_istio_and_of_gateway_api_compile_and_act() {
    let server = Server::start().await;
    let rest = &server.rest;
    let definitions = foreign_definitions();
    if definitions.is_empty() {
        return eprintln!("skipped: LATEEN_CORPORA is not set");
    }
    let mut ruled = 0;
    for (path, definition) in &definitions {
        ruled += usize::from(definition.to_string().contains("x-kubernetes-validations"));
        let name = definition["metadata"]["name"].as_str().unwrap();
        // The experimental channel has some of the standard one's again.
        rest.delete(&format!("{CRDS}/{name}")).await;
        let made = rest.post(CRDS, definition).await;
        assert_eq!(made.code, 201, "{path}: {}", made.text);
    }
    assert!(ruled >= 20, "{ruled} definitions have rules");
    let objects = "/apis/{}/namespaces/default/";
    let cases = [
        (
            "networking.istio.io/v1",
            "destinationrules",
            "DestinationRule",
            json!({"host": "a", "trafficPolicy": {"connectionPool": {"tcp": {"connectTimeout": "1s"}}}}),
            json!({"host": "a", "trafficPolicy": {"connectionPool": {"tcp": {"connectTimeout": "0s"}}}}),
            "must be a valid duration greater than 1ms",
        ),
        (
            "networking.istio.io/v1",
            "serviceentries",
            "ServiceEntry",
            json!({"hosts": ["a.example"], "resolution": "DNS", "ports": [{"name": "http", "number": 80}]}),
            json!({"hosts": ["a.example"], "resolution": "STATIC", "endpoints": [{"address": "10.0.0.1"}],
                   "workloadSelector": {"labels": {"a": "b"}}, "ports": [{"name": "http", "number": 80}]}),
            "only one of WorkloadSelector or Endpoints can be set",
        ),
        (
            "security.istio.io/v1",
            "peerauthentications",
            "PeerAuthentication",
            json!({"mtls": {"mode": "STRICT"}, "selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"80": {"mode": "DISABLE"}}}),
            json!({"mtls": {"mode": "STRICT"}, "portLevelMtls": {"80": {"mode": "DISABLE"}}}),
            "portLevelMtls requires selector",
        ),
        (
            "gateway.networking.k8s.io/v1",
            "gateways",
            "Gateway",
            json!({"gatewayClassName": "istio", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]}),
            json!({"gatewayClassName": "istio", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"},
                   {"name": "b", "port": 80, "protocol": "HTTP"}]}),
            "Combination of port, protocol and hostname must be unique for each listener",
        ),
        (
            "gateway.networking.k8s.io/v1",
            "httproutes",
            "HTTPRoute",
            json!({"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/a"}}]}]}),
            json!({"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "a//b"}}]}]}),
            "value must be an absolute path and start with '/'",
        ),
        (
            "gateway.networking.x-k8s.io/v1alpha1",
            "xbackends",
            "XBackend",
            json!({"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"}, "protocol": "HTTP",
                   "port": {"name": "web", "port": 80}}),
            json!({"type": "ExternalHostname", "externalHostname": {"hostname": "a.example"}, "protocol": "HTTP",
                   "port": {"name": "Web!", "port": 80}}),
            "Name must be a valid DNS label",
        ),
    ];
    for (version, plural, kind, good, bad, why) in cases {
        let path = objects.replace("{}", version) + plural;
        let object = |name: &str, spec: &Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        let made = rest.post(&path, &object("good", &good)).await;
        assert_eq!(made.code, 201, "{kind}: {}", made.text);
        let refused = rest.post(&path, &object("bad", &bad)).await.expect(422);
        assert!(refused["message"].as_str().unwrap().contains(why), "{kind}: {refused}");
    }
}
