//! Bytes from one connection to another, resets included.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// How long an endpoint may take to accept.
const CONNECT: Duration = Duration::from_secs(10);
const BUFFER: usize = 32 << 10;

/// Copies both ways until both sides have ended. A reset of one side becomes a reset of the other.
pub(super) async fn splice(mut a: TcpStream, mut b: TcpStream) {
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await;
    if copied.is_err() {
        reset(a);
        reset(b);
    }
}

/// Closes with RST.
pub(super) fn reset(stream: TcpStream) {
    // A socket that is gone already needs no reset.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Connects from `source` where it is an address of this cluster, so that the other side sees who calls.
pub(super) async fn connect(to: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let socket = match (to, source) {
        (SocketAddr::V6(_), _) => TcpSocket::new_v6()?,
        (SocketAddr::V4(to), Some(IpAddr::V4(source)))
            if to.ip().is_loopback() && source.is_loopback() && source != Ipv4Addr::LOCALHOST =>
        {
            socket.bind((source, 0).into())?;
            socket
        }
        _ => socket,
    };
    let stream = tokio::time::timeout(CONNECT, socket.connect(to))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
