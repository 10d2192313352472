//! Connection pools: per worker, host and way of connecting. HTTP/1.1 connections are a stack, HTTP/2 ones shared.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{Transport, connect};
use super::host::Host;
use super::limits::{Limits, Permit};
use super::{http1, http2};
use crate::failure::Reset;
use crate::http::body::RequestBody;
use crate::http::send::SendError;
use crate::stats::ClusterStats;
use crate::stream::Stream;

/// What HTTP is spoken to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What TLS agrees on.
    Negotiated,
}

impl Protocol {
    /// What is offered by ALPN, joined by commas.
    pub(crate) fn names(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
            Self::Negotiated => "h2,http/1.1",
        }
    }
}

/// Settings of a pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolSettings {
    /// The protocol.
    pub protocol: Protocol,
    /// How connections are made.
    pub transport: Transport,
    /// The most connections to the host; `None` is no limit.
    pub max_connections: Option<u32>,
    /// How long a connection may be idle.
    pub idle_timeout: Option<Duration>,
    /// Requests after which a connection is not used again.
    pub max_requests: Option<u32>,
    /// How long a connection is used; it ends with its last request.
    pub max_age: Option<Duration>,
    /// Whether HTTP/1 header names are written `Content-Type`.
    pub title_case: bool,
    /// HTTP/2 windows and limits.
    pub http2: Http2Settings,
}

/// HTTP/2 settings of the upstream side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http2Settings {
    /// The most streams of one connection.
    pub max_streams: usize,
    /// A stream's receive window.
    pub stream_window: u32,
    /// A connection's receive window.
    pub connection_window: u32,
    /// Between keep-alive pings; `None` is none.
    pub ping_interval: Option<Duration>,
    /// How long a ping may take.
    pub ping_timeout: Duration,
}

/// What is known of one connection.
#[derive(Debug)]
pub(crate) struct Link {
    /// Our address, as logs write it.
    pub local: Box<str>,
    /// The server's certificate, when TLS is spoken.
    pub peer_uri: Option<Box<str>>,
    requests: Cell<u32>,
    opened: Instant,
    /// Whether it was counted as one that is too old.
    retired: Cell<bool>,
}

impl Link {
    /// Counts a request.
    fn count(&self, settings: &PoolSettings, stats: &ClusterStats) {
        let used = self.requests.get().saturating_add(1);
        self.requests.set(used);
        if settings.max_requests == Some(used) {
            stats.upstream_cx_max_requests.inc();
        }
    }

    /// Whether it may take another request.
    fn is_fresh(&self, settings: &PoolSettings, stats: &ClusterStats) -> bool {
        settings.max_requests.is_none_or(|max| self.requests.get() < max) && !self.is_old(settings, stats)
    }

    /// Whether it has lived for as long as it may.
    fn is_old(&self, settings: &PoolSettings, stats: &ClusterStats) -> bool {
        let old = settings.max_age.is_some_and(|age| self.opened.elapsed() >= age);
        if old && !self.retired.replace(true) {
            stats.upstream_cx_max_duration_reached.inc();
        }
        old
    }
}

/// A connection for one request.
#[derive(Debug)]
pub(crate) enum Lease {
    /// A whole HTTP/1.1 connection.
    Http1(Http1),
    /// A stream of an HTTP/2 connection.
    Http2(Http2Stream),
}

impl Lease {
    /// The connection.
    pub(crate) fn link(&self) -> &Rc<Link> {
        match self {
            Self::Http1(lease) => &lease.link,
            Self::Http2(lease) => &lease.connection.link,
        }
    }
}

/// An HTTP/1.1 connection that serves one request at a time.
#[derive(Debug)]
pub(crate) struct Http1 {
    /// The connection.
    pub connection: http1::Connection,
    /// What is known of it.
    pub link: Rc<Link>,
    idle_since: Instant,
    _opened: Opened,
}

/// A stream of an HTTP/2 connection; the place is free again when dropped.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    connection: Rc<Http2>,
    tunnel: Option<SendStream<Bytes>>,
}

impl Http2Stream {
    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// Says whether the host may have seen the request.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<http2::Body>, SendError> {
        self.connection.connection.send(request, &mut self.tunnel).await
    }

    /// The bytes after a CONNECT was answered; none after any other request.
    pub(crate) fn bytes(&mut self, body: http2::Body) -> Option<http2::Tunnel> {
        Some(http2::Tunnel::new(self.tunnel.take()?, body))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
    }
}

