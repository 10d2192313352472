//! One request and its response, from its head to the last byte: what the log line will say, and what is given back
//! when it is over.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body::Frame;
use lateen_route::Entropy;
use lateen_route::routes::Route;
use smallvec::SmallVec;

use super::body::BodyError;
use super::compression::Compression;
use super::grpc_web::GrpcWeb;
use super::head::Head;
use super::ingress::names;
use super::manager::Manager;
use super::pulse::{Expired, Limits, Pulse};
use super::serve::Busy;
use crate::downstream::Downstream;
use crate::failure::Failure;
use crate::flags::Flags;
use crate::log::{self, Record};
use crate::stats::RouteStats;
use crate::upstream::cluster::{Caller, Cluster};
use crate::upstream::host::Host;
use crate::upstream::limits::Permit;
use crate::upstream::pool::{Lease, Link, Pool};
use crate::worker::Worker;

/// One exchange. It ends when it is dropped, at the latest.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Where it happens.
    pub worker: Rc<Worker>,
    /// The manager that serves it.
    pub manager: Arc<Manager>,
    /// The client's connection.
    pub down: Rc<Downstream>,
    /// The request's head.
    pub head: Head,
    /// When it began.
    pub started: Instant,
    /// When it went to the upstream.
    pub(crate) forwarded: Option<Instant>,
    /// When it began, by the wall.
    pub started_at: SystemTime,
    /// Its chance.
    pub entropy: Entropy,
    /// What moves on it, and its limits.
    pub pulse: Rc<Pulse>,
    /// Bytes of the response's body.
    pub sent: u64,
    /// The response's status; 0 until there is one.
    pub status: u16,
    /// What went wrong.
    pub flags: Flags,
    /// Why the response is what it is.
    pub details: Cow<'static, str>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The cluster.
    pub cluster: Option<Arc<Cluster>>,
    /// The upstream's side.
    pub upstream: Option<Upstream>,
    /// The host that answers, or was tried last.
    pub host: Option<Arc<Host>>,
    /// The connection to it.
    pub link: Option<Rc<Link>>,
    /// What its transport said.
    pub upstream_failure: Option<Rc<str>>,
    /// How gRPC-Web is translated, where it is.
    pub grpc_web: Option<GrpcWeb>,
    /// How its response is compressed, where a filter looks at that.
    pub compression: Option<Box<Compression>>,
    /// The route's own figures.
    pub route_stats: Option<Arc<RouteStats>>,
    /// What the balancer's hash of it is.
    pub hash: Option<u64>,
    /// Cookies that were made for that.
    pub new_cookies: SmallVec<[HeaderValue; 1]>,
    /// Attempts made.
    pub attempts: u32,
    /// Whether the attempt before this one took too long.
    pub timed_out: bool,
    /// The client's address by `x-forwarded-for`.
    pub remote: Option<std::net::IpAddr>,
    /// Whether the client is internal.
    pub internal: bool,
    /// Whether the caller named the operation itself.
    pub named: bool,
    kept: SmallVec<[(HeaderName, HeaderValue); 2]>,
    grpc_status: Option<u32>,
    finished: bool,
    busy: Busy,
}

/// What is held while an upstream works for an exchange.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// The connection, or the stream of one.
    pub lease: Lease,
    /// Where a whole connection goes back to.
    pub pool: Rc<Pool>,
    /// The host's and cluster's count of it.
    pub active: Active,
}

/// An active request, as balancer and circuit breaker count it.
#[derive(Debug)]
pub(crate) struct Active {
    host: Arc<Host>,
    cluster: Arc<Cluster>,
    /// Whether it has a connection of its own, in no pool.
    connection: bool,
    _permit: Permit,
}

impl Active {
    /// Counts a request to a host.
    pub(crate) fn new(host: Arc<Host>, cluster: Arc<Cluster>, permit: Permit) -> Self {
        host.active.fetch_add(1, Ordering::Relaxed);
        host.stats.rq_total.fetch_add(1, Ordering::Relaxed);
        cluster.stats.upstream_rq_total.inc();
        cluster.stats.upstream_rq_active.inc();
        Self { host, cluster, connection: false, _permit: permit }
    }

    /// Counts a connection to a host that carries bytes, which Envoy counts as a request, too.
    pub(crate) fn connection(host: Arc<Host>, cluster: Arc<Cluster>, permit: Permit) -> Self {
        host.stats.cx_total.fetch_add(1, Ordering::Relaxed);
        host.stats.cx_active.fetch_add(1, Ordering::Relaxed);
        cluster.stats.upstream_cx_total.inc();
        cluster.stats.upstream_cx_active.inc();
        let mut active = Self::new(host, cluster, permit);
        active.connection = true;
        active
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.host.active.fetch_sub(1, Ordering::Relaxed);
        self.cluster.stats.upstream_rq_active.dec();
        if self.connection {
            self.host.stats.cx_active.fetch_sub(1, Ordering::Relaxed);
            self.cluster.stats.upstream_cx_active.dec();
            self.cluster.stats.upstream_cx_destroy.inc();
        }
    }
}

