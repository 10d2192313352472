//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;

use crate::http::body::RequestBody;

/// A body that is being sent: a future that ends when all of it was, or cannot be.
#[derive(Debug)]
pub(super) struct Outgoing {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// What waits for the stream's window, and whether it is the last of it.
    piece: Option<(Bytes, bool)>,
}

impl Outgoing {
    /// A body from its beginning.
    pub(super) fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, piece: None }
    }

    /// Sends the piece that waits; ready with an error when the stream takes nothing any more.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while let Some((mut piece, last)) = self.piece.take() {
            if piece.is_empty() {
                if last {
                    self.stream.send_data(piece, true)?;
                }
                break;
            }
            self.stream.reserve_capacity(piece.len());
            let capacity = self.stream.capacity();
            if capacity == 0 {
                self.piece = Some((piece, last));
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Err(Reason::CANCEL.into())),
                }
            }
            let part = piece.split_to(capacity.min(piece.len()));
            let rest = !piece.is_empty();
            self.stream.send_data(part, last && !rest)?;
            self.piece = rest.then_some((piece, last));
        }
        Poll::Ready(Ok(()))
    }
}

impl Future for Outgoing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Poll::Ready(reset) = this.stream.poll_reset(cx) {
            // Why shows where the response is read.
            tracing::trace!(target: "upstream", ?reset, "the host wants no more of a request");
            return Poll::Ready(());
        }
        loop {
            if ready!(this.poll_piece(cx)).is_err() {
                return Poll::Ready(());
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = this.body.is_end_stream();
                        this.piece = Some((data, last));
                        if last {
                            return this.poll_piece(cx).map(drop);
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        // Whether it takes them shows where the response is read.
                        let _ = this.stream.send_trailers(trailers);
                        return Poll::Ready(());
                    }
                },
                Some(Err(_)) => {
                    this.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(());
                }
                None => {
                    this.piece = Some((Bytes::new(), true));
                    return this.poll_piece(cx).map(drop);
                }
            }
        }
    }
}
