//! The one byte stream of the proxy: TCP, TLS over it either way round, a Unix socket, or memory in tests.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection, whichever way it was made. One type, so that codecs are compiled once.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: Kind,
    /// Bytes that were read to find out what they are; they come first.
    prefix: Bytes,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Accepted(Box<tokio_rustls::server::TlsStream<ReadAhead>>),
    Dialled(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Unix(UnixStream),
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// Puts bytes back that were read ahead.
    #[must_use]
    pub(crate) fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = prefix;
        self
    }

    /// The TCP socket underneath, if there is one.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(tcp) => Some(tcp),
            Kind::Accepted(tls) => Some(tls.get_ref().0.tcp()),
            Kind::Dialled(tls) => Some(tls.get_ref().0),
            Kind::Unix(_) | Kind::Memory(_) => None,
        }
    }

    /// Our address.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.tcp().and_then(|tcp| tcp.local_addr().ok())
    }

    /// The application protocol that TLS agreed on.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Accepted(tls) => tls.get_ref().1.alpn_protocol(),
            Kind::Dialled(tls) => tls.get_ref().1.alpn_protocol(),
            _ => None,
        }
    }

    /// Whether TLS is spoken, and what rustls knows about it.
    pub(crate) fn tls(&self) -> Option<&rustls::CommonState> {
        match &self.kind {
            Kind::Accepted(tls) => Some(tls.get_ref().1),
            Kind::Dialled(tls) => Some(tls.get_ref().1),
            _ => None,
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self { kind: Kind::Tcp(tcp), prefix: Bytes::new() }
    }
}

impl From<ReadAhead> for Stream {
    fn from(ahead: ReadAhead) -> Self {
        Self { kind: Kind::Tcp(ahead.tcp), prefix: ahead.bytes.freeze() }
    }
}

impl From<tokio_rustls::server::TlsStream<ReadAhead>> for Stream {
    fn from(tls: tokio_rustls::server::TlsStream<ReadAhead>) -> Self {
        Self { kind: Kind::Accepted(Box::new(tls)), prefix: Bytes::new() }
    }
}

impl From<tokio_rustls::client::TlsStream<TcpStream>> for Stream {
    fn from(tls: tokio_rustls::client::TlsStream<TcpStream>) -> Self {
        Self { kind: Kind::Dialled(Box::new(tls)), prefix: Bytes::new() }
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Self { kind: Kind::Unix(unix), prefix: Bytes::new() }
    }
}

impl From<tokio::io::DuplexStream> for Stream {
    fn from(memory: tokio::io::DuplexStream) -> Self {
        Self { kind: Kind::Memory(memory), prefix: Bytes::new() }
    }
}

/// An accepted socket and the bytes that were read from it to find out what it speaks.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    tcp: TcpStream,
    bytes: BytesMut,
}

impl ReadAhead {
    /// A socket from which nothing was read yet.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, bytes: BytesMut::new() }
    }

    /// The socket.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What was read so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the first bytes away: they were not the peer's protocol.
    pub(crate) fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    /// Reads some more; 0 at the end.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        self.bytes.reserve(1024);
        self.tcp.read_buf(&mut self.bytes).await
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes.is_empty() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let len = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..len]);
        self.bytes.advance(len);
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match &mut $self.get_mut().kind {
            Kind::Tcp($inner) => $call,
            Kind::Accepted($inner) => $call,
            Kind::Dialled($inner) => $call,
            Kind::Unix($inner) => $call,
            Kind::Memory($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let len = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..len]);
            self.prefix.advance(len);
            return Poll::Ready(Ok(()));
        }
        each!(self, inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.kind {
            Kind::Tcp(inner) => inner.is_write_vectored(),
            Kind::Accepted(inner) => inner.is_write_vectored(),
            Kind::Dialled(inner) => inner.is_write_vectored(),
            Kind::Unix(inner) => inner.is_write_vectored(),
            Kind::Memory(inner) => inner.is_write_vectored(),
        }
    }
}
