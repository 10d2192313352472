use http::{HeaderMap, Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::*;

fn pair(room: usize) -> (Connection, DuplexStream) {
    let (near, far) = tokio::io::duplex(room);
    (Connection::new(near.into(), false), far)
}

fn begin(connection: &Connection, method: &Method, body: RequestBody) {
    let headers = HeaderMap::new();
    connection.begin(&RequestHead { method, target: "/", headers: &headers, more: &[] }, body);
}

async fn frame(body: &mut Body) -> Option<Result<Frame<Bytes>, BodyError>> {
    std::future::poll_fn(|cx| body.poll_frame(cx)).await
}

async fn text(body: &mut Body) -> Result<String, BodyError> {
    let mut text = String::new();
    while let Some(frame) = frame(body).await {
        text.push_str(&String::from_utf8_lossy(frame?.data_ref().map_or(&[][..], |data| data)));
    }
    Ok(text)
}

/// Reads until what was read ends so.
async fn read_until(far: &mut DuplexStream, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        text.push(far.read_u8().await.expect("a byte").into());
    }
    text
}

#[tokio::test]
async fn requests_follow_one_another() {
    let (connection, mut far) = pair(4096);
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n", "de"),
        ("HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 204 Nothing\r\n\r\n", ""),
    ] {
        assert!(connection.is_idle(Waker::noop()));
        begin(&connection, &Method::GET, RequestBody::empty());
        let server = async {
            assert_eq!(read_until(&mut far, "\r\n\r\n").await, "GET / HTTP/1.1\r\n\r\n");
            far.write_all(answer.as_bytes()).await.expect("room");
        };
        let (response, ()) = tokio::join!(connection.response(), server);
        let mut response = response.expect("a response");
        assert_eq!(text(response.body_mut()).await.expect("a body"), want);
        assert!(response.body().is_end_stream() && connection.recycle());
    }
    drop(far);
    assert!(!connection.is_idle(Waker::noop()), "the host has closed it");
}

#[tokio::test]
async fn what_nobody_asked_for_makes_it_useless() {
    let (connection, mut far) = pair(4096);
    begin(&connection, &Method::GET, RequestBody::empty());
    far.write_all(b"HTTP/1.1 204 None\r\n\r\nHTTP/1.1 200 More\r\n\r\n").await.expect("room");
    connection.response().await.expect("a response");
    assert!(!connection.recycle());
}

#[tokio::test]
async fn the_way_it_breaks_is_told() {
    for (answer, want) in [
        ("", Reset::Termination),
        ("HTTP/1.1 200 OK\r\nx: ", Reset::Termination),
        ("what?\r\n\r\n", Reset::Protocol),
        ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", Reset::Protocol),
    ] {
        let (connection, mut far) = pair(4096);
        begin(&connection, &Method::GET, RequestBody::empty());
        let server = async {
            read_until(&mut far, "\r\n\r\n").await;
            far.write_all(answer.as_bytes()).await.expect("room");
            drop(far);
        };
        let (response, ()) = tokio::join!(connection.response(), server);
        match response {
            Err(SendError::Sent(reset)) => assert_eq!(reset, want, "{answer}"),
            other => panic!("{answer}: {other:?}"),
        }
    }
    let (connection, far) = pair(4096);
    drop(far);
    begin(&connection, &Method::GET, RequestBody::empty());
    assert!(matches!(connection.response().await, Err(SendError::Unsent(Reset::Termination))));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_handed_out_as_far_as_it_came() {
    let (other, mut far) = pair(4096);
    begin(&other, &Method::GET, RequestBody::empty());
    let server = async {
        read_until(&mut far, "\r\n\r\n").await;
        far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").await.expect("room");
        drop(far);
    };
    let (response, ()) = tokio::join!(other.response(), server);
    let mut response = response.expect("a response");
    let first = frame(response.body_mut()).await.expect("a frame").expect("data");
    assert_eq!(first.data_ref().map(|data| &data[..]), Some(&b"abc"[..]));
    assert!(matches!(frame(response.body_mut()).await, Some(Err(BodyError::Incomplete))));
    assert!(!other.recycle());
}

#[tokio::test]
async fn without_a_length_the_end_is_the_connections() {
    let (connection, mut far) = pair(4096);
    begin(&connection, &Method::GET, RequestBody::empty());
    let server = async {
        read_until(&mut far, "\r\n\r\n").await;
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\nabc").await.expect("room");
        drop(far);
    };
    let (response, ()) = tokio::join!(connection.response(), server);
    let mut response = response.expect("a response");
    assert_eq!(text(response.body_mut()).await.expect("a body"), "abc");
    assert!(!connection.recycle());
}

#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_its_response() {
    let local = LocalSet::new();
    let test = async {
        // Little room, so that the request is not just buffered.
        let (connection, mut far) = pair(64);
        let (pieces, receiver) = mpsc::channel(1);
        begin(&connection, &Method::POST, RequestBody::channel(receiver));
        let server = async {
            let head = read_until(&mut far, "\r\n\r\n").await;
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("room");
        };
        let (response, ()) = tokio::join!(connection.response(), server);
        let mut response = response.expect("a response");
        let sending = async move {
            for _ in 0..20 {
                pieces.send(Bytes::from_static(&[b'x'; 20_000])).await.expect("a reader");
            }
        };
        let (text_of_request, ()) = tokio::join!(read_until(&mut far, "\r\n0\r\n\r\n"), sending);
        assert_eq!(text_of_request.bytes().filter(|byte| *byte == b'x').count(), 400_000);
        assert_eq!(text(response.body_mut()).await.expect("a body"), "ok");
        assert!(connection.recycle());
    };
    local.run_until(test).await;
}

#[tokio::test]
async fn after_an_upgrade_come_bytes() {
    let (connection, mut far) = pair(4096);
    begin(&connection, &Method::GET, RequestBody::empty());
    let server = async {
        read_until(&mut far, "\r\n\r\n").await;
        far.write_all(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\nearly").await.expect("room");
    };
    let (response, ()) = tokio::join!(connection.response(), server);
    assert_eq!(response.expect("a response").status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut bytes = connection.bytes();
    far.write_all(b" and late").await.expect("room");
    let mut seen = [0; 14];
    bytes.read_exact(&mut seen).await.expect("bytes");
    assert_eq!(&seen, b"early and late");
    bytes.write_all(b"back").await.expect("room");
    assert_eq!(read_until(&mut far, "k").await, "back");
}

#[tokio::test]
async fn a_request_that_breaks_off_is_not_waited_for() {
    let (connection, mut far) = pair(4096);
    let headers = [(http::header::CONTENT_LENGTH, http::HeaderValue::from_static("9"))].into_iter().collect();
    let head = RequestHead { method: &Method::POST, target: "/", headers: &headers, more: &[] };
    let (pieces, receiver) = mpsc::channel(1);
    connection.begin(&head, RequestBody::channel(receiver));
    let client = async move {
        pieces.send(Bytes::from_static(b"abc")).await.expect("a reader");
    };
    let (response, ()) = tokio::join!(connection.response(), client);
    assert!(matches!(response, Err(SendError::Sent(Reset::Termination))), "{response:?}");
    let mut seen = String::new();
    far.read_to_string(&mut seen).await.expect("the end");
    assert!(seen.starts_with("POST / HTTP/1.1\r\n"), "{seen}");
    assert!(!connection.recycle());
}
