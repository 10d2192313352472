//! Bytes both ways between a client and an upstream.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::scratch;

/// What has been copied: bytes from the client, bytes to it, who ended first, and whether the upstream broke off.
#[derive(Debug, Default)]
pub(crate) struct Counts(pub(crate) Cell<u64>, pub(crate) Cell<u64>, Cell<Option<Side>>, Cell<bool>);

impl Counts {
    /// Whether the upstream broke the connection off rather than end it.
    pub(super) fn upstream_reset(&self) -> bool {
        self.3.get()
    }

    /// Whether the client's side was the first to end.
    pub(crate) fn client_ended_first(&self) -> bool {
        self.2.get() == Some(Side::Client)
    }
}

/// A side of a connection of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// Copies both ways until both have ended, one broke, or nothing moved for too long, which is `false`.
pub(crate) async fn bridge<C, U>(
    mut client: C,
    mut upstream: U,
    idle: Option<Duration>,
    counts: &Counts,
) -> bool
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let last = Cell::new(Instant::now());
    let (mut up, mut back) = (Direction::default(), Direction::default());
    let both = std::future::poll_fn(|cx| {
        let mut over = true;
        for (side, polled) in [
            (Side::Client, up.poll(cx, &mut client, &mut upstream, &counts.0, &last)),
            (Side::Upstream, back.poll(cx, &mut upstream, &mut client, &counts.1, &last)),
        ] {
            if polled.is_ready() {
                counts.2.set(counts.2.get().or(Some(side)));
            }
            match polled {
                // A broken direction ends the other one, too.
                Poll::Ready(Err(_)) => {
                    counts.3.set(back.unread);
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(())) => {}
                Poll::Pending => over = false,
            }
        }
        if over { Poll::Ready(()) } else { Poll::Pending }
    });
    let silence = async {
        let Some(limit) = idle else { return std::future::pending().await };
        loop {
            let due = last.get() + limit;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    };
    tokio::select! {
        () = both => true,
        () = silence => false,
    }
}

/// One direction. What is read is written at once; only what the writer does not take is kept.
#[derive(Debug, Default)]
struct Direction {
    kept: Vec<u8>,
    written: usize,
    phase: Phase,
    unflushed: bool,
    /// Whether it ended because reading failed.
    unread: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Copying,
    Closing,
    Over,
}

impl Direction {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &Cell<u64>,
        last: &Cell<Instant>,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if !self.kept.is_empty() {
                let taken = write(cx, to, &self.kept[self.written..])?;
                self.written += taken;
                count.set(count.get() + taken as u64);
                if self.written < self.kept.len() {
                    return Poll::Pending;
                }
                (self.kept, self.written) = (Vec::new(), 0);
            }
            match self.phase {
                Phase::Copying => {
                    let polled = scratch::with(|room| self.pass(cx, from, to, room, count));
                    if polled.is_pending() && self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    if !ready!(polled)? {
                        self.phase = Phase::Closing;
                    }
                    last.set(Instant::now());
                }
                Phase::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.phase = Phase::Over;
                }
                Phase::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once and writes what was read; false at the end.
    fn pass<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        room: &mut [u8],
        count: &Cell<u64>,
    ) -> Poll<io::Result<bool>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(from).poll_read(cx, &mut buffer)).inspect_err(|_| self.unread = true)?;
        let bytes = buffer.filled();
        let taken = write(cx, to, bytes)?;
        count.set(count.get() + taken as u64);
        self.unflushed = true;
        self.kept = bytes[taken..].to_vec();
        Poll::Ready(Ok(!bytes.is_empty()))
    }
}

/// Writes as much as is taken now; the task is woken when that was not all, and more would be.
fn write<W: AsyncWrite + Unpin>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while taken < bytes.len() {
        match Pin::new(&mut *to).poll_write(cx, &bytes[taken..]) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(count)) => taken += count,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn all_bytes_arrive_whatever_fits_at_a_time() {
        // Rooms of a few bytes make every write a partial one.
        let ((near, client), (upstream, far)) = (tokio::io::duplex(7), tokio::io::duplex(11));
        let counts = Counts::default();
        let (there, back): (Vec<u8>, Vec<u8>) =
            ((0..200_000u32).map(|n| n as u8).collect(), (0..100_000u32).map(|n| (n * 7) as u8).collect());
        let exchange = |stream: tokio::io::DuplexStream, send: Vec<u8>| async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let mut got = Vec::new();
            let send = async {
                write.write_all(&send).await.expect("room");
                write.shutdown().await.expect("an end");
            };
            tokio::join!(send, async { read.read_to_end(&mut got).await.expect("bytes") });
            got
        };
        let (whole, from_far, from_near) = tokio::join!(
            bridge(client, upstream, None, &counts),
            exchange(near, there.clone()),
            exchange(far, back.clone()),
        );
        assert!(whole && from_far == back && from_near == there);
        assert_eq!((counts.0.get(), counts.1.get()), (200_000, 100_000));
    }

    #[tokio::test]
    async fn silence_ends_it() {
        let ((_near, client), (upstream, _far)) = (tokio::io::duplex(7), tokio::io::duplex(7));
        let limit = Some(Duration::from_millis(20));
        assert!(!bridge(client, upstream, limit, &Counts::default()).await);
    }
}
