//! Phase: the request goes to its cluster, in one attempt or several, and the response comes back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONNECTION, DATE, SERVER, SET_COOKIE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response, Version};
use hyper::body::Body as _;
use lateen_route::RouteTable;
use lateen_route::http_manager::ServerHeader;
use lateen_route::routes::{Forward, Route, VirtualHost, WeightedCluster};
use tokio::time::Instant;

use super::arriving::Arriving;
use super::attempts::{Attempts, Source};
use super::body::{ResponseBody, UpstreamBody};
use super::exchange::Exchange;
use super::filters::Outcome;
use super::ingress::names;
use super::pulse::{Broken, Expired};
use super::retry::Retries;
use super::sieve::Sieve;
use super::{destination, edits, mirror, reply, rewrite};
use crate::failure::Failure;
use crate::upstream::cluster::Cluster;

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
    body: Arriving,
) -> Response<ResponseBody> {
    if let Err(failure) = rewrite::rewrite(&mut exchange, &plan) {
        return reply::failure(exchange, &failure);
    }
    let policy = plan.forward.retry.as_ref().or(plan.virtual_host.retry.as_ref());
    let retries = Retries::of(&exchange, policy, plan.priority());
    let mirrors = mirror::wanted(&exchange, &plan);
    let source = Source::new(&exchange, plan.route, body, retries.is_some() || !mirrors.is_empty());
    for target in mirrors {
        mirror::start(&exchange, &plan, target, source.copy());
    }
    exchange.forwarded = Some(std::time::Instant::now());
    let per_try = retries.as_ref().and_then(|retries| retries.policy().per_try_timeout);
    let timeout = rewrite::timeout(&mut exchange, &plan, per_try);
    destination::hash(&mut exchange, &plan);
    let deadline = timeout.map(|limit| Instant::now() + limit);
    let mut attempts = Attempts::new(&plan, source, retries, deadline);
    let pulse = exchange.pulse.clone();
    let result = pulse.guard(attempts.run(&mut exchange)).await;
    let result = result.unwrap_or_else(|why| Err(Failure::Expired(why, pulse.complete.get())));
    match result {
        Ok(response) => respond(exchange, &plan, deadline, response),
        Err(Failure::Broken(Broken::Gone)) if exchange.head.version != Version::HTTP_2 => {
            // There is nobody to answer: the connection ends, and with it the exchange.
            exchange.upstream = None;
            exchange.hang_up();
            std::future::pending().await
        }
        Err(failure) => {
            exchange.upstream = None;
            exchange.count_response(&plan.cluster, failure.status().as_u16());
            let attempts = exchange.attempts;
            let mut response = reply::failure(exchange, &failure);
            if plan.virtual_host.attempt_count_in_response {
                response.headers_mut().insert(names::ATTEMPT_COUNT, HeaderValue::from(attempts));
            }
            response
        }
    }
}

/// Changes the response's head, and hands its body on.
pub(crate) fn respond(
    mut exchange: Box<Exchange>,
    plan: &Plan<'_>,
    deadline: Option<Instant>,
    response: Response<UpstreamBody>,
) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    if let Some(host) = &exchange.host {
        let counter = if status >= 500 { &host.stats.rq_error } else { &host.stats.rq_success };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    exchange.count_response(&plan.cluster, status);
    if exchange.attempts > 1 && status < 500 {
        plan.cluster.stats.upstream_rq_retry_success.inc();
        if let Some(stats) = &exchange.route_stats {
            stats.upstream_rq_retry_success.inc();
        }
    }
    exchange.details = "via_upstream".into();
    exchange.status = status;
    finish_head(&exchange, plan, &mut parts.headers);
    if let Some(web) = &exchange.grpc_web {
        web.response(&mut parts.headers);
    }
    exchange.take_response(status, &parts.headers);
    if let Some(deadline) = deadline
        && !body.is_end_stream()
    {
        exchange.respond_by(deadline, Expired::Response);
    }
    let compressed = match &exchange.compression {
        Some(rules) if exchange.grpc_web.is_none() => {
            rules.begin(parts.status, &mut parts.headers, !body.is_end_stream())
        }
        _ => None,
    };
    parts.version = Version::HTTP_11;
    // The upstream's reason phrase, among others.
    parts.extensions.clear();
    let body = match compressed {
        Some(stream) => ResponseBody::compressed(body, stream, exchange),
        None => ResponseBody::upstream(body, exchange),
    };
    Response::from_parts(parts, body)
}

/// What every upstream response's head gets and loses.
pub(crate) fn finish_head(exchange: &Exchange, plan: &Plan<'_>, headers: &mut HeaderMap) {
    let sieve = Sieve::of(headers);
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, names::KEEP_ALIVE, names::PROXY_CONNECTION] {
        sieve.remove(headers, &name);
    }
    let manager = &exchange.manager;
    // Before the request was whole there is no time to tell.
    if !manager.router.suppress_envoy_headers && exchange.pulse.complete.get() {
        let since = exchange.forwarded.unwrap_or(exchange.started);
        headers.insert(names::UPSTREAM_SERVICE_TIME, millis(crate::worker::millis_since(since)));
    }
    edits::response(exchange, headers, plan.table.response_edits(plan.virtual_host, plan.route, plan.pick));
    if let Some(more) = &plan.outcome.response_headers {
        // A filter's word replaces the upstream's.
        more.keys().for_each(|name| drop(headers.remove(name)));
        headers.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    for (name, value, action) in &plan.outcome.response_changes {
        edits::apply(headers, name, value.clone(), *action);
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
    for cookie in &exchange.new_cookies {
        headers.append(SET_COOKIE, cookie.clone());
    }
    if manager.inbound {
        reply::tell_operation(exchange, headers);
    } else if manager.compiled.tracing.is_some() {
        sieve.remove(headers, &names::DECORATOR);
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
