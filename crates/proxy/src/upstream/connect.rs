//! Making a connection to a host: socket, bind address, TLS, all inside the cluster's connect timeout.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_route::listener::Keepalive;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::host::Address;
use crate::failure::Reset;
use crate::stream::{ReadAhead, Stream};

/// How a connection is made, apart from where to.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    /// TLS, unless plain text.
    pub tls: Option<Tls>,
    /// The address to connect from.
    pub bind: Option<SocketAddr>,
    /// What is sent before anything else: the PROXY protocol's header.
    pub header: Option<bytes::Bytes>,
    /// TCP keep-alive, if it is on.
    pub keepalive: Option<Keepalive>,
    /// The time that socket and handshake may take together.
    pub timeout: Duration,
}

/// The client's side of TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Identity, trust, application protocols.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the server is told; without one none is sent.
    pub server_name: Option<Arc<str>>,
}

impl Tls {
    /// The same, offering other application protocols: names joined by commas.
    #[must_use]
    pub(crate) fn offering(self, alpn: Option<&str>) -> Self {
        let Some(alpn) = alpn else { return self };
        let mut config = (*self.config).clone();
        config.alpn_protocols = alpn
            .split(',')
            .map(|name| name.trim().as_bytes().to_vec())
            .filter(|name| !name.is_empty())
            .collect();
        Self { config: Arc::new(config), server_name: self.server_name }
    }

    /// The same, offering these application protocols if it offers none: those of the HTTP that is to be spoken.
    #[must_use]
    pub(crate) fn or_offering(self, alpn: &str) -> Self {
        match self.config.alpn_protocols.is_empty() {
            true => self.offering(Some(alpn)),
            false => self,
        }
    }
}

/// Connects to `address`.
///
/// # Errors
/// Says what the transport said, in Envoy's words where it has some.
pub(crate) async fn connect(address: &Address, transport: &Transport) -> Result<Stream, Reset> {
    match tokio::time::timeout(transport.timeout, dial(address, transport)).await {
        Ok(result) => result,
        Err(_) => Err(Reset::ConnectTimeout),
    }
}

async fn dial(address: &Address, transport: &Transport) -> Result<Stream, Reset> {
    let refused = |error: io::Error| Reset::ConnectFailure(describe(&error).into());
    match address {
        Address::Pipe(path) => UnixStream::connect(&**path).await.map(Stream::from).map_err(refused),
        Address::Socket(address) => {
            let mut tcp = dial_tcp(*address, transport.bind).await.map_err(refused)?;
            if let Some(keepalive) = &transport.keepalive {
                keep_alive(&tcp, keepalive).map_err(refused)?;
            }
            if let Some(header) = &transport.header {
                tcp.write_all(header).await.map_err(refused)?;
            }
            match &transport.tls {
                None => Ok(tcp.into()),
                Some(tls) => handshake(tcp, *address, tls).await,
            }
        }
    }
}

async fn dial_tcp(address: SocketAddr, bind: Option<SocketAddr>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bind) = bind.filter(|bind| bind.is_ipv4() == address.is_ipv4()) {
        socket.bind(bind)?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// Has the system probe a silent connection.
///
/// # Errors
/// When the system refuses the times.
pub(crate) fn keep_alive(tcp: &TcpStream, rules: &Keepalive) -> io::Result<()> {
    let seconds = |number: u32| Duration::from_secs(number.into());
    let mut out = TcpKeepalive::new();
    if let Some(time) = rules.time {
        out = out.with_time(seconds(time));
    }
    if let Some(interval) = rules.interval {
        out = out.with_interval(seconds(interval));
    }
    if let Some(probes) = rules.probes {
        out = out.with_retries(probes);
    }
    SockRef::from(tcp).set_tcp_keepalive(&out)
}

async fn handshake(tcp: TcpStream, address: SocketAddr, tls: &Tls) -> Result<Stream, Reset> {
    // rustls wants a name to verify; ours are verified by list, so without one the address stands in, which is
    // never sent.
    let name = tls
        .server_name
        .as_ref()
        .and_then(|name| ServerName::try_from(name.to_string()).ok())
        .unwrap_or_else(|| ServerName::IpAddress(address.ip().into()));
    match TlsConnector::from(tls.config.clone()).connect(name, ReadAhead::new(tcp)).await {
        Ok(stream) => Ok(stream.into()),
        Err(error) => Err(Reset::ConnectFailure(format!("TLS_error: {error}").into())),
    }
}

/// The system's words, without Rust's appendix.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("delayed connect error: {text}")
}
