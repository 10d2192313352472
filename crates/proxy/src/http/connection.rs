//! HTTP on a client's connection: which codec, its settings, its end.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use lateen_route::http_manager::{Codec, HeaderCase};
use tokio::io::AsyncReadExt;

use super::manager::Manager;
use super::serve;
use crate::downstream::Downstream;
use crate::inspect::{self, Guess};
use crate::listener::Chain;
use crate::stream::Stream;
use crate::upstream::pool::LocalExecutor;
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
    let context = Rc::new(serve::Context {
        worker: worker.clone(),
        manager: manager.clone(),
        chain: chain.clone(),
        down,
        last_active: std::cell::Cell::new(tokio::time::Instant::now()),
        active: std::cell::Cell::new(0),
        requests: std::cell::Cell::new(0),
        closing: std::cell::Cell::new(false),
    });
    let result = if http2 {
        manager.stats.downstream_cx_http2_total.inc();
        Box::pin(serve_http2(stream, &context)).await
    } else {
        manager.stats.downstream_cx_http1_total.inc();
        serve_http1(stream, &context).await
    };
    if let Err(error) = result {
        if error.is_parse() {
            manager.stats.downstream_cx_protocol_error.inc();
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
        .header_read_timeout(settings.timeouts.request_headers)
        .max_headers(settings.max_headers as usize)
        .max_header_size((settings.max_request_headers_kb as usize) << 10)
        .title_case_headers(settings.http1.header_case == HeaderCase::Proper)
        .preserve_header_case(settings.http1.header_case == HeaderCase::Preserve);
    if settings.timeouts.request_headers.is_some() {
        builder.timer(TokioTimer::new());
    }
    let service = {
        let context = context.clone();
        service_fn(move |request: hyper::Request<Incoming>| serve::request(context.clone(), request))
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let mut end = std::pin::pin!(context.end());
    tokio::select! {
        biased;
        result = &mut connection => return result,
        () = &mut end => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}

async fn serve_http2(stream: Stream, context: &Rc<serve::Context>) -> Result<(), hyper::Error> {
    let settings = &context.manager.compiled.http2;
    let mut builder = hyper::server::conn::http2::Builder::new(LocalExecutor);
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
        service_fn(move |request: hyper::Request<Incoming>| serve::request(context.clone(), request))
    };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let mut end = std::pin::pin!(context.end());
    tokio::select! {
        biased;
        result = &mut connection => return result,
        () = &mut end => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
}
