//! Phase: the request goes to its cluster, in one attempt or several, and the response comes back.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONNECTION, DATE, HOST, SERVER, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version};
use hyper::body::{Body as _, Incoming};
use lateen_route::RouteTable;
use lateen_route::http_manager::ServerHeader;
use lateen_route::routes::{Forward, HostRewrite, Route, VirtualHost, WeightedCluster};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::body::{ClientBody, Replay, RequestBody, ResponseBody};
use super::exchange::{Active, Exchange, Upstream};
use super::filters::Outcome;
use super::grpc_web::GrpcWeb;
use super::ingress::names;
use super::pulse::{Expired, Pulse};
use super::retry::{Retries, Verdict};
use super::send::{self, SendError};
use super::{destination, edits, mirror, reply};
use crate::failure::{Failure, Reset};
use crate::flags::Flags;
use crate::upstream::cluster::{Cluster, Picked};
use crate::upstream::outlier;
use crate::upstream::pool::Lease;

/// All that was decided about a request before it is forwarded.
#[derive(Debug)]
pub(crate) struct Plan<'t> {
    /// The routes.
    pub table: &'t RouteTable,
    /// The virtual host.
    pub virtual_host: &'t VirtualHost,
    /// The route.
    pub route: &'t Route,
    /// Its action.
    pub forward: &'t Forward,
    /// The weighted cluster.
    pub pick: Option<&'t WeightedCluster>,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// What filters left.
    pub outcome: Outcome,
}

impl Plan<'_> {
    /// Which circuit breakers hold.
    pub(crate) fn priority(&self) -> usize {
        usize::from(self.forward.high_priority)
    }
}

/// Forwards a request.
pub(crate) async fn forward(
    mut exchange: Box<Exchange>,
    plan: Plan<'_>,
    body: Incoming,
) -> Response<ResponseBody> {
    if let Err(failure) = rewrite(&mut exchange, &plan) {
        return reply::failure(exchange, &failure);
    }
    let policy = plan.forward.retry.as_ref().or(plan.virtual_host.retry.as_ref());
    let retries = Retries::of(&exchange, policy, plan.priority());
    let mirrors = mirror::wanted(&exchange, &plan);
    let source = Source::new(&exchange, plan.route, body, retries.is_some() || !mirrors.is_empty());
    for target in mirrors {
        mirror::start(&exchange, target, source.body());
    }
    exchange.forwarded = Some(std::time::Instant::now());
    let timeout = timeout(&mut exchange, &plan);
    let deadline = timeout.map(|limit| Instant::now() + limit);
    let mut attempts = Attempts { plan: &plan, source, retries, deadline, tried: SmallVec::new() };
    let pulse = exchange.pulse.clone();
    let result = pulse.guard(attempts.run(&mut exchange)).await;
    let result = result.unwrap_or_else(|why| Err(Failure::Expired(why, pulse.complete.get())));
    match result {
        Ok(response) => respond(exchange, &plan, deadline, response),
        Err(failure) => {
            exchange.upstream = None;
            plan.cluster.stats.count_status(failure.status().as_u16());
            let mut response = reply::failure(exchange, &failure);
            edits_of_failure(&plan, &mut response);
            response
        }
    }
}

/// A cluster's answer that never was gets no edits by format, which need the exchange; fixed ones hold.
fn edits_of_failure(plan: &Plan<'_>, response: &mut Response<ResponseBody>) {
    if plan.virtual_host.attempt_count_in_response {
        response.headers_mut().entry(names::ATTEMPT_COUNT).or_insert(HeaderValue::from_static("1"));
    }
}

/// Where the body comes from, for one attempt or several.
#[derive(Debug)]
enum Source {
    Empty,
    Once(Option<ClientBody>, Rc<Pulse>),
    Kept(Rc<Replay>),
}

impl Source {
    fn new(exchange: &Exchange, route: &Route, body: Incoming, again: bool) -> Self {
        let body = ClientBody::new(body, exchange.grpc_web.as_ref().and_then(GrpcWeb::decoder));
        if body.is_end_stream() {
            return Self::Empty;
        }
        let pulse = exchange.pulse.clone();
        if again {
            let limit = route.buffer_limit.unwrap_or(exchange.manager.buffer_limit.into());
            Self::Kept(Replay::new(body, pulse, usize::try_from(limit).unwrap_or(usize::MAX)))
        } else {
            Self::Once(Some(body), pulse)
        }
    }