#[derive(Debug)]
struct Http2 {
    connection: http2::Connection,
    link: Rc<Link>,
    active: Cell<usize>,
    idle_since: Cell<Instant>,
}

impl Http2 {
    fn lease(self: &Rc<Self>, pool: &Pool) -> Http2Stream {
        self.active.set(self.active.get() + 1);
        self.idle_since.set(Instant::now());
        self.link.count(&pool.settings, &pool.stats);
        Http2Stream { connection: self.clone(), tunnel: None }
    }

    fn has_room(&self, pool: &Pool) -> bool {
        let max = pool.settings.http2.max_streams.min(self.connection.max_streams()).max(1);
        !self.connection.is_closed() && self.active.get() < max && pool.is_fresh(&self.link)
    }
}

/// The connections of one worker to one host.
#[derive(Debug)]
pub(crate) struct Pool {
    host: Arc<Host>,
    settings: PoolSettings,
    limits: Arc<Limits>,
    stats: Arc<ClusterStats>,
    idle: RefCell<Vec<Http1>>,
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Requests that wait for an HTTP/1.1 connection: they get one, or word that they may try again.
    waiting: RefCell<VecDeque<oneshot::Sender<Option<Http1>>>>,
    /// Requests that wait for the HTTP/2 connection being made; present while one is.
    joining: RefCell<Option<Vec<oneshot::Sender<()>>>>,
    open: Cell<usize>,
    /// Whether connections are no longer kept.
    closed: Cell<bool>,
    /// Looks after idle HTTP/1.1 connections, which have no tasks of their own.
    watcher: RefCell<Option<Watcher>>,
}

/// The task that closes idle connections when the host does.
#[derive(Debug)]
struct Watcher {
    task: AbortHandle,
    waker: Option<Waker>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(
        host: Arc<Host>,
        settings: PoolSettings,
        limits: Arc<Limits>,
        stats: Arc<ClusterStats>,
    ) -> Rc<Self> {
        Rc::new(Self {
            host,
            settings,
            limits,
            stats,
            idle: RefCell::default(),
            shared: RefCell::default(),
            waiting: RefCell::default(),
            joining: RefCell::default(),
            open: Cell::new(0),
            closed: Cell::new(false),
            watcher: RefCell::default(),
        })
    }

