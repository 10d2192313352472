//! Phase: the request's head on its way to a cluster: what routes change of it, and how each protocol has it.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderName};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Body as _;
use lateen_route::routes::HostRewrite;
use smallvec::SmallVec;

use super::body::RequestBody;
use super::edits;
use super::exchange::Exchange;
use super::ingress::names;
use super::router::Plan;
use super::sieve::Sieve;
use crate::failure::Failure;
use crate::upstream::cluster::Picked;
use crate::upstream::http1::{self, RequestHead};

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
        // Also where nothing changes: the route is one that rewrites.
        if !exchange.manager.router.suppress_envoy_headers
            && let Ok(old) = HeaderValue::from_str(exchange.head.path())
        {
            exchange.head.headers.insert(names::ORIGINAL_PATH, old);
        }
        if new != exchange.head.path() {
            exchange.head.set_path(&new)?;
        }
    }
    tell_operation(exchange);
    Ok(())
}

/// Tells the upstream the name of the operation that its span is to have.
pub(crate) fn tell_operation(exchange: &mut Exchange) {
    let operation = exchange.route.as_ref().and_then(|route| route.operation.as_ref());
    if let (Some(operation), Some(_), false) =
        (operation, &exchange.manager.compiled.tracing, exchange.manager.inbound)
        && let Ok(value) = HeaderValue::from_str(operation)
    {
        exchange.head.headers.insert(names::DECORATOR, value);
    }
}

fn replace_host(exchange: &mut Exchange, plan: &Plan<'_>, host: &str) {
    let old = exchange.head.authority_value().clone();
    if plan.forward.append_x_forwarded_host {
        exchange.head.headers.append(names::FORWARDED_HOST, old.clone());
    }
    if !exchange.manager.router.suppress_envoy_headers {
        exchange.head.headers.insert(names::ORIGINAL_HOST, old);
    }
    exchange.head.set_authority(host);
}

/// The time for the whole response, by the route or an internal client; told to the upstream.
pub(crate) fn timeout(
    exchange: &mut Exchange,
    plan: &Plan<'_>,
    per_try: Option<Duration>,
) -> Option<Duration> {
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
    let sieve = Sieve::of(headers);
    let asked = sieve.remove(headers, &names::TIMEOUT).and_then(millis);
    let expected = sieve.get(headers, &names::EXPECTED_TIMEOUT).filter(|_| settings.respect_expected_timeout);
    let asked = expected.cloned().and_then(millis).or(asked);
    let limit = asked.or(limit).filter(|limit| !limit.is_zero());
    // What the upstream has is what one attempt has.
    let told = match (limit, per_try) {
        (Some(limit), Some(per_try)) => Some(limit.min(per_try)),
        (limit, per_try) => limit.or(per_try),
    };
    let told = told.and_then(|told| u64::try_from(told.as_millis()).ok());
    if let Some(millis) = told {
        if !settings.suppress_envoy_headers {
            headers.insert(names::EXPECTED_TIMEOUT, HeaderValue::from(millis));
        }
        if grpc && forward.grpc_timeout.is_some() && forward.max_stream.is_none() {
            headers.insert(names::GRPC_TIMEOUT, grpc_millis(millis));
        }
    }
    limit
}

