//! How answers of the proxy's own are changed.

use std::sync::Arc;

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use crate::access_log::LogFilter;
use crate::error::{Cx, Result};
use crate::header_edits::HeaderEdits;

/// How answers of our own are changed.
#[derive(Clone, Debug, Default)]
pub struct LocalReply {
    /// Tried in order; the first whose filter admits the answer changes it.
    pub mappers: Vec<ReplyMapper>,
    /// The body's format, where no mapper has one.
    pub body: Option<BodyFormat>,
}

/// One change to answers of our own.
#[derive(Clone, Debug)]
pub struct ReplyMapper {
    /// Which answers.
    pub filter: LogFilter,
    /// The new status.
    pub status: Option<u16>,
    /// The new body.
    pub body: Option<bytes::Bytes>,
    /// The body's format.
    pub format: Option<BodyFormat>,
    /// Headers to add.
    pub headers: HeaderEdits,
}

/// A body's format.
#[derive(Clone, Debug)]
pub struct BodyFormat {
    /// The text or JSON.
    pub format: crate::access_log::LogFormat,
    /// The content type; `text/plain` or `application/json` unless set.
    pub content_type: Option<Arc<str>>,
}

impl LocalReply {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &hcm::LocalReplyConfig) -> Result<Self> {
        let mappers = cx.each("mappers", &message.mappers, |cx, mapper| {
            let filter = cx.required("filter", &mapper.filter)?;
            let status = mapper
                .status_code
                .map(|status| {
                    u16::try_from(status).map_err(|_| cx.refuse_at("status_code", "is no HTTP status"))
                })
                .transpose()?;
            Ok(ReplyMapper {
                filter: cx.field("filter", |cx| LogFilter::compile(cx, filter, 0))?,
                status,
                body: mapper.body.as_ref().map(|body| cx.inline("body", body)).transpose()?,
                format: body_format(cx, "body_format_override", &mapper.body_format_override)?,
                headers: HeaderEdits::compile(cx, ("headers_to_add", &mapper.headers_to_add), ("", &[]))?,
            })
        })?;
        Ok(Self { mappers, body: body_format(cx, "body_format", &message.body_format)? })
    }
}

fn body_format(
    cx: &mut Cx<'_>,
    field: &str,
    message: &Option<core::SubstitutionFormatString>,
) -> Result<Option<BodyFormat>> {
    let Some(message) = message else { return Ok(None) };
    let format = cx.field(field, |cx| crate::access_log::LogFormat::compile(cx, message))?;
    let content_type = (!message.content_type.is_empty()).then(|| message.content_type.as_str().into());
    Ok(Some(BodyFormat { format, content_type }))
}
