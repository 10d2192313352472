//! Bytes through the proxy, and bytes that make no sense.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::tcp_echo;
use crate::support::*;

fn tcp_proxy(cluster: &str, log: &str) -> serde_json::Value {
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": cluster,
        "access_log": access_log(log, "%BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n"),
    }})
}

#[tokio::test]
async fn bytes_go_through_and_ends_are_passed_on() {
    let echo = tcp_echo().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let log_text = log.to_str().unwrap();
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([tcp_proxy("echo", log_text)])), listener("none", json!([tcp_proxy("missing", log_text)]))],
        "clusters": [cluster("echo", &[echo])],
    }));
    let mut tcp = TcpStream::connect(proxy.listener_address("l").unwrap()).await.unwrap();
    let data = vec![7u8; 300_000];
    let (mut read, mut write) = tcp.split();
    let sent = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let ((), received) = within("an echo", async { tokio::join!(sent, read.read_to_end(&mut back)) }).await;
    assert_eq!((received.unwrap(), back == data), (300_000, true));
    let mut nobody = TcpStream::connect(proxy.listener_address("none").unwrap()).await.unwrap();
    // Closed or reset: there is nobody behind it.
    let end = within("an end", nobody.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    let mut lines = log_lines(&log, 2).await;
    lines.sort();
    assert_eq!(lines, ["0 0 NC -", "300000 300000 - echo"]);
}

#[tokio::test]
async fn one_port_takes_http_and_anything_else() {
    let (origin, echo) = (Origin::echo().await, tcp_echo().await);
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "http"}}]);
    let mut both = listener("l", json!([tcp_proxy("echo", "/dev/null")]));
    both["default_filter_chain"] = both["filter_chains"][0].clone();
    both["filter_chains"] = json!([{
        "name": "http", "filter_chain_match": {"application_protocols": ["http/1.1", "h2c"]}, "filters": [manager(routes)],
    }]);
    both["listener_filters"] = json!([{"name": "envoy.filters.listener.http_inspector", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}]);
    both["listener_filters_timeout"] = json!("0.05s");
    both["continue_on_listener_filters_timeout"] = json!(true);
    let proxy = proxy(json!({
        "listeners": [both],
        "clusters": [cluster("http", &[origin.address]), cluster("echo", &[echo])],
    }));
    let address = proxy.listener_address("l").unwrap();
    assert!(get(address, "/web").await.body.starts_with("GET /web"));
    for bytes in [&b"\x00\x01\x02\x03"[..], b"*1\r\n$4\r\nPING\r\n", b"GE"] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut back = vec![0; bytes.len()];
        within("an echo", tcp.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, bytes);
    }
}
