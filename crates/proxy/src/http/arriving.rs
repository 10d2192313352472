//! A request's body as it comes, of which a filter may have read the first part ahead.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;
use super::pulse::Pulse;

/// The body.
#[derive(Debug)]
pub(crate) struct Arriving {
    incoming: Incoming,
    /// What was read ahead; rarely anything.
    ahead: Option<Box<Ahead>>,
    /// Whether what comes after the head is no body: the request asks for an upgrade.
    upgrades: bool,
}

#[derive(Debug, Default)]
struct Ahead {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
}

impl Arriving {
    /// A body of which nothing was read.
    pub(crate) fn new(incoming: Incoming, upgrades: bool) -> Self {
        Self { incoming, ahead: None, upgrades }
    }

    /// Whether there is no more of it.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.incoming.is_end_stream()
    }

    /// Whether there is a body that a filter can read.
    pub(crate) fn is_readable(&self) -> bool {
        !self.upgrades && !self.is_end_stream()
    }

    /// Reads ahead until more than `most` bytes are there, or all; `false` when the client broke off.
    pub(crate) async fn read_ahead(&mut self, most: usize, pulse: &Pulse) -> bool {
        let Self { incoming, ahead, .. } = self;
        let known = ahead.get_or_insert_default();
        while known.bytes <= most && known.trailers.is_none() && !incoming.is_end_stream() {
            match std::future::poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
                None => break,
                Some(Err(_)) => return false,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        pulse.receive(data.len());
                        known.bytes += data.len();
                        known.pieces.push_back(data);
                    }
                    Err(frame) => known.trailers = frame.into_trailers().ok(),
                },
            }
        }
        if known.trailers.is_some() || incoming.is_end_stream() {
            pulse.complete.set(true);
        }
        if known.pieces.is_empty() && known.trailers.is_none() {
            *ahead = None;
        }
        true
    }

    /// The first bytes of what was read ahead.
    pub(crate) fn first(&self, most: usize) -> Bytes {
        let Some(ahead) = &self.ahead else { return Bytes::new() };
        let mut out = BytesMut::with_capacity(most.min(ahead.bytes));
        for piece in &ahead.pieces {
            let room = most - out.len();
            out.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        out.freeze()
    }

    /// How much was read ahead.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.bytes)
    }

    /// What is known of its length.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        let Some(ahead) = &self.ahead else { return rest };
        let ahead = ahead.bytes as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(rest.lower() + ahead);
        hint
    }

    /// The next piece.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(ahead) = &mut self.ahead else {
            return Pin::new(&mut self.incoming).poll_frame(cx).map_err(BodyError::Codec);
        };
        let frame = match ahead.pieces.pop_front() {
            Some(data) => {
                ahead.bytes -= data.len();
                Some(Frame::data(data))
            }
            None => ahead.trailers.take().map(Frame::trailers),
        };
        if ahead.pieces.is_empty() && ahead.trailers.is_none() {
            self.ahead = None;
        }
        match frame {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.incoming).poll_frame(cx).map_err(BodyError::Codec),
        }
    }
}
