//! Answers.

use std::io;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use crate::status::Status;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A whole body of some type.
pub(super) fn bytes(code: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    }
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

pub(super) fn json_bytes(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "application/json", body)
}

pub(super) fn json(code: u16, body: &Value) -> Response<Body> {
    json_bytes(code, body.to_string())
}

pub(super) fn text(code: u16, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// A body that comes bit by bit.
pub(super) fn stream(
    content_type: &str,
    chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Response<Body> {
    let mut response = bytes(200, content_type, Bytes::new());
    *response.body_mut() = StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync();
    response
}

pub(super) fn failure(status: &Status) -> Response<Body> {
    let mut response = json(status.code, &status.to_json());
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(http::header::RETRY_AFTER, retry.into());
    }
    response
}

/// Adds `Warning` headers, which `kubectl` prints.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    let mut seen: Vec<&str> = Vec::new();
    for warning in warnings {
        if seen.contains(&warning.as_str()) {
            continue;
        }
        seen.push(warning);
        let plain: String = warning.chars().filter(|c| !c.is_control()).take(256).collect();
        let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}
