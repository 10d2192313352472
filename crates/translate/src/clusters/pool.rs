//! Connection pools, circuit breakers, outlier detection, and the HTTP version of upstream connections.

use lateen_api::kinds::destination_rule::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection, RetryBudget, TcpKeepalive,
};
use lateen_api::mesh::MeshConfig;
use lateen_api::mesh::config::MeshH2UpgradePolicy;
use lateen_proto::Any;
use lateen_proto::envoy::config::cluster::v3 as cluster;
use lateen_proto::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use lateen_proto::envoy::config::common::matcher::v3::{
    HttpHeadersMatch, MatchPredicate, match_predicate, match_predicate::MatchSet,
};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::route::v3::HeaderMatcher;
use lateen_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use lateen_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use lateen_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, OutlierDetection as OutlierErrors, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use lateen_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use lateen_proto::envoy::r#type::v3::Percent;
use lateen_registry::Protocol;

use crate::filters::wire::duration;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Which HTTP version upstream connections speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// Not said: HTTP/1.1 where it is HTTP at all.
    #[default]
    Default,
    /// HTTP/2.
    Two,
    /// What the client speaks.
    Downstream,
}

impl HttpVersion {
    /// The version for a port: HTTP/2 ports and upgraded HTTP ports speak it, ports found out per connection do as
    /// the client does.
    pub(crate) fn of(protocol: Protocol, pool: Option<&ConnectionPoolSettings>, mesh: &MeshConfig) -> Self {
        let http = pool.and_then(|pool| pool.http.as_ref());
        if http.is_some_and(|http| http.use_client_protocol) {
            return Self::Downstream;
        }
        if protocol.is_http2() || upgrades(protocol, http, mesh) {
            return Self::Two;
        }
        if protocol.is_auto() { Self::Downstream } else { Self::Default }
    }
}

/// Whether HTTP/1.1 ports are asked by HTTP/2: the rule says so, or the mesh does and the rule does not object. Other
/// ports only by the rule.
fn upgrades(protocol: Protocol, http: Option<&HttpSettings>, mesh: &MeshConfig) -> bool {
    match http.map(|http| http.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Upgrade => true,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Default => {
            mesh.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade && protocol == Protocol::Http
        }
    }
}

/// What a cluster says of HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HttpOptions {
    /// What holds for every version.
    pub(crate) common: core::HttpProtocolOptions,
    /// What holds for HTTP/2.
    pub(crate) h2: core::Http2ProtocolOptions,
    /// The version.
    pub(crate) version: HttpVersion,
    /// What TLS takes from requests.
    pub(crate) upstream: Option<core::UpstreamHttpProtocolOptions>,
    /// The statuses that outlier detection counts; without any it counts 5xx.
    pub(crate) error_codes: Vec<u32>,
}

impl HttpOptions {
    /// Writes them into a cluster; nothing where there is nothing to say.
    pub(crate) fn write(self, to: &mut cluster::Cluster) {
        if self == Self::default() {
            return;
        }
        let http1 = core::Http1ProtocolOptions::default();
        let protocol = match self.version {
            HttpVersion::Default => explicit(ProtocolConfig::HttpProtocolOptions(http1)),
            HttpVersion::Two => explicit(ProtocolConfig::Http2ProtocolOptions(self.h2)),
            HttpVersion::Downstream => {
                UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                    http_protocol_options: Some(http1),
                    http2_protocol_options: Some(self.h2),
                    ..Default::default()
                })
            }
        };
        let common = Some(self.common).filter(|common| *common != core::HttpProtocolOptions::default());
        let options = HttpProtocolOptions {
            common_http_protocol_options: common,
            upstream_http_protocol_options: self.upstream,
            upstream_protocol_options: Some(protocol),
            outlier_detection: any_status(&self.error_codes)
                .map(|matcher| OutlierErrors { error_matcher: Some(matcher) }),
            ..Default::default()
        };
        to.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), Any::pack(&options));
    }
}

