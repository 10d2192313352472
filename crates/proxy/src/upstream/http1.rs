//! An HTTP/1.1 connection to a host. It is driven by the request that it serves, in that request's own task: there is no
//! task beside it, and nothing is handed from one to the other. A codec in a task of its own costs a proxy a seventh of its
//! instructions (`docs/performance.md`).

mod body;
mod head;
mod output;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio_util::io::poll_read_buf;

use self::body::{Decoder, Piece};
pub(crate) use self::head::RequestHead;
use self::head::{Asked, Malformed};
use self::output::Output;
use crate::failure::Reset;
use crate::http::body::{BodyError, RequestBody};
use crate::http::send::SendError;
use crate::stream::Stream;

/// The longest head of a response.
const MAX_HEAD: usize = 400 * 1024;

/// Bytes that a read asks for, first and at most.
const READ: (usize, usize) = (8 * 1024, 64 * 1024);

/// A connection. Who sends requests and who reads the response's body share it.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Rc<RefCell<Io>>);

#[derive(Debug)]
struct Io {
    stream: Stream,
    input: BytesMut,
    read: usize,
    output: Output,
    /// Whether what was written may still be in the stream: TLS has a buffer of its own.
    unflushed: bool,
    /// The request's body, until all of it was taken.
    body: Option<RequestBody>,
    response: Progress,
    /// Whether nothing speaks against another request once this one is over.
    keep_alive: bool,
    /// Sends the rest of the request while nobody asks for the response's body.
    pump: Option<AbortHandle>,
}

/// Where the response is.
#[derive(Debug)]
enum Progress {
    /// None is expected.
    Idle,
    /// Its head is expected.
    Head(Asked),
    /// Its head came.
    Body(Decoder),
    /// It broke off, or is no HTTP/1.1; that is told with the next poll, so that what came before goes out first.
    Breaking,
    /// That was told.
    Broken,
}

/// Why the rest of a request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsendable {
    /// The stream takes nothing any more.
    Stream,
    /// The client broke off, or sent less than it announced.
    Body,
}

impl Connection {
    /// A connection that was just made.
    pub(crate) fn new(stream: Stream, title_case: bool) -> Self {
        Self(Rc::new(RefCell::new(Io {
            stream,
            input: BytesMut::new(),
            read: READ.0,
            output: Output::new(title_case),
            unflushed: false,
            body: None,
            response: Progress::Idle,
            keep_alive: true,
            pump: None,
        })))
    }

    /// Whether another request may be sent; `waker` is woken when that changes. Costs no system call unless the socket has
    /// something to say.
    pub(crate) fn is_idle(&self, waker: &Waker) -> bool {
        self.0.borrow_mut().is_idle(&mut Context::from_waker(waker))
    }

    /// Makes it ready for another request; false when the exchange is not over, or left something that speaks against one.
    pub(crate) fn recycle(&self) -> bool {
        let mut io = self.0.borrow_mut();
        let clean = io.is_clean();
        if clean {
            io.rest();
        }
        clean
    }

    /// Begins a request; what follows is [`response`](Self::response).
    pub(crate) fn begin(&self, head: &RequestHead<'_>, body: RequestBody) {
        self.0.borrow_mut().begin(head, body);
    }

    /// Sends the request that was begun, and waits for the response's head.
    ///
    /// # Errors
    /// Says whether the host may have seen the request.
    pub(crate) async fn response(&self) -> Result<Response<Body>, SendError> {
        let response = std::future::poll_fn(|cx| self.0.borrow_mut().poll_head(cx)).await?;
        if self.0.borrow().is_sending() {
            self.pump();
        }
        Ok(response.map(|()| Body(self.clone())))
    }

    /// The stream of bytes that an upgrade made of it.
    pub(crate) fn bytes(&self) -> Upgraded {
        Upgraded(self.clone())
    }

    /// Has the rest of the request sent while the client may be reading nothing.
    fn pump(&self) {
        let weak = Rc::downgrade(&self.0);
        let task = tokio::task::spawn_local(std::future::poll_fn(move |cx| match weak.upgrade() {
            // How it failed shows where the response is read.
            Some(io) => io.borrow_mut().poll_send(cx).map(drop),
            None => Poll::Ready(()),
        }));
        self.0.borrow_mut().pump = Some(task.abort_handle());
    }
}

impl Io {
    fn begin(&mut self, head: &RequestHead<'_>, body: RequestBody) {
        debug_assert!(matches!(self.response, Progress::Idle), "one request at a time");
        let size = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
        self.output.begin(head, size);
        self.body = (size != Some(0)).then_some(body);
        let asked = Asked { head: head.method == Method::HEAD, connect: head.method == Method::CONNECT };
        self.response = Progress::Head(asked);
    }

    fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        if !matches!(self.response, Progress::Idle) || !self.input.is_empty() {
            return false;
        }
        let mut byte = [0];
        // Whatever comes while nothing was asked for, the end above all, makes it useless.
        Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    fn is_clean(&self) -> bool {
        let over = match &self.response {
            Progress::Idle => true,
            Progress::Body(decoder) => decoder.is_done(),
            Progress::Head(_) | Progress::Breaking | Progress::Broken => false,
        };
        over && self.keep_alive && !self.is_sending() && self.input.is_empty()
    }

    fn is_sending(&self) -> bool {
        self.body.is_some() || !self.output.is_empty() || self.unflushed
    }

