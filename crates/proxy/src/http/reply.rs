//! Answers of our own: failures, redirects, direct responses.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::ingress::names;
use super::local_reply::{self, LocalReply};
use super::tokens;
use crate::failure::{Failure, Reset, grpc_status};
use crate::flags::Flags;

/// The answer to a failure.
pub(crate) fn failure(mut exchange: Box<Exchange>, failure: &Failure) -> Response<ResponseBody> {
    exchange.flags.add(failure.flag());
    exchange.details = failure.detail();
    match failure {
        Failure::NoRoute => exchange.manager.stats.no_route.inc(),
        Failure::NoCluster(_) => exchange.manager.stats.no_cluster.inc(),
        Failure::Expired(why, _) => exchange.count_expired(*why),
        _ => {}
    }
    let body = failure.body();
    let mut headers = HeaderMap::new();
    if failure.closes() && exchange.head.version != Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(failure, Failure::Upstream(Reset::Overflow, _)) {
        headers.insert(names::OVERLOADED, HeaderValue::from_static("true"));
    }
    if let Failure::Token(why, false) = failure {
        headers.extend(tokens::challenge(&exchange.head, *why).map(|value| (WWW_AUTHENTICATE, value)));
    }
    let bytes = match body {
        std::borrow::Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        std::borrow::Cow::Owned(text) => Bytes::from(text),
    };
    answer(exchange, failure.status(), Some(failure.grpc_status()), headers, bytes)
}

/// A gRPC status of fault injection.
pub(crate) fn grpc_abort(mut exchange: Box<Exchange>, status: u32) -> Response<ResponseBody> {
    let failure = Failure::FaultAbort(StatusCode::OK, None);
    exchange.flags.add(failure.flag());
    exchange.details = failure.detail();
    if !exchange.head.is_grpc() {
        let body = Bytes::from_static(b"fault filter abort");
        return answer(exchange, StatusCode::OK, None, HeaderMap::new(), body);
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(status));
    headers.insert("grpc-message", HeaderValue::from_static("fault filter abort"));
    finish_head(&exchange, &mut headers);
    exchange.take_response(200, &headers);
    respond(exchange, StatusCode::OK, headers, Bytes::new())
}

/// The answer to a request that is one too many.
pub(crate) fn rate_limited(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    grpc: u8,
    headers: HeaderMap,
) -> Response<ResponseBody> {
    exchange.flags.add(Flags::RATE_LIMITED);
    exchange.details = "local_rate_limited".into();
    answer(exchange, status, Some(grpc), headers, Bytes::from_static(b"local_rate_limited"))
}

/// The answer to what an authorization service does not let pass, or could not be asked about.
pub(crate) fn unauthorized(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    details: &'static str,
) -> Response<ResponseBody> {
    exchange.flags.add(Flags::UNAUTHORIZED);
    exchange.details = details.into();
    answer(exchange, status, None, headers, body)
}

/// The answer to a request whose body is longer than a filter may read.
pub(crate) fn too_large(mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    exchange.details = "request_payload_too_large".into();
    let body = Bytes::from_static(b"Payload Too Large");
    let mut headers = HeaderMap::new();
    if exchange.head.version != Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer(exchange, StatusCode::PAYLOAD_TOO_LARGE, None, headers, body)
}

/// A redirect.
pub(crate) fn redirect(
    mut exchange: Box<Exchange>,
    status: u16,
    location: &str,
    edits: HeaderMap,
) -> Response<ResponseBody> {
    exchange.details = "direct_response".into();
    exchange.manager.stats.rq_redirect.inc();
    let mut headers = edits;
    if let Ok(value) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, value);
    }
    local(exchange, StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND), headers, Bytes::new())
}

/// The answer to a browser that asks whether it may ask.
pub(crate) fn preflight(mut exchange: Box<Exchange>, headers: HeaderMap) -> Response<ResponseBody> {
    exchange.details = "cors_response".into();
    local(exchange, StatusCode::OK, headers, Bytes::new())
}

