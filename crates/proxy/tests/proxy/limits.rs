//! Time limits of streams and connections: what is answered, what is broken off, what the log says; as Envoy does.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sides::{Runs, sides};
use crate::support::*;

const FORMAT: &str = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n";

/// A server that answers `/half` with half a body and then, as to everything else, with silence.
async fn silent() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while tcp.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                    if bytes.starts_with(b"GET /half") && bytes.ends_with(b"\r\n\r\n") {
                        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
                        tcp.write_all(half).await.unwrap();
                        bytes.clear();
                    }
                }
            });
        }
    });
    address
}

fn listening(name: &str, routes: &Value, settings: Value) -> Value {
    let mut settings = settings;
    settings["access_log"] = access_log("LOG", FORMAT);
    listener(name, json!([manager_with(routes.clone(), settings)]))
}

/// Sends a request and reads until the whole answer is there or the connection ends.
async fn exchange(address: std::net::SocketAddr, request: &str) -> (u16, String) {
    within("an answer", async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            // A reset ends it, too.
            let read = tcp.read_buf(&mut bytes).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes);
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
                length.is_some_and(|length| body.len() >= length)
            });
            if whole || read == 0 {
                let answer = parse(&bytes);
                return (answer.status, answer.body);
            }
        }
    })
    .await
}

fn get_text(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}\r\n")
}

