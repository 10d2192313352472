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
}

impl Tracing {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &hcm::http_connection_manager::Tracing) -> Result<Self> {
        cx.check(message)?;
        Ok(Self {
            client_sampling: percent(&message.client_sampling, 100.0),
            random_sampling: percent(&message.random_sampling, 100.0),
            overall_sampling: percent(&message.overall_sampling, 100.0),
        })
    }
}

/// A percentage as a share of a million, so that 0.01 % is exact.
pub(crate) fn percent(message: &Option<Percent>, unset: f64) -> Fraction {
    let value = message.as_ref().map_or(unset, |percent| percent.value).clamp(0.0, 100.0);
    Fraction { numerator: (value * 10_000.0).round() as u32, denominator: 1_000_000 }
}
