//! The one byte stream of the proxy: TCP, TLS over it either way round, a Unix socket, or memory in tests.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

pub(crate) use self::refusal::{Refusals, body_length};
use crate::scratch;

pub(crate) mod frames;
mod refusal;

macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match &mut $self.kind {
            Kind::Tcp($inner) => $call,
            Kind::Accepted($inner) => $call,
            Kind::Dialled($inner) => $call,
            Kind::Unix($inner) => $call,
            Kind::Memory($inner) => $call,
        }
    };
}

/// A connection, whichever way it was made. One type, so that codecs are compiled once.
#[derive(Debug)]
pub(crate) struct Stream {
    kind: Kind,
    /// Bytes that were read to find out what they are; they come first.
    prefix: Bytes,
    clock: Option<Arc<HeadClock>>,
    refusals: Option<Arc<Refusals>>,
    /// What is to be written in the place of an answer of the codec's.
    instead: Bytes,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Accepted(Box<tokio_rustls::server::TlsStream<ReadAhead>>),
    Dialled(Box<tokio_rustls::client::TlsStream<ReadAhead>>),
    Unix(UnixStream),
    Memory(tokio::io::DuplexStream),
}

impl Stream {
    /// Puts bytes back that were read ahead: before those that were put back already and are yet to be read.
    #[must_use]
    pub(crate) fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = match self.prefix.is_empty() {
            true => prefix,
            false => [prefix, self.prefix].concat().into(),
        };
        self
    }

    /// Has a clock watch what is read.
    #[must_use]
    pub(crate) fn timed_by(mut self, clock: Option<Arc<HeadClock>>) -> Self {
        self.clock = clock;
        self
    }

    /// Has the codec's own answers replaced.
    #[must_use]
    pub(crate) fn refusing(mut self, refusals: Arc<Refusals>) -> Self {
        self.refusals = Some(refusals);
        self
    }

    fn of(kind: Kind, prefix: Bytes) -> Self {
        Self { kind, prefix, clock: None, refusals: None, instead: Bytes::new() }
    }

    /// Writes what is left of what goes in the place of the codec's answer.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead.has_remaining() {
            let text = self.instead.clone();
            let written = ready!(each!(self, inner => Pin::new(inner).poll_write(cx, &text)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Takes an answer of the codec's, which is not written; its length.
    fn take_refusal(&mut self, written: &[u8]) -> Option<usize> {
        self.instead = self.refusals.as_ref()?.instead(written)?;
        Some(written.len())
    }

    /// The TCP socket underneath, if there is one.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.kind {
            Kind::Tcp(tcp) => Some(tcp),
            Kind::Accepted(tls) => Some(tls.get_ref().0.tcp()),
            Kind::Dialled(tls) => Some(tls.get_ref().0.tcp()),
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
        Self::of(Kind::Tcp(tcp), Bytes::new())
    }
}

impl From<ReadAhead> for Stream {
    fn from(ahead: ReadAhead) -> Self {
        Self::of(Kind::Tcp(ahead.tcp), ahead.bytes.freeze())
    }
}

impl From<tokio_rustls::server::TlsStream<ReadAhead>> for Stream {
    fn from(tls: tokio_rustls::server::TlsStream<ReadAhead>) -> Self {
        Self::of(Kind::Accepted(Box::new(tls)), Bytes::new())
    }
}

impl From<tokio_rustls::client::TlsStream<ReadAhead>> for Stream {
    fn from(tls: tokio_rustls::client::TlsStream<ReadAhead>) -> Self {
        Self::of(Kind::Dialled(Box::new(tls)), Bytes::new())
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Self::of(Kind::Unix(unix), Bytes::new())
    }
}

impl From<tokio::io::DuplexStream> for Stream {
    fn from(memory: tokio::io::DuplexStream) -> Self {
        Self::of(Kind::Memory(memory), Bytes::new())
    }
}

/// Since when the head of a request has been coming, on HTTP/1, where the codec says nothing before it has all of it.
#[derive(Debug, Default)]
pub(crate) struct HeadClock {
    /// Milliseconds of the process's life, plus one; 0 while nothing comes.
    first_byte: AtomicU64,
    /// The answer to a client that was too slow. Once it is set, the stream writes it and ends.
    farewell: OnceLock<Bytes>,
}

impl HeadClock {
    /// A request has come, or has been answered: the next byte begins the next head.
    pub(crate) fn reset(&self) {
        self.first_byte.store(0, Ordering::Relaxed);
    }

    /// When the head began.
    pub(crate) fn since(&self) -> Option<Instant> {
        let millis = self.first_byte.load(Ordering::Relaxed).checked_sub(1)?;
        Some(*BIRTH + Duration::from_millis(millis))
    }

    /// Ends the stream with an answer.
    pub(crate) fn end(&self, farewell: Bytes) {
        // Set once: the stream ends by it.
        let _ = self.farewell.set(farewell);
    }

    fn start(&self) {
        let millis = u64::try_from(BIRTH.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        // Only the first byte counts.
        let _ = self.first_byte.compare_exchange(0, millis + 1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The clock of [`HeadClock`].
static BIRTH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A socket and bytes that were read from it already: to find out what it speaks, or because TLS asks for little at a time,
/// while a call to the system costs as much for a lot.
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
            return scratch::with(|room| {
                let mut read = ReadBuf::new(room);
                ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut read))?;
                let (now, later) = read.filled().split_at(read.filled().len().min(buf.remaining()));
                buf.put_slice(now);
                self.bytes.extend_from_slice(later);
                Poll::Ready(Ok(()))
            });
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

impl Stream {
    fn poll_read_through(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let len = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..len]);
            self.prefix.advance(len);
            if let Some(refusals) = &self.refusals {
                refusals.read(len);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = each!(self, inner => Pin::new(inner).poll_read(cx, buf));
        if let Some(refusals) = &self.refusals {
            refusals.read(buf.filled().len() - before);
        }
        polled
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(clock) = self.clock.clone() {
            if let Some(farewell) = clock.farewell.get() {
                // What the socket does not take at once is lost on a client that is late anyway.
                let _ = self.as_mut().poll_write(cx, farewell);
                let _ = self.poll_flush(cx);
                return Poll::Ready(Ok(()));
            }
            let before = buf.filled().len();
            let polled = self.poll_read_through(cx, buf);
            if buf.filled().len() > before {
                clock.start();
            }
            return polled;
        }
        self.poll_read_through(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(length) = self.take_refusal(buf) {
            return Poll::Ready(Ok(length));
        }
        each!(self, inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        let flushed = each!(self, inner => Pin::new(inner).poll_flush(cx));
        if let (Poll::Ready(Ok(())), Some(refusals)) = (&flushed, &self.refusals) {
            refusals.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        each!(self, inner => Pin::new(inner).poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = bufs
            && let Some(length) = self.take_refusal(only)
        {
            return Poll::Ready(Ok(length));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_back_twice_is_read_whole() {
        let (near, far) = tokio::io::duplex(64);
        drop(far);
        let mut stream = Stream::from(near).with_prefix(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"));
        let mut first = [0; 4];
        stream.read_exact(&mut first).await.unwrap();
        let mut stream = stream.with_prefix(Bytes::copy_from_slice(&first));
        let mut all = String::new();
        stream.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "GET / HTTP/1.1\r\n\r\n");
    }
}
