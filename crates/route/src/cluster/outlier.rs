//! Outlier detection: which endpoints are left out for a while, by what they answer.

use std::time::Duration;

use lateen_proto::envoy::config::cluster::v3 as proto;

use crate::error::{Cx, Result};

/// Which endpoints are left out for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierDetection {
    /// 5xx in a row until an endpoint is ejected.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 in a row until an endpoint is ejected.
    pub consecutive_gateway: u32,
    /// Failures of our own side (connecting) in a row, where they count apart.
    pub consecutive_local: u32,
    /// Whether failures of our own side count apart.
    pub split_local: bool,
    /// Between sweeps, at which rates are compared and ejections end.
    pub interval: Duration,
    /// An ejection lasts this, times how often the endpoint was ejected.
    pub base_ejection: Duration,
    /// The longest ejection.
    pub max_ejection: Duration,
    /// The most that is added to an ejection at random.
    pub jitter: Duration,
    /// The most endpoints ejected, in percent.
    pub max_ejection_percent: u32,
    /// Whether one endpoint may be ejected whatever the percentage.
    pub always_one: bool,
    /// Whether an active check that passes ends an ejection.
    pub uneject_by_check: bool,
    /// Endpoints whose rate of success is far below the others'.
    pub success_rate: Rate,
    /// The deviations below the mean that are far.
    pub deviations: f64,
    /// Endpoints that fail for more than a share of requests.
    pub failure_percentage: Rate,
    /// That share, in percent.
    pub failure_threshold: u32,
    enforcing: [u32; Detector::ALL.len()],
}

/// Which endpoints a rate is worked out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The fewest endpoints with enough requests.
    pub hosts: u32,
    /// The requests of an interval that are enough.
    pub requests: u32,
}

/// What finds an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detector {
    /// 5xx in a row.
    Consecutive5xx,
    /// 502, 503 and 504 in a row.
    ConsecutiveGateway,
    /// Failures of our own side in a row.
    ConsecutiveLocal,
    /// A rate of success far below the others'.
    SuccessRate,
    /// As [`Self::SuccessRate`], of our own side.
    LocalSuccessRate,
    /// Too great a share of failures.
    FailurePercentage,
    /// As [`Self::FailurePercentage`], of our own side.
    LocalFailurePercentage,
}

impl Detector {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGateway,
        Self::ConsecutiveLocal,
        Self::SuccessRate,
        Self::LocalSuccessRate,
        Self::FailurePercentage,
        Self::LocalFailurePercentage,
    ];
}

impl OutlierDetection {
    /// The percentage of finds that lead to an ejection.
    pub fn enforcing(&self, detector: Detector) -> u32 {
        self.enforcing[detector as usize]
    }

    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::OutlierDetection) -> Result<Self> {
        cx.check(message)?;
        let base = cx.duration("base_ejection_time", &message.base_ejection_time)?;
        let base = base.unwrap_or(Duration::from_secs(30));
        let max = cx.duration("max_ejection_time", &message.max_ejection_time)?;
        let jitter = cx.duration("max_ejection_time_jitter", &message.max_ejection_time_jitter)?;
        let enforcing = [
            message.enforcing_consecutive_5xx.unwrap_or(100),
            message.enforcing_consecutive_gateway_failure.unwrap_or(0),
            message.enforcing_consecutive_local_origin_failure.unwrap_or(100),
            message.enforcing_success_rate.unwrap_or(100),
            message.enforcing_local_origin_success_rate.unwrap_or(100),
            message.enforcing_failure_percentage.unwrap_or(0),
            message.enforcing_failure_percentage_local_origin.unwrap_or(0),
        ];
        Ok(Self {
            consecutive_5xx: message.consecutive_5xx.unwrap_or(5),
            consecutive_gateway: message.consecutive_gateway_failure.unwrap_or(5),
            consecutive_local: message.consecutive_local_origin_failure.unwrap_or(5),
            split_local: message.split_external_local_origin_errors,
            interval: cx.duration("interval", &message.interval)?.unwrap_or(Duration::from_secs(10)),
            base_ejection: base,
            max_ejection: max.unwrap_or(Duration::from_secs(300)).max(base),
            jitter: jitter.unwrap_or_default(),
            max_ejection_percent: message.max_ejection_percent.unwrap_or(10).min(100),
            always_one: message.always_eject_one_host.unwrap_or(false),
            uneject_by_check: message.successful_active_health_check_uneject_host.unwrap_or(true),
            success_rate: Rate {
                hosts: message.success_rate_minimum_hosts.unwrap_or(5),
                requests: message.success_rate_request_volume.unwrap_or(100),
            },
            deviations: f64::from(message.success_rate_stdev_factor.unwrap_or(1900)) / 1000.0,
            failure_percentage: Rate {
                hosts: message.failure_percentage_minimum_hosts.unwrap_or(5),
                requests: message.failure_percentage_request_volume.unwrap_or(50),
            },
            failure_threshold: message.failure_percentage_threshold.unwrap_or(85),
            enforcing,
        })
    }
}
