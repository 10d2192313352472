//! Bodies on their way through: to the upstream with replay for retries and mirrors, to the client with the exchange
//! that ends when they do.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::arriving::Arriving;
use super::exchange::Exchange;
use super::grpc_web::{Decoder, GrpcWeb};
use super::pulse::Pulse;
use crate::upstream::{http1, http2};

/// Why a body ends before its end.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The codec says so.
    Codec(hyper::Error),
    /// It took longer than allowed.
    Timeout,
    /// A text of gRPC-Web is no base64.
    NotBase64,
    /// More was to be replayed than may be kept.
    ReplayLimit,
    /// The upstream's HTTP/1.1 message ended before its end, or is none.
    Incomplete,
    /// The upstream's HTTP/2 stream broke.
    Http2(h2::Error),
}

impl BodyError {
    /// What HTTP/2 says of it, where that was spoken.
    pub(crate) fn http2(&self) -> Option<&h2::Error> {
        match self {
            Self::Codec(error) => std::error::Error::source(error)?.downcast_ref(),
            Self::Http2(error) => Some(error),
            Self::Timeout | Self::NotBase64 | Self::ReplayLimit | Self::Incomplete => None,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(error) => error.fmt(f),
            Self::Timeout => f.write_str("the body took longer than allowed"),
            Self::NotBase64 => f.write_str("the body is no base64, as gRPC-Web's text form is"),
            Self::ReplayLimit => f.write_str("the body is longer than may be kept for another try"),
            Self::Http2(error) => error.fmt(f),
            Self::Incomplete => f.write_str("the upstream's body ended before its end"),
        }
    }
}

impl std::error::Error for BodyError {}

/// A request's body as the client sends it, or as gRPC-Web's text form hides it.
#[derive(Debug)]
pub(crate) struct ClientBody {
    incoming: Arriving,
    text: Option<Decoder>,
}

impl ClientBody {
    /// A body, decoded as it comes if it is text.
    pub(crate) fn new(incoming: Arriving, text: Option<Decoder>) -> Self {
        Self { incoming, text }
    }

    /// Whether there is no more of it.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.text.is_some() { SizeHint::default() } else { self.incoming.size_hint() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.incoming.poll(cx);
        let Some(text) = &mut self.text else { return polled };
        match std::task::ready!(polled) {
            Some(Ok(frame)) => Poll::Ready(Some(match frame.into_data() {
                Ok(data) => text.decode(&data).map(Frame::data).map_err(|_| BodyError::NotBase64),
                Err(other) => Ok(other),
            })),
            None if !text.is_whole() => Poll::Ready(Some(Err(BodyError::NotBase64))),
            end => Poll::Ready(end),
        }
    }
}

/// A request's body on its way to an upstream.
#[derive(Debug)]
pub(crate) struct RequestBody(RequestKind);

#[derive(Debug)]
enum RequestKind {
    Empty,
    Whole(Bytes),
    Once(ClientBody, Rc<Pulse>),
    Replay(Reader),
    Channel(mpsc::Receiver<Bytes>),
}