    /// The body for the next attempt; none when it was given away.
    fn body(&self) -> RequestBody {
        match self {
            Self::Kept(replay) => RequestBody::replay(replay),
            Self::Empty | Self::Once(..) => RequestBody::empty(),
        }
    }

    fn take(&mut self) -> RequestBody {
        match self {
            Self::Once(body, pulse) => match body.take() {
                Some(body) => RequestBody::once(body, pulse.clone()),
                None => RequestBody::empty(),
            },
            other => other.body(),
        }
    }

    fn can_restart(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(body, _) => body.is_some(),
            Self::Kept(replay) => replay.can_restart(),
        }
    }
}

/// The attempts of one request.
struct Attempts<'p, 't> {
    plan: &'p Plan<'t>,
    source: Source,
    retries: Option<Retries>,
    deadline: Option<Instant>,
    tried: SmallVec<[u64; 4]>,
}

/// How an attempt failed.
enum Failed {
    Reset { reset: Reset, sent: bool },
    TryTimeout,
    MaxStream,
    Final(Failure),
}

impl Attempts<'_, '_> {
    async fn run(&mut self, exchange: &mut Exchange) -> Result<Response<Incoming>, Failure> {
        let cluster = &self.plan.cluster;
        let limits = &cluster.limits[self.plan.priority()];
        loop {
            exchange.attempts += 1;
            let Some(permit) = limits.requests.acquire() else {
                cluster.stats.upstream_rq_pending_overflow.inc();
                return Err(Failure::Upstream(Reset::Overflow, exchange.attempts > 1));
            };
            let deadline = self.deadline;
            let attempt = self.attempt(exchange, permit);
            let failed = match within(deadline, attempt, cluster).await? {
                Ok(response) => match self.judge_response(exchange, &response) {
                    Verdict::Again(pause, permit) => {
                        exchange.upstream = None;
                        self.pause(pause).await?;
                        drop(permit);
                        continue;
                    }
                    Verdict::Exhausted => {
                        exchange.flags.add(Flags::RETRIES_EXCEEDED);
                        return Ok(response);
                    }
                    Verdict::Final => return Ok(response),
                },
                Err(failed) => failed,
            };
            exchange.upstream = None;
            exchange.timed_out = matches!(failed, Failed::TryTimeout);
            let (verdict, failure) = self.judge_failure(exchange, failed);
            match verdict {
                Verdict::Again(pause, permit) if self.source.can_restart() => {
                    self.pause(pause).await?;
                    drop(permit);
                }
                Verdict::Exhausted => {
                    exchange.flags.add(Flags::RETRIES_EXCEEDED);
                    return Err(failure);
                }
                Verdict::Again(..) | Verdict::Final => return Err(failure),
            }
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), Failure> {
        if pause.is_zero() {
            return Ok(());
        }
        within(self.deadline, Box::pin(tokio::time::sleep(pause)), &self.plan.cluster).await
    }

    fn judge_response(&mut self, exchange: &Exchange, response: &Response<Incoming>) -> Verdict {
        let Some(retries) = &mut self.retries else { return Verdict::Final };
        if !self.source.can_restart() {
            return Verdict::Final;
        }
        let draw = exchange.worker.random();
        retries.after_response(response.status().as_u16(), response.headers(), &self.plan.cluster, draw)
    }

    fn judge_failure(&mut self, exchange: &Exchange, failed: Failed) -> (Verdict, Failure) {
        let draw = exchange.worker.random();
        let cluster = &self.plan.cluster;
        let retried = exchange.attempts > 1;
        match failed {
            Failed::Final(failure) => (Verdict::Final, failure),
            Failed::TryTimeout => {
                cluster.stats.upstream_rq_per_try_timeout.inc();
                let verdict =
                    self.retries.as_mut().map_or(Verdict::Final, |r| r.after_timeout(cluster, draw));
                (verdict, Failure::PerTryTimeout)
            }
            Failed::MaxStream => {
                let verdict =
                    self.retries.as_mut().map_or(Verdict::Final, |r| r.after_timeout(cluster, draw));
                (verdict, Failure::Expired(Expired::Upstream, exchange.pulse.complete.get()))
            }
            Failed::Reset { reset, sent } => {
                let verdict = self
                    .retries
                    .as_mut()
                    .map_or(Verdict::Final, |retries| retries.after_reset(&reset, sent, cluster, draw));
                (verdict, Failure::Upstream(reset, retried))
            }
        }
    }

    async fn attempt(
        &mut self,
        exchange: &mut Exchange,
        permit: crate::upstream::limits::Permit,
    ) -> Result<Response<Incoming>, Failed> {
        let (tries, avoid) = match &self.retries {
            Some(retries) if retries.policy().avoid_previous_hosts => {
                (retries.policy().host_attempts, &self.tried[..])
            }
            _ => (0, &[][..]),
        };
        let picked = destination::host(exchange, self.plan, avoid, tries).await.map_err(Failed::Final)?;
        self.tried.push(picked.host.id);
        exchange.host = Some(picked.host.clone());
        let cluster = &self.plan.cluster;
        let active = Active::new(picked.host.clone(), cluster.clone(), permit);
        let per_try = self.retries.as_ref().and_then(|retries| retries.policy().per_try_timeout);
        let max_stream = cluster.compiled.http.max_stream;
        let started = Instant::now();
        let limit = match (per_try, max_stream) {
            (Some(per_try), Some(max)) if max < per_try => Some((max, Failed::MaxStream)),
            (Some(per_try), _) => Some((per_try, Failed::TryTimeout)),
            (None, Some(max)) => Some((max, Failed::MaxStream)),
            (None, None) => None,
        };
        let work = self.exchange_with(exchange, picked, active);
        let result = match limit {
            None => work.await,
            Some((limit, late)) => tokio::time::timeout(limit, Box::pin(work)).await.unwrap_or(Err(late)),
        };
        if let (Ok(_), Some(max)) = (&result, max_stream) {
            exchange.respond_by(started + max, Expired::Upstream);
        }
        result
    }

    /// Connects, sends, and waits for the response's head.
    async fn exchange_with(
        &mut self,
        exchange: &mut Exchange,
        picked: Picked,
        active: Active,
    ) -> Result<Response<Incoming>, Failed> {
        let cluster = &self.plan.cluster;
        let protocol = cluster.protocol(exchange.head.version, &picked.way);
        let authority = exchange.head.authority();
        let alpn = self.plan.outcome.upstream_protocols.as_deref();
        let pool = cluster.pool(&exchange.worker, &picked, protocol, authority, self.plan.priority(), alpn);
        let Some(pool) = pool else {
            let text = "TLS_error: the secrets of the cluster have not come";
            return Err(Failed::Reset { reset: Reset::ConnectFailure(text.into()), sent: false });
        };
        let mut reused_broken = 0;
        loop {
            let lease = match pool.ready() {
                Some(lease) => lease,
                None => Box::pin(pool.lease()).await.map_err(|reset| {
                    if reset != Reset::Overflow {
                        cluster.judge(&picked.host, outlier::Result::Local);
                    }
                    exchange.upstream_failure = reset.transport_failure().cloned();
                    Failed::Reset { reset, sent: false }
                })?,
            };
            exchange.link = Some(lease.link().clone());
            let http2 = matches!(lease, Lease::Http2(_));
            let head = upstream_head(exchange, self.plan, &picked, http2);
            let request = head.map(|()| self.source.take());
            let mut lease = lease;
            match send::send(&mut lease, request).await {
                Ok(response) => {
                    cluster.judge(&picked.host, outlier::Result::Status(response.status().as_u16()));
                    exchange.upstream = Some(Upstream { lease, pool, active });
                    return Ok(response);
                }
                // A connection that was closed while idle has not seen the request: that is nobody's failure.
                Err(SendError::Unsent(_)) if reused_broken < 3 && self.source.can_restart() => {
                    reused_broken += 1
                }
                Err(SendError::Unsent(reset)) => return Err(Failed::Reset { reset, sent: false }),
                Err(SendError::Sent(reset)) => {
                    picked.host.stats.rq_error.fetch_add(1, Ordering::Relaxed);
                    cluster.judge(&picked.host, outlier::Result::Status(503));
                    return Err(Failed::Reset { reset, sent: true });
                }
            }
        }
    }
}

async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
    cluster: &Cluster,
) -> Result<T, Failure> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.map_err(|_| {
            cluster.stats.upstream_rq_timeout.inc();
            Failure::Timeout
        }),
    }
}

