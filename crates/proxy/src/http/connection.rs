//! HTTP on a client's connection: which codec, its settings, its end.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{FutureExt as _, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt as _};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_route::http_manager::{Codec, HeaderCase};
use tokio::io::AsyncReadExt;

use super::manager::Manager;
use super::pulse::Pulse;
use super::serve;
use crate::downstream::Downstream;
use crate::flags::Flags;
use crate::inspect::{self, Guess};
use crate::listener::Chain;
use crate::log::{self, Record};
use crate::stream::{Stream, body_length};
use crate::worker::Worker;

/// After a drain began, how long connections may go on.
const DRAIN: Duration = Duration::from_secs(45);

/// Serves HTTP until the connection ends.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    manager: &Arc<Manager>,
    chain: &Arc<Chain>,
    stream: Stream,
    down: Rc<Downstream>,
) {
    let _counted = Counted::new(manager.clone(), &down);
    let Some((stream, http2)) = Box::pin(choose(manager, stream, &down)).await else { return };
    let clock = manager.compiled.timeouts.request_headers.filter(|_| !http2).map(|_| Arc::default());
    let context = serve::Context::new(worker.clone(), manager.clone(), chain.clone(), down, clock);
    let result = if http2 {
        manager.stats.downstream_cx_http2_total.inc();
        Box::pin(serve_http2(stream, &context)).await
    } else {
        manager.stats.downstream_cx_http1_total.inc();
        Box::pin(serve_http1(stream, &context)).await
    };
    if let Err(error) = result {
        if error.is_parse() {
            manager.stats.downstream_cx_protocol_error.inc();
            if !http2 {
                refused_head(&context, &error);
            }
        }
        tracing::debug!(target: "connection", %error, remote = %context.down.remote, "HTTP connection ended");
    }
}

/// A connection, as the manager's figures know it.
struct Counted(Arc<Manager>);

impl Counted {
    fn new(manager: Arc<Manager>, down: &Downstream) -> Self {
        manager.stats.downstream_cx_total.inc();
        manager.stats.downstream_cx_active.inc();
        if down.is_tls() {
            manager.stats.downstream_cx_ssl_total.inc();
        }
        Self(manager)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.stats.downstream_cx_active.dec();
        self.0.stats.downstream_cx_destroy.inc();
    }
}

/// Whether HTTP/2 is spoken: by settings, ALPN, the inspector's finding, or else the first bytes.
async fn choose(manager: &Manager, mut stream: Stream, down: &Downstream) -> Option<(Stream, bool)> {
    match manager.compiled.codec {
        Codec::Http1 => return Some((stream, false)),
        Codec::Http2 => return Some((stream, true)),
        Codec::Auto => {}
    }
    match stream.alpn() {
        Some(b"h2") => return Some((stream, true)),
        Some(b"http/1.1" | b"http/1.0") => return Some((stream, false)),
        _ => {}
    }
    if !down.is_tls() {
        match down.inspected.protocols.first().map(Vec::as_slice) {
            Some(b"h2c") => return Some((stream, true)),
            Some(b"http/1.1" | b"http/1.0") => return Some((stream, false)),
            _ => {}
        }
    }
    let mut bytes = bytes::BytesMut::new();
    loop {
        match inspect::guess(&bytes) {
            Guess::Http2 => return Some((stream.with_prefix(bytes.freeze()), true)),
            // The preface begins like a method; everything else is HTTP/1's to judge.
            Guess::Unknown if bytes.len() < 24 => {
                bytes.reserve(256);
                if stream.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
            _ => return Some((stream.with_prefix(bytes.freeze()), false)),
        }
    }
}

async fn serve_http1(stream: Stream, context: &Rc<serve::Context>) -> Result<(), hyper::Error> {
    let settings = &context.manager.compiled;
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_headers(settings.max_headers as usize)
        .max_header_size((settings.max_request_headers_kb as usize) << 10)
        .title_case_headers(settings.http1.header_case == HeaderCase::Proper);
    let service = {
        let context = context.clone();
        service_fn(move |request: hyper::Request<Incoming>| serve::request(context.clone(), request))
    };
    let stream = stream.timed_by(context.head.clone()).refusing(context.refusals.clone());
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let connection = std::pin::pin!(connection);
    drive(connection, |connection| connection.graceful_shutdown(), context, true).await
}

async fn serve_http2(stream: Stream, context: &Rc<serve::Context>) -> Result<(), hyper::Error> {
    let settings = &context.manager.compiled.http2;
    let mut builder = hyper::server::conn::http2::Builder::new(Streams(context.clone()));
    builder
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.max_streams)
        .max_header_list_size(context.manager.compiled.max_request_headers_kb << 10)
        .keep_alive_interval(settings.ping_interval)
        .keep_alive_timeout(settings.ping_timeout);
    if settings.allow_connect {
        builder.enable_connect_protocol();
    }
    let service = {
        let context = context.clone();
        // Boxed, since the codec moves it about a few times on its way into a task.
        service_fn(move |request: hyper::Request<Incoming>| {
            Box::pin(serve::request(context.clone(), request))
        })
    };
    let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    drive(connection, |connection| connection.graceful_shutdown(), context, false).await
}

