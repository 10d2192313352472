//! Cross-origin policies.

use lateen_api::kinds::virtual_service::{CorsPolicy, StringMatch, UnmatchedPreflights};
use lateen_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use lateen_proto::envoy::extensions::filters::http::cors::v3 as filter;

use super::matches::string_matcher;
use crate::filters::wire::per_hundred;

/// The name that routes override the filter's configuration by.
pub(crate) const CORS: &str = "envoy.filters.http.cors";

/// The filter's configuration on a route.
pub(crate) fn cors(policy: &CorsPolicy) -> filter::CorsPolicy {
    let old = policy.allow_origin.iter().map(|origin| StringMatch::Exact(origin.clone()));
    let origins: Vec<StringMatch> = match policy.allow_origins.is_empty() {
        true => old.collect(),
        false => policy.allow_origins.clone(),
    };
    filter::CorsPolicy {
        allow_origin_string_match: origins.iter().filter_map(string_matcher).collect(),
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials,
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(per_hundred(100)),
            ..Default::default()
        }),
        forward_not_matching_preflights: Some(policy.unmatched_preflights != UnmatchedPreflights::Ignore),
        ..Default::default()
    }
}
