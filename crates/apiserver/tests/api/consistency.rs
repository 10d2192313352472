//! What lists in pages, old resource versions, bookmarks and slow readers may rely on.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::rest::{DEADLINE, Rest, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}})
}

/// Name and resource version of each object.
fn states(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let items = list["items"].as_array().unwrap().iter();
    items.map(|i| (text(&i["metadata"]["name"]), text(&i["metadata"]["resourceVersion"]))).collect()
}

fn version(list: &Value) -> u64 {
    list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

async fn forget(server: &Server) {
    let client = server.handle.client();
    let names: Vec<String> = (0..1100).map(|n| format!("forget{n}")).collect();
    let made = join_all(names.iter().map(|name| client.create("configmaps", map(name)))).await;
    assert!(made.iter().all(Result::is_ok));
}

async fn page(rest: &Rest, query: &str) -> Value {
    rest.get(&format!("{MAPS}?limit=10&{query}")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_pages_of_a_list_show_one_state() {
    let server = Server::start().await;
    let rest = &server.rest;
    for n in 10..40 {
        rest.post(MAPS, &map(&format!("m{n}"))).await.expect(201);
    }
    let whole = rest.get(MAPS).await.expect(200);
    let first = page(rest, "").await;
    let token = |page: &Value| page["metadata"]["continue"].as_str().unwrap().to_owned();
    rest.delete(&format!("{MAPS}/m20")).await.expect(200);
    rest.delete(&format!("{MAPS}/m39")).await.expect(200);
    rest.post(MAPS, &map("m39")).await.expect(201);
    rest.patch(&format!("{MAPS}/m25"), "merge", &json!({"data": {"k": "v"}})).await.expect(200);
    rest.post(MAPS, &map("m20a")).await.expect(201);
    let second = page(rest, &format!("continue={}", token(&first))).await;
    rest.delete(&format!("{MAPS}/m30")).await.expect(200);
    let third = page(rest, &format!("continue={}", token(&second))).await;
    let paged: Vec<_> = [&first, &second, &third].into_iter().flat_map(states).collect();
    assert_eq!(paged, states(&whole));
    let left = |page: &Value| (version(page), page["metadata"]["remainingItemCount"].clone());
    assert_eq!([left(&first), left(&second)], [(version(&whole), json!(20)), (version(&whole), json!(10))]);
    assert_eq!((version(&third), &third["metadata"]["continue"]), (version(&whole), &Value::Null));

    forget(&server).await;
    let path = format!("{MAPS}?limit=10&continue={}", token(&second));
    let gone = rest.get(&path).await.expect(410);
    assert_eq!((&gone["reason"], &gone["kind"]), (&json!("Expired"), &json!("Status")), "{gone}");
    let rest_of = page(rest, &format!("continue={}", token(&gone))).await;
    let names: Vec<String> = states(&rest_of).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["m31", "m32", "m33", "m34", "m35", "m36", "m37", "m38", "m39"], "as it is now");
    assert!(version(&rest_of) > version(&whole));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_shows_the_version_it_is_asked_for() {
    let server = Server::start().await;
    let rest = &server.rest;
    rest.post(MAPS, &map("a")).await.expect(201);
    let old = rest.get(MAPS).await.expect(200);
    rest.post(MAPS, &map("b")).await.expect(201);
    let at = version(&old);
    let names = |list: &Value| states(list).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for (query, expected) in [
        (format!("resourceVersion={at}&resourceVersionMatch=Exact"), vec!["a"]),
        (format!("resourceVersion={at}&limit=5"), vec!["a"]),
        (format!("resourceVersion={at}&limit=5&resourceVersionMatch=NotOlderThan"), vec!["a", "b"]),
        (format!("resourceVersion={at}"), vec!["a", "b"]),
        ("resourceVersion=0".into(), vec!["a", "b"]),
    ] {
        let list = rest.get(&format!("{MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), expected, "{query}");
        assert_eq!(version(&list) == at, expected.len() == 1, "{query}");
    }
    let early = rest.get(&format!("{MAPS}?resourceVersion=999999")).await;
    assert_eq!(early.headers["retry-after"], "1");
    let early = early.expect(504);
    assert_eq!(early["details"]["causes"][0]["reason"], "ResourceVersionTooLarge", "{early}");
    let refused = rest.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.expect(422);
    assert_eq!(refused["details"]["causes"][0]["field"], "resourceVersionMatch", "{refused}");
    forget(&server).await;
    let gone = rest.get(&format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact")).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bookmarks_tell_how_far_a_quiet_watch_has_come() {
    let server = Server::start().await;
    let rest = &server.rest;
    let begun = version(&rest.get(MAPS).await.expect(200));
    let path = format!("{MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={begun}");
    let mut lasting = rest.watch(&path).await;
    let mut ending = rest.watch(&format!("{path}&timeoutSeconds=1")).await;
    let mut unasked = rest.watch(&format!("{MAPS}?watch=1&resourceVersion={begun}&timeoutSeconds=1")).await;
    rest.post(SECRETS, &map("elsewhere")).await.expect(201);
    let now = version(&rest.get(MAPS).await.expect(200));
    for watch in [&mut ending, &mut lasting] {
        let bookmark = watch.next().await.unwrap();
        assert_eq!(
            (&bookmark["type"], &bookmark["object"]["kind"]),
            (&json!("BOOKMARK"), &json!("ConfigMap"))
        );
        assert!(version(&bookmark["object"]) >= now, "{bookmark}");
    }
    assert_eq!((ending.next().await, unasked.next().await), (None, None));
    rest.post(MAPS, &map("a")).await.expect(201);
    assert_eq!(lasting.told().await, "ADDED a");
}

/// A client that does not read: the writers go on, it is told that it has missed something, and lists anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_nobody_up_and_starts_over() {
    const WRITES: usize = 3000;
    let server = Server::start().await;
    let (rest, client) = (&server.rest, server.handle.client());
    let begun = version(&rest.get(MAPS).await.expect(200));
    let mut slow = rest.watch(&format!("{MAPS}?watch=1&resourceVersion={begun}")).await;
    let mut quick =
        client.watch_after("configmaps", &lateen_apiserver::Selection::default(), begun).await.unwrap();
    let reader = tokio::spawn(async move {
        for _ in 0..WRITES {
            let event = tokio::time::timeout(DEADLINE, quick.next()).await.unwrap().unwrap();
            assert!(matches!(event, lateen_apiserver::WatchEvent::Added(_)), "{event:?}");
        }
    });
    // More than the buffers between the two ends take.
    let large = "x".repeat(10_000);
    for batch in 0..WRITES / 50 {
        let writes = (0..50).map(|n| {
            let mut object = map(&format!("m{:05}", batch * 50 + n));
            object["data"] = json!({"k": large});
            client.create("configmaps", object)
        });
        let written =
            tokio::time::timeout(DEADLINE, join_all(writes)).await.expect("the writers are held up");
        assert!(written.iter().all(Result::is_ok));
    }
    tokio::time::timeout(DEADLINE, reader).await.expect("another watch is held up").unwrap();
    let mut seen = 0;
    let end = loop {
        let event = slow.next().await.expect("it ends without a word");
        if event["type"] != "ADDED" {
            break event;
        }
        let expected = format!("m{seen:05}");
        assert_eq!(event["object"]["metadata"]["name"], expected, "nothing is left out before the end");
        seen += 1;
    };
    assert_eq!((&end["type"], &end["object"]["code"]), (&json!("ERROR"), &json!(410)), "{end}");
    assert_eq!(slow.next().await, None);
    assert!(seen < WRITES, "it was not slow");
    let anew = rest.get(&format!("{MAPS}?limit=500")).await.expect(200);
    let mut resumed = rest.watch(&format!("{MAPS}?watch=1&resourceVersion={}", version(&anew))).await;
    rest.post(MAPS, &map("after")).await.expect(201);
    assert_eq!(resumed.told().await, "ADDED after");
}
