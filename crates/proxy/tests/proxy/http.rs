//! HTTP through the proxy.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

#[tokio::test]
async fn requests_are_routed_rewritten_and_logged() {
    let origin = Origin::echo().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let format = "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
                  %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% %UPSTREAM_HOST% %UPSTREAM_CLUSTER_RAW% %ROUTE_NAME%\n";
    let routes = json!([
        {"name": "old", "match": {"prefix": "/old/"}, "route": {"cluster": "echo", "prefix_rewrite": "/new/", "host_rewrite_literal": "elsewhere"},
         "request_headers_to_add": [{"header": {"key": "x-added", "value": "yes"}}], "request_headers_to_remove": ["x-gone"],
         "response_headers_to_add": [{"header": {"key": "x-from", "value": "%UPSTREAM_HOST%"}}]},
        {"match": {"path": "/tea"}, "direct_response": {"status": 418, "body": {"inline_string": "teapot"}}},
        {"match": {"prefix": "/away"}, "redirect": {"host_redirect": "other.example", "path_redirect": "/there"}},
        {"match": {"prefix": "/nobody"}, "route": {"cluster": "missing"}},
    ]);
    let settings =
        json!({"access_log": access_log(log.to_str().unwrap(), format), "server_name": "istio-envoy"});
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [cluster("echo", &[origin.address])],
    }));
    let address = proxy.listener_address("l").unwrap();

    let request = "POST /old/a?b=c HTTP/1.1\r\nhost: test\r\nx-gone: 1\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let answer = ask(address, request).await;
    assert_eq!(answer.status, 200);
    for part in [
        "POST /new/a?b=c",
        "host: elsewhere",
        "x-added: yes",
        "x-envoy-original-path: /old/a?b=c",
        "x-envoy-attempt-count: 1",
        "x-request-id: ",
        "x-forwarded-proto: http",
        "hello",
    ] {
        assert!(answer.body.contains(part), "{part} is missing in {}", answer.body);
    }
    assert!(!answer.body.contains("x-gone") && !answer.body.contains("connection:"), "{}", answer.body);
    assert_eq!(answer.header("server"), Some("istio-envoy"));
    assert_eq!(answer.header("x-from"), Some(origin.address.to_string().as_str()));
    assert!(answer.header("x-envoy-upstream-service-time").is_some());

    let tea = get(address, "/tea").await;
    assert_eq!((tea.status, tea.body.as_str()), (418, "teapot"));
    let away = get(address, "/away").await;
    assert_eq!((away.status, away.header("location")), (301, Some("http://other.example/there")));
    assert_eq!(get(address, "/nobody").await.status, 503);
    assert_eq!(get(address, "/else").await.status, 404);

    let mut lines = log_lines(&log, 5).await;
    lines.sort();
    let host = origin.address;
    assert_eq!(
        lines,
        [
            "GET /away 301 - direct_response 0 - - -".to_owned(),
            "GET /else 404 NR route_not_found 0 - - -".to_owned(),
            "GET /nobody 503 NC cluster_not_found 0 - - -".to_owned(),
            "GET /tea 418 - direct_response 0 - - -".to_owned(),
            format!("POST /old/a?b=c 200 - via_upstream 5 {host} echo old"),
        ]
    );
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let origin = Origin::echo().await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]);
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager(routes)]))],
        "clusters": [cluster("echo", &[origin.address])],
    }));
    let mut tcp = TcpStream::connect(proxy.listener_address("l").unwrap()).await.unwrap();
    for n in 0..20 {
        let answer = ask_on(&mut tcp, &format!("GET /{n} HTTP/1.1\r\nhost: test\r\n\r\n")).await;
        assert!(answer.body.starts_with(&format!("GET /{n}")), "{}", answer.body);
    }
    let head = ask_on(&mut tcp, "GET http://other.example/absolute HTTP/1.1\r\nhost: test\r\n\r\n").await;
    assert!(
        head.body.contains("GET /absolute") && head.body.contains("host: other.example"),
        "{}",
        head.body
    );
    assert_eq!(proxy.figure("cluster.echo.upstream_cx_total"), 1);
    assert_eq!(proxy.figure("http.test.downstream_rq_2xx"), 21);
}