    /// A connection that is ready now, if there is one.
    pub(crate) fn ready(&self) -> Option<Lease> {
        if self.settings.protocol != Protocol::Http1 {
            if let Some(stream) = self.shared_stream() {
                return Some(Lease::Http2(stream));
            }
            if self.settings.protocol == Protocol::Http2 {
                return None;
            }
        }
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            if self.is_fresh(&connection.link) && connection.connection.is_idle(Waker::noop()) {
                return Some(Lease::Http1(connection));
            }
        }
    }

    fn is_fresh(&self, link: &Link) -> bool {
        link.is_fresh(&self.settings, &self.stats)
    }

    fn shared_stream(&self) -> Option<Http2Stream> {
        let mut shared = self.shared.borrow_mut();
        if shared.iter().any(|connection| connection.connection.is_closed()) {
            shared.retain(|connection| !connection.connection.is_closed());
        }
        let free = shared.iter().find(|connection| connection.has_room(self));
        free.map(|connection| connection.lease(self))
    }

    /// A connection, made or waited for if none is ready.
    ///
    /// # Errors
    /// When the host cannot be connected to, or too many wait already.
    pub(crate) async fn lease(self: &Rc<Self>) -> Result<Lease, Reset> {
        if let Some(lease) = self.ready() {
            return Ok(lease);
        }
        let Some(pending) = self.limits.pending.acquire() else {
            self.stats.upstream_rq_pending_overflow.inc();
            return Err(Reset::Overflow);
        };
        let _pending = Pending::new(&self.stats, pending);
        loop {
            if let Some(lease) = self.ready() {
                return Ok(lease);
            }
            if self.settings.protocol == Protocol::Http2 && self.join().await {
                continue;
            }
            match self.permit() {
                Some(permit) => {
                    let opened = self.open(permit).await;
                    if opened.is_err() {
                        self.stats.upstream_rq_pending_failure_eject.inc();
                    }
                    return opened;
                }
                None => {
                    self.stats.upstream_cx_overflow.inc();
                    let (give, wait) = oneshot::channel();
                    self.waiting.borrow_mut().push_back(give);
                    if let Ok(Some(connection)) = wait.await {
                        return Ok(Lease::Http1(connection));
                    }
                }
            }
        }
    }

    /// A permit for one more connection; the first of a pool is always allowed, as Envoy's.
    fn permit(&self) -> Option<Permit> {
        let open = self.host.stats.cx_active.load(Ordering::Relaxed);
        let full = self.settings.max_connections.is_some_and(|max| open >= max.into());
        match if full { None } else { self.limits.connections.acquire() } {
            None if self.open.get() == 0 => Some(self.limits.connections.force()),
            permit => permit,
        }
    }

    /// Waits for the HTTP/2 connection that another request is making; false when there is none.
    async fn join(&self) -> bool {
        let wait = {
            let mut joining = self.joining.borrow_mut();
            let Some(others) = joining.as_mut() else { return false };
            let (done, wait) = oneshot::channel();
            others.push(done);
            wait
        };
        // Either way it is time to look again.
        let _ = wait.await;
        true
    }

    async fn open(self: &Rc<Self>, permit: Permit) -> Result<Lease, Reset> {
        let _joining = Joining::start(self);
        self.open.set(self.open.get() + 1);
        let opened = Opened::new(self, permit);
        let stream = connect(&self.host.address, &self.settings.transport).await.inspect_err(|error| {
            self.host.stats.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
            self.stats.upstream_cx_connect_fail.inc();
            if *error == Reset::ConnectTimeout {
                self.stats.upstream_cx_connect_timeout.inc();
            }
        })?;
        let http2 = match self.settings.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Negotiated => stream.alpn() == Some(b"h2"),
        };
        let link = Rc::new(Link {
            local: stream.local().map(|local| local.to_string()).unwrap_or_default().into(),
            peer_uri: peer_uri(&stream),
            requests: Cell::new(0),
            opened: Instant::now(),
            retired: Cell::new(false),
        });
        if http2 {
            self.stats.upstream_cx_http2_total.inc();
        } else {
            self.stats.upstream_cx_http1_total.inc();
        }
        if http2 {
            self.open_http2(stream, link, opened).await
        } else {
            let connection = http1::Connection::new(stream, self.settings.title_case);
            Ok(Lease::Http1(Http1 { connection, link, idle_since: Instant::now(), _opened: opened }))
        }
    }

    async fn open_http2(&self, stream: Stream, link: Rc<Link>, opened: Opened) -> Result<Lease, Reset> {
        let connection = http2::Connection::begin(stream, self.settings.http2, opened).await?;
        let idle_since = Cell::new(Instant::now());
        let connection = Rc::new(Http2 { connection, link, active: Cell::new(0), idle_since });
        let lease = connection.lease(self);
        self.shared.borrow_mut().push(connection);
        Ok(Lease::Http2(lease))
    }

    /// Takes a connection back after a whole exchange: to the next request that waits, or to the stack.
    pub(crate) fn give_back(self: &Rc<Self>, connection: Http1) {
        connection.link.count(&self.settings, &self.stats);
        self.give_back_unused(connection);
    }

    /// Takes a connection back that carried no request.
    pub(crate) fn give_back_unused(self: &Rc<Self>, mut connection: Http1) {
        let usable = !self.closed.get() && self.is_fresh(&connection.link);
        if !usable || !connection.connection.recycle() {
            return;
        }
        while let Some(next) = self.waiting.borrow_mut().pop_front() {
            match next.send(Some(connection)) {
                Ok(()) => return,
                Err(back) => match back {
                    Some(back) => connection = back,
                    None => return,
                },
            }
        }
        connection.idle_since = Instant::now();
        if self.watch(&connection) {
            self.idle.borrow_mut().push(connection);
        }
    }

    /// Has the watcher look after a connection; false when it is closed by now.
    fn watch(self: &Rc<Self>, connection: &Http1) -> bool {
        let mut watcher = self.watcher.borrow_mut();
        match &*watcher {
            Some(Watcher { waker: Some(waker), .. }) => connection.connection.is_idle(waker),
            // It has not run yet, and will look at every connection.
            Some(Watcher { waker: None, .. }) => true,
            None => {
                let pool = Rc::downgrade(self);
                let task = tokio::task::spawn_local(std::future::poll_fn(move |cx| match pool.upgrade() {
                    Some(pool) => pool.look_after(cx.waker()),
                    None => Poll::Ready(()),
                }));
                *watcher = Some(Watcher { task: task.abort_handle(), waker: None });
                true
            }
        }
    }

    /// Drops the idle connections that their host has closed.
    fn look_after(&self, waker: &Waker) -> Poll<()> {
        if let Some(watcher) = &mut *self.watcher.borrow_mut() {
            watcher.waker = Some(waker.clone());
        }
        let idle = self.idle.take();
        let (kept, _closed): (Vec<_>, Vec<_>) = idle.into_iter().partition(|c| c.connection.is_idle(waker));
        self.idle.replace(kept);
        Poll::Pending
    }

    /// Closes what was idle for too long, or is too old; false when the pool holds nothing any more.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        if self.settings.max_age.is_some() {
            let old = |link: &Link| link.is_old(&self.settings, &self.stats);
            self.idle.borrow_mut().retain(|c| !old(&c.link));
            // A connection in use ends with its last request.
            self.shared.borrow_mut().retain(|c| !old(&c.link) || c.active.get() > 0);
        }
        if let Some(timeout) = self.settings.idle_timeout {
            let idle = |since: Instant| {
                let over = now.duration_since(since) >= timeout;
                if over {
                    self.stats.upstream_cx_idle_timeout.inc();
                }
                over
            };
            self.idle.borrow_mut().retain(|c| !idle(c.idle_since));
            self.shared
                .borrow_mut()
                .retain(|c| !c.connection.is_closed() && (c.active.get() > 0 || !idle(c.idle_since.get())));
        }
        self.open.get() > 0 || !self.waiting.borrow().is_empty()
    }

    /// Closes every connection once its exchange is over.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.shared.borrow_mut().clear();
    }
}

