//! Retry policies.

use std::time::Duration;

use lateen_api::kinds::virtual_service::HttpRetry;
use lateen_proto::Any;
use lateen_proto::envoy::config::route::v3::RetryPolicy;
use lateen_proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use lateen_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use lateen_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::filters::wire::duration;

const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const STATUS_CODES: &str = "retriable-status-codes";
/// How often another host is looked for before a tried one is taken again.
const HOST_ATTEMPTS: i64 = 5;

/// The policy of outbound routes: a VirtualService's, else the mesh's, else Istio's own. `sticky` routes keep to the host
/// that their hash chose.
pub(crate) fn outbound(
    given: Option<&HttpRetry>,
    mesh: Option<&HttpRetry>,
    sticky: bool,
) -> Option<RetryPolicy> {
    let Some(retry) = given.or(mesh) else { return Some(istio_default(sticky)) };
    if retry.attempts <= 0 {
        return None;
    }
    let mut policy = istio_default(sticky || retry.retry_ignore_previous_hosts == Some(false));
    policy.num_retries = Some(u32::try_from(retry.attempts).unwrap_or(0));
    if !retry.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retry.retry_on);
    }
    policy.per_try_timeout = retry.per_try_timeout.filter(|t| !t.is_zero()).map(duration);
    policy.retry_back_off = retry.backoff.map(|base| RetryBackOff {
        base_interval: Some(duration(base.max(Duration::from_millis(1)))),
        max_interval: None,
    });
    if retry.retry_remote_localities == Some(true) {
        policy.retry_priority = Some(previous_priorities());
    }
    Some(policy)
}

/// The policy of inbound routes: once more when the application closed a kept-alive connection just then.
pub(crate) fn inbound() -> RetryPolicy {
    RetryPolicy { retry_on: "reset-before-request".into(), num_retries: Some(2), ..Default::default() }
}

fn istio_default(sticky: bool) -> RetryPolicy {
    let predicate = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(Any::pack(
            &PreviousHostsPredicate {},
        ))),
    };
    RetryPolicy {
        retry_on: RETRY_ON.into(),
        num_retries: Some(2),
        retry_host_predicate: (!sticky).then_some(predicate).into_iter().collect(),
        host_selection_retry_max_attempts: HOST_ATTEMPTS,
        ..Default::default()
    }
}

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".into(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(Any::pack(&PreviousPrioritiesConfig {
            update_frequency: 2,
        }))),
    }
}

/// Conditions by name and, apart, the status codes among them.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let (mut names, mut codes) = (Vec::new(), Vec::new());
    for word in retry_on.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.parse::<u32>() {
            Ok(code @ 100..=599) => codes.push(code),
            _ => names.push(word),
        }
    }
    if !codes.is_empty() && !names.contains(&STATUS_CODES) {
        names.push(STATUS_CODES);
    }
    (names.join(","), codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_from_conditions() {
        assert_eq!(
            conditions("5xx, 503,gateway-error"),
            ("5xx,gateway-error,retriable-status-codes".into(), vec![503])
        );
        assert_eq!(conditions("connect-failure"), ("connect-failure".into(), vec![]));
    }

    #[test]
    fn no_attempts_mean_no_policy() {
        let none = HttpRetry { attempts: 0, ..Default::default() };
        assert_eq!(outbound(Some(&none), None, false), None);
        let default = outbound(None, None, false).unwrap();
        assert_eq!((default.num_retries, default.retry_host_predicate.len()), (Some(2), 1));
        assert!(outbound(None, None, true).unwrap().retry_host_predicate.is_empty());
    }
}