impl Exchange {
    /// Begins an exchange.
    pub(crate) fn begin(
        worker: Rc<Worker>,
        manager: Arc<Manager>,
        down: Rc<Downstream>,
        head: Head,
        busy: Busy,
    ) -> Box<Self> {
        manager.stats.downstream_rq_total.inc();
        manager.stats.downstream_rq_active.inc();
        if head.version == http::Version::HTTP_2 {
            manager.stats.downstream_rq_http2_total.inc();
        } else {
            manager.stats.downstream_rq_http1_total.inc();
        }
        let entropy = worker.entropy();
        Box::new(Self {
            worker,
            manager,
            down,
            head,
            started: Instant::now(),
            forwarded: None,
            started_at: SystemTime::now(),
            entropy,
            pulse: busy.pulse().clone(),
            sent: 0,
            status: 0,
            flags: Flags::NONE,
            details: Cow::Borrowed(""),
            route: None,
            cluster: None,
            upstream: None,
            host: None,
            link: None,
            upstream_failure: None,
            grpc_web: None,
            compression: None,
            route_stats: None,
            hash: None,
            new_cookies: SmallVec::new(),
            attempts: 0,
            timed_out: false,
            remote: None,
            internal: false,
            named: false,
            kept: SmallVec::new(),
            grpc_status: None,
            finished: false,
            busy,
        })
    }

    /// Sets the limits of its life, which count from its beginning.
    pub(crate) fn limit(&self, limits: Limits) {
        self.busy.pulses().limit(&self.pulse, limits, self.started.into());
    }

    /// Sets the moment at which the whole response has to have come.
    pub(crate) fn respond_by(&self, at: tokio::time::Instant, why: Expired) {
        self.busy.pulses().respond_by(&self.pulse, at, why);
    }

    /// For whom upstream connections are made.
    pub(crate) fn caller<'a>(&'a self, alpn: Option<&'a Arc<str>>) -> Caller<'a> {
        let peer = self.down.remote;
        let source = match self.remote {
            Some(ip) if ip != peer.ip() => SocketAddr::new(ip, 0),
            _ => peer,
        };
        Caller { authority: self.head.authority(), alpn, addresses: (source, self.down.local) }
    }

    /// Keeps what logs will say of a response's head.
    pub(crate) fn take_response(&mut self, status: u16, headers: &HeaderMap) {
        self.status = status;
        self.pulse.responding.set(true);
        self.pulse.beat();
        self.manager.stats.count_status(status);
        for name in &self.manager.logged_headers {
            if let Some(value) = headers.get(name) {
                self.kept.push((name.clone(), value.clone()));
            }
        }
        self.grpc_status = grpc_status(headers);
    }

    /// Keeps what logs will say of a response's trailers.
    pub(crate) fn take_trailers(&mut self, trailers: Option<&HeaderMap>) {
        let Some(trailers) = trailers else { return };
        if let Some(status) = grpc_status(trailers) {
            self.grpc_status = Some(status);
        }
        if let Some(Upstream { active, .. }) = &self.upstream {
            active.cluster.take_report(&active.host, trailers);
        }
    }

    /// The upstream broke off after its head.
    pub(crate) fn broken_by_upstream(&mut self, error: &BodyError) {
        if matches!(error, BodyError::Timeout) {
            return;
        }
        // HTTP/1 has no way to break off but to close within a message, which breaks the protocol.
        let (flag, details) = match error.http2() {
            None => (Flags::UPSTREAM_PROTOCOL, "upstream_reset_after_response_started{protocol_error}"),
            Some(reset) if reset.is_reset() => {
                (Flags::UPSTREAM_RESET, "upstream_reset_after_response_started{remote_reset}")
            }
            Some(_) => {
                (Flags::UPSTREAM_TERMINATION, "upstream_reset_after_response_started{connection_termination}")
            }
        };
        self.flags.add(flag);
        self.details = Cow::Borrowed(details);
        self.upstream = None;
        if let Some(cluster) = &self.cluster {
            cluster.stats.upstream_rq_rx_reset.inc();
        }
    }

    /// It ends before its end: its time was over, or the client broke off.
    pub(crate) fn abandon(&mut self) {
        match self.pulse.expired() {
            Some(why) => self.expire(why),
            None => {
                self.flags.add(Flags::DOWNSTREAM_TERMINATION);
                self.details = Cow::Borrowed("downstream_remote_disconnect");
                self.manager.stats.downstream_rq_rx_reset.inc();
            }
        }
        // What is left of the response makes its connection useless.
        self.upstream = None;
    }