#[tokio::test]
async fn failures_are_retried_elsewhere_and_told() {
    let tries = AtomicUsize::new(0);
    let shaky = Origin::start(move |_| {
        let status = if tries.fetch_add(1, Ordering::SeqCst) < 2 { 503 } else { 200 };
        Response::builder().status(status).body(Full::new(Bytes::from_static(b"done"))).unwrap()
    })
    .await;
    let retry = json!({"retry_on": "5xx,connect-failure", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}});
    let routes = json!([
        {"match": {"prefix": "/shaky"}, "route": {"cluster": "shaky", "retry_policy": retry}},
        {"match": {"prefix": "/dead"}, "route": {"cluster": "dead", "retry_policy": retry}},
        {"match": {"prefix": "/empty"}, "route": {"cluster": "empty"}},
    ]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let settings = json!({"access_log": access_log(log.to_str().unwrap(), "%REQ(:PATH)% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n")});
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [cluster("shaky", &[shaky.address]), cluster("dead", &[unused]), cluster("empty", &[])],
    }));
    let address = proxy.listener_address("l").unwrap();
    let request = "POST /shaky HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nconnection: close\r\n\r\nbody";
    assert_eq!(ask(address, request).await.status, 200);
    let bodies: Vec<_> = shaky.seen.lock().unwrap().iter().map(|request| request.body().clone()).collect();
    assert_eq!(bodies, ["body"; 3]);
    let dead = get(address, "/dead").await;
    assert_eq!(dead.status, 503);
    assert!(
        dead.body.contains("retried and the latest reset reason: remote connection failure"),
        "{}",
        dead.body
    );
    let empty = get(address, "/empty").await;
    assert_eq!((empty.status, empty.body.as_str()), (503, "no healthy upstream"));
    let mut lines = log_lines(&log, 3).await;
    lines.sort();
    assert_eq!(lines, ["/dead URX,UF 4", "/empty UH 1", "/shaky - 3"]);
}

#[tokio::test]
async fn a_slow_upstream_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = json!([
        {"match": {"prefix": "/try"}, "route": {"cluster": "silent", "timeout": "30s",
            "retry_policy": {"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.02s"}}},
        {"match": {"prefix": "/"}, "route": {"cluster": "silent", "timeout": "0.05s"}},
    ]);
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager(routes)]))],
        "clusters": [cluster("silent", &[silent.local_addr().unwrap()])],
    }));
    let address = proxy.listener_address("l").unwrap();
    for path in ["/", "/try"] {
        let answer = get(address, path).await;
        assert_eq!((answer.status, answer.body.as_str()), (504, "upstream request timeout"), "{path}");
    }
}

#[tokio::test]
async fn faults_are_injected_for_those_who_match() {
    let origin = Origin::echo().await;
    let fault = |policy: serde_json::Value| {
        let mut policy = policy;
        policy["@type"] = json!("type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault");
        json!({"envoy.filters.http.fault": policy})
    };
    let hundred = json!({"numerator": 100});
    let routes = json!([
        {"match": {"prefix": "/abort"}, "route": {"cluster": "echo"}, "typed_per_filter_config": fault(json!({
            "abort": {"http_status": 555, "percentage": hundred},
            "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]}))},
        {"match": {"prefix": "/delay"}, "route": {"cluster": "echo"}, "typed_per_filter_config": fault(json!({
            "delay": {"fixed_delay": "0.02s", "percentage": hundred}}))},
    ]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let settings = json!({"access_log": access_log(log.to_str().unwrap(), "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%\n")});
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [cluster("echo", &[origin.address])],
    }));
    let address = proxy.listener_address("l").unwrap();
    let jason =
        ask(address, "GET /abort HTTP/1.1\r\nhost: test\r\nend-user: jason\r\nconnection: close\r\n\r\n")
            .await;
    assert_eq!((jason.status, jason.body.as_str()), (555, "fault filter abort"));
    assert_eq!(get(address, "/abort").await.status, 200);
    assert_eq!(get(address, "/delay").await.status, 200);
    let mut lines = log_lines(&log, 3).await;
    lines.sort();
    assert_eq!(lines, ["/abort 200 -", "/abort 555 FI", "/delay 200 DI"]);
}

#[tokio::test]
async fn mirrors_get_a_copy_that_nobody_waits_for() {
    let (origin, shadow) = (Origin::echo().await, Origin::echo().await);
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo",
        "request_mirror_policies": [{"cluster": "shadow"}]}}]);
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager(routes)]))],
        "clusters": [cluster("echo", &[origin.address]), cluster("shadow", &[shadow.address])],
    }));
    let address = proxy.listener_address("l").unwrap();
    let request = "POST /m HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\nconnection: close\r\n\r\ncopy";
    assert!(ask(address, request).await.body.ends_with("copy"));
    until("the mirror's request", || shadow.count() == 1).await;
    let seen = shadow.seen.lock().unwrap();
    assert_eq!(
        (seen[0].headers()["host"].to_str().unwrap(), &seen[0].body()[..]),
        ("test-shadow", &b"copy"[..])
    );
}

