//! Circuit breakers and outlier detection.

use std::time::Duration;

use lateen_proto::envoy::config::cluster::v3 as proto;

use crate::error::{Cx, Result};

/// The limits of one priority.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitBreaker {
    /// Connections at once.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending: u32,
    /// Requests at once.
    pub max_requests: u32,
    /// Retries at once, without a budget.
    pub max_retries: u32,
    /// Retries as a share of requests.
    pub retry_budget: Option<RetryBudget>,
}

/// Retries as a share of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    /// Percent of the active requests.
    pub percent: f64,
    /// Retries that are always allowed.
    pub min_concurrency: u32,
}

impl Default for CircuitBreaker {
    /// Envoy's defaults.
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending: 1024,
            max_requests: 1024,
            max_retries: 3,
            retry_budget: None,
        }
    }
}

pub(super) fn circuit_breakers(
    cx: &mut Cx<'_>,
    message: &Option<proto::CircuitBreakers>,
) -> Result<[CircuitBreaker; 2]> {
    let mut out = [CircuitBreaker::default(); 2];
    let Some(message) = message else { return Ok(out) };
    cx.field("circuit_breakers", |cx| {
        cx.check(message)?;
        cx.each("thresholds", &message.thresholds, |cx, limits| {
            cx.check(limits)?;
            let default = CircuitBreaker::default();
            out[usize::from(limits.priority == 1)] = CircuitBreaker {
                max_connections: limits.max_connections.unwrap_or(default.max_connections),
                max_pending: limits.max_pending_requests.unwrap_or(default.max_pending),
                max_requests: limits.max_requests.unwrap_or(default.max_requests),
                max_retries: limits.max_retries.unwrap_or(default.max_retries),
                retry_budget: limits.retry_budget.as_ref().map(|budget| RetryBudget {
                    percent: budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value),
                    min_concurrency: budget.min_retry_concurrency.unwrap_or(3),
                }),
            };
            Ok(())
        })?;
        Ok(out)
    })
}

/// Which endpoints are left out for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierDetection {
    /// 5xx in a row until an endpoint is ejected; `None` is never.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503, 504 in a row until an endpoint is ejected; `None` is never.
    pub consecutive_gateway: Option<u32>,
    /// Failures of our own side (connecting) in a row, where they count apart; `None` is never.
    pub consecutive_local: Option<u32>,
    /// Whether failures of our own side count apart.
    pub split_local: bool,
    /// Between sweeps, at which ejections end.
    pub interval: Duration,
    /// An ejection lasts this, times how often the endpoint was ejected.
    pub base_ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// The most endpoints ejected, in percent; at least one may be.
    pub max_ejection_percent: u32,
}

impl OutlierDetection {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::OutlierDetection) -> Result<Self> {
        cx.check(message)?;
        let enforced = |threshold: u32, percent: Option<u32>, unset: u32| {
            (percent.unwrap_or(unset) > 0 && threshold > 0).then_some(threshold)
        };
        let base = cx.duration("base_ejection_time", &message.base_ejection_time)?;
        let base = base.unwrap_or(Duration::from_secs(30));
        let max = cx.duration("max_ejection_time", &message.max_ejection_time)?;
        Ok(Self {
            consecutive_5xx: enforced(
                message.consecutive_5xx.unwrap_or(5),
                message.enforcing_consecutive_5xx,
                100,
            ),
            consecutive_gateway: enforced(
                message.consecutive_gateway_failure.unwrap_or(5),
                message.enforcing_consecutive_gateway_failure,
                0,
            ),
            consecutive_local: enforced(
                message.consecutive_local_origin_failure.unwrap_or(5),
                message.enforcing_consecutive_local_origin_failure,
                100,
            ),
            split_local: message.split_external_local_origin_errors,
            interval: cx.duration("interval", &message.interval)?.unwrap_or(Duration::from_secs(10)),
            base_ejection: base,
            max_ejection: max.unwrap_or(Duration::from_secs(300)).max(base),
            max_ejection_percent: message.max_ejection_percent.unwrap_or(10).min(100),
        })
    }
}