/// A time as `grpc-timeout` has it: at most eight digits and a unit.
fn grpc_millis(millis: u64) -> HeaderValue {
    let text = match millis {
        0..100_000_000 => format!("{millis}m"),
        _ => format!("{}S", (millis / 1000).min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0m"))
}

/// The authority that a host is asked by.
fn upstream_authority(exchange: &Exchange, plan: &Plan<'_>, picked: &Picked) -> HeaderValue {
    let head = &exchange.head;
    match (&plan.forward.host_rewrite, &*picked.host.hostname) {
        (Some(HostRewrite::Auto), name) if !name.is_empty() => {
            HeaderValue::from_str(name).unwrap_or_else(|_| head.authority_value().clone())
        }
        _ => head.authority_value().clone(),
    }
}

/// Headers that one attempt alone has.
fn attempt_headers(exchange: &Exchange, plan: &Plan<'_>) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let count = plan
        .virtual_host
        .attempt_count_in_request
        .then(|| (names::ATTEMPT_COUNT, HeaderValue::from(exchange.attempts)));
    let again = plan.virtual_host.is_timeout_retry_header && exchange.attempts > 1;
    let again = again.then(|| {
        let text = if exchange.timed_out { "true" } else { "false" };
        (names::IS_TIMEOUT_RETRY, HeaderValue::from_static(text))
    });
    count.into_iter().chain(again)
}

/// Begins an attempt on an HTTP/1.1 connection. The head is written from where it is: there may be more attempts.
pub(crate) fn begin_http1(
    exchange: &Exchange,
    plan: &Plan<'_>,
    picked: &Picked,
    connection: &http1::Connection,
    body: RequestBody,
) {
    let head = &exchange.head;
    let mut more = SmallVec::<[_; 4]>::new();
    more.push((HOST, upstream_authority(exchange, plan, picked)));
    more.extend(attempt_headers(exchange, plan));
    if body.is_end_stream() && expects_body(&head.method) && !head.headers.contains_key(CONTENT_LENGTH) {
        more.push((CONTENT_LENGTH, HeaderValue::from_static("0")));
    }
    let target = head.path_and_query().map_or("/", PathAndQuery::as_str);
    let head = RequestHead { method: &head.method, target, headers: &head.headers, more: &more };
    connection.begin(&head, body);
}

/// Whether HTTP/1 says it where there is no body.
fn expects_body(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT)
}

/// The head of one attempt; `empty` says that there is no body.
pub(crate) fn upstream_head(
    exchange: &Exchange,
    plan: &Plan<'_>,
    picked: &Picked,
    http2: bool,
    empty: bool,
) -> Request<()> {
    let head = &exchange.head;
    let mut headers = head.headers.clone();
    let authority = upstream_authority(exchange, plan, picked);
    for (name, value) in attempt_headers(exchange, plan) {
        headers.insert(name, value);
    }
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    if http2 {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = absolute_uri(head.scheme, &authority, head.path_and_query());
    } else {
        headers.insert(HOST, authority);
        // Where a body could be expected, HTTP/1 says that there is none.
        if empty && expects_body(&head.method) {
            headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
        }
        let path = head.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
    }
    *request.headers_mut() = headers;
    request
}

/// The head of a copy, as for HTTP/2.
pub(crate) fn head_for_copy(exchange: &Exchange, plan: &Plan<'_>, authority: &str) -> Request<()> {
    let head = &exchange.head;
    let authority = HeaderValue::from_str(authority).unwrap_or_else(|_| head.authority_value().clone());
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = absolute_uri(head.scheme, &authority, head.path_and_query());
    *request.headers_mut() = head.headers.clone();
    let headers = request.headers_mut();
    if plan.virtual_host.attempt_count_in_request {
        headers.insert(names::ATTEMPT_COUNT, HeaderValue::from(1));
    }
    // A copy is a request of the proxy's own.
    headers.insert(names::INTERNAL, HeaderValue::from_static("true"));
    let own = crate::downstream::host_address().to_string();
    let forwarded = match headers.get(names::FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
        Some(old) => format!("{old},{own}"),
        None => own,
    };
    if let Ok(value) = HeaderValue::try_from(forwarded) {
        headers.insert(names::FORWARDED_FOR, value);
    }
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

/// A whole URI, as HTTP/2 has it.
pub(crate) fn absolute_uri(scheme: &str, authority: &HeaderValue, path: Option<&PathAndQuery>) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Authority::try_from(authority.as_bytes()).ok();
    parts.path_and_query = path.cloned().or(Some(PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}