fn peer_uri(stream: &Stream) -> Option<Box<str>> {
    let leaf = stream.tls()?.peer_certificates()?.first()?;
    let peer = lateen_ca::tls::PeerCertificate::from_der(leaf).ok()?;
    peer.uris.into_iter().next().map(Into::into)
}

/// A request that waits for a connection.
struct Pending<'a> {
    stats: &'a ClusterStats,
    _permit: Permit,
}

impl<'a> Pending<'a> {
    fn new(stats: &'a ClusterStats, permit: Permit) -> Self {
        stats.upstream_rq_pending_total.inc();
        stats.upstream_rq_pending_active.inc();
        Self { stats, _permit: permit }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.stats.upstream_rq_pending_active.dec();
    }
}

/// While it lives, other requests wait for the HTTP/2 connection being made.
struct Joining<'a>(Option<&'a Pool>);

impl<'a> Joining<'a> {
    fn start(pool: &'a Pool) -> Self {
        if pool.settings.protocol != Protocol::Http2 {
            return Self(None);
        }
        pool.joining.borrow_mut().get_or_insert_with(Vec::new);
        Self(Some(pool))
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.0 {
            for done in pool.joining.borrow_mut().take().unwrap_or_default() {
                // A request that stopped waiting needs no word.
                let _ = done.send(());
            }
        }
    }
}

/// An open connection, as the figures know it: from before connecting until its task ends.
#[derive(Debug)]
struct Opened {
    pool: Weak<Pool>,
    host: Arc<Host>,
    stats: Arc<ClusterStats>,
    _permit: Permit,
}

impl Opened {
    fn new(pool: &Rc<Pool>, permit: Permit) -> Self {
        pool.host.stats.cx_total.fetch_add(1, Ordering::Relaxed);
        pool.host.stats.cx_active.fetch_add(1, Ordering::Relaxed);
        pool.stats.upstream_cx_total.inc();
        pool.stats.upstream_cx_active.inc();
        // Idle connections are the pool's: they must not keep it.
        let (host, stats) = (pool.host.clone(), pool.stats.clone());
        Self { pool: Rc::downgrade(pool), host, stats, _permit: permit }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.host.stats.cx_active.fetch_sub(1, Ordering::Relaxed);
        self.stats.upstream_cx_active.dec();
        self.stats.upstream_cx_destroy.inc();
        let Some(pool) = self.pool.upgrade() else { return };
        pool.open.set(pool.open.get() - 1);
        // A place is free: whoever waits may try to connect.
        let next = pool.waiting.borrow_mut().pop_front();
        if let Some(next) = next {
            let _ = next.send(None);
        }
    }
}
