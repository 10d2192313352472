//! Too much of everything: an answer, and the proxy goes on.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_hundred_megabytes_is_not_read() {
    let origin = Origin::echo().await;
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager(routes("echo"))]))],
        "clusters": [cluster("echo", &[origin.address])],
    }));
    let address = proxy.listener_address("l").unwrap();
    for start in ["GET / HTTP/1.1\r\nhost: test\r\nx-large: ", "GET /", "GET / HTTP/1.1\r\nhost: test\r\n"] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let (mut read, mut write) = tcp.into_split();
        let piece = match start.ends_with('\n') {
            // Many headers, rather than a large one.
            true => "x-many: 1\r\n".repeat(6_000).into_bytes(),
            false => vec![b'a'; 64 << 10],
        };
        let pour = async {
            let mut taken = 0;
            write.write_all(start.as_bytes()).await.unwrap();
            while taken < 100 << 20 && write.write_all(&piece).await.is_ok() {
                taken += piece.len();
            }
            taken
        };
        let answer = async {
            let mut bytes = Vec::new();
            // What is not read is lost with a reset, and sometimes the answer is as well.
            let _ = read.read_to_end(&mut bytes).await;
            bytes
        };
        let (taken, answer) = within("an end", async { tokio::join!(pour, answer) }).await;
        assert!(taken < 40 << 20, "{start:?}: {taken} bytes were taken");
        if !answer.is_empty() {
            assert!(matches!(parse(&answer).status, 414 | 431 | 400), "{start:?}");
        }
        assert_eq!(get(address, "/after").await.status, 200);
    }
    assert_eq!(origin.count(), 3, "nothing of it went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_routes_are_looked_through() {
    let origin = Origin::echo().await;
    let mut all: Vec<Value> = (0..10_000)
        .map(|at| json!({"match": {"safe_regex": {"regex": format!("/r{at}(/.*)?")}}, "direct_response": {"status": 204}}))
        .collect();
    all.push(json!({"match": {"prefix": "/last"}, "route": {"cluster": "echo"}}));
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager(Value::Array(all))]))],
        "clusters": [cluster("echo", &[origin.address])],
    }));
    let address = proxy.listener_address("l").unwrap();
    for (path, status) in [("/r0", 204), ("/r9999/x", 204), ("/last", 200), ("/none", 404)] {
        assert_eq!(get(address, path).await.status, status, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_that_others_choke_on_take_their_time_and_no_more() {
    let regex =
        |regex: &str| json!({"match": {"safe_regex": {"regex": regex}}, "direct_response": {"status": 204}});
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager(json!([regex("/(a+)+$x"), regex("/(a|aa)*b"), regex("/(.*)*(.*)*c")]))]))],
    }));
    let address = proxy.listener_address("l").unwrap();
    let path = format!("/{}", "a".repeat(50_000));
    assert_eq!(get(address, &path).await.status, 404);
    assert_eq!(get(address, &format!("{path}b")).await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_leads_to_itself_ends() {
    let origin = Origin::echo().await;
    let place = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let loops = place.local_addr().unwrap();
    drop(place);
    let mut circle =
        listener("circle", json!([manager_with(routes("circle"), json!({"use_remote_address": true}))]));
    circle["address"] = socket(loops);
    let mut limited = cluster("circle", &[loops]);
    limited["circuit_breakers"] =
        json!({"thresholds": [{"max_connections": 200, "max_pending_requests": 1}]});
    let proxy = proxy(json!({
        "listeners": [circle, listener("l", json!([manager(routes("echo"))]))],
        "clusters": [limited, cluster("echo", &[origin.address])],
    }));
    let answer = get(loops, "/").await;
    assert!(matches!(answer.status, 431 | 503 | 504), "{answer:?}");
    assert_eq!(get(proxy.listener_address("l").unwrap(), "/").await.status, 200);
    until("no request is left", || proxy.figure("http.test.downstream_rq_active") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_the_forward_proxy_itself_goes_round_no_circle() {
    let origin = Origin::echo().await;
    let out = json!({
        "name": "out",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "cluster_type": {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            "dns_cache_config": {"name": "dns"},
        }},
    });
    let proxy =
        proxy(json!({"listeners": [listener("l", json!([manager(routes("out"))]))], "clusters": [out]}));
    let address = proxy.listener_address("l").unwrap();
    let to = |host| format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    assert_eq!(ask(address, &to(address)).await.status, 503);
    assert_eq!(proxy.figure("http.test.downstream_rq_total"), 1, "it came back");
    assert_eq!(ask(address, &to(origin.address)).await.status, 200);
}
