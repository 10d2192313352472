//! The server behind the proxies: 1 KiB for every request, as cheaply as HTTP allows.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

static BODY: [u8; 1024] = [b'x'; 1024];

/// Serves HTTP/1.1 and HTTP/2 on a port of the loopback interface for ever.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|_: Request<hyper::body::Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(&BODY))))
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that goes away in the middle is the end of its connection only.
            drop(builder.serve_connection(TokioIo::new(tcp), service).await);
        });
    }
}