/// Changes the head as the route says: header edits, then host, then path.
pub(crate) fn rewrite(exchange: &mut Exchange, plan: &Plan<'_>) -> Result<(), Failure> {
    edits::request(exchange, plan.table.request_edits(plan.virtual_host, plan.route, plan.pick));
    let rewrite = &plan.forward.host_rewrite;
    let literal = plan.pick.and_then(|pick| pick.host_rewrite.as_deref());
    let host = match (literal, rewrite) {
        (Some(host), _) => Some(host.to_owned()),
        (None, None | Some(HostRewrite::Auto)) => None,
        (None, Some(HostRewrite::Literal(host))) => Some(host.to_string()),
        (None, Some(HostRewrite::Header(name))) => {
            exchange.head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        }
        (None, Some(HostRewrite::PathRegex(substitution))) => {
            let path = exchange.head.path();
            let path = path.split('?').next().unwrap_or_default();
            String::from_utf8(substitution.apply(path.as_bytes())).ok()
        }
    };
    if let Some(host) = host {
        replace_host(exchange, plan, &host);
    }
    if let Some(rewrite) = &plan.forward.path_rewrite {
        let new = exchange
            .down
            .with_view(|connection| rewrite.apply(&exchange.head.view(connection, exchange.remote)));
        if new != exchange.head.path() {
            if !exchange.manager.router.suppress_envoy_headers
                && let Ok(old) = HeaderValue::from_str(exchange.head.path())
            {
                exchange.head.headers.insert(names::ORIGINAL_PATH, old);
            }
            exchange.head.set_path(&new)?;
        }
    }
    if let (Some(operation), Some(_), false) =
        (&plan.route.operation, &exchange.manager.compiled.tracing, exchange.manager.inbound)
        && let Ok(value) = HeaderValue::from_str(operation)
    {
        exchange.head.headers.insert(names::DECORATOR, value);
    }
    Ok(())
}

