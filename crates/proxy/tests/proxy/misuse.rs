//! Clients that misuse HTTP/2, byte by byte, our proxy and stock Envoy: the connection ends or is held back, everybody else is
//! served, and nothing is left.

use serde_json::json;
use testkit::abuse::{Abuse, abuse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::sides::{Runs, sides};
use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misuse_of_http2_ends_or_is_held_back_and_others_are_served() {
    let origin = Origin::echo().await;
    let resources = echoing(&origin);
    for side in sides(&resources) {
        for how in Abuse::ALL {
            let asked = origin.count();
            let outcome = within("misuse", abuse(side.at("l"), how, 3_000)).await.unwrap();
            assert_eq!(get(side.at("l"), "/alive").await.status, 200, "{} {how:?}", side.name);
            if let Runs::Ours(proxy) = &side.runs {
                assert!(outcome.ended || !how.has_to_end(), "{how:?}: {outcome:?}");
                for figure in [
                    "http.test.downstream_cx_active",
                    "http.test.downstream_rq_active",
                    "cluster.echo.upstream_rq_active",
                ] {
                    until(figure, || proxy.figure(figure) == 0).await;
                }
                assert_eq!(proxy.figure("server.panics"), 0, "{how:?}");
                // What was reset at once was hardly ever passed on.
                let passed = origin.count() - asked;
                assert!(passed < 2_000, "{how:?}: {passed} requests arrived");
            }
        }
    }
}

/// Connections that stand still in each part of a request do not keep others from being served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stand_still_are_ended_and_keep_nobody_waiting() {
    let origin = Origin::echo().await;
    let limits = json!({"request_headers_timeout": "0.5s", "request_timeout": "0.5s", "stream_idle_timeout": "0.5s",
                        "common_http_protocol_options": {"idle_timeout": "0.5s"}});
    let resources = json!({
        "listeners": [listener("l", json!([manager_with(routes("echo"), limits)]))],
        "clusters": [cluster("echo", &[origin.address])],
    });
    for side in sides(&resources) {
        let mut held = Vec::new();
        for text in [
            "",
            "G",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nhost: test\r\nslow: ",
            "POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\nab",
            "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        ] {
            for _ in 0..50 {
                let mut tcp = TcpStream::connect(side.at("l")).await.unwrap();
                tcp.write_all(text.as_bytes()).await.unwrap();
                held.push((text, tcp));
            }
        }
        assert_eq!(get(side.at("l"), "/alive").await.status, 200, "{}", side.name);
        for (text, mut tcp) in held {
            // Nobody speaks before it is known what is spoken: that is the listener's timeout, not the manager's. A client of HTTP/2
            // is told first, and has its time to end by itself.
            if text.len() < 2 || text.starts_with("PRI") {
                continue;
            }
            let mut said = Vec::new();
            // A reset is an end, too.
            let _ = within(&format!("{}: the end of {text:?}", side.name), tcp.read_to_end(&mut said)).await;
        }
        for figure in ["http.test.downstream_rq_active", "cluster.echo.upstream_rq_active"] {
            until(figure, || side.figure(figure) == 0).await;
        }
    }
}