impl RequestBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(RequestKind::Empty)
    }

    /// A body that is there.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { RequestKind::Empty } else { RequestKind::Whole(bytes) })
    }

    /// A body that is sent once.
    pub(crate) fn once(incoming: ClientBody, pulse: Rc<Pulse>) -> Self {
        Self(RequestKind::Once(incoming, pulse))
    }

    /// A body that is made as it goes.
    pub(crate) fn channel(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self(RequestKind::Channel(pieces))
    }

    /// A body that is kept, to be sent again.
    pub(crate) fn replay(source: &Rc<Replay>) -> Self {
        source.readers.set(source.readers.get() + 1);
        Self(RequestKind::Replay(Reader { source: source.clone(), next: 0, trailers_sent: false }))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            RequestKind::Empty => Poll::Ready(None),
            RequestKind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestKind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            RequestKind::Once(incoming, pulse) => poll_counted(incoming, pulse, cx),
            RequestKind::Replay(reader) => reader.poll(cx),
            RequestKind::Channel(pieces) => pieces.poll_recv(cx).map(|piece| Some(Ok(Frame::data(piece?)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            RequestKind::Empty => true,
            RequestKind::Whole(bytes) => bytes.is_empty(),
            RequestKind::Once(incoming, _) => incoming.is_end_stream(),
            RequestKind::Replay(_) | RequestKind::Channel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            RequestKind::Empty => SizeHint::with_exact(0),
            RequestKind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            RequestKind::Once(incoming, _) => incoming.size_hint(),
            RequestKind::Replay(reader) => reader.source.size,
            RequestKind::Channel(_) => SizeHint::default(),
        }
    }
}

fn poll_counted(
    incoming: &mut ClientBody,
    pulse: &Pulse,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    // What was read ahead was counted then.
    let counted = incoming.incoming.ahead() > 0;
    let polled = incoming.poll(cx);
    match &polled {
        Poll::Ready(Some(Ok(frame))) => {
            if let (Some(data), false) = (frame.data_ref(), counted) {
                pulse.receive(data.len());
            }
            if incoming.is_end_stream() {
                pulse.complete.set(true);
            }
        }
        Poll::Ready(None) => pulse.complete.set(true),
        Poll::Ready(Some(Err(_))) | Poll::Pending => {}
    }
    polled
}

/// A body that is kept as it comes, up to a limit, so that it can be read more than once.
pub(crate) struct Replay {
    source: RefCell<ClientBody>,
    pulse: Rc<Pulse>,
    kept: RefCell<Vec<Bytes>>,
    trailers: RefCell<Option<HeaderMap>>,
    kept_bytes: Cell<usize>,
    limit: usize,
    readers: Cell<u32>,
    size: SizeHint,
    state: Cell<ReplayState>,
    others: RefCell<Vec<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReplayState {
    Reading,
    Complete,
    Broken,
    /// Beyond the limit: the only reader goes on, nobody can start again.
    Given,
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("kept_bytes", &self.kept_bytes).finish_non_exhaustive()
    }
}

impl Replay {
    /// Keeps at most `limit` bytes.
    pub(crate) fn new(source: ClientBody, pulse: Rc<Pulse>, limit: usize) -> Rc<Self> {
        Rc::new(Self {
            size: source.size_hint(),
            source: RefCell::new(source),
            pulse,
            kept: RefCell::default(),
            trailers: RefCell::default(),
            kept_bytes: Cell::new(0),
            limit,
            readers: Cell::new(0),
            state: Cell::new(ReplayState::Reading),
            others: RefCell::default(),
        })
    }

    /// Whether another reader would see all of it.
    pub(crate) fn can_restart(&self) -> bool {
        matches!(self.state.get(), ReplayState::Reading | ReplayState::Complete)
    }

    /// Reads the next piece from the client.
    fn advance(&self, cx: &mut Context<'_>) -> Poll<()> {
        let polled = poll_counted(&mut self.source.borrow_mut(), &self.pulse, cx);
        match polled {
            Poll::Pending => {
                self.others.borrow_mut().push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(None) => self.state.set(ReplayState::Complete),
            Poll::Ready(Some(Err(_))) => self.state.set(ReplayState::Broken),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    self.kept_bytes.set(self.kept_bytes.get() + data.len());
                    self.kept.borrow_mut().push(data);
                }
                Err(frame) => *self.trailers.borrow_mut() = frame.into_trailers().ok(),
            },
        }
        self.others.borrow_mut().drain(..).for_each(Waker::wake);
        Poll::Ready(())
    }
}

