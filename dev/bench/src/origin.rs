//! The server behind the proxies: 1 KiB for every request, as cheaply as HTTP allows, so that the machine's time goes to
//! the proxies.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

static BODY: [u8; 1024] = [b'x'; 1024];

/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI ";

/// Serves HTTP/1.1 and HTTP/2 on a port of the loopback interface for ever.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut first = [0; PREFACE.len()];
            // A client that goes away in the middle is the end of its connection only.
            match tcp.peek(&mut first).await {
                Ok(_) if first == PREFACE => http2(tcp).await,
                Ok(_) => drop(http1(tcp).await),
                Err(_) => {}
            }
        });
    }
}

/// Requests without bodies, one at a time.
async fn http1(mut tcp: TcpStream) -> io::Result<()> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY.len()).into_bytes();
    answer.extend_from_slice(&BODY);
    let mut request = Vec::with_capacity(4096);
    loop {
        request.clear();
        while !request.ends_with(b"\r\n\r\n") {
            if tcp.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        tcp.write_all(&answer).await?;
    }
}

async fn http2(tcp: TcpStream) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&BODY))))
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    drop(builder.serve_connection(TokioIo::new(tcp), service).await);
}
