//! Bodies on their way through: to the upstream with replay for retries and mirrors, to the client with the exchange
//! that ends when they do.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::arriving::Arriving;
use super::compression::Gzip;
use super::exchange::Exchange;
use super::grpc_web::{Decoder, GrpcWeb};
use super::pulse::{Broken, Pulse};
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
    /// The compressor failed.
    Compression,
}

impl BodyError {
    /// What HTTP/2 says of it, where that was spoken.
    pub(crate) fn http2(&self) -> Option<&h2::Error> {
        match self {
            Self::Codec(error) => std::error::Error::source(error)?.downcast_ref(),
            Self::Http2(error) => Some(error),
            Self::Timeout | Self::NotBase64 | Self::ReplayLimit | Self::Incomplete | Self::Compression => {
                None
            }
        }
    }
}

impl BodyError {
    /// What it says of the client whose body it is.
    fn as_broken(&self) -> Broken {
        let Self::Codec(error) = self else { return Broken::Nonsense };
        let source = std::error::Error::source(error);
        let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        match io.map(std::io::Error::kind) {
            Some(ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other) => Broken::Nonsense,
            _ => Broken::Gone,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Codec(error) => error.fmt(f),
            Self::Timeout => f.write_str("the body took longer than allowed"),
            Self::NotBase64 => f.write_str("the body is no base64, as gRPC-Web's text form is"),
            Self::Compression => f.write_str("the body cannot be compressed"),
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
    /// Whether its length is not told on.
    streams: bool,
    /// Whether trailers go on.
    trailers: bool,
}

impl ClientBody {
    /// A body, decoded as it comes if it is text.
    pub(crate) fn new(incoming: Arriving, web: Option<&GrpcWeb>, trailers: bool) -> Self {
        let text = web.and_then(GrpcWeb::decoder);
        Self { incoming, text, streams: web.is_some(), trailers }
    }

    /// Whether there is no more of it.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.streams { SizeHint::default() } else { self.incoming.size_hint() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = self.incoming.poll(cx);
        if let (Poll::Ready(Some(Ok(frame))), false) = (&polled, self.trailers)
            && frame.is_trailers()
        {
            polled = Poll::Ready(None);
        }
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

    /// A body that is kept, to be sent again. A copy (`decides` is false) is broken off when there is too much to keep.
    pub(crate) fn replay(source: &Rc<Replay>, decides: bool) -> Self {
        let reader = Reader { source: source.clone(), next: 0, trailers_sent: false, decides };
        Self(RequestKind::Replay(reader))
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
        Poll::Ready(Some(Err(error))) => pulse.broken.set(Some(error.as_broken())),
        Poll::Pending => {}
    }
    polled
}

/// A body that is kept as it comes, up to a limit, so that it can be read more than once.
pub(crate) struct Replay {
    source: RefCell<ClientBody>,
    pulse: Rc<Pulse>,
    kept: RefCell<VecDeque<Bytes>>,
    /// Pieces before those that are kept.
    forgotten: Cell<usize>,
    /// Whether there was too much to keep: the request's own reader goes on, nobody can start again.
    given: Cell<bool>,
    trailers: RefCell<Option<HeaderMap>>,
    kept_bytes: Cell<usize>,
    limit: usize,
    size: SizeHint,
    state: Cell<ReplayState>,
    others: RefCell<Vec<Waker>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReplayState {
    Reading,
    Complete,
    Broken,
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
            forgotten: Cell::new(0),
            given: Cell::new(false),
            trailers: RefCell::default(),
            kept_bytes: Cell::new(0),
            limit,
            state: Cell::new(ReplayState::Reading),
            others: RefCell::default(),
        })
    }

    /// Whether another reader would see all of it.
    pub(crate) fn can_restart(&self) -> bool {
        self.state.get() != ReplayState::Broken && !self.given.get()
    }

    /// Whether there is more than may be kept for several readings.
    fn is_too_much(&self) -> bool {
        self.given.get() || self.kept_bytes.get() > self.limit
    }

    /// Forgets all pieces before the one at `until`.
    fn forget(&self, until: usize) {
        let mut kept = self.kept.borrow_mut();
        while self.forgotten.get() < until
            && let Some(data) = kept.pop_front()
        {
            self.forgotten.set(self.forgotten.get() + 1);
            self.kept_bytes.set(self.kept_bytes.get().saturating_sub(data.len()));
        }
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
                    self.kept.borrow_mut().push_back(data);
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
    /// Whether it is the request's own reading, not that of a copy.
    decides: bool,
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let gone = self.next < self.source.forgotten.get();
            if gone || (!self.decides && self.source.is_too_much()) {
                return Poll::Ready(Some(Err(BodyError::ReplayLimit)));
            }
            if let Some(data) = self.take_kept() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            match self.source.state.get() {
                ReplayState::Reading => {}
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
        if source.kept_bytes.get() > source.limit && self.decides {
            // Too much to keep: nobody starts again, copies are broken off, and what was sent goes.
            source.given.set(true);
            source.forget(self.next);
        }
        let data = source.kept.borrow().get(self.next - source.forgotten.get()).cloned()?;
        self.next += 1;
        if source.given.get() {
            source.forget(self.next);
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
    Compressed(UpstreamBody, Box<Gzip>),
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

    /// An upstream's, compressed.
    pub(crate) fn compressed(incoming: UpstreamBody, stream: Gzip, exchange: Box<Exchange>) -> Self {
        Self { kind: ResponseKind::Compressed(incoming, Box::new(stream)), exchange: Some(exchange) }
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
        if !this.is_local() && this.exchange.as_ref().is_some_and(|e| e.pulse.expired().is_some()) {
            // Dropping the exchange says why.
            this.kind = ResponseKind::Full(Bytes::new());
            if let Some(mut exchange) = this.exchange.take() {
                exchange.abandon();
                exchange.finish();
            }
            return Poll::Ready(Some(Err(BodyError::Timeout)));
        }
        let polled = match &mut this.kind {
            ResponseKind::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            ResponseKind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            ResponseKind::Compressed(incoming, stream) => match stream.rest() {
                Some(rest) => Poll::Ready(rest),
                None => {
                    let polled = Pin::new(incoming).poll_frame(cx);
                    polled.map(|frame| Some(stream.frame(frame)))
                }
            },
            ResponseKind::Upstream(incoming) => {
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
                    exchange.body_goes();
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
            ResponseKind::Compressed(_, stream) => stream.has_ended(),
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
            ResponseKind::Compressed(..) => SizeHint::default(),
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
