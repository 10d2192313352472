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

/// A server that takes tunnels: a CONNECT or a POST over HTTP/1.1 or HTTP/2; what comes in goes back after a line that says
/// what was asked for.
async fn tunnel_end() -> std::net::SocketAddr {
    use http_body_util::{BodyExt, StreamBody};
    use hyper::body::{Frame, Incoming};
    type Body = http_body_util::combinators::BoxBody<bytes::Bytes, hyper::Error>;
    async fn serve(
        mut request: hyper::Request<Incoming>,
    ) -> Result<hyper::Response<Body>, std::convert::Infallible> {
        let authority = request.uri().authority().map(|authority| authority.to_string());
        let host = request.headers().get("host").map(|host| host.to_str().unwrap().to_owned());
        let added = request.headers().get("x-added").map_or("", |value| value.to_str().unwrap()).to_owned();
        let line = format!("{} {} {added}\n", request.method(), authority.or(host).unwrap_or_default());
        if added == "refuse" {
            let empty = http_body_util::Empty::new().map_err(|never| match never {}).boxed();
            return Ok(hyper::Response::builder().status(403).body(empty).unwrap());
        }
        if request.method() == hyper::Method::CONNECT {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
                io.write_all(line.as_bytes()).await.unwrap();
                let (mut read, mut write) = tokio::io::split(io);
                drop(tokio::io::copy(&mut read, &mut write).await);
                drop(write.shutdown().await);
            });
            return Ok(hyper::Response::new(
                http_body_util::Empty::new().map_err(|never| match never {}).boxed(),
            ));
        }
        let first = futures::stream::iter([Ok(Frame::data(bytes::Bytes::from(line)))]);
        let rest = http_body_util::BodyStream::new(request.into_body());
        Ok(hyper::Response::new(BodyExt::boxed(StreamBody::new(futures::StreamExt::chain(first, rest)))))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let executor = hyper_util::rt::TokioExecutor::new();
                let mut builder = hyper_util::server::conn::auto::Builder::new(executor);
                builder.http2().enable_connect_protocol();
                let service = hyper::service::service_fn(serve);
                drop(
                    builder.serve_connection_with_upgrades(hyper_util::rt::TokioIo::new(tcp), service).await,
                );
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_travel_in_tunnels() {
    let end = tunnel_end().await;
    let tunnelled = |name: &str, cluster: &str, config: serde_json::Value| {
        let mut config = config;
        config["hostname"] = json!("db.example:3306");
        let mut filter = tcp_proxy(cluster, "LOG");
        filter["typed_config"]["tunneling_config"] = config;
        listener(name, json!([filter]))
    };
    let added = |value: &str| json!([{"header": {"key": "x-added", "value": value}}]);
    let mut http2 = cluster("http2", &[end]);
    http2["typed_extension_protocol_options"] = http2_options();
    let resources = json!({
        "listeners": [
            tunnelled("connect1", "http1", json!({"headers_to_add": added("a")})),
            tunnelled("connect2", "http2", json!({})),
            tunnelled("post1", "http1", json!({"use_post": true})),
            tunnelled("post2", "http2", json!({"use_post": true, "post_path": "/x"})),
            tunnelled("refused", "http1", json!({"headers_to_add": added("refuse")})),
        ],
        "clusters": [cluster("http1", &[end]), http2],
    });
    for side in crate::sides::sides(&resources) {
        for (listener, first) in [
            ("connect1", "CONNECT db.example:3306 a\n"),
            ("connect2", "CONNECT db.example:3306 \n"),
            ("post1", "POST db.example:3306 \n"),
            ("post2", "POST db.example:3306 \n"),
        ] {
            let what = format!("{} {listener}", side.name);
            let mut tcp = TcpStream::connect(side.at(listener)).await.unwrap();
            let data = vec![7u8; 300_000];
            let (mut read, mut write) = tcp.split();
            // The end of one side ends an HTTP/1 tunnel of Envoy's, so both stay open until all is back.
            let sent = async { write.write_all(&data).await.unwrap() };
            let mut back = vec![0; first.len() + data.len()];
            let both = async { tokio::join!(sent, read.read_exact(&mut back)) };
            let ((), received) = within(&what, both).await;
            received.unwrap();
            assert!(back.starts_with(first.as_bytes()), "{what}: {:?}", String::from_utf8_lossy(&back[..40]));
        }
        let mut tcp = TcpStream::connect(side.at("refused")).await.unwrap();
        let ended = within("an end", tcp.read(&mut [0; 16])).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{}: {ended:?}", side.name);
    }
}