/// Sends a text as it stands and reads until the proxy has closed or says nothing more; all that came.
async fn converse(address: std::net::SocketAddr, text: &[u8]) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(text).await.unwrap();
    // Whoever waits for more is told that there is none.
    tcp.shutdown().await.unwrap();
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = within("an end", tcp.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_smuggled_past_the_end_of_a_message() {
    let origin = Origin::echo().await;
    let resources = echoing(&origin);
    let post =
        |headers: &str, body: &str| format!("POST /first HTTP/1.1\r\nhost: test\r\n{headers}\r\n{body}");
    let short = format!("0\r\n\r\n{SMUGGLED}");
    let chunked = "transfer-encoding: chunked\r\n";
    let one = "1\r\nx\r\n0\r\n\r\n";
    // What is said, and whether the first request may arrive.
    let cases: Vec<(&str, String, bool)> = vec![
        ("a length, then chunks", post(&format!("content-length: 6\r\n{chunked}"), &short), true),
        ("chunks, then a length", post(&format!("{chunked}content-length: 6\r\n"), &short), true),
        (
            "a length of all that follows",
            post(&format!("content-length: {}\r\n{chunked}", short.len()), &short),
            true,
        ),
        ("chunks, then not", post(&format!("{chunked}transfer-encoding: identity\r\n"), &short), false),
        ("chunks that are not last", post("transfer-encoding: chunked, gzip\r\n", &short), false),
        ("a space before the colon", post("transfer-encoding : chunked\r\n", &short), false),
        ("a tab before the colon", post("content-length\t: 6\r\n", &short), false),
        ("a folded line", post("transfer-encoding:\r\n chunked\r\n", &short), false),
        ("a vertical tab", post("transfer-encoding: \x0bchunked\r\n", &short), false),
        ("a misspelt coding", post("transfer-encoding: xchunked\r\n", &short), false),
        ("two lengths", post("content-length: 5\r\ncontent-length: 45\r\n", &short), false),
        ("a list of lengths", post("content-length: 5, 45\r\n", &short), false),
        ("a length with a sign", post("content-length: +5\r\n", &short), false),
        ("a length in hexadecimal", post("content-length: 0x5\r\n", &short), false),
        ("a length below zero", post("content-length: -1\r\n", &short), false),
        ("a length beyond all", post("content-length: 99999999999999999999\r\n", &short), false),
        ("a length that is none", post("content-length: \r\n", &short), false),
        ("a lone carriage return", post("x-a: b\rtransfer-encoding: chunked\r\n", &short), false),
        ("a null", post("x-a: b\0c\r\n", &short), false),
        ("two hosts", post("host: other\r\n", &short), false),
        ("chunks on HTTP/1.0", format!("POST /first HTTP/1.0\r\nhost: test\r\n{chunked}\r\n{short}"), false),
        ("a newline in a chunk's extension", post(chunked, &format!("1;\nx\r\ny\r\n{one}{SMUGGLED}")), true),
        ("a size with a sign", post(chunked, &format!("+1\r\nx\r\n{short}")), true),
        ("a size in hexadecimal notation", post(chunked, &format!("0x1\r\nx\r\n{short}")), true),
        ("a size beyond all", post(chunked, &format!("fffffffffffffffff1\r\nx\r\n{short}")), true),
        ("a chunk that is longer than it says", post(chunked, &format!("1\r\nxyz\r\n{short}")), true),
    ];
    // Of some of these stock Envoy makes more (it joins what a lone carriage return parts).
    for side in sides(&resources).iter().filter(|side| matches!(side.runs, Runs::Ours(_))) {
        for (what, text, may_arrive) in &cases {
            origin.seen.lock().unwrap().clear();
            let said = converse(side.at("l"), text.as_bytes()).await;
            assert_eq!(get(side.at("l"), "/alive").await.status, 200, "{} {what}", side.name);
            let seen = origin.seen.lock().unwrap();
            let paths: Vec<&str> = seen.iter().map(|request| request.uri().path()).collect();
            assert!(!paths.contains(&"/smuggled"), "{} {what}: {paths:?}\n{said}", side.name);
            let first = seen.iter().find(|request| request.uri().path() == "/first");
            assert!(*may_arrive || first.is_none(), "{} {what}: {first:?}\n{said}", side.name);
            if let Some(first) = first {
                // What went on has one meaning.
                let lengths = first.headers().get_all("content-length").iter().count();
                let codings = first.headers().get_all("transfer-encoding").iter().count();
                assert!(lengths + codings <= 1, "{} {what}: {first:?}", side.name);
            }
            assert!(said.is_empty() || !said.contains("GET /smuggled"), "{} {what}: {said}", side.name);
        }
    }
}
