//! What many objects and many watches cost: a measurement, and in small that all of it is told to everybody.
//!
//! `cargo test -p lateen-apiserver --release --test api scale -- --ignored --nocapture` prints it; `LATEEN_OBJECTS` and
//! `LATEEN_WATCHES` set the size. Server and clients are one process, so CPU and memory are those of both.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::rest::{Rest, Server};

const PODS: &str = "/api/v1/namespaces/default/pods";
/// Connections that create at the same time.
const CREATORS: usize = 64;
const CHANGES: usize = 100;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn pod(at: usize) -> Value {
    json!({
        "metadata": { "name": format!("p{at:05}"),
                      "labels": { "app": format!("s{}", at / 10), "pod-template-hash": format!("{at:x}") } },
        "spec": { "nodeName": "nobody",
                  "containers": [{ "name": "app", "image": "docker.io/istio/examples-helloworld-v1",
                                   "ports": [{ "containerPort": 5000 }],
                                   "env": [{ "name": "A", "value": "some value" }] }] },
    })
}

/// What this process has used so far.
struct Usage {
    at: Instant,
    cpu: Duration,
}

impl Usage {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        // After the name in brackets: field 3 and on; user and system time are fields 14 and 15, in ticks of 10 ms.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        Self { at: Instant::now(), cpu: Duration::from_millis(ticks * 10) }
    }

    fn print(&self, what: &str) {
        let (elapsed, cpu) = (self.at.elapsed(), Self::now().cpu - self.cpu);
        println!("{what:<48} {elapsed:>10.1?} {cpu:>10.1?} of CPU, {} MB resident", resident_megabytes());
    }
}

fn resident_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Changes pods while so many watches look on; `accept` is the form in which they see them.
async fn watched(rest: &Rest, watches: usize, what: &str, accept: &str) {
    let version = rest.get(&format!("{PODS}?limit=1")).await.expect(200);
    let version = version["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{PODS}?watch=1&resourceVersion={version}");
    let started = Usage::now();
    let mut all = join_all((0..watches).map(|_| rest.watch_as(&path, accept))).await;
    started.print(&format!("{watches} watches of {what} begin"));
    let started = Usage::now();
    let change = async {
        for at in 0..CHANGES {
            let change = json!({"metadata": {"annotations": {"changed": what}}});
            rest.patch(&format!("{PODS}/p{at:05}"), "merge", &change).await.expect(200);
        }
    };
    tokio::join!(change, join_all(all.iter_mut().map(|watch| watch.pass(CHANGES))));
    started.print(&format!("{CHANGES} changes seen by them all"));
    let change = json!({"metadata": {"annotations": {"changed": format!("{what} again")}}});
    rest.patch(&format!("{PODS}/p00007"), "merge", &change).await.expect(200);
    for watch in &mut all {
        let event = watch.next().await.expect("the watch has ended");
        let row = &event["object"]["rows"][0]["object"];
        let object = if row.is_null() { &event["object"] } else { row };
        assert_eq!((&event["type"], &object["metadata"]["name"]), (&json!("MODIFIED"), &json!("p00007")));
    }
}

/// The list page by page, while it changes: every page shows the state of the first.
async fn paged(rest: &Rest, objects: usize, limit: usize) {
    let started = Usage::now();
    let (mut found, mut token, mut version) = (Vec::new(), String::new(), Value::Null);
    loop {
        let page = rest.get(&format!("{PODS}?limit={limit}&continue={token}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        found.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
        let left = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
        assert_eq!(found.len() + left as usize, objects);
        if version.is_null() {
            version = page["metadata"]["resourceVersion"].clone();
        }
        assert_eq!(page["metadata"]["resourceVersion"], version);
        let Some(next) = page["metadata"]["continue"].as_str() else { break };
        token = next.to_owned();
        let late =
            json!({"metadata": {"name": format!("p{:05}-late", found.len() + 1)}, "spec": pod(0)["spec"]});
        rest.post(PODS, &late).await.expect(201);
        rest.delete(&format!("{PODS}/p{:05}-late?gracePeriodSeconds=0", found.len() + 1)).await.expect(200);
    }
    started.print(&format!("list in pages of {limit}, with decoding, while it changes"));
    let expected: Vec<String> = (0..objects).map(|at| format!("p{at:05}")).collect();
    assert!(found == expected, "the pages do not show the list");
    let started = Usage::now();
    for _ in 0..CHANGES {
        let page = rest.get(&format!("{PODS}?limit=1&continue={token}")).await.expect(200);
        assert_eq!(page["items"].as_array().map(Vec::len), Some(1));
    }
    started.print(&format!("{CHANGES} pages of one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; run it with --release and --nocapture"]
async fn scale_of_objects_and_watches() {
    run(size("LATEEN_OBJECTS", 10_000), size("LATEEN_WATCHES", 200), 500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_told_to_everybody() {
    run(CHANGES * 3, 8, 50).await;
}

async fn run(objects: usize, watches: usize, page: usize) {
    let server = Server::start().await;
    let rest = &server.rest;
    let started = Usage::now();
    started.print("an empty server");
    let creators = (0..CREATORS).map(|first| {
        let rest = rest.clone();
        tokio::spawn(async move { rest.post_all(PODS, (first..objects).step_by(CREATORS).map(pod)).await })
    });
    for created in join_all(creators).await {
        created.unwrap();
    }
    started.print(&format!("{objects} pods created"));

    let started = Usage::now();
    let list = rest.get(PODS).await;
    started.print(&format!("full list, {} kB", list.text.len() / 1000));
    assert_eq!(list.expect(200)["items"].as_array().map(Vec::len), Some(objects));
    paged(rest, objects, page).await;

    watched(rest, watches, "objects", "application/json").await;
    watched(rest, watches, "tables", TABLE).await;

    let started = Usage::now();
    for at in 0..CHANGES {
        rest.delete(&format!("{PODS}/p{at:05}?gracePeriodSeconds=0")).await.expect(200);
    }
    started.print(&format!("{CHANGES} pods deleted"));
}