#[tokio::test]
async fn http2_carries_trailers_both_ways() {
    let listener_of_origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener_of_origin.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener_of_origin.accept().await {
            let service =
                hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("7"));
                    let text = format!("{authority} {}", String::from_utf8_lossy(&body));
                    let frames = [
                        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(text))),
                        Ok(Frame::trailers(trailers)),
                    ];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    Ok::<_, std::convert::Infallible>(
                        Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                    )
                });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(builder.serve_connection(TokioIo::new(tcp), service).await);
            });
        }
    });
    let mut upstream = cluster("grpc", &[origin]);
    upstream["typed_extension_protocol_options"] = http2_options();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let settings = json!({"access_log": access_log(log.to_str().unwrap(), "%PROTOCOL% %RESPONSE_CODE% %GRPC_STATUS(NUMBER)%\n")});
    let routes = json!([{"match": {"prefix": "/pkg.Svc"}, "route": {"cluster": "grpc"}}]);
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [upstream],
    }));
    let tcp = TcpStream::connect(proxy.listener_address("l").unwrap()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| {
        http::Request::post(format!("http://svc.example{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(b"ping")))
            .unwrap()
    };
    let response = within("a response", sender.send_request(request("/pkg.Svc/Call"))).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "7");
    assert_eq!(body.to_bytes(), "svc.example ping");
    // A failure is told as gRPC tells it.
    let missing = within("a response", sender.send_request(request("/other"))).await.unwrap();
    assert_eq!(
        (missing.status(), &missing.headers()["grpc-status"]),
        (http::StatusCode::OK, &"12".parse().unwrap())
    );
    assert_eq!(log_lines(&log, 2).await, ["HTTP/2 200 7", "HTTP/2 200 12"]);
}

#[tokio::test]
async fn upgrades_become_streams_of_bytes() {
    // An origin that switches protocols and echoes.
    let listener_of_origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener_of_origin.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener_of_origin.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    if tcp.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let head =
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                tcp.write_all(head).await.unwrap();
                let (mut read, mut write) = tcp.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
            });
        }
    });
    let echo = tcp_echo().await;
    let routes = json!([
        {"match": {"connect_matcher": {}}, "route": {"cluster": "raw", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}},
        {"match": {"prefix": "/"}, "route": {"cluster": "ws"}},
    ]);
    let settings = json!({"upgrade_configs": [{"upgrade_type": "websocket"}]});
    let proxy = proxy(json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [cluster("ws", &[origin]), cluster("raw", &[echo])],
    }));
    let address = proxy.listener_address("l").unwrap();
    for (request, status) in [
        ("GET /chat HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n", "101"),
        ("CONNECT db.example:3306 HTTP/1.1\r\nhost: db.example:3306\r\n\r\n", "200"),
    ] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(within("a head", tcp.read_buf(&mut head)).await.unwrap() > 0);
        }
        assert!(
            String::from_utf8_lossy(&head).starts_with(&format!("HTTP/1.1 {status}")),
            "{}",
            String::from_utf8_lossy(&head)
        );
        tcp.write_all(b"ping").await.unwrap();
        let mut pong = [0; 4];
        within("an echo", tcp.read_exact(&mut pong)).await.unwrap();
        assert_eq!(&pong, b"ping");
    }
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let other = "GET / HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: other\r\n\r\n";
    assert_eq!(ask_on(&mut tcp, other).await.status, 403);
}

