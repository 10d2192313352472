//! Answers of our own, changed as the manager's `local_reply_config` says.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use lateen_route::access_log::LogFormat;
use lateen_route::http_manager::BodyFormat;

use super::edits;
use super::exchange::Exchange;

/// What can be changed of an answer, apart from its headers.
#[derive(Debug)]
pub(crate) struct LocalReply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// Its content type, where a format says one.
    pub content_type: Option<HeaderValue>,
}

/// Changes an answer by the first mapper that admits it, then by the format of all bodies.
pub(crate) fn change(exchange: &Exchange, reply: &mut LocalReply, headers: &mut HeaderMap) {
    let rules = &exchange.manager.compiled.local_reply;
    let mapper = rules.mappers.iter().find(|mapper| exchange.record().admitted(&mapper.filter));
    let mut status = reply.status;
    if let Some(mapper) = mapper {
        if let Some(body) = &mapper.body {
            reply.body = body.clone();
        }
        edits::response(exchange, headers, std::iter::once(&mapper.headers));
        if let Some(new) = mapper.status.and_then(|status| StatusCode::from_u16(status).ok()) {
            status = new;
        }
    }
    reply.status = status;
    let format = mapper.and_then(|mapper| mapper.format.as_ref()).or(rules.body.as_ref());
    if let Some(format) = format {
        let (body, content_type) = render(exchange, reply, format);
        reply.body = body;
        reply.content_type = Some(content_type);
    }
}

fn render(exchange: &Exchange, reply: &LocalReply, format: &BodyFormat) -> (Bytes, HeaderValue) {
    let mut record = exchange.record();
    record.status = reply.status.as_u16();
    record.local_reply = std::str::from_utf8(&reply.body).unwrap_or_default();
    let mut out = Vec::new();
    record.write_line(&format.format, &mut out);
    let usual = match format.format {
        LogFormat::Json { .. } => "application/json",
        _ => "text/plain",
    };
    let given = format.content_type.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
    (out.into(), given.unwrap_or(HeaderValue::from_static(usual)))
}
