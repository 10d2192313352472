//! Create, update, patch, delete.

use serde_json::{Value, json};

use crate::rest::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_have_versions_and_preconditions() {
    let server = Server::start().await;
    let rest = &server.rest;
    let made = rest.post(MAPS, &json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await.expect(201);
    let metadata = &made["metadata"];
    assert!(
        metadata["uid"].is_string()
            && metadata["creationTimestamp"].is_string()
            && metadata["namespace"] == "default"
    );
    let again = rest.post(MAPS, &json!({"metadata": {"name": "a"}})).await.expect(409);
    assert_eq!(
        (&again["reason"], &again["details"]["kind"]),
        (&json!("AlreadyExists"), &json!("configmaps"))
    );

    let path = format!("{MAPS}/a");
    let mut changed = made.clone();
    changed["data"]["k"] = json!("2");
    let second = rest.put(&path, &changed).await.expect(200);
    assert_ne!(second["metadata"]["resourceVersion"], metadata["resourceVersion"]);
    assert_eq!(second["metadata"]["uid"], metadata["uid"]);
    assert_eq!(rest.put(&path, &changed).await.expect(409)["reason"], "Conflict");
    let same = rest.put(&path, &second).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"], "nothing changed");

    let other = json!({"preconditions": {"uid": "another"}});
    let kept = rest.call("DELETE", &path, &[("content-type", "application/json")], &other.to_string()).await;
    assert_eq!(kept.expect(409)["reason"], "Conflict");
    assert_eq!(rest.delete(&format!("{path}?dryRun=All")).await.code, 200);
    assert_eq!(rest.delete(&path).await.expect(200)["details"]["uid"], metadata["uid"]);
    assert_eq!(rest.get(&path).await.expect(404)["message"], "configmaps \"a\" not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_objects_are_refused_with_their_reason() {
    let server = Server::start().await;
    let rest = &server.rest;
    for (path, body, code, part) in [
        (
            "/api/v1/namespaces/nope/configmaps",
            json!({"metadata": {"name": "a"}}),
            404,
            "namespaces \"nope\" not found",
        ),
        (MAPS, json!({"metadata": {"name": "Bad_Name"}}), 422, "RFC 1123"),
        (MAPS, json!({"metadata": {}}), 422, "metadata.name"),
        (MAPS, json!({"metadata": {"name": "a", "namespace": "other"}}), 400, "does not match"),
        (MAPS, json!({"kind": "Secret", "metadata": {"name": "a"}}), 400, "does not match the expected kind"),
        (MAPS, json!({"metadata": {"name": "a", "labels": {"k": 1}}}), 400, "labels"),
        (MAPS, json!({"metadata": {"name": "a"}, "data": {"k": 1}}), 400, "expected a string"),
        (MAPS, json!([1]), 400, "not a JSON object"),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 0}]}}),
            422,
            "spec.ports[0].port",
        ),
        (
            "/api/v1/namespaces/default/services",
            json!({"metadata": {"name": "s"}, "spec": {}}),
            422,
            "spec.ports: Required value",
        ),
        (
            "/api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "s"}, "spec": {"containers": []}}),
            422,
            "spec.containers",
        ),
        (
            "/apis/apps/v1/namespaces/default/nothings",
            json!({}),
            404,
            "could not find the requested resource",
        ),
        ("/apis/apps/v1/deployments", deployment("x"), 400, "namespace"),
    ] {
        let answer = rest.post(path, &body).await;
        assert_eq!(answer.code, code, "{path} {body}: {}", answer.text);
        let status = answer.json();
        assert_eq!(status["kind"], "Status");
        assert!(status["message"].as_str().unwrap().contains(part), "{path} {body}: {}", answer.text);
    }
    let garbage = rest.call("POST", MAPS, &[("content-type", "application/json")], "{nonsense").await;
    assert_eq!(garbage.expect(400)["reason"], "BadRequest");
    assert_eq!(rest.call("POST", MAPS, &[("content-type", "application/cbor")], "").await.code, 415);
    assert_eq!(
        rest.call("POST", MAPS, &[("content-type", "application/vnd.kubernetes.protobuf")], "k8s").await.code,
        400
    );
    assert_eq!(
        rest.call("PATCH", &format!("{MAPS}/a"), &[("content-type", "application/apply-patch+cbor")], "")
            .await
            .code,
        415
    );
    let big = format!("{{\"metadata\":{{\"name\":\"a\"}},\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(4 << 20));
    assert_eq!(rest.call("POST", MAPS, &[("content-type", "application/json")], &big).await.code, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_fields_are_warned_of_refused_or_ignored() {
    let server = Server::start().await;
    let rest = &server.rest;
    let body = |name: &str| json!({"metadata": {"name": name}, "spec": {"prots": 1, "ports": [{"port": 1, "nam": "x"}]}});
    let services = "/api/v1/namespaces/default/services";
    let warned = rest.post(services, &body("a")).await;
    assert_eq!(
        warned.warnings(),
        [r#"299 - "unknown field \"spec.ports[0].nam\"""#, r#"299 - "unknown field \"spec.prots\"""#]
            .iter()
            .rev()
            .copied()
            .collect::<Vec<_>>()
    );
    assert!(warned.expect(201)["spec"].get("prots").is_none(), "pruned");
    let strict = rest.post(&format!("{services}?fieldValidation=Strict"), &body("b")).await.expect(400);
    assert!(
        strict["message"].as_str().unwrap().contains("strict decoding error: unknown field \"spec.prots\""),
        "{strict}"
    );
    let ignored = rest.post(&format!("{services}?fieldValidation=Ignore"), &body("c")).await;
    assert!(ignored.warnings().is_empty());
    ignored.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_generations_and_the_status_subresource() {
    let server = Server::start().await;
    let rest = &server.rest;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let mut with_status = deployment("nginx");
    with_status["status"] = json!({"replicas": 9});
    with_status["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": 1}});
    let made = rest.post(path, &with_status).await.expect(201);
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(
        (&made["spec"]["replicas"], &made["metadata"]["generation"], &made["status"]),
        (&json!(1), &json!(1), &json!({}))
    );
    let one = format!("{path}/web");
    let status = rest
        .patch(
            &format!("{one}/status"),
            "merge",
            &json!({"spec": {"replicas": 7}, "status": {"replicas": 1}}),
        )
        .await
        .expect(200);
    assert_eq!(
        (&status["spec"]["replicas"], &status["status"]["replicas"], &status["metadata"]["generation"]),
        (&json!(1), &json!(1), &json!(1))
    );
    let changed =
        rest.patch(&one, "merge", &json!({"spec": {"replicas": 3}, "status": null})).await.expect(200);
    assert_eq!((&changed["status"]["replicas"], &changed["metadata"]["generation"]), (&json!(1), &json!(2)));
    let scale = rest.put(&format!("{one}/scale"), &json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(5), &json!("app=web")));
    let immutable = rest
        .patch(&one, "merge", &json!({"spec": {"selector": {"matchLabels": {"app": "x"}}}}))
        .await
        .expect(422);
    assert!(immutable["message"].as_str().unwrap().contains("field is immutable"), "{immutable}");

    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let made = rest.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!(
        (30000..=32767).contains(&port) && made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."),
        "{made}"
    );
    let kept = rest.put("/api/v1/namespaces/default/services/s", &service).await.expect(200);
    assert_eq!(kept["spec"], made["spec"], "what was allocated stays");
    let taken = json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    assert_eq!(rest.post("/api/v1/namespaces/default/services", &taken).await.code, 422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches() {
    let server = Server::start().await;
    let rest = &server.rest;
    let path = "/apis/apps/v1/namespaces/default/deployments/web";
    rest.post("/apis/apps/v1/namespaces/default/deployments", &deployment("one")).await.expect(201);
    let names = |v: &Value| {
        v["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let containers = |list: Value| json!({"spec": {"template": {"spec": {"containers": list}}}});
    let strategic = rest
        .patch(path, "strategic-merge", &containers(json!([{"name": "d", "image": "two"}])))
        .await
        .expect(200);
    assert_eq!(names(&strategic), ["d", "c"], "new items come first, as in Kubernetes");
    let merge =
        rest.patch(path, "merge", &containers(json!([{"name": "d", "image": "two"}]))).await.expect(200);
    assert_eq!(names(&merge), ["d"]);
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]);
    assert_eq!(
        rest.patch(path, "json", &json_patch).await.expect(200)["metadata"]["labels"],
        json!({"a": "b"})
    );
    let failing = json!([{"op": "test", "path": "/spec/replicas", "value": 2}]);
    assert_eq!(rest.patch(path, "json", &failing).await.code, 422);
    let old =
        rest.patch(path, "merge", &json!({"metadata": {"resourceVersion": "1", "labels": {"x": "y"}}})).await;
    assert_eq!(old.expect(409)["reason"], "Conflict");
    let mut racing = Vec::new();
    for n in 0..20 {
        let rest = rest.clone();
        racing.push(tokio::spawn(async move {
            rest.patch(path, "merge", &json!({"metadata": {"annotations": {format!("n{n}"): "x"}}}))
                .await
                .code
        }));
    }
    for one in racing {
        assert_eq!(one.await.unwrap(), 200);
    }
    assert_eq!(rest.get(path).await.json()["metadata"]["annotations"].as_object().unwrap().len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_stop_gracefully_and_finalizers_hold() {
    let server = Server::start().await;
    let rest = &server.rest;
    let pods = "/api/v1/namespaces/default/pods";
    let spec = json!({"nodeName": "node", "containers": [{"name": "c", "image": "x"}]});
    rest.post(pods, &json!({"metadata": {"name": "p"}, "spec": spec})).await.expect(201);
    let moved = rest.patch(&format!("{pods}/p"), "merge", &json!({"spec": {"nodeName": null}})).await;
    assert_eq!(moved.expect(422)["details"]["causes"][0]["field"], "spec.nodeName");
    let marked = rest.delete(&format!("{pods}/p")).await.expect(200);
    assert_eq!(
        (&marked["kind"], &marked["metadata"]["deletionGracePeriodSeconds"]),
        (&json!("Pod"), &json!(30))
    );
    rest.patch(&format!("{pods}/p/status"), "merge", &json!({"status": {"phase": "Succeeded"}}))
        .await
        .expect(200);
    rest.delete(&format!("{pods}/p?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(rest.get(&format!("{pods}/p")).await.code, 404);

    let maps = "/api/v1/namespaces/default/configmaps";
    rest.post(maps, &json!({"metadata": {"name": "f", "finalizers": ["example.com/hold"]}}))
        .await
        .expect(201);
    assert!(rest.delete(&format!("{maps}/f")).await.expect(200)["metadata"]["deletionTimestamp"].is_string());
    rest.get(&format!("{maps}/f")).await.expect(200);
    rest.patch(&format!("{maps}/f"), "merge", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(rest.get(&format!("{maps}/f")).await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_end_empty_and_dependents_follow_their_owner() {
    let server = Server::start().await;
    let rest = &server.rest;
    rest.post("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.expect(201);
    rest.put("/api/v1/namespaces/ns", &json!({"metadata": {"name": "ns"}})).await.expect(200);
    let maps = "/api/v1/namespaces/ns/configmaps";
    let owner = rest.post(maps, &json!({"metadata": {"name": "owner"}})).await.expect(201);
    let reference =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
    rest.post(maps, &json!({"metadata": {"name": "dependent", "ownerReferences": reference}}))
        .await
        .expect(201);
    let mut watch = rest.watch(&format!("{maps}?watch=true")).await;
    assert_eq!((watch.told().await, watch.told().await), ("ADDED dependent".into(), "ADDED owner".into()));
    rest.delete(&format!("{maps}/owner")).await.expect(200);
    assert_eq!(
        (watch.told().await, watch.told().await),
        ("DELETED owner".into(), "DELETED dependent".into())
    );

    rest.post(maps, &json!({"metadata": {"name": "last"}})).await.expect(201);
    let mut namespaces = rest.watch("/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Dns").await;
    assert_eq!(namespaces.told().await, "ADDED ns");
    assert_eq!(rest.delete("/api/v1/namespaces/ns").await.expect(200)["status"]["phase"], "Terminating");
    assert_eq!(
        rest.post(maps, &json!({"metadata": {"name": "late"}})).await.expect(403)["reason"],
        "Forbidden"
    );
    while namespaces.told().await != "DELETED ns" {}
    assert_eq!(rest.get(&format!("{maps}/last")).await.code, 404);
    assert_eq!(rest.delete("/api/v1/namespaces/default").await.code, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_go_after_their_dependents_or_leave_them() {
    let server = Server::start().await;
    let rest = &server.rest;
    let maps = "/api/v1/namespaces/default/configmaps";
    let owned = |name: &str, owner: &Value, finalizers: Value| {
        let reference = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": owner["metadata"]["uid"],
            "blockOwnerDeletion": true}]);
        json!({"metadata": {"name": name, "ownerReferences": reference, "finalizers": finalizers}})
    };
    let owner = rest.post(maps, &json!({"metadata": {"name": "o"}})).await.expect(201);
    rest.post(maps, &owned("held", &owner, json!(["example.com/hold"]))).await.expect(201);
    let marked = rest.delete(&format!("{maps}/o?propagationPolicy=Foreground")).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let mut watch = rest.watch(&format!("{maps}?watch=true")).await;
    let mut told = vec![watch.told().await, watch.told().await];
    told.sort();
    assert_eq!(told, ["ADDED held", "ADDED o"]);
    // The dependent is marked once; before that the watch may have begun with it.
    loop {
        let held = rest.get(&format!("{maps}/held")).await.expect(200);
        if held["metadata"]["deletionTimestamp"].is_string() {
            break;
        }
        watch.told().await;
    }
    rest.get(&format!("{maps}/o")).await.expect(200);
    rest.patch(&format!("{maps}/held"), "merge", &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    while watch.told().await != "DELETED o" {}
    assert_eq!(rest.get(&format!("{maps}/held")).await.code, 404);

    let owner = rest.post(maps, &json!({"metadata": {"name": "o"}})).await.expect(201);
    rest.post(maps, &owned("kept", &owner, json!([]))).await.expect(201);
    rest.delete(&format!("{maps}/o?propagationPolicy=Orphan")).await.expect(200);
    let kept = rest.get(&format!("{maps}/kept")).await.expect(200);
    assert_eq!(kept["metadata"]["ownerReferences"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ending_namespace_tells_what_holds_it() {
    let server = Server::start().await;
    let rest = &server.rest;
    rest.post("/api/v1/namespaces", &json!({"metadata": {"name": "ns"}})).await.expect(201);
    let map = json!({"metadata": {"name": "m", "finalizers": ["example.com/hold"]}});
    rest.post("/api/v1/namespaces/ns/configmaps", &map).await.expect(201);
    let mut watch = rest.watch("/api/v1/namespaces?watch=true&fieldSelector=metadata.name%3Dns").await;
    assert_eq!(watch.told().await, "ADDED ns");
    rest.delete("/api/v1/namespaces/ns").await.expect(200);
    let condition = |ns: &Value, kind: &str| {
        let all = ns["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|one| one["type"] == kind).map(|one| one["message"].as_str().unwrap().to_owned())
    };
    let told = loop {
        let ns = rest.get("/api/v1/namespaces/ns").await.expect(200);
        if let Some(message) = condition(&ns, "NamespaceContentRemaining") {
            assert_eq!(
                condition(&ns, "NamespaceFinalizersRemaining").unwrap(),
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances"
            );
            break message;
        }
        watch.told().await;
    };
    assert_eq!(told, "Some resources are remaining: configmaps has 1 resource instances");
    let free = json!({"metadata": {"finalizers": null}});
    rest.patch("/api/v1/namespaces/ns/configmaps/m", "merge", &free).await.expect(200);
    while watch.told().await != "DELETED ns" {}
}