/// Writes pool and circuit breakers into a cluster; what is of HTTP comes back, for more to be said.
pub(crate) fn apply(
    to: &mut cluster::Cluster,
    pool: Option<&ConnectionPoolSettings>,
    budget: Option<&RetryBudget>,
    version: HttpVersion,
    mesh: &MeshConfig,
) -> HttpOptions {
    let mut limits = unlimited();
    let mut common = core::HttpProtocolOptions::default();
    let mut h2 = core::Http2ProtocolOptions::default();
    let mut keepalive = mesh.tcp_keepalive.as_ref();
    if let Some(http) = pool.and_then(|pool| pool.http.as_ref()) {
        limit(&mut limits.max_pending_requests, http.http1_max_pending_requests);
        limit(&mut limits.max_requests, http.http2_max_requests);
        limit(&mut limits.max_retries, http.max_retries);
        common.idle_timeout = http.idle_timeout.map(duration);
        common.max_requests_per_connection = positive(http.max_requests_per_connection);
        h2.max_concurrent_streams = positive(http.max_concurrent_streams);
        h2.connection_keepalive = http.http2_keep_alive.as_ref().map(|keepalive| core::KeepaliveSettings {
            interval: keepalive.interval.map(duration),
            timeout: keepalive.timeout.map(duration),
            ..Default::default()
        });
    }
    if let Some(tcp) = pool.and_then(|pool| pool.tcp.as_ref()) {
        limit(&mut limits.max_connections, tcp.max_connections);
        if let Some(timeout) = tcp.connect_timeout {
            to.connect_timeout = Some(duration(timeout));
        }
        common.max_connection_duration = tcp.max_connection_duration.map(duration);
        if common.idle_timeout.is_none() {
            common.idle_timeout = tcp.idle_timeout.map(duration);
        }
        keepalive = tcp.tcp_keepalive.as_ref().or(keepalive);
    }
    if let Some(budget) = budget {
        limits.retry_budget = Some(thresholds::RetryBudget {
            budget_percent: Some(Percent { value: budget.percent.unwrap_or(20.0) }),
            budget_interval: budget.budget_interval.map(duration),
            min_retry_concurrency: Some(match budget.min_retry_concurrency {
                0 => 3,
                given => given,
            }),
        });
    }
    to.circuit_breakers = Some(cluster::CircuitBreakers { thresholds: vec![limits], ..Default::default() });
    to.upstream_connection_options = keepalive.map(connection_options);
    HttpOptions { common, h2, version, ..HttpOptions::default() }
}

/// Responses of any of these statuses.
fn any_status(codes: &[u32]) -> Option<MatchPredicate> {
    let status = |code: &u32| MatchPredicate {
        rule: Some(match_predicate::Rule::HttpResponseHeadersMatch(HttpHeadersMatch {
            headers: vec![HeaderMatcher {
                name: ":status".into(),
                header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(StringMatcher {
                    match_pattern: Some(MatchPattern::Exact(code.to_string())),
                    ignore_case: false,
                })),
                ..Default::default()
            }],
        })),
    };
    let mut rules: Vec<MatchPredicate> = codes.iter().map(status).collect();
    match rules.len() {
        0 | 1 => rules.pop(),
        _ => Some(MatchPredicate { rule: Some(match_predicate::Rule::OrMatch(MatchSet { rules })) }),
    }
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

fn unlimited() -> Thresholds {
    Thresholds {
        max_connections: Some(u32::MAX),
        max_pending_requests: Some(u32::MAX),
        max_requests: Some(u32::MAX),
        max_retries: Some(u32::MAX),
        track_remaining: true,
        ..Default::default()
    }
}

fn limit(to: &mut Option<u32>, value: i32) {
    if let Some(value) = positive(value) {
        *to = Some(value);
    }
}

fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

fn connection_options(keepalive: &TcpKeepalive) -> cluster::UpstreamConnectionOptions {
    let seconds = |d: Option<std::time::Duration>| d.map(|d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX));
    cluster::UpstreamConnectionOptions {
        tcp_keepalive: Some(core::TcpKeepalive {
            keepalive_probes: Some(keepalive.probes).filter(|probes| *probes > 0),
            keepalive_time: seconds(keepalive.time),
            keepalive_interval: seconds(keepalive.interval),
        }),
        ..Default::default()
    }
}

/// Writes outlier detection into a cluster. Success rates never eject; the panic threshold is what the rule says.
pub(crate) fn apply_outlier(to: &mut cluster::Cluster, outlier: Option<&OutlierDetection>) {
    let Some(outlier) = outlier else { return };
    let enforcing = |count: Option<u32>| count.map(|count| if count > 0 { 100 } else { 0 });
    // The old name counts the same errors.
    let consecutive_5xx = outlier.consecutive_5xx_errors.or_else(|| positive(outlier.consecutive_errors));
    let mut message = cluster::OutlierDetection {
        consecutive_5xx,
        enforcing_consecutive_5xx: enforcing(consecutive_5xx),
        consecutive_gateway_failure: outlier.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforcing(outlier.consecutive_gateway_errors),
        enforcing_success_rate: Some(0),
        interval: outlier.interval.map(duration),
        base_ejection_time: outlier.base_ejection_time.map(duration),
        max_ejection_percent: positive(outlier.max_ejection_percent),
        ..Default::default()
    };
    if outlier.split_external_local_origin_errors {
        message.split_external_local_origin_errors = true;
        message.consecutive_local_origin_failure = outlier.consecutive_local_origin_failures;
        message.enforcing_consecutive_local_origin_failure =
            enforcing(outlier.consecutive_local_origin_failures);
        message.enforcing_local_origin_success_rate = Some(0);
    }
    to.outlier_detection = Some(message);
    let threshold = f64::from(outlier.min_health_percent.max(0));
    to.common_lb_config.get_or_insert_default().healthy_panic_threshold = Some(Percent { value: threshold });
}