/// A server that sends back what it gets.
pub(crate) async fn tcp_echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = tcp.split();
                drop(tokio::io::copy(&mut read, &mut write).await);
                drop(write.shutdown().await);
            });
        }
    });
    address
}

#[tokio::test]
async fn circuit_breakers_overflow() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut narrow = cluster("narrow", &[silent.local_addr().unwrap()]);
    narrow["circuit_breakers"] = json!({"thresholds": [{"max_connections": 1, "max_pending_requests": 1}]});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "narrow", "timeout": "0.3s"}}]);
    let mut settings = listener("l", json!([manager(routes)]));
    settings["enable_reuse_port"] = json!(true);
    let proxy = proxy(json!({"listeners": [settings], "clusters": [narrow]}));
    let address = proxy.listener_address("l").unwrap();
    let answers = futures::future::join_all((0..12).map(|_| get(address, "/"))).await;
    let overflowed: Vec<_> =
        answers.iter().filter(|answer| answer.header("x-envoy-overloaded") == Some("true")).collect();
    assert!(!overflowed.is_empty(), "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    assert!(overflowed[0].body.ends_with("reset reason: overflow"), "{}", overflowed[0].body);
}

/// A gRPC server over HTTP/2 that answers with what it was sent, and a status in trailers.
async fn grpc_echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service =
                hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                    let content_type = request.headers()["content-type"].clone();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    let frames =
                        [Ok::<_, std::convert::Infallible>(Frame::data(body)), Ok(Frame::trailers(trailers))];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    let response =
                        Response::builder().header("content-type", content_type).body(body).unwrap();
                    Ok::<_, std::convert::Infallible>(response)
                });
            tokio::spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(builder.serve_connection(TokioIo::new(tcp), service).await);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_speak_to_grpc_servers() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut upstream = cluster("grpc", &[grpc_echo().await]);
    upstream["typed_extension_protocol_options"] = http2_options();
    let routes = json!([
        {"match": {"prefix": "/pkg.Svc"}, "route": {"cluster": "grpc"}},
        {"match": {"prefix": "/dead"}, "route": {"cluster": "empty"}},
    ]);
    let filter = |name: &str, kind: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}});
    let filters = json!([
        filter("envoy.filters.http.grpc_web", "grpc_web.v3.GrpcWeb"),
        filter("envoy.filters.http.router", "router.v3.Router"),
    ]);
    let resources = json!({
        "listeners": [listener("l", json!([manager_with(routes, json!({"http_filters": filters}))]))],
        "clusters": [upstream, cluster("empty", &[])],
    });
    let message = b"\0\0\0\0\x05hello";
    let want = [&message[..], b"\x80\0\0\0\x0fgrpc-status:0\r\n"].concat();
    for side in crate::sides::sides(&resources) {
        let name = side.name;
        let tcp = TcpStream::connect(side.at("l")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let request = |path: &str, kind: &str, body: Vec<u8>| {
            http::Request::post(path)
                .header("host", "svc.example")
                .header("content-type", kind)
                .header("accept", kind)
                .body(Full::new(Bytes::from(body)))
                .unwrap()
        };
        for (kind, text) in [("application/grpc-web+proto", false), ("application/grpc-web-text+proto", true)]
        {
            within("the connection", sender.ready()).await.unwrap();
            let body = if text { STANDARD.encode(message).into_bytes() } else { message.to_vec() };
            let response = within("a response", sender.send_request(request("/pkg.Svc/Call", kind, body)))
                .await
                .unwrap();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["content-type"]),
                (200, &kind.parse().unwrap()),
                "{name}"
            );
            let body = within("a body", response.into_body().collect()).await.unwrap().to_bytes();
            let body = if text {
                // Padding may end any piece.
                body.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect::<Vec<u8>>()
            } else {
                body.to_vec()
            };
            assert_eq!(body, want, "{name} {kind}");
        }
        within("the connection", sender.ready()).await.unwrap();
        let dead = request("/dead", "application/grpc-web+proto", Vec::new());
        let dead = within("a response", sender.send_request(dead)).await.unwrap();
        assert_eq!(dead.status().as_u16(), 503, "{name}");
    }
}
