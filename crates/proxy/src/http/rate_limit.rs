//! Phase: local rate limits.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use lateen_route::rate_limit::{Buckets, Counted, LocalRateLimit, TokenBucket};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::filters::{Outcome, RouteContext};
use super::reply;
use crate::worker::uptime;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Counts a request; turns it away when there were too many.
///
/// # Errors
/// The answer to a request that is one too many.
pub(crate) fn limit(
    mut exchange: Box<Exchange>,
    filter: &Arc<LocalRateLimit>,
    route: &RouteContext<'_>,
    outcome: &mut Outcome,
) -> Result<Box<Exchange>, Box<Response<ResponseBody>>> {
    if !filter.enabled.hits(exchange.entropy.draw(0x6c69_6d69)) {
        return Ok(exchange);
    }
    let stats = exchange.worker.shared.stats.rate_limit(&filter.stat_prefix);
    stats.enabled.inc();
    let about =
        Counted { source_cluster: &exchange.worker.shared.node_cluster, destination_cluster: &route.cluster };
    let of_route = route.forward.map_or(&[][..], |forward| &forward.rate_limits);
    let kinds = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        filter.kinds(&view, about, of_route, &route.virtual_host.rate_limits)
    });
    let own = filter.per_connection.then(|| own_buckets(&exchange, filter));
    let buckets = own.as_deref().unwrap_or(&filter.buckets);
    let now = uptime();
    let (allowed, bucket) = buckets.take(&kinds, now);
    let mut headers = HeaderMap::new();
    if let (Some(bucket), true) = (bucket, filter.tells_rest) {
        tell(&mut headers, bucket, now);
    }
    if allowed {
        stats.ok.inc();
        outcome.add_response_headers(headers);
        return Ok(exchange);
    }
    stats.rate_limited.inc();
    if !filter.enforced.hits(exchange.entropy.draw(0x656e_666f)) {
        for (name, value) in &filter.request_headers {
            exchange.head.headers.append(name, value.clone());
        }
        outcome.add_response_headers(headers);
        return Ok(exchange);
    }
    stats.enforced.inc();
    for (name, value) in &filter.response_headers {
        headers.append(name, value.clone());
    }
    let status = StatusCode::from_u16(filter.status).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let grpc = if filter.resource_exhausted { 8 } else { 14 };
    Err(Box::new(reply::rate_limited(exchange, status, grpc, headers)))
}

/// The buckets of a connection for a filter, made when it is first asked for.
fn own_buckets(exchange: &Exchange, filter: &Arc<LocalRateLimit>) -> Rc<Buckets> {
    let mut known = exchange.down.buckets.borrow_mut();
    if let Some((_, buckets)) = known.iter().find(|(other, _)| Arc::ptr_eq(other, filter)) {
        return buckets.clone();
    }
    let buckets = Rc::new(filter.buckets.anew());
    known.push((filter.clone(), buckets.clone()));
    buckets
}

fn tell(headers: &mut HeaderMap, bucket: &TokenBucket, now: Duration) {
    headers.insert(LIMIT, HeaderValue::from(bucket.max));
    headers.insert(REMAINING, HeaderValue::from(bucket.left(now)));
    headers.insert(RESET, HeaderValue::from(bucket.next_in(now)));
}
