//! A body's frames as a stream of bytes.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tokio::io::ReadBuf;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What frames brought and nobody has read yet.
#[derive(Debug, Default)]
pub(crate) struct Unread(Bytes);

impl Unread {
    /// Reads on, by `next` where nothing is left. Trailers bring no bytes; the last frame is the end.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] when the body breaks off.
    pub(crate) fn poll_read<E: Into<BoxError>>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>>,
    ) -> Poll<io::Result<()>> {
        while self.0.is_empty() {
            match ready!(next(cx)) {
                Some(Ok(frame)) => self.0 = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.0.len().min(buf.remaining());
        buf.put_slice(&self.0[..length]);
        self.0.advance(length);
        Poll::Ready(Ok(()))
    }
}

/// A body that broke off is a connection that was reset.
pub(crate) fn broken(error: impl Into<BoxError>) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
