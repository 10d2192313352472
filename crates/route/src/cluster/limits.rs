//! Circuit breakers.

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
    /// Whether figures tell how much is left.
    pub track_remaining: bool,
    /// Connections to one endpoint at once; `None` is no limit.
    pub max_connections_per_host: Option<u32>,
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
            track_remaining: false,
            max_connections_per_host: None,
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
        let mut set = [false; 2];
        cx.each("thresholds", &message.thresholds, |cx, limits| {
            cx.check(limits)?;
            let priority = usize::from(limits.priority == 1);
            // Of several for one priority the first holds, as in Envoy.
            if std::mem::replace(&mut set[priority], true) {
                return Ok(());
            }
            let default = CircuitBreaker::default();
            out[priority] = CircuitBreaker {
                max_connections: limits.max_connections.unwrap_or(default.max_connections),
                max_pending: limits.max_pending_requests.unwrap_or(default.max_pending),
                max_requests: limits.max_requests.unwrap_or(default.max_requests),
                max_retries: limits.max_retries.unwrap_or(default.max_retries),
                retry_budget: limits.retry_budget.as_ref().map(|budget| RetryBudget {
                    percent: budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value),
                    min_concurrency: budget.min_retry_concurrency.unwrap_or(3),
                }),
                track_remaining: limits.track_remaining,
                max_connections_per_host: None,
            };
            Ok(())
        })?;
        cx.each("per_host_thresholds", &message.per_host_thresholds, |cx, limits| {
            let others = limits.max_pending_requests.or(limits.max_requests).or(limits.max_retries);
            if others.is_some() || limits.track_remaining || limits.retry_budget.is_some() {
                return Err(cx.refuse("only max_connections is supported for one endpoint, as in Envoy"));
            }
            out[usize::from(limits.priority == 1)].max_connections_per_host = limits.max_connections;
            Ok(())
        })?;
        Ok(out)
    })
}