fn post_text(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nab")
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stand_still_or_last_too_long_are_ended() {
    let origin = silent().await;
    let forward = |path: &str, more: Value| {
        let mut route = more;
        route["cluster"] = json!(route["cluster"].as_str().unwrap_or("silent"));
        json!({"match": {"prefix": path}, "route": route})
    };
    let all = json!([forward("/", json!({"timeout": "0s"}))]);
    let routes = json!([
        forward("/both", json!({"timeout": "0.05s", "max_stream_duration": {"max_stream_duration": "0.3s"}})),
        forward("/header", json!({"max_stream_duration": {"grpc_timeout_header_max": "60s"}})),
        forward("/idle", json!({"timeout": "0s", "idle_timeout": "0.1s"})),
        forward("/upstream", json!({"timeout": "0s", "cluster": "short"})),
        forward("/old", json!({"timeout": "60s", "max_grpc_timeout": "60s"})),
        forward("/half", json!({"timeout": "0.1s"})),
        forward(
            "/unlimited",
            json!({"timeout": "0.1s", "max_stream_duration": {"max_stream_duration": "0s"}, "idle_timeout": "0.2s"})
        ),
    ]);
    let mut short = cluster("short", &[origin]);
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    short["typed_extension_protocol_options"] = json!({options: {
        "@type": format!("type.googleapis.com/{options}"),
        "explicit_http_config": {"http_protocol_options": {}},
        "common_http_protocol_options": {"max_stream_duration": "0.1s"},
    }});
    let resources = json!({
        "listeners": [
            listening("idle", &all, json!({"stream_idle_timeout": "0.1s"})),
            listening("request", &all, json!({"request_timeout": "0.1s"})),
            listening("max", &all, json!({"common_http_protocol_options": {"max_stream_duration": "0.1s"}})),
            listening("routes", &routes, json!({"common_http_protocol_options": {"max_stream_duration": "0.2s"}})),
        ],
        "clusters": [cluster("silent", &[origin]), short],
    });
    let grpc = "content-type: application/grpc\r\ngrpc-timeout: 100m\r\n";
    // Listener, request, status and body, log line.
    let cases = [
        ("idle", get_text("/a", ""), 504, "stream timeout", "/a 504 SI stream_idle_timeout"),
        ("idle", post_text("/b"), 408, "stream timeout", "/b 408 SI stream_idle_timeout"),
        ("idle", get_text("/half", ""), 200, "abc", "/half 200 SI stream_idle_timeout"),
        ("request", post_text("/c"), 408, "request timeout", "/c 408 - request_overall_timeout"),
        ("max", get_text("/d", ""), 504, "downstream duration timeout", "/d 504 - max_duration_timeout"),
        ("max", post_text("/e"), 408, "downstream duration timeout", "/e 408 - max_duration_timeout"),
        ("max", get_text("/half/2", ""), 200, "abc", "/half/2 200 - max_duration_timeout"),
        (
            "max",
            get_text("/f", "content-type: application/grpc\r\n"),
            200,
            "",
            "/f 200 - max_duration_timeout",
        ),
        (
            "routes",
            get_text("/both", ""),
            504,
            "downstream duration timeout",
            "/both 504 - max_duration_timeout",
        ),
        (
            "routes",
            get_text("/header", ""),
            504,
            "downstream duration timeout",
            "/header 504 - max_duration_timeout",
        ),
        ("routes", get_text("/header/g", grpc), 200, "", "/header/g 200 - max_duration_timeout"),
        ("routes", get_text("/idle", ""), 504, "stream timeout", "/idle 504 SI stream_idle_timeout"),
        (
            "routes",
            get_text("/upstream", ""),
            504,
            "upstream max stream duration reached",
            "/upstream 504 UMSDR upstream_max_stream_duration_reached",
        ),
        ("routes", get_text("/old/g", grpc), 200, "", "/old/g 200 UT response_timeout"),
        ("routes", get_text("/half/3", ""), 200, "abc", "/half/3 200 UT response_timeout"),
        (
            "routes",
            get_text("/unlimited", ""),
            504,
            "stream timeout",
            "/unlimited 504 SI stream_idle_timeout",
        ),
    ];
    for side in sides(&resources) {
        for (listener, request, status, body, _) in &cases {
            let answer = exchange(side.at(listener), request).await;
            assert_eq!((answer.0, answer.1.as_str()), (*status, *body), "{}: {request}", side.name);
        }
        let mut lines = log_lines(&side.log, cases.len()).await;
        lines.sort();
        let mut want: Vec<&str> = cases.iter().map(|case| case.4).collect();
        want.sort_unstable();
        assert_eq!(lines, want, "{}", side.name);
        for (figure, value) in [
            ("http.test.downstream_rq_idle_timeout", 5),
            ("http.test.downstream_rq_max_duration_reached", 7),
            ("http.test.downstream_rq_timeout", 1),
            ("cluster.short.upstream_rq_max_duration_reached", 1),
        ] {
            assert_eq!(side.figure(figure), value, "{}: {figure}", side.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_is_told_so() {
    let origin = Origin::echo().await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]);
    let resources = json!({
        "listeners": [listening("l", &routes, json!({"request_headers_timeout": "0.2s"}))],
        "clusters": [cluster("echo", &[origin.address])],
    });
    for side in sides(&resources) {
        let answer = exchange(side.at("l"), "GET / HTTP/1.1\r\nhos").await;
        assert_eq!((answer.0, answer.1.as_str()), (408, "request header timeout"), "{}", side.name);
        // A connection may be silent between requests for longer than that.
        let mut kept = TcpStream::connect(side.at("l")).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ask_on(&mut kept, &get_text("/a", "")).await.status, 200, "{}", side.name);
            tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        }
        kept.write_all(b"GET /late HTTP/1.1\r\n").await.unwrap();
        let mut bytes = Vec::new();
        within("an end", kept.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(parse(&bytes).status, 408, "{}", side.name);
        let mut lines = log_lines(&side.log, 4).await;
        lines.sort();
        let late = "- 408 - request_header_timeout";
        assert_eq!(lines, [late, late, "/a 200 - via_upstream", "/a 200 - via_upstream"], "{}", side.name);
        assert_eq!(side.figure("http.test.downstream_rq_header_timeout"), 2, "{}", side.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_when_idle_or_old() {
    let origin = Origin::echo().await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]);
    let common = |more: Value| json!({"common_http_protocol_options": more, "drain_timeout": "0.1s"});
    let resources = json!({
        "listeners": [
            listening("idle", &routes, common(json!({"idle_timeout": "0.2s"}))),
            listening("old", &routes, common(json!({"max_connection_duration": "0.2s", "idle_timeout": "60s"}))),
            listening("worn", &routes, common(json!({"max_requests_per_connection": 2}))),
        ],
        "clusters": [cluster("echo", &[origin.address])],
    });
    for side in sides(&resources) {
        for listener in ["idle", "old"] {
            let mut tcp = TcpStream::connect(side.at(listener)).await.unwrap();
            assert_eq!(ask_on(&mut tcp, &get_text("/", "")).await.status, 200);
            let end = within("an end", tcp.read(&mut [0; 8])).await;
            assert!(matches!(end, Ok(0)), "{} {listener}: {end:?}", side.name);
        }
        let mut tcp = TcpStream::connect(side.at("worn")).await.unwrap();
        assert_eq!(ask_on(&mut tcp, &get_text("/", "")).await.header("connection"), None);
        assert_eq!(ask_on(&mut tcp, &get_text("/", "")).await.header("connection"), Some("close"));
        for figure in ["downstream_cx_idle_timeout", "downstream_cx_max_duration_reached"] {
            assert_eq!(side.figure(&format!("http.test.{figure}")), 1, "{}: {figure}", side.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_broken_off() {
    // More than the sockets between hold.
    let big = bytes::Bytes::from(vec![b'x'; 64 << 20]);
    let origin = Origin::start(move |_| hyper::Response::new(http_body_util::Full::new(big.clone()))).await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo", "timeout": "0s"}}]);
    let resources = json!({
        "listeners": [listening("l", &routes, json!({"stream_idle_timeout": "0.3s"}))],
        "clusters": [cluster("echo", &[origin.address])],
    });
    for side in sides(&resources) {
        let mut one = TcpStream::connect(side.at("l")).await.unwrap();
        one.write_all(get_text("/one", "").as_bytes()).await.unwrap();
        let tcp = TcpStream::connect(side.at("l")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .handshake(hyper_util::rt::TokioIo::new(tcp))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let request = hyper::Request::get("http://test/two")
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let two = within("a head", sender.send_request(request)).await.unwrap();
        let mut lines = log_lines(&side.log, 2).await;
        lines.sort();
        let want = ["/one 200 SI stream_idle_timeout", "/two 200 SI stream_idle_timeout"];
        assert_eq!(lines, want, "{}", side.name);
        // On HTTP/2 only the stream is reset.
        let end = within("an end", http_body_util::BodyExt::collect(two.into_body())).await;
        assert!(end.is_err() && !connection.is_finished(), "{}", side.name);
        if let Runs::Ours(proxy) = &side.runs {
            until("no request is left", || proxy.figure("http.test.downstream_rq_active") == 0).await;
        }
    }
}
