//! Bytes over TCP: a server that sends as many as are taken, and a client that takes them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::BenchError;

/// Bytes written and read at a time.
const PIECE: usize = 256 * 1024;

/// What a client sends first: enough for Envoy's TLS inspector, which waits for more than one byte.
const HELLO: [u8; 64] = [b'x'; 64];

/// How long bytes may take to come.
const SILENCE: Duration = Duration::from_secs(10);

/// Sends bytes to whoever has sent one, for ever.
///
/// # Errors
/// When the port is taken.
pub(crate) async fn serve(port: u16) -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (mut tcp, _) = listener.accept().await?;
        tokio::spawn(async move {
            if tcp.read_u8().await.is_ok() {
                let piece = vec![7; PIECE];
                // A client that goes away is the end of its connection.
                while tcp.write_all(&piece).await.is_ok() {}
            }
        });
    }
}

/// What came through in a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Bytes.
    pub(crate) bytes: u64,
    /// The time.
    pub(crate) elapsed: Duration,
}

/// Takes bytes from a proxy over some connections for a time; `connect` is what an HTTP proxy is asked for first.
///
/// # Errors
/// When a connection fails.
pub(crate) async fn take(
    proxy: SocketAddr,
    connect: Option<&'static str>,
    connections: usize,
    duration: Duration,
) -> Result<Taken, BenchError> {
    let start = Instant::now();
    let tasks: Vec<_> =
        (0..connections).map(|_| tokio::spawn(one(proxy, connect, start + duration))).collect();
    let mut bytes = 0;
    for task in tasks {
        bytes += task.await.map_err(|error| BenchError::Text(error.to_string()))??;
    }
    Ok(Taken { bytes, elapsed: start.elapsed() })
}

async fn one(proxy: SocketAddr, connect: Option<&str>, end: Instant) -> Result<u64, BenchError> {
    let mut tcp = TcpStream::connect(proxy).await?;
    let mut room = vec![0; PIECE];
    if let Some(host) = connect {
        tcp.write_all(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await?);
        }
        if !head.starts_with(b"HTTP/1.1 200") {
            return Err(BenchError::Text(format!("CONNECT: {}", String::from_utf8_lossy(&head))));
        }
    }
    tcp.write_all(&HELLO).await?;
    let mut bytes = 0;
    while Instant::now() < end {
        let read = tokio::time::timeout(SILENCE, tcp.read(&mut room)).await;
        match read.map_err(|_| BenchError::Text(format!("no byte came for {SILENCE:?}")))?? {
            0 => return Err(BenchError::Text("the connection was closed".to_owned())),
            count => bytes += count as u64,
        }
    }
    Ok(bytes)
}
