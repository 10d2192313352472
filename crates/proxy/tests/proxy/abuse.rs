//! Peers that speak nonsense, stop halfway, or break off, on every kind of port: nobody else notices, nothing is left.

use std::net::SocketAddr;
use std::time::Duration;

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proxy::{Config, Handle};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::sides::sides;
use crate::support::*;
use crate::tls::{Authority, server};

/// Has the socket send a reset when it is dropped.
fn reset_when_dropped(tcp: &TcpStream) {
    socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)).unwrap();
}

fn nonsense() -> Vec<Vec<u8>> {
    let head = "GET / HTTP/1.1\r\nhost: x\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let mut out = preface.to_vec();
        // Settings first, as the protocol wants.
        out.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        out.extend([0, (payload.len() >> 8) as u8, payload.len() as u8, kind, flags, 0, 0, 0, stream]);
        out.extend(payload);
        out
    };
    vec![
        Vec::new(),
        vec![0],
        vec![0xff; 5000],
        (0..=255).collect(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\x16\x03\x01\xff\xff".repeat(4000),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
        b"GET".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        format!("{head}content-length: x\r\n\r\n").into(),
        format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\n").into(),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n").into(),
        format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n").into(),
        format!("{head}content-length: 100\r\n\r\nhalf").into(),
        format!("{head}: nameless\r\n\r\n").into(),
        format!("{head}big: {}\r\n\r\n", "y".repeat(300_000)).into(),
        format!("{head}{}\r\n", "a: b\r\n".repeat(5000)).into(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "z".repeat(200_000)).into(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        frame(1, 5, 1, &[0x80, 0x80, 0xff, 0xff]),
        frame(1, 4, 2, &[0x82]),
        frame(0, 1, 9, b"data of no stream"),
        frame(8, 0, 0, &[0, 0, 0, 0]),
        frame(3, 0, 0, &[1]),
    ]
}

/// Sends nonsense to a port in every way of ending it.
async fn torment(address: SocketAddr) {
    for bytes in nonsense() {
        for ending in 0..3 {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            // The proxy may close before it has read all of it.
            let _ = tcp.write_all(&bytes).await;
            match ending {
                0 => {
                    let _ = tcp.shutdown().await;
                    let _ = within("an end", tcp.read_to_end(&mut Vec::new())).await;
                }
                1 => reset_when_dropped(&tcp),
                _ => {}
            }
        }
    }
}

/// Nothing of what came before is under way any more.
async fn at_rest(proxy: &Handle, clusters: &[&str]) {
    let mut figures =
        vec!["http.test.downstream_cx_active".to_owned(), "http.test.downstream_rq_active".to_owned()];
    figures.extend(clusters.iter().map(|cluster| format!("cluster.{cluster}.upstream_rq_active")));
    for figure in figures {
        until(&figure, || proxy.figure(&figure) == 0).await;
    }
    assert_eq!(proxy.figure("server.panics"), 0);
    assert!(within("an answer of every worker", proxy.is_alive()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_any_port_harms_nobody() {
    let origin = Origin::echo().await;
    let mut world = server(origin.address, Authority::new().secrets("server"));
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]);
    let tcp = json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp", "cluster": "echo"}});
    let mut inspected = listener("inspected", json!([manager(routes.clone())]));
    let filter = |kind: &str| json!({"name": kind, "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.listener.{kind}")}});
    inspected["listener_filters"] =
        json!([filter("tls_inspector.v3.TlsInspector"), filter("http_inspector.v3.HttpInspector")]);
    let mut told = listener("told", json!([manager(routes.clone())]));
    told["listener_filters"] = json!([filter("proxy_protocol.v3.ProxyProtocol")]);
    let listeners = world["listeners"].as_array_mut().unwrap();
    listeners.extend([
        listener("plain", json!([manager(routes)])),
        listener("tcp", json!([tcp])),
        inspected,
        told,
    ]);
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bootstrap: Bootstrap =
        lateen_proto::json::from_value(&json!({"admin": {"address": socket(admin)}})).unwrap();
    let proxy = Config { bootstrap, ..Config::default() }.build().unwrap();
    proxy.update(resources(world)).unwrap();
    let plain = proxy.listener_address("plain").unwrap();
    for name in ["plain", "in", "tcp", "inspected", "told"] {
        torment(proxy.listener_address(name).unwrap()).await;
        assert_eq!(get(plain, "/alive").await.status, 200, "{name}");
    }
    torment(admin).await;
    assert_eq!(get(admin, "/ready").await.status, 200);
    at_rest(&proxy, &["echo"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_break_off_leave_nothing() {
    // What is asked for says how it breaks off.
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
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if text.contains("/half") || text.contains("/endless") {
                    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nabc").await;
                }
                if text.contains("/garbage") {
                    let _ = tcp.write_all(b"\x00\x01\x02 what?\r\n\r\n").await;
                }
                if text.contains("/endless") || text.contains("/silent") {
                    let _ = tcp.read(&mut [0; 8]).await;
                } else if text.contains("reset") {
                    reset_when_dropped(&tcp);
                }
            });
        }
    });
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "broken"}}]);
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS%\n";
    let settings = json!({"access_log": access_log("LOG", format)});
    let resources = json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [cluster("broken", &[origin])],
    });
    for side in sides(&resources) {
        let name = side.name;
        for (path, status) in [("/close", 503), ("/reset", 503), ("/garbage", 502)] {
            assert_eq!(get(side.at("l"), path).await.status, status, "{name} {path}");
        }
        for path in ["/half/close", "/half/reset"] {
            let cut = get(side.at("l"), path).await;
            assert_eq!((cut.status, cut.body.as_str()), (200, "abc"), "{name} {path}");
        }
        for path in ["/endless", "/silent"] {
            until("rest", || side.figure("cluster.broken.upstream_rq_active") == 0).await;
            let mut tcp = TcpStream::connect(side.at("l")).await.unwrap();
            tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await.unwrap();
            if path == "/endless" {
                within("a head", tcp.read(&mut [0; 1024])).await.unwrap();
            } else {
                until("the request's arrival", || side.figure("cluster.broken.upstream_rq_active") == 1)
                    .await;
            }
            reset_when_dropped(&tcp);
        }
        let mut lines = log_lines(&side.log, 7).await;
        lines.sort();
        let want = [
            "/close 503 UC",
            "/endless 200 DC",
            "/garbage 502 UPE",
            "/half/close 200 UPE",
            "/half/reset 200 UPE",
            "/reset 503 UC",
            "/silent 0 DC",
        ];
        assert_eq!(lines, want, "{name}");
        for figure in [
            "cluster.broken.upstream_rq_active",
            "cluster.broken.upstream_cx_active",
            "http.test.downstream_cx_active",
        ] {
            until(figure, || side.figure(figure) == 0).await;
        }
        if let crate::sides::Runs::Ours(proxy) = &side.runs {
            at_rest(proxy, &["broken"]).await;
        }
    }
}
