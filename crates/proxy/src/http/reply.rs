//! Answers of our own: failures, redirects, direct responses.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, LOCATION, SERVER};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use super::body::ResponseBody;
use super::exchange::Exchange;
use super::ingress::names;
use crate::failure::{Failure, Reset, grpc_status};

/// The answer to a failure.
pub(crate) fn failure(mut exchange: Box<Exchange>, failure: &Failure) -> Response<ResponseBody> {
    exchange.flags.add(failure.flag());
    exchange.details = failure.detail();
    match failure {
        Failure::NoRoute => exchange.manager.stats.no_route.inc(),
        Failure::NoCluster(_) => exchange.manager.stats.no_cluster.inc(),
        _ => {}
    }
    let body = failure.body();
    if exchange.head.is_grpc() {
        return grpc_failure(exchange, failure, &body);
    }
    let mut headers = HeaderMap::new();
    if failure.closes() && exchange.head.version != Version::HTTP_2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if matches!(failure, Failure::Upstream(Reset::Overflow, _)) {
        headers.insert(names::OVERLOADED, HeaderValue::from_static("true"));
    }
    let bytes = match body {
        std::borrow::Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
        std::borrow::Cow::Owned(text) => Bytes::from(text),
    };
    local(exchange, failure.status(), headers, bytes)
}

/// A failure as gRPC tells it: 200, and the status in the head (a "trailers-only" response).
fn grpc_failure(mut exchange: Box<Exchange>, failure: &Failure, message: &str) -> Response<ResponseBody> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(failure.grpc_status())));
    let encoded = percent_encoding::utf8_percent_encode(message, percent_encoding::CONTROLS).to_string();
    if let Ok(value) = HeaderValue::from_str(&encoded)
        && !encoded.is_empty()
    {
        headers.insert("grpc-message", value);
    }
    finish_head(&exchange, &mut headers);
    exchange.take_response(200, &headers);
    respond(exchange, StatusCode::OK, headers, Bytes::new())
}

/// A gRPC status of fault injection.
pub(crate) fn grpc_abort(mut exchange: Box<Exchange>, status: u32) -> Response<ResponseBody> {
    let failure = Failure::FaultAbort(StatusCode::OK);
    exchange.flags.add(failure.flag());
    exchange.details = failure.detail();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(status));
    headers.insert("grpc-message", HeaderValue::from_static("fault filter abort"));
    finish_head(&exchange, &mut headers);
    exchange.take_response(200, &headers);
    respond(exchange, StatusCode::OK, headers, Bytes::new())
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

/// An answer with a text body.
pub(crate) fn local(
    mut exchange: Box<Exchange>,
    status: StatusCode,
    mut headers: HeaderMap,
    body: Bytes,
) -> Response<ResponseBody> {
    if exchange.head.is_grpc() && status != StatusCode::OK {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(u16::from(grpc_status(status))));
        finish_head(&exchange, &mut headers);
        exchange.take_response(200, &headers);
        return respond(exchange, StatusCode::OK, headers, Bytes::new());
    }
    if !body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain"));
    } else if !crate::log::has_no_body(status) && exchange.head.version != Version::HTTP_2 {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    finish_head(&exchange, &mut headers);
    exchange.take_response(status.as_u16(), &headers);
    respond(exchange, status, headers, body)
}

fn finish_head(exchange: &Exchange, headers: &mut HeaderMap) {
    headers.insert(DATE, exchange.worker.http_date());
    headers.insert(SERVER, exchange.manager.server.clone());
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