/// Logs a request whose head cannot be read, which the codec has answered itself: it never became a request.
fn refused_head(context: &serve::Context, error: &hyper::Error) {
    let mut record = Record::of_connection(&context.worker, &context.down);
    (record.status, record.details) = match error.is_parse_too_large() {
        true if context.refusals.head_bytes()
            > u64::from(context.manager.compiled.max_request_headers_kb) << 10 =>
        {
            (431, "http1.headers_too_large")
        }
        true => (431, "http1.too_many_headers"),
        false => (400, "http1.codec_error"),
    };
    record.flags = Flags::DOWNSTREAM_PROTOCOL;
    record.protocol = Some("HTTP/1.1");
    record.sent = body_length(record.status);
    let stats = &context.manager.stats;
    stats.downstream_rq_total.inc();
    stats.downstream_rq_http1_total.inc();
    stats.count_status(record.status);
    log::write_all(&context.manager.logs, &record);
}

/// Drives a connection until it has ended; or it should, and had its time to. The streams' limits are watched beside.
async fn drive<C>(
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    context: &Rc<serve::Context>,
    http1: bool,
) -> Result<(), hyper::Error>
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    let mut late = std::pin::pin!(late_head(context));
    let mut is_late = false;
    // These look at timers and shared tokens, which is not to be done whenever a byte moves: in this set, each is polled
    // when it has something to say.
    let mut beside = FuturesUnordered::<LocalBoxFuture<'_, Beside>>::new();
    beside.push(Box::pin(context.end().map(|()| Beside::End)));
    beside.push(Box::pin(context.gone.notified().map(|()| Beside::Gone)));
    beside.push(Box::pin(context.pulses.watch().map(Beside::Expired)));
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            Some(event) = beside.next() => match event {
                Beside::End => {
                    shut_down(connection.as_mut());
                    beside.push(Box::pin(tokio::time::sleep(DRAIN).map(|()| Beside::Over)));
                }
                Beside::Over | Beside::Gone => return Ok(()),
                // A response that has begun can only be broken off; on HTTP/1 the connection goes with it.
                Beside::Expired(true) if http1 => return Ok(()),
                Beside::Expired(_) => beside.push(Box::pin(context.pulses.watch().map(Beside::Expired))),
            },
            () = &mut late, if !is_late => is_late = true,
        }
    }
}

/// What happens beside a connection.
enum Beside {
    /// The client's request broke off: there is nobody to answer.
    Gone,
    /// It should end.
    End,
    /// Its time to do so is over.
    Over,
    /// Streams are over; whether one of them was responding.
    Expired(bool),
}

/// Waits until a request's head has been coming for too long, and has the stream say so and end (Envoy's
/// `request_headers_timeout`). It looks whenever the connection's task runs, which is whenever something was read.
async fn late_head(context: &serve::Context) {
    let (Some(clock), Some(limit)) = (&context.head, context.manager.compiled.timeouts.request_headers)
    else {
        return std::future::pending().await;
    };
    let mut timer = std::pin::pin!(tokio::time::sleep(limit));
    std::future::poll_fn(|cx| {
        let Some(since) = clock.since().filter(|_| context.active.get() == 0) else { return Poll::Pending };
        if timer.deadline() != since + limit {
            timer.as_mut().reset(since + limit);
        }
        timer.as_mut().poll(cx)
    })
    .await;
    let manager = &context.manager;
    manager.stats.downstream_rq_header_timeout.inc();
    let body = "request header timeout";
    let mut text = format!("HTTP/1.1 408 Request Timeout\r\ncontent-length: {}\r\n", body.len()).into_bytes();
    let date = context.worker.http_date();
    let lines: [(&str, &[u8]); 3] =
        [("content-type", b"text/plain"), ("date", date.as_bytes()), ("server", manager.server.as_bytes())];
    for (name, value) in lines {
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"connection: close\r\n\r\n");
    text.extend_from_slice(body.as_bytes());
    clock.end(text.into());
    let mut record = Record::of_connection(&context.worker, &context.down);
    record.status = 408;
    record.protocol = Some("HTTP/1.1");
    record.sent = body.len() as u64;
    record.details = "request_header_timeout";
    log::write_all(&manager.logs, &record);
}

/// Runs the streams of an HTTP/2 connection, each in a task of its own.
#[derive(Clone)]
struct Streams(Rc<serve::Context>);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let task = StreamTask { stream: Some(stream), pulse: None, context: self.0.clone() };
        tokio::task::spawn_local(task);
    }
}

pin_project_lite::pin_project! {
    /// A stream that is broken off when its time is over: while its client reads nothing, its body is not asked.
    struct StreamTask<F> {
        #[pin]
        stream: Option<F>,
        pulse: Option<Rc<Pulse>>,
        context: Rc<serve::Context>,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.pulse.as_ref().is_some_and(|pulse| pulse.expired().is_some() && pulse.responding.get()) {
            // Dropping the codec's side of it resets the stream.
            this.stream.set(None);
        }
        let Some(stream) = this.stream.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        let polled = stream.poll(cx);
        if this.pulse.is_none() {
            *this.pulse = this.context.newborn.take();
        }
        if let Some(pulse) = this.pulse {
            pulse.belongs_to(cx.waker());
        }
        polled
    }
}