    /// Sends what there is of the request; ready when all of it was sent, or cannot be.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsendable>> {
        let sent = ready!(self.try_send(cx));
        if let Err(why) = sent {
            (self.body, self.unflushed, self.keep_alive) = (None, false, false);
            self.output.clear();
            match why {
                // The response may have come nevertheless.
                Unsendable::Stream => {}
                Unsendable::Body => {
                    // The host waits for the rest in vain: it is to see the end, and nobody is to wait for it.
                    let _ = Pin::new(&mut self.stream).poll_shutdown(cx);
                    if matches!(self.response, Progress::Head(_)) {
                        self.response = Progress::Broken;
                    }
                }
            }
        }
        Poll::Ready(sent)
    }

    fn try_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsendable>> {
        loop {
            while let Some(body) = self.body.as_mut().filter(|_| self.output.has_room()) {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Some(Ok(frame))) => self.output.push(frame),
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Unsendable::Body)),
                    Poll::Ready(None) => {
                        self.body = None;
                        self.output.end().map_err(|()| Unsendable::Body)?;
                    }
                }
            }
            if self.output.is_empty() {
                if self.unflushed {
                    let flushed = ready!(Pin::new(&mut self.stream).poll_flush(cx));
                    flushed.map_err(|_| Unsendable::Stream)?;
                    self.unflushed = false;
                }
                return if self.body.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            ready!(self.output.poll_write(&mut self.stream, cx)).map_err(|_| Unsendable::Stream)?;
            self.unflushed = true;
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, SendError>> {
        if self.is_sending() {
            let sent = self.poll_send(cx);
            if matches!(sent, Poll::Ready(Err(_))) && self.output.is_untouched() {
                return Poll::Ready(Err(SendError::Unsent(Reset::Termination)));
            }
        }
        let Progress::Head(asked) = self.response else {
            return Poll::Ready(Err(SendError::Sent(Reset::Termination)));
        };
        loop {
            match head::read(&mut self.input, asked) {
                Ok(Some(head)) => {
                    self.keep_alive &= head.keep_alive;
                    self.response = Progress::Body(head.decoder);
                    return Poll::Ready(Ok(head.response));
                }
                Ok(None) if self.input.len() < MAX_HEAD => {}
                Ok(None) | Err(Malformed) => {
                    self.response = Progress::Broken;
                    return Poll::Ready(Err(SendError::Sent(Reset::Protocol)));
                }
            }
            if !ready!(self.poll_fill(cx)) {
                self.response = Progress::Broken;
                return Poll::Ready(Err(SendError::Sent(Reset::Termination)));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let decoder = match &mut self.response {
                Progress::Body(decoder) => decoder,
                Progress::Breaking => {
                    self.response = Progress::Broken;
                    return Poll::Ready(Some(Err(BodyError::Incomplete)));
                }
                Progress::Idle | Progress::Head(_) | Progress::Broken => return Poll::Ready(None),
            };
            match decoder.decode(&mut self.input) {
                Ok(Some(Piece::Data(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(Some(Piece::Trailers(trailers))) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(None) if decoder.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(Malformed) => return self.break_off(cx),
            }
            let until_close = *decoder == Decoder::UntilClose;
            if !ready!(self.poll_fill(cx)) {
                if until_close {
                    self.response = Progress::Body(Decoder::Length(0));
                    return Poll::Ready(None);
                }
                return self.break_off(cx);
            }
        }
    }

    fn break_off<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.response = Progress::Breaking;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads some more; false at the end, and when the connection broke.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.input.capacity() - self.input.len() < self.read / 2 {
            self.input.reserve(self.read);
        }
        let room = self.input.capacity() - self.input.len();
        match ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input)) {
            Ok(0) | Err(_) => {
                self.keep_alive = false;
                Poll::Ready(false)
            }
            Ok(count) => {
                // Long bodies come with fewer calls.
                if count == room {
                    self.read = (self.read * 2).min(READ.1);
                }
                Poll::Ready(true)
            }
        }
    }

    /// Makes it ready for another request.
    fn rest(&mut self) {
        self.response = Progress::Idle;
        self.input = BytesMut::new();
        self.read = READ.0;
        self.output.rest();
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        if self.stream.tls().is_some() {
            // TLS says goodbye, as far as that goes without waiting.
            let _ = Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body(Connection);

impl Body {
    /// Whether all of it was read.
    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.0.0.borrow().response {
            Progress::Body(decoder) => decoder.is_done(),
            Progress::Idle | Progress::Broken => true,
            Progress::Head(_) | Progress::Breaking => false,
        }
    }

    /// What is known of its length.
    pub(crate) fn size_hint(&self) -> SizeHint {
        match &self.0.0.borrow().response {
            Progress::Body(decoder) => {
                decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            _ => SizeHint::default(),
        }
    }

    /// The next frame.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.0.borrow_mut().poll_body(cx)
    }
}

/// The bytes of a connection whose response was an upgrade's.
#[derive(Debug)]
pub(crate) struct Upgraded(Connection);

impl AsyncRead for Upgraded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut io = self.0.0.borrow_mut();
        if io.input.is_empty() {
            return Pin::new(&mut io.stream).poll_read(cx, buf);
        }
        let length = io.input.len().min(buf.remaining());
        buf.put_slice(&io.input.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0.0.borrow_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0.0.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0.0.borrow_mut().stream).poll_shutdown(cx)
    }
}
