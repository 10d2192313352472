//! Faults: delays and aborts that a route injects.

use lateen_api::grpc_status;
use lateen_api::kinds::virtual_service::{FaultAbort, FaultDelay, HttpFaultInjection, Percent};
use lateen_proto::envoy::extensions::filters::common::fault::v3 as common;
use lateen_proto::envoy::extensions::filters::http::fault::v3 as filter;
use lateen_proto::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use lateen_proto::envoy::r#type::v3::FractionalPercent;

use crate::filters::wire::{duration, per_hundred, per_million};

/// The name that routes override the filter's configuration by.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";

/// The filter's configuration on a route, or none where nothing is injected.
pub(crate) fn http_fault(fault: &HttpFaultInjection) -> Option<filter::HttpFault> {
    let config = filter::HttpFault {
        delay: fault.delay.as_ref().and_then(delay),
        abort: fault.abort.as_ref().and_then(abort),
        ..Default::default()
    };
    (config != filter::HttpFault::default()).then_some(config)
}

/// A share of requests: the precise field, else the old integer one.
pub(crate) fn share(precise: Option<&Percent>, old: u32) -> FractionalPercent {
    match precise {
        Some(percent) => per_million(percent.value),
        None => per_hundred(old),
    }
}

fn delay(delay: &FaultDelay) -> Option<common::FaultDelay> {
    let fixed = delay.fixed_delay?;
    Some(common::FaultDelay {
        percentage: Some(share(delay.percentage.as_ref(), u32::try_from(delay.percent).unwrap_or(0))),
        fault_delay_secifier: Some(common::fault_delay::FaultDelaySecifier::FixedDelay(duration(fixed))),
    })
}

fn abort(abort: &FaultAbort) -> Option<filter::FaultAbort> {
    let error = match (&abort.http_status, &abort.grpc_status) {
        (Some(status), _) => ErrorType::HttpStatus(u32::try_from(*status).ok()?),
        (None, Some(name)) => ErrorType::GrpcStatus(grpc_status(name)?),
        (None, None) => return None,
    };
    Some(filter::FaultAbort {
        percentage: abort.percentage.as_ref().map(|percent| per_million(percent.value)),
        error_type: Some(error),
        ..Default::default()
    })
}
