//! Watches.

use futures::future::join_all;
use lateen_apiserver::{DeleteOptions, Patch, Selection, WatchEvent};
use serde_json::{Value, json};

use crate::rest::{DEADLINE, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"l": label}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_continues_a_list_and_sees_selection() {
    let server = Server::start().await;
    let rest = &server.rest;
    rest.post(MAPS, &map("a", "in")).await.expect(201);
    let list = rest.get(MAPS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch =
        rest.watch(&format!("{MAPS}?watch=1&labelSelector=l%3Din&resourceVersion={version}")).await;
    rest.post(MAPS, &map("b", "out")).await.expect(201);
    rest.patch(&format!("{MAPS}/b"), "merge", &json!({"metadata": {"labels": {"l": "in"}}}))
        .await
        .expect(200);
    rest.patch(&format!("{MAPS}/a"), "merge", &json!({"data": {"k": "v"}})).await.expect(200);
    rest.patch(&format!("{MAPS}/a"), "merge", &json!({"metadata": {"labels": {"l": "out"}}}))
        .await
        .expect(200);
    rest.delete(&format!("{MAPS}/b")).await.expect(200);
    for expected in ["ADDED b", "MODIFIED a", "DELETED a", "DELETED b"] {
        assert_eq!(watch.told().await, expected);
    }
    let ended = rest.get(&format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=0")).await;
    assert_eq!(ended.code, 200, "a watch that is over at once ends cleanly");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    let rest = &server.rest;
    rest.post(MAPS, &map("a", "x")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = rest.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let bookmark = watch.next().await.unwrap();
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_gone() {
    let server = Server::start().await;
    let rest = &server.rest;
    let client = server.handle.client();
    rest.post(MAPS, &map("a", "x")).await.expect(201);
    let before = rest.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut slow = client.watch("configmaps", &Selection::namespace("default")).await.unwrap();
    assert!(matches!(slow.next().await, Some(WatchEvent::Added(_))));
    assert!(matches!(slow.next().await, Some(WatchEvent::Synced(_))));
    let names: Vec<String> = (0..1100).map(|n| format!("n{n}")).collect();
    let made = join_all(names.iter().map(|name| client.create("configmaps", map(name, "x")))).await;
    assert!(made.iter().all(Result::is_ok));

    // 999999 is from another life of the state.
    for version in [before.as_str(), "999999"] {
        let mut watch = rest.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
        let told = watch.next().await.unwrap();
        assert_eq!((&told["type"], &told["object"]["kind"]), (&json!("ERROR"), &json!("Status")), "{told}");
        assert_eq!((&told["object"]["code"], &told["object"]["reason"]), (&json!(410), &json!("Expired")));
        assert_eq!(watch.next().await, None, "that is the end of it");
    }
    assert_eq!(rest.get(&format!("{MAPS}?watch=1&resourceVersion=x")).await.code, 400);
    let next = tokio::time::timeout(DEADLINE, slow.next()).await.unwrap();
    assert_eq!(next, Some(WatchEvent::Restarted), "the slow reader starts over");
    let mut added = 0;
    while !matches!(slow.next().await, Some(WatchEvent::Synced(_))) {
        added += 1;
    }
    assert_eq!(added, 1101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_in_the_process_means_the_same() {
    let server = Server::start().await;
    let client = server.handle.client();
    let mut watch = client.watch("configmaps", &Selection::namespace("default").labels("l=x")).await.unwrap();
    assert!(matches!(watch.next().await, Some(WatchEvent::Synced(_))));
    client.create("configmaps", map("a", "x")).await.unwrap();
    let conflict = client.create("configmaps", map("a", "x")).await.unwrap_err();
    assert!(conflict.is_already_exists());
    let patched = client
        .patch("configmaps", Some("default"), "a", Patch::Merge(json!({"data": {"k": "v"}})))
        .await
        .unwrap();
    assert_eq!(server.rest.get(&format!("{MAPS}/a")).await.json(), patched);
    let mut old = patched.clone();
    old["metadata"]["resourceVersion"] = json!("1");
    assert!(client.update("configmaps", old).await.unwrap_err().is_conflict());
    client.delete("configmaps", Some("default"), "a", DeleteOptions::default()).await.unwrap();
    assert!(client.get("configmaps", Some("default"), "a").await.unwrap_err().is_not_found());
    for expected in ["Added", "Modified", "Deleted"] {
        let event = tokio::time::timeout(DEADLINE, watch.next()).await.unwrap().unwrap();
        assert!(format!("{event:?}").starts_with(expected), "{event:?}");
    }
    assert_eq!(client.list("things.example.com", &Selection::default()).await.unwrap_err().code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_watches() {
    let server = Server::start().await;
    let mut watch = server.rest.watch(&format!("{MAPS}?watch=1")).await;
    let stopping = tokio::spawn(server.handle.shutdown());
    assert_eq!(watch.next().await, None);
    tokio::time::timeout(DEADLINE, stopping).await.unwrap().unwrap();
}
