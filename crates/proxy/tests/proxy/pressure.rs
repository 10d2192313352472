//! A side that does not take what it gets holds the other side back: the proxy keeps little of what goes through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::*;

/// What is sent in all.
const TOTAL: u64 = 160 << 20;
/// What sockets, codecs and the proxy may hold of it together.
const HELD: u64 = 64 << 20;
const PIECE: usize = 64 << 10;

/// Writes all of it, and counts what was taken.
async fn pour(to: &mut (impl AsyncWrite + Unpin), count: &AtomicU64) {
    let piece = vec![b'x'; PIECE];
    while count.load(Ordering::Relaxed) < TOTAL {
        // Whoever reads has gone: what was counted is what it took.
        if to.write_all(&piece).await.is_err() {
            return;
        }
        count.fetch_add(PIECE as u64, Ordering::Relaxed);
    }
}

/// Waits until nothing more is taken, which is when the other side is held back.
async fn stalled(count: &AtomicU64) -> u64 {
    within("a stall", async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = count.load(Ordering::Relaxed);
            if now == last && now > 0 {
                return now;
            }
            last = now;
        }
    })
    .await
}

/// A server that answers with all of it, whatever is asked.
async fn fountain(head: &'static str) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let count = counted.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n")
                    && tcp.read_buf(&mut bytes).await.is_ok_and(|read| read > 0)
                {}
                tcp.write_all(head.replace("TOTAL", &TOTAL.to_string()).as_bytes()).await.unwrap();
                pour(&mut tcp, &count).await;
            });
        }
    });
    (address, count)
}

/// A server that takes a request's head, and its body only once it is told to.
async fn dam(open: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let open = open.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let end = loop {
                    if tcp.read_buf(&mut bytes).await.unwrap() == 0 {
                        return;
                    }
                    if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                        break end + 4;
                    }
                };
                open.notified().await;
                let mut left = TOTAL - (bytes.len() - end) as u64;
                let mut piece = vec![0; PIECE];
                while left > 0 {
                    let read = tcp.read(&mut piece).await.unwrap();
                    assert!(read > 0, "the body ends {left} bytes too early");
                    left -= read as u64;
                }
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            });
        }
    });
    address
}

fn route(path: &str, action: Value) -> Value {
    let mut action = action;
    action["timeout"] = "0s".into();
    json!({"match": {"prefix": path}, "route": action})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_the_server_back() {
    let (origin, poured) = fountain("HTTP/1.1 200 OK\r\ncontent-length: TOTAL\r\n\r\n").await;
    let (bytes, bytes_poured) = fountain("").await;
    let proxy = proxy(json!({
        "listeners": [
            listener("http", json!([manager(json!([route("/", json!({"cluster": "origin"}))]))])),
            listener("bytes", json!([{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "tcp", "cluster": "bytes"}}])),
        ],
        "clusters": [cluster("origin", &[origin]), cluster("bytes", &[bytes])],
    }));
    for (name, count) in [("http", &poured), ("bytes", &bytes_poured)] {
        let mut tcp = TcpStream::connect(proxy.listener_address(name).unwrap()).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
        let held = stalled(count).await;
        assert!(held < HELD, "{name}: the server got rid of {held} bytes");
        let mut all = 0;
        let mut piece = vec![0; PIECE];
        within("the rest", async {
            loop {
                match tcp.read(&mut piece).await.unwrap() {
                    0 => break,
                    read => all += read as u64,
                }
            }
        })
        .await;
        assert!(all >= TOTAL, "{name}: {all} bytes came");
    }
    // The same of a stream of HTTP/2, beside which others go on.
    let before = poured.load(Ordering::Relaxed);
    poured.store(0, Ordering::Relaxed);
    assert!(before >= TOTAL);
    let tcp = TcpStream::connect(proxy.listener_address("http").unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(tcp))
        .await
        .unwrap();
    tokio::spawn(connection);
    let ask =
        || hyper::Request::get("http://test/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let slow = within("a head", sender.send_request(ask())).await.unwrap();
    let held = stalled(&poured).await;
    assert!(held < HELD, "HTTP/2: the server got rid of {held} bytes");
    let mut body = slow.into_body();
    let mut all = 0;
    within("the rest", async {
        while let Some(frame) = body.frame().await {
            all += frame.unwrap().into_data().map_or(0, |data| data.len() as u64);
        }
    })
    .await;
    assert_eq!(all, TOTAL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_holds_the_client_back() {
    let open = Arc::new(Notify::new());
    let origin = dam(open.clone()).await;
    // A copy that is never read must not hold the request back, nor be held for.
    let never = dam(Arc::new(Notify::new())).await;
    let retried = json!({"cluster": "origin", "retry_policy": {"retry_on": "5xx", "num_retries": 3}});
    let mirrored = json!({"cluster": "origin", "request_mirror_policies": [{"cluster": "never"}]});
    let routes = json!([
        route("/plain", json!({"cluster": "origin"})),
        route("/retried", retried),
        route("/mirrored", mirrored),
    ]);
    let proxy = proxy(json!({
        "listeners": [listener("http", json!([manager(routes)]))],
        "clusters": [cluster("origin", &[origin]), cluster("never", &[never])],
    }));
    for path in ["/plain", "/retried", "/mirrored"] {
        let mut tcp = TcpStream::connect(proxy.listener_address("http").unwrap()).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {TOTAL}\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let (mut read, mut write) = tcp.into_split();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let pouring = tokio::spawn(async move {
            pour(&mut write, &counted).await;
            write
        });
        let held = stalled(&count).await;
        assert!(held < HELD, "{path}: the client got rid of {held} bytes");
        open.notify_one();
        let mut answer = Vec::new();
        within("an answer", async {
            while !answer.ends_with(b"\r\n\r\n") {
                assert!(read.read_buf(&mut answer).await.unwrap() > 0, "{path}: closed");
            }
        })
        .await;
        assert_eq!(parse(&answer).status, 200, "{path}");
        drop(pouring.await.unwrap());
    }
}