/// An answer that a route gives.
pub(crate) fn direct(
    mut exchange: Box<Exchange>,
    status: u16,
    headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    exchange.details = "direct_response".into();
    exchange.manager.stats.rq_direct_response.inc();
    local(exchange, StatusCode::from_u16(status).unwrap_or(StatusCode::OK), headers, body)
}

/// Sends a client whose path was cleaned to the clean one, as Envoy's `UNESCAPE_AND_REDIRECT` does.
pub(crate) fn clean_path(mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    exchange.details = "path_normalization_failed".into();
    let mut headers = HeaderMap::new();
    if let Ok(path) = HeaderValue::from_str(exchange.head.path()) {
        headers.insert(LOCATION, path);
    }
    local(exchange, StatusCode::TEMPORARY_REDIRECT, headers, Bytes::new())
}

/// An answer with a text body.
pub(crate) fn local(
    exchange: Box<Exchange>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    answer(exchange, status, None, headers, body)
}

/// Every answer of our own but those that are gRPC's from the start: changed as the manager says, then told as HTTP or,
/// to a gRPC caller, as a status in the head (a "trailers-only" response). `grpc` is the status where it does not follow
/// from the HTTP one.
fn answer(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    grpc: Option<u8>,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    let mut reply = LocalReply { status, body, content_type: None };
    exchange.status = status.as_u16();
    local_reply::change(&exchange, &mut reply, &mut headers);
    let LocalReply { status: changed, body, content_type } = reply;
    // As Envoy's, an answer to gRPC-Web is plain HTTP: what the client asked for was no gRPC.
    if exchange.head.is_grpc() && exchange.grpc_web.is_none() && changed != StatusCode::OK {
        let grpc = grpc.filter(|_| changed == status).unwrap_or_else(|| grpc_status(changed));
        return grpc_answer(exchange, grpc, headers, &body);
    }
    if !body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        match content_type {
            Some(value) => drop(headers.insert(CONTENT_TYPE, value)),
            None => drop(headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"))),
        }
    } else if !crate::log::has_no_body(changed) && exchange.head.version != Version::HTTP_2 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    finish_head(&exchange, &mut headers);
    exchange.take_response(changed.as_u16(), &headers);
    respond(exchange, changed, headers, body)
}

fn grpc_answer(
    mut exchange: Box<Exchange>,
    status: u8,
    mut headers: HeaderMap,
    message: &[u8],
) -> Response<ResponseBody> {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(status)));
    let encoded = percent_encoding::percent_encode(message, percent_encoding::CONTROLS).to_string();
    if let Ok(value) = HeaderValue::from_str(&encoded)
        && !encoded.is_empty()
    {
        headers.insert("grpc-message", value);
    }
    finish_head(&exchange, &mut headers);
    exchange.take_response(200, &headers);
    respond(exchange, StatusCode::OK, headers, Bytes::new())
}

fn finish_head(exchange: &Exchange, headers: &mut HeaderMap) {
    if let Some(web) = &exchange.grpc_web {
        web.response(headers);
    }
    headers.insert(DATE, exchange.worker.http_date());
    headers.insert(SERVER, exchange.manager.server.clone());
    tell_operation(exchange, headers);
}

/// Tells a caller the operation's name that its span is to have, unless it named the operation itself.
pub(crate) fn tell_operation(exchange: &Exchange, headers: &mut HeaderMap) {
    let manager = &exchange.manager;
    let operation = exchange.route.as_ref().and_then(|route| route.operation.as_ref());
    if let (Some(operation), true, Some(_), false) =
        (operation, manager.inbound, &manager.compiled.tracing, exchange.named)
        && let Ok(value) = HeaderValue::from_str(operation)
    {
        headers.insert(names::DECORATOR, value);
    }
}

fn respond(
    exchange: Box<Exchange>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::local(body, exchange));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
