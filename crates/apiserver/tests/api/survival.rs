//! What was acknowledged is there after `kill -9`.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lateen_apiserver::Config;
use serde_json::json;

use crate::rest::Rest;

const FOLDER: &str = "LATEEN_TEST_STATE_FOLDER";

/// Not a test of its own: the process that [`acknowledged_writes_survive_a_kill`] starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let _server = Config::new(folder, SocketAddr::from(([127, 0, 0, 1], 0))).build().await.unwrap();
    println!("\nserving");
    std::future::pending::<()>().await;
}

fn spawn(folder: &Path) -> (Child, Rest) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "survival::serve_until_killed", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "serving"), "the server did not start");
    let rest = Rest::administrator(&std::fs::read_to_string(folder.join("kubeconfig")).unwrap());
    (child, rest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..3 {
        let (mut child, rest) = spawn(dir.path());
        for name in &acknowledged {
            assert_eq!(
                rest.get(&format!("{maps}/{name}")).await.code,
                200,
                "{name} was lost in round {round}"
            );
        }
        let done = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (rest, done) = (rest.clone(), done.clone());
                tokio::spawn(async move {
                    let mut names = Vec::new();
                    // The kill breaks the connection and with it this task's last call.
                    for n in 0..1000 {
                        let name = format!("r{round}-w{writer}-{n}");
                        let post = rest.clone();
                        let body = json!({"metadata": {"name": name}});
                        match tokio::spawn(async move { post.post(maps, &body).await.code }).await {
                            Ok(201) => names.push(name),
                            _ => break,
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    names
                })
            })
            .collect();
        while done.load(Ordering::Relaxed) < 40 {
            tokio::task::yield_now().await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    let (mut child, rest) = spawn(dir.path());
    let list = rest.get(maps).await.expect(200);
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !names.contains(&name.as_str())).collect();
    assert!(lost.is_empty() && acknowledged.len() >= 120, "{lost:?} of {}", acknowledged.len());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_state_folders_and_ports_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Config::new(&file, any).build().await.err().unwrap().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("--data-dir"), "{error}");
    let first = Config::new(dir.path().join("a"), any).build().await.unwrap();
    let error = Config::new(dir.path().join("a"), any).build().await.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    let error = Config::new(dir.path().join("b"), first.address()).build().await.err().unwrap().to_string();
    assert!(error.contains(&first.address().to_string()) && error.contains("--bind"), "{error}");
}