    /// Bytes of the response's body are about to be written.
    pub(crate) fn body_goes(&self) {
        self.busy.body_goes();
    }

    /// What follows on the client's connection is no HTTP.
    pub(crate) fn leaves_http(&self) {
        self.busy.leaves_http();
    }

    /// Has the client's connection end: its request broke off.
    pub(crate) fn hang_up(&self) {
        self.busy.hang_up();
    }

    /// Takes note that its time was over while the response was under way.
    pub(crate) fn expire(&mut self, why: Expired) {
        let failure = Failure::Expired(why, self.pulse.complete.get());
        self.flags.add(failure.flag());
        self.details = failure.detail();
        self.count_expired(why);
    }

    /// Counts a stream whose time was over.
    pub(crate) fn count_expired(&self, why: Expired) {
        let stats = &self.manager.stats;
        match why {
            Expired::Idle => stats.downstream_rq_idle_timeout.inc(),
            Expired::Request => stats.downstream_rq_timeout.inc(),
            Expired::Duration => stats.downstream_rq_max_duration_reached.inc(),
            Expired::Response | Expired::Upstream => {
                if let Some(cluster) = &self.cluster {
                    match why {
                        Expired::Upstream => cluster.stats.upstream_rq_max_duration_reached.inc(),
                        _ => cluster.stats.upstream_rq_timeout.inc(),
                    }
                }
                if let (Some(stats), Expired::Response) = (&self.route_stats, why) {
                    stats.upstream_rq_timeout.inc();
                }
            }
        }
    }

    /// A frame of the response's body as gRPC-Web has it.
    pub(crate) fn translate(
        &mut self,
        polled: Poll<Option<Result<Frame<Bytes>, BodyError>>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(web) = &mut self.grpc_web else { return polled };
        let frame = match std::task::ready!(polled) {
            Some(Ok(frame)) => frame,
            None if web.has_ended() => return Poll::Ready(None),
            None => {
                let last = web.end(None);
                return Poll::Ready((!last.is_empty()).then(|| Ok(Frame::data(last))));
            }
            error => return Poll::Ready(error),
        };
        let data = match frame.into_data() {
            Ok(data) => web.data(data),
            Err(frame) => {
                let last = web.end(frame.trailers_ref());
                self.take_trailers(frame.trailers_ref());
                last
            }
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// Whether the response has no body whatever its headers say.
    pub(crate) fn expects_no_body(&self) -> bool {
        self.head.method == Method::HEAD || matches!(self.status, 100..200 | 204 | 304)
    }

    /// Counts the response of a cluster, or ours in its place, by cluster and route.
    pub(crate) fn count_response(&self, cluster: &Cluster, status: u16) {
        cluster.stats.count_status(status);
        if let Some(stats) = &self.route_stats {
            stats.count_status(status);
        }
    }

    /// Ends it: gives the connection back, writes the log.
    pub(crate) fn finish(mut self: Box<Self>) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.give_back();
        self.manager.stats.downstream_rq_active.dec();
        self.write_log();
    }

    /// A connection is used again only when the request was sent whole and the response was read whole.
    fn give_back(&mut self) {
        let whole = self.pulse.complete.get();
        let clean = self.status != 0 && self.status != 101;
        if let Some(Upstream { lease, pool, active }) = self.upstream.take() {
            drop(active);
            match lease {
                Lease::Http1(connection) if whole && clean => pool.give_back(connection),
                Lease::Http1(_) | Lease::Http2(_) => {}
            }
        }
    }

    fn write_log(&self) {
        if self.manager.logs.is_empty() {
            return;
        }
        let record = self.record();
        log::write_all(&self.manager.logs, &record);
    }

    /// What a log line can say now.
    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            worker: &self.worker,
            down: &self.down,
            started_at: self.started_at,
            duration: self.started.elapsed(),
            head: Some(&self.head),
            protocol: Some(self.head.protocol()),
            status: self.status,
            flags: self.flags,
            details: &self.details,
            termination: None,
            upstream_failure: self.upstream_failure.as_deref(),
            received: self.pulse.bytes.get(),
            sent: self.sent,
            response: &self.kept,
            host: self.host.as_deref(),
            upstream_local: self.link.as_ref().map(|link| &*link.local),
            upstream_peer_uri: self.link.as_ref().and_then(|link| link.peer_uri.as_deref()),
            cluster: self
                .cluster
                .as_ref()
                .map(|cluster| (&*cluster.compiled.name, &*cluster.compiled.stat_name)),
            route: self.route.as_ref().map(|route| &*route.name),
            attempts: self.attempts,
            local_reply: "",
            grpc_status: self.grpc_status,
            entropy: self.entropy,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.finished {
            // The codec dropped it: the client went away before there was a response.
            self.abandon();
            self.end();
        }
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(names::GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
