//! Tracing of a connection manager.

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
    /// Whether the identifiers of new traces have 128 bits rather than 64.
    pub long_ids: bool,
}

impl Tracing {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &hcm::http_connection_manager::Tracing) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            client_sampling: percent(&message.client_sampling, 100.0),
            random_sampling: percent(&message.random_sampling, 100.0),
            overall_sampling: percent(&message.overall_sampling, 100.0),
            long_ids: long_ids(cx, message)?,
        })
    }
}

/// Zipkin's tracer says so itself; OpenTelemetry's identifiers are long always.
fn long_ids(cx: &mut Cx<'_>, message: &hcm::http_connection_manager::Tracing) -> Result<bool> {
    use lateen_proto::envoy::config::trace::v3 as trace;
    let Some(provider) = &message.provider else { return Ok(false) };
    let Some(trace::tracing::http::ConfigType::TypedConfig(any)) = &provider.config_type else {
        return Ok(false);
    };
    cx.field("provider.typed_config", |cx| {
        if any.is::<trace::ZipkinConfig>() {
            let config: trace::ZipkinConfig = cx.unpack(any)?;
            return Ok(config.trace_id_128bit);
        }
        Ok(any.is::<trace::OpenTelemetryConfig>())
    })
}

/// A percentage as a share of a million, so that 0.01 % is exact.
pub(crate) fn percent(message: &Option<Percent>, unset: f64) -> Fraction {
    let value = message.as_ref().map_or(unset, |percent| percent.value).clamp(0.0, 100.0);
    Fraction { numerator: (value * 10_000.0).round() as u32, denominator: 1_000_000 }
}
