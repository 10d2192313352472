//! Configuration that changes under traffic; the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

fn world(prefix: &str, origin: std::net::SocketAddr) -> Value {
    let routes = json!([{"match": {"prefix": prefix}, "route": {"cluster": "echo"}}]);
    json!({
        "listeners": [listener("l", json!([manager(routes)]))],
        "clusters": [cluster("echo", &[origin])],
    })
}

#[tokio::test]
async fn changes_take_effect_and_refusals_leave_the_last_good_version() {
    let (old, new) = (Origin::echo().await, Origin::echo().await);
    let proxy = proxy(world("/a", old.address));
    let address = proxy.listener_address("l").unwrap();
    assert_eq!(get(address, "/a").await.status, 200);

    proxy.update(resources(json!({"clusters": [cluster("echo", &[new.address])]}))).unwrap();
    assert_eq!(get(address, "/a").await.status, 200);
    assert_eq!((old.count(), new.count()), (1, 1));

    let mut bad = cluster("echo", &[old.address]);
    bad["lb_policy"] = json!("LOAD_BALANCING_POLICY_CONFIG");
    let good = cluster("other", &[old.address]);
    let refused = proxy.update(resources(json!({"clusters": [bad, good]}))).unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].resource, "echo");
    assert_eq!(get(address, "/a").await.status, 200);
    assert_eq!(new.count(), 2);

    // The listener changes in place: same port, new routes, also for connections that are open.
    let mut kept = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask_on(&mut kept, "GET /a HTTP/1.1\r\nhost: t\r\n\r\n").await.status, 200);
    proxy.update(resources(json!({"listeners": world("/b", new.address)["listeners"]}))).unwrap();
    assert_eq!(proxy.listener_address("l"), Some(address));
    assert_eq!(get(address, "/b").await.status, 200);
    assert_eq!(get(address, "/a").await.status, 404);
    let last = ask_on(&mut kept, "GET /a HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert_eq!((last.status, last.header("connection")), (200, Some("close")), "old chains drain");
}

#[tokio::test]
async fn discovered_routes_and_endpoints_may_come_late() {
    let origin = Origin::echo().await;
    let mut manager = manager(json!([]));
    manager["typed_config"]["route_config"] = Value::Null;
    manager["typed_config"]["rds"] = json!({"route_config_name": "80", "config_source": {"ads": {}}});
    let eds = json!({"name": "echo", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}});
    let proxy = proxy(json!({"listeners": [listener("l", json!([manager]))], "clusters": [eds]}));
    let address = proxy.listener_address("l").unwrap();
    assert_eq!(get(address, "/").await.status, 404);
    let routes = json!({"name": "80", "virtual_hosts": [
        {"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]}]});
    proxy.update(resources(json!({"routes": [routes]}))).unwrap();
    assert_eq!(get(address, "/").await.status, 503);
    let load = json!({"cluster_name": "echo", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(origin.address)}}]}]});
    proxy.update(resources(json!({"endpoints": [load]}))).unwrap();
    assert_eq!(get(address, "/").await.status, 200);
    let none = json!({"cluster_name": "echo", "endpoints": []});
    proxy.update(resources(json!({"endpoints": [none]}))).unwrap();
    assert_eq!(get(address, "/").await.body, "no healthy upstream");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut resources = world("/", "127.0.0.1:1".parse().unwrap());
    resources["listeners"][0]["address"] = socket(taken.local_addr().unwrap());
    let error = try_proxy(resources).unwrap_err();
    assert!(error.contains(&taken.local_addr().unwrap().to_string()) && error.contains("in use"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_requests_finish() {
    // It answers once it is told to.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let (arrived, released) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
    let (tell, wait) = (arrived.clone(), released.clone());
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        assert!(tcp.read(&mut [0; 1024]).await.unwrap() > 0);
        tell.store(true, Ordering::SeqCst);
        wait.notified().await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nfinished").await.unwrap();
    });
    let proxy = proxy(world("/", origin));
    let address = proxy.listener_address("l").unwrap();
    let request = tokio::spawn(async move { get(address, "/slow").await });
    until("the request's arrival", || arrived.load(Ordering::SeqCst)).await;
    let release = async {
        // The drain has begun once nobody accepts any more.
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        released.notify_one();
    };
    within("the drain", async { tokio::join!(proxy.drain(), release) }).await;
    assert_eq!(request.await.unwrap().body, "finished");
    assert!(TcpStream::connect(address).await.is_err());
}