fn replace_host(exchange: &mut Exchange, plan: &Plan<'_>, host: &str) {
    if plan.forward.append_x_forwarded_host {
        let old = exchange.head.authority_value().clone();
        exchange.head.headers.append(names::FORWARDED_HOST, old);
    }
    exchange.head.set_authority(host);
}

/// The time for the whole response, by the route or an internal client; told to the upstream.
fn timeout(exchange: &mut Exchange, plan: &Plan<'_>) -> Option<Duration> {
    let forward = plan.forward;
    let grpc = exchange.head.is_grpc();
    let limit = match (&forward.max_stream, forward.grpc_timeout) {
        // A route that limits the stream's life has no other limit.
        (Some(_), _) => None,
        (None, Some(rules)) if grpc => {
            Some(exchange.head.grpc_timeout().map_or(rules.max, |asked| rules.limit(asked)))
        }
        (None, _) => forward.timeout,
    };
    let settings = exchange.manager.router;
    let headers = &mut exchange.head.headers;
    let millis = |value: HeaderValue| value.to_str().ok()?.parse().ok().map(Duration::from_millis);
    let asked = headers.remove(names::TIMEOUT).and_then(millis);
    let expected = headers.get(names::EXPECTED_TIMEOUT).filter(|_| settings.respect_expected_timeout);
    let asked = expected.cloned().and_then(millis).or(asked);
    let limit = asked.or(limit).filter(|limit| !limit.is_zero());
    if let (Some(limit), false) = (limit, settings.suppress_envoy_headers)
        && let Ok(millis) = u64::try_from(limit.as_millis())
    {
        headers.insert(names::EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
    limit
}

/// The head of one attempt.
pub(crate) fn upstream_head(
    exchange: &Exchange,
    plan: &Plan<'_>,
    picked: &Picked,
    http2: bool,
) -> Request<()> {
    let head = &exchange.head;
    let mut headers = head.headers.clone();
    let authority = match (&plan.forward.host_rewrite, &*picked.host.hostname) {
        (Some(HostRewrite::Auto), name) if !name.is_empty() => {
            HeaderValue::from_str(name).unwrap_or_else(|_| head.authority_value().clone())
        }
        _ => head.authority_value().clone(),
    };
    if plan.virtual_host.attempt_count_in_request {
        headers.insert(names::ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
    }
    if plan.virtual_host.is_timeout_retry_header && exchange.attempts > 1 {
        let text = if exchange.timed_out { "true" } else { "false" };
        headers.insert(names::IS_TIMEOUT_RETRY, HeaderValue::from_static(text));
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    if http2 {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = absolute_uri(head.scheme, &authority, head.path_and_query());
    } else {
        headers.insert(HOST, authority);
        let path = head.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    *request.headers_mut() = headers;
    request
}

/// The head of a copy, as for HTTP/2.
pub(crate) fn head_for_copy(exchange: &Exchange, authority: &str) -> Request<()> {
    let head = &exchange.head;
    let authority = HeaderValue::from_str(authority).unwrap_or_else(|_| head.authority_value().clone());
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = absolute_uri(head.scheme, &authority, head.path_and_query());
    *request.headers_mut() = head.headers.clone();
    request
}

/// Turns a head for HTTP/2 into one for HTTP/1.1.
pub(crate) fn as_http1(request: &mut Request<()>) {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    if let Some(authority) = uri.authority.and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
        request.headers_mut().insert(HOST, authority);
    }
    *request.uri_mut() = Uri::from(uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
}

fn absolute_uri(scheme: &str, authority: &HeaderValue, path: Option<&PathAndQuery>) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Authority::try_from(authority.as_bytes()).ok();
    parts.path_and_query = path.cloned().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Changes the response's head, and hands its body on.
pub(crate) fn respond(
    mut exchange: Box<Exchange>,
    plan: &Plan<'_>,
    deadline: Option<Instant>,
    response: Response<Incoming>,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    if let Some(host) = &exchange.host {
        let counter = if status >= 500 { &host.stats.rq_error } else { &host.stats.rq_success };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    plan.cluster.stats.count_status(status);
    if exchange.attempts > 1 && status < 500 {
        plan.cluster.stats.upstream_rq_retry_success.inc();
    }
    finish_head(&exchange, plan, &mut parts.headers);
    exchange.details = "via_upstream".into();
    if let Some(web) = &exchange.grpc_web {
        web.response(&mut parts.headers);
    }
    exchange.take_response(status, &parts.headers);
    if let Some(deadline) = deadline
        && !body.is_end_stream()
    {
        exchange.respond_by(deadline, Expired::Response);
    }
    parts.version = Version::HTTP_11;
    // The upstream's reason phrase, among others.
    parts.extensions.clear();
    Response::from_parts(parts, ResponseBody::upstream(body, exchange))
}

/// What every upstream response's head gets and loses.
pub(crate) fn finish_head(exchange: &Exchange, plan: &Plan<'_>, headers: &mut HeaderMap) {
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, names::KEEP_ALIVE, names::PROXY_CONNECTION] {
        headers.remove(name);
    }
    let manager = &exchange.manager;
    if !manager.router.suppress_envoy_headers {
        let since = exchange.forwarded.unwrap_or(exchange.started);
        headers.insert(names::UPSTREAM_SERVICE_TIME, millis(crate::worker::millis_since(since)));
    }
    edits::response(exchange, headers, plan.table.response_edits(plan.virtual_host, plan.route, plan.pick));
    if let Some(more) = &plan.outcome.response_headers {
        headers.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    match manager.compiled.server_header {
        ServerHeader::Overwrite => drop(headers.insert(SERVER, manager.server.clone())),
        ServerHeader::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| manager.server.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, exchange.worker.http_date());
    }
    if plan.virtual_host.attempt_count_in_response {
        headers.insert(names::ATTEMPT_COUNT, HeaderValue::from(exchange.attempts));
    }
    if manager.inbound {
        if let (Some(operation), Some(_)) = (&plan.route.operation, &manager.compiled.tracing)
            && let Ok(value) = HeaderValue::from_str(operation)
        {
            headers.insert(names::DECORATOR, value);
        }
    } else if manager.compiled.tracing.is_some() {
        headers.remove(names::DECORATOR);
    }
    if manager.compiled.request_id.in_response
        && let Some(id) = exchange.head.headers.get(names::REQUEST_ID)
    {
        headers.insert(names::REQUEST_ID, id.clone());
    }
}

/// A small number as a header's value, mostly without allocating.
fn millis(number: u64) -> HeaderValue {
    const SMALL: [&str; 16] =
        ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15"];
    match usize::try_from(number).ok().and_then(|index| SMALL.get(index)) {
        Some(text) => HeaderValue::from_static(text),
        None => HeaderValue::from(number),
    }
}
