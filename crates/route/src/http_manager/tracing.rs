//! Tracing of a connection manager.

use std::sync::Arc;

use lateen_proto::Any;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_proto::envoy::r#type::v3::Percent;

use crate::entropy::Fraction;
use crate::error::{Cx, Result};

/// Tracing of a manager.
#[derive(Clone, Debug)]
pub struct Tracing {
    /// Share of requests with `x-client-trace-id` that are traced.
    pub client_sampling: Fraction,
    /// Share of requests that are traced by chance.
    pub random_sampling: Fraction,
    /// Limit of all of it.
    pub overall_sampling: Fraction,
    /// The longest path in a tag.
    pub max_path_length: u32,
    /// The exporter; none is as the bootstrap says.
    pub provider: Option<Any>,
    /// Tags of every span.
    pub tags: Vec<TraceTag>,
}

/// A tag of spans.
#[derive(Clone, Debug)]
pub struct TraceTag {
    /// Its name.
    pub name: Arc<str>,
    /// Where its value comes from.
    pub value: TagValue,
}

/// Where a tag's value comes from.
#[derive(Clone, Debug)]
pub enum TagValue {
    /// Always the same.
    Literal(Arc<str>),
    /// An environment variable, with a default.
    Environment(Arc<str>, Arc<str>),
    /// A request header, with a default.
    Header(http::HeaderName, Arc<str>),
}

impl Tracing {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &hcm::http_connection_manager::Tracing) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            client_sampling: percent(&message.client_sampling, 100.0),
            random_sampling: percent(&message.random_sampling, 100.0),
            overall_sampling: percent(&message.overall_sampling, 100.0),
            max_path_length: message.max_path_tag_length.unwrap_or(256),
            provider: message.provider.as_ref().and_then(|provider| {
                use lateen_proto::envoy::config::trace::v3::tracing::http::ConfigType;
                provider.config_type.as_ref().map(|ConfigType::TypedConfig(any)| any.clone())
            }),
            tags: cx.each("custom_tags", &message.custom_tags, TraceTag::compile)?,
        })
    }
}

impl TraceTag {
    pub(crate) fn compile(
        cx: &mut Cx<'_>,
        message: &lateen_proto::envoy::r#type::tracing::v3::CustomTag,
    ) -> Result<Self> {
        use lateen_proto::envoy::r#type::tracing::v3::custom_tag::Type;
        let value = match &message.r#type {
            Some(Type::Literal(literal)) => TagValue::Literal(literal.value.as_str().into()),
            Some(Type::Environment(env)) => {
                TagValue::Environment(env.name.as_str().into(), env.default_value.as_str().into())
            }
            Some(Type::RequestHeader(header)) => TagValue::Header(
                cx.header_name("request_header.name", &header.name)?,
                header.default_value.as_str().into(),
            ),
            Some(_) => {
                return Err(cx.refuse("only literal, environment and request_header are supported"));
            }
            None => return Err(cx.refuse("needs literal, environment or request_header")),
        };
        Ok(Self { name: message.tag.as_str().into(), value })
    }
}

/// A percentage as a share of a million, so that 0.01 % is exact.
pub(crate) fn percent(message: &Option<Percent>, unset: f64) -> Fraction {
    let value = message.as_ref().map_or(unset, |percent| percent.value).clamp(0.0, 100.0);
    Fraction { numerator: (value * 10_000.0).round() as u32, denominator: 1_000_000 }
}
