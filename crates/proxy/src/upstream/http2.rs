//! An HTTP/2 connection to a host. Only the connection has a task; a request sends its head and body, and waits for its
//! response, in its own.

mod outgoing;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};

use self::outgoing::Outgoing;
pub(crate) use self::tunnel::Tunnel;
use super::pool::Http2Settings;
use crate::failure::Reset;
use crate::http::body::{BodyError, RequestBody};
use crate::http::ingress::names;
use crate::http::send::SendError;
use crate::stream::Stream;

/// Streams before the peer has said how many it takes.
const FIRST_STREAMS: usize = 100;

/// The longest list of headers that is taken.
const MAX_HEADERS: u32 = 80 * 1024;

/// A connection. Its task ends with it, once the streams have.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: h2::client::SendRequest<Bytes>,
    state: Rc<State>,
}

/// What a connection and its task tell each other.
#[derive(Debug)]
struct State {
    closed: Cell<bool>,
    streams: Cell<usize>,
    task: RefCell<Option<Waker>>,
}

impl Connection {
    /// Begins HTTP/2. `held` is dropped when the connection has ended.
    ///
    /// # Errors
    /// When the stream breaks.
    pub(crate) async fn begin(
        stream: Stream,
        settings: Http2Settings,
        held: impl Sized + 'static,
    ) -> Result<Self, Reset> {
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .initial_max_send_streams(FIRST_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(|_| Reset::Termination)?;
        let state = Rc::new(State {
            closed: Cell::new(false),
            streams: Cell::new(FIRST_STREAMS),
            task: RefCell::default(),
        });
        let pings = settings.ping_interval.and_then(|interval| {
            let pings = connection.ping_pong()?;
            Some(KeepAlive::new(pings, interval, settings.ping_timeout))
        });
        tokio::task::spawn_local(drive(connection, pings, state.clone(), held));
        Ok(Self { sender, state })
    }

    /// Whether it takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.closed.get()
    }

    /// The most streams that the host takes.
    pub(crate) fn max_streams(&self) -> usize {
        self.state.streams.get()
    }

    /// Sends a request and waits for the response's head. A CONNECT leaves the sending side of its stream in `tunnel`.
    ///
    /// # Errors
    /// Says whether the host may have seen the request.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        tunnel: &mut Option<SendStream<Bytes>>,
    ) -> Result<Response<Body>, SendError> {
        let (parts, body) = request.into_parts();
        let mut head = Request::from_parts(parts, ());
        let connect = head.method() == Method::CONNECT;
        let empty = body.is_end_stream();
        complete(&mut head, body.size_hint().exact());
        let sent = self.sender.clone().send_request(head, empty && !connect);
        let (mut response, stream) = sent.map_err(|error| SendError::Unsent(reset(&error)))?;
        let mut outgoing = match (connect, empty) {
            (true, _) => {
                *tunnel = Some(stream);
                None
            }
            (false, true) => None,
            (false, false) => Some(Box::new(Outgoing::new(body, stream))),
        };
        let head = std::future::poll_fn(|cx| {
            if outgoing.as_mut().is_some_and(|outgoing| Pin::new(outgoing).poll(cx).is_ready()) {
                outgoing = None;
            }
            Pin::new(&mut response).poll(cx)
        });
        let response = head.await.map_err(|error| SendError::Sent(reset(&error)))?;
        let pump = outgoing.map(|outgoing| Pump(tokio::task::spawn_local(outgoing).abort_handle()));
        let left = length(response.headers());
        Ok(response.map(|receive| Body { receive, left, trailers: false, _pump: pump }))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // h2 does not notice by itself that no more requests can come.
        if let Some(task) = self.state.task.take() {
            task.wake();
        }
    }
}

/// Runs a connection until it has ended.
async fn drive(
    mut connection: h2::client::Connection<Stream, Bytes>,
    mut pings: Option<KeepAlive>,
    state: Rc<State>,
    held: impl Sized,
) {
    let ended = std::future::poll_fn(|cx| {
        let mut task = state.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        drop(task);
        if pings.as_mut().is_some_and(|pings| pings.poll(cx).is_ready()) {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut connection).poll(cx);
        state.streams.set(connection.max_concurrent_send_streams());
        polled
    });
    let ended = ended.await;
    state.closed.set(true);
    if let Err(error) = ended {
        tracing::debug!(target: "upstream", %error, "HTTP/2 connection ended");
    }
    drop(held);
}

/// Pings, and how long their answers take.
struct KeepAlive {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl KeepAlive {
    fn new(pings: PingPong, interval: Duration, timeout: Duration) -> Self {
        Self { pings, interval, timeout, timer: Box::pin(tokio::time::sleep(interval)), waiting: false }
    }

    /// Ready when an answer took too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting && self.pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.waiting || self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.waiting = true;
            self.timer.as_mut().reset(Instant::now() + self.timeout);
        }
    }
}

/// Makes a head one of HTTP/2: without what belongs to connections (RFC 9113, 8.2.2), with the length where it is known.
fn complete(head: &mut Request<()>, size: Option<u64>) {
    let payload = !matches!(*head.method(), Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT);
    let headers = head.headers_mut();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, names::KEEP_ALIVE, names::PROXY_CONNECTION] {
        headers.remove(name);
    }
    if let Some(size) = size.filter(|size| *size > 0 || payload) {
        headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(size));
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What an error of a stream means.
fn reset(error: &h2::Error) -> Reset {
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) => Reset::Refused,
        Some(h2::Reason::PROTOCOL_ERROR | h2::Reason::COMPRESSION_ERROR | h2::Reason::FRAME_SIZE_ERROR) => {
            Reset::Protocol
        }
        Some(_) if error.is_reset() => Reset::Remote,
        _ => Reset::Termination,
    }
}

/// A task that sends a body, as long as the response is wanted.
#[derive(Debug)]
struct Pump(AbortHandle);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body {
    receive: RecvStream,
    left: Option<u64>,
    /// Whether all data came.
    trailers: bool,
    _pump: Option<Pump>,
}

impl Body {
    /// Whether all of it was read.
    pub(crate) fn is_end_stream(&self) -> bool {
        self.receive.is_end_stream()
    }

    /// What is known of its length.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match (self.is_end_stream(), self.left) {
            (true, _) => SizeHint::with_exact(0),
            (false, Some(left)) => SizeHint::with_exact(left),
            (false, None) => SizeHint::default(),
        }
    }

    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.trailers {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What was taken here is on its way; the window may grow again.
                    let _ = self.receive.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(ended(error)),
                None => self.trailers = true,
            }
        }
        match ready!(self.receive.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(ended(error)),
        }
    }
}

/// A reset without an error is an end (RFC 9113, 8.1).
fn ended(error: h2::Error) -> Option<Result<Frame<Bytes>, BodyError>> {
    (error.reason() != Some(h2::Reason::NO_ERROR)).then_some(Err(BodyError::Http2(error)))
}
