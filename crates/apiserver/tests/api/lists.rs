//! Lists, selectors, tables, discovery.

use serde_json::{Value, json};

use crate::rest::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_selectors_and_collections() {
    let server = Server::start().await;
    let rest = &server.rest;
    for n in 0..5 {
        let parity = if n % 2 == 0 { "even" } else { "odd" };
        rest.post(MAPS, &json!({"metadata": {"name": format!("m{n}"), "labels": {"parity": parity}}}))
            .await
            .expect(201);
    }
    let names = |list: &Value| {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first = rest.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(
        (names(&first), &first["kind"], &first["metadata"]["remainingItemCount"]),
        (vec!["m0".into(), "m1".into()], &json!("ConfigMapList"), &json!(3))
    );
    let token = first["metadata"]["continue"].as_str().unwrap();
    rest.post(MAPS, &json!({"metadata": {"name": "m9"}})).await.expect(201);
    let rest_of = rest.get(&format!("{MAPS}?limit=9&continue={token}")).await.expect(200);
    assert_eq!(names(&rest_of), ["m2", "m3", "m4"], "all pages show the state of the first");
    assert_eq!(
        rest_of["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"],
        "a watch from the first page misses nothing"
    );
    assert_eq!(rest.get(&format!("{MAPS}?continue=junk")).await.code, 400);
    let even = rest.get(&format!("{MAPS}?labelSelector=parity%3Deven&limit=2")).await.expect(200);
    let token = even["metadata"]["continue"].as_str().unwrap();
    let more =
        rest.get(&format!("{MAPS}?labelSelector=parity%3Deven&limit=2&continue={token}")).await.expect(200);
    assert_eq!((names(&even), names(&more)), (vec!["m0".into(), "m2".into()], vec!["m4".into()]));
    assert_eq!(
        (&even["metadata"]["remainingItemCount"], &more["metadata"]["continue"]),
        (&Value::Null, &Value::Null)
    );

    assert_eq!(
        names(&rest.get(&format!("{MAPS}?labelSelector=parity%3Deven")).await.expect(200)),
        ["m0", "m2", "m4"]
    );
    assert_eq!(
        names(&rest.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm3").await.expect(200)),
        ["m3"]
    );
    assert_eq!(rest.get(&format!("{MAPS}?fieldSelector=data.x%3Dm3")).await.code, 400);
    rest.delete(&format!("{MAPS}?labelSelector=parity%3Dodd")).await.expect(200);
    assert_eq!(names(&rest.get(MAPS).await.expect(200)), ["m0", "m2", "m4", "m9"]);
    let partial = rest
        .call(
            "GET",
            MAPS,
            &[("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")],
            "",
        )
        .await
        .expect(200);
    assert_eq!(
        (&partial["kind"], &partial["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_print_as_kubectl_users_expect() {
    let server = Server::start().await;
    let rest = &server.rest;
    let pods = "/api/v1/namespaces/default/pods";
    let row = async |name: &str, status: Value| {
        rest.post(pods, &json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}})).await.expect(201);
        rest.patch(&format!("{pods}/{name}/status"), "merge", &json!({"status": status})).await.expect(200);
        let table = rest
            .call(
                "GET",
                &format!("{pods}/{name}"),
                &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
                "",
            )
            .await
            .expect(200);
        let cells = table["rows"][0]["cells"].as_array().unwrap().clone();
        format!(
            "{} {} {}",
            cells[1].as_str().unwrap(),
            cells[2].as_str().unwrap(),
            cells[3].as_str().unwrap()
        )
    };
    let running = |name: &str, count: u32| json!({"name": name, "ready": true, "restartCount": count, "state": {"running": {}}});
    assert_eq!(row("fresh", json!({})).await, "0/2 Pending 0");
    assert_eq!(
        row("good", json!({"phase": "Running", "containerStatuses": [running("a", 0), running("b", 2)]}))
            .await,
        "2/2 Running 2"
    );
    let waiting = |reason: &str| json!({"name": "b", "ready": false, "restartCount": 1, "state": {"waiting": {"reason": reason}}});
    assert_eq!(
        row(
            "crash",
            json!({"phase": "Running", "containerStatuses": [running("a", 0), waiting("CrashLoopBackOff")]})
        )
        .await,
        "1/2 CrashLoopBackOff 1"
    );
    assert_eq!(
        row("image", json!({"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]})).await,
        "0/2 ErrImagePull 1"
    );
    let over = json!({"name": "a", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}});
    assert_eq!(row("over", json!({"phase": "Failed", "containerStatuses": [over]})).await, "0/2 Error 0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_health_and_the_paths_between() {
    let server = Server::start().await;
    let rest = &server.rest;
    assert_eq!(rest.get("/readyz").await.text, "ok");
    assert_eq!(rest.get("/version").await.expect(200)["major"], "1");
    assert_eq!(rest.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = rest.get("/apis").await.expect(200);
    assert!(
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .any(|g| g["name"] == "autoscaling" && g["preferredVersion"]["version"] == "v2")
    );
    let apps = rest.get("/apis/apps/v1").await.expect(200);
    let names: Vec<&str> =
        apps["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"deployments") && names.contains(&"deployments/scale"), "{names:?}");
    let aggregated = rest
        .call(
            "GET",
            "/apis",
            &[("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")],
            "",
        )
        .await;
    assert!(aggregated.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
    let openapi = rest.get("/openapi/v2").await;
    let document = openapi.expect(200);
    assert!(document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"].is_object());
    for path in [
        "/openapi/v3/apis/none/v1",
        "/apis/none",
        "/apis/apps/v9",
        "/nonsense",
        "/api/v1/nothing",
        "/api/v1/pods/x",
        "/api/v1/namespaces/default/nodes",
    ] {
        assert_eq!(rest.get(path).await.code, 404, "{path}");
    }
    for path in ["/api/v1/namespaces/default/services/s/proxy", "/api/v1/nodes/n/proxy"] {
        assert_eq!(rest.get(path).await.expect(501)["reason"], "NotImplemented");
    }
}