/// One reading of a [`Replay`].
#[derive(Debug)]
struct Reader {
    source: Rc<Replay>,
    next: usize,
    trailers_sent: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.source.readers.set(self.source.readers.get() - 1);
    }
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(data) = self.take_kept() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match self.source.state.get() {
                ReplayState::Reading | ReplayState::Given => {}
                ReplayState::Broken => return Poll::Ready(Some(Err(BodyError::ReplayLimit))),
                ReplayState::Complete => {
                    if !std::mem::replace(&mut self.trailers_sent, true)
                        && let Some(trailers) = self.source.trailers.borrow().clone()
                    {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    return Poll::Ready(None);
                }
            }
            if self.source.advance(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn take_kept(&mut self) -> Option<Bytes> {
        let source = &self.source;
        let over = source.kept_bytes.get() > source.limit;
        let mut kept = source.kept.borrow_mut();
        if over && source.readers.get() == 1 && self.next < kept.len() {
            // Too much to keep: what this reader has not sent yet is the last of it.
            source.state.set(match source.state.get() {
                ReplayState::Reading => ReplayState::Given,
                state => state,
            });
            let data = std::mem::take(&mut kept[self.next]);
            source.kept_bytes.set(source.kept_bytes.get().saturating_sub(data.len()));
            self.next += 1;
            return Some(data);
        }
        let data = kept.get(self.next).cloned()?;
        self.next += 1;
        if source.state.get() == ReplayState::Given {
            kept[self.next - 1] = Bytes::new();
            source.kept_bytes.set(source.kept_bytes.get().saturating_sub(data.len()));
        }
        Some(data)
    }
}

/// A response's body as an upstream sends it.
#[derive(Debug)]
pub(crate) enum UpstreamBody {
    /// By HTTP/1.1.
    Http1(http1::Body),
    /// By HTTP/2.
    Http2(http2::Body),
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// A response's body on its way to the client. When it ends, or is dropped, so does its exchange.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    kind: ResponseKind,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum ResponseKind {
    Full(Bytes),
    Upstream(UpstreamBody),
}

impl ResponseBody {
    /// A body of our own.
    pub(crate) fn local(bytes: Bytes, exchange: Box<Exchange>) -> Self {
        Self { kind: ResponseKind::Full(bytes), exchange: Some(exchange) }
    }

    /// An upstream's.
    pub(crate) fn upstream(incoming: UpstreamBody, exchange: Box<Exchange>) -> Self {
        Self { kind: ResponseKind::Upstream(incoming), exchange: Some(exchange) }
    }

    /// No body, of an exchange that goes on without it.
    pub(crate) fn detached() -> Self {
        Self { kind: ResponseKind::Full(Bytes::new()), exchange: None }
    }

    /// Whether it is of our own making.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self.kind, ResponseKind::Full(_))
    }

    /// The exchange that it ends.
    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_deref()
    }

    fn translation(&self) -> Option<&GrpcWeb> {
        self.exchange.as_ref()?.grpc_web.as_ref()
    }

    fn finish(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.finish();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            ResponseKind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            ResponseKind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ResponseKind::Upstream(incoming) => {
                if this.exchange.as_ref().is_some_and(|exchange| exchange.pulse.expired().is_some()) {
                    // Dropping the exchange says why.
                    this.kind = ResponseKind::Full(Bytes::new());
                    if let Some(mut exchange) = this.exchange.take() {
                        exchange.abandon();
                        exchange.finish();
                    }
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
                let polled = Pin::new(incoming).poll_frame(cx);
                match &mut this.exchange {
                    Some(exchange) if exchange.grpc_web.is_some() => exchange.translate(polled),
                    _ => polled,
                }
            }
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(exchange) = &mut this.exchange {
                    exchange.pulse.beat();
                    match frame.data_ref() {
                        Some(data) => exchange.sent += data.len() as u64,
                        None => exchange.take_trailers(frame.trailers_ref()),
                    }
                }
                if this.is_end_stream() {
                    this.finish();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(exchange) = &mut this.exchange {
                    exchange.broken_by_upstream(error);
                }
                this.finish();
            }
            Poll::Ready(None) => this.finish(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ResponseKind::Full(bytes) => bytes.is_empty(),
            ResponseKind::Upstream(incoming) => match self.translation() {
                Some(web) => {
                    web.has_ended() || (incoming.is_end_stream() && incoming.size_hint().exact() == Some(0))
                }
                None => incoming.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ResponseKind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            ResponseKind::Upstream(_) if self.translation().is_some() => SizeHint::default(),
            ResponseKind::Upstream(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            // A codec that knows the end of a body from its length does not ask for more.
            if !self.is_end_stream() && !exchange.expects_no_body() {
                exchange.abandon();
            }
            exchange.finish();
        }
    }
}
