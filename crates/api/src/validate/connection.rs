//! Limits of connections and ejection of failing hosts.

use super::Problems;
use super::names;
use super::path::Path;
use crate::kinds::destination_rule::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection, TcpKeepalive, TcpSettings,
};

/// Limits of connections.
pub(super) fn pool(pool: &ConnectionPoolSettings, at: &Path<'_>, out: &mut Problems) {
    let nothing = pool.http.is_none() && pool.tcp.is_none();
    out.error_if(nothing, at, "connection pool must have at least one field");
    if let Some(http) = &pool.http {
        http_settings(http, &at.field("http"), out);
    }
    if let Some(tcp) = &pool.tcp {
        tcp_settings(tcp, &at.field("tcp"), out);
    }
}

fn http_settings(http: &HttpSettings, at: &Path<'_>, out: &mut Problems) {
    for (field, value) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        out.error_if(value < 0, &at.field(field), "must be non-negative");
    }
    names::maybe_duration(http.idle_timeout, &at.field("idleTimeout"), out);
    let both = http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol;
    out.error_if(both, at, "use client protocol must not be true when H2UpgradePolicy is UPGRADE");
    if let Some(keep_alive) = &http.http2_keep_alive {
        let at = &at.field("http2KeepAlive");
        for (field, value) in [("interval", keep_alive.interval), ("timeout", keep_alive.timeout)] {
            match value {
                Some(value) => out.check(&at.field(field), names::duration(value)),
                None => out.error(&at.field(field), "is required"),
            }
        }
    }
}

fn tcp_settings(tcp: &TcpSettings, at: &Path<'_>, out: &mut Problems) {
    out.error_if(
        tcp.max_connections < 0,
        &at.field("maxConnections"),
        "max connections must be non-negative",
    );
    names::maybe_duration(tcp.connect_timeout, &at.field("connectTimeout"), out);
    names::maybe_duration(tcp.max_connection_duration, &at.field("maxConnectionDuration"), out);
    let idle = tcp.idle_timeout.filter(|timeout| !timeout.is_zero());
    names::maybe_duration(idle, &at.field("idleTimeout"), out);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        tcp_keepalive(keepalive, &at.field("tcpKeepalive"), out);
    }
}

/// TCP keepalive.
pub(super) fn tcp_keepalive(keepalive: &TcpKeepalive, at: &Path<'_>, out: &mut Problems) {
    names::maybe_duration(keepalive.time, &at.field("time"), out);
    names::maybe_duration(keepalive.interval, &at.field("interval"), out);
}

/// Ejection of failing hosts.
pub(super) fn outlier(outlier: &OutlierDetection, at: &Path<'_>, out: &mut Problems) {
    names::maybe_duration(outlier.base_ejection_time, &at.field("baseEjectionTime"), out);
    names::maybe_duration(outlier.interval, &at.field("interval"), out);
    if outlier.consecutive_errors != 0 {
        let at = &at.field("consecutiveErrors");
        out.warn(
            at,
            "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead",
        );
        out.error_if(outlier.consecutive_errors < 0, at, "must be non-negative");
    }
    let apart = outlier.split_external_local_origin_errors;
    out.error_if(
        !apart && outlier.consecutive_local_origin_failures.is_some_and(|n| n > 0),
        &at.field("consecutiveLocalOriginFailures"),
        "outlier detection consecutive local origin failures is specified, but split external local origin errors is set to false",
    );
    out.check(&at.field("maxEjectionPercent"), names::percent(outlier.max_ejection_percent.into()));
    out.check(&at.field("minHealthPercent"), names::percent(outlier.min_health_percent.into()));
}
