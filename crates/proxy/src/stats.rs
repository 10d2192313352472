//! Counters and gauges, named as Envoy names them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// A part of a name, with the dot that ends it; nothing stays nothing.
pub(crate) fn dotted(prefix: &str) -> std::borrow::Cow<'_, str> {
    match prefix {
        "" => prefix.into(),
        ended if ended.ends_with('.') => ended.into(),
        open => format!("{open}.").into(),
    }
}

/// A counter or gauge. Workers share it; the order of its changes does not matter.
#[derive(Debug, Default)]
pub(crate) struct Figure(AtomicU64);

impl Figure {
    /// One more.
    #[inline]
    pub(crate) fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Some more.
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// One less.
    #[inline]
    pub(crate) fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Another value.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

macro_rules! figures {
    ($(#[$doc:meta])* $name:ident { $( $kind:ident $field:ident ),* $(,)? }) => {
        $(#[$doc])*
        #[allow(missing_docs)]
        #[derive(Debug, Default)]
        pub(crate) struct $name { $( pub(crate) $field: Figure, )* }

        impl $name {
            /// Calls `with` with every figure.
            pub(crate) fn each(&self, mut with: impl FnMut(&'static str, Kind, u64)) {
                $( with(stringify!($field), Kind::$kind, self.$field.value()); )*
            }
        }
    };
}

figures! {
    /// `http.PREFIX.*`
    HttpStats {
        Gauge downstream_cx_active,
        Counter downstream_cx_destroy,
        Counter downstream_cx_http1_total,
        Counter downstream_cx_http2_total,
        Counter downstream_cx_idle_timeout,
        Counter downstream_cx_max_duration_reached,
        Counter downstream_cx_protocol_error,
        Counter downstream_cx_ssl_total,
        Counter downstream_cx_total,
        Gauge downstream_rq_active,
        Counter downstream_rq_1xx,
        Counter downstream_rq_2xx,
        Counter downstream_rq_3xx,
        Counter downstream_rq_4xx,
        Counter downstream_rq_5xx,
        Counter downstream_rq_completed,
        Counter downstream_rq_header_timeout,
        Counter downstream_rq_http1_total,
        Counter downstream_rq_http2_total,
        Counter downstream_rq_idle_timeout,
        Counter downstream_rq_max_duration_reached,
        Counter downstream_rq_rx_reset,
        Counter downstream_rq_timeout,
        Counter downstream_rq_total,
        Counter downstream_rq_ws_on_non_ws_route,
        Counter no_cluster,
        Counter no_route,
        Counter rq_direct_response,
        Counter rq_redirect,
        Counter rq_total,
    }
}

figures! {
    /// `cluster.NAME.*`, all but those of single statuses.
    ClusterFigures {
        Counter assignment_stale,
        Counter bind_errors,
        Gauge membership_degraded,
        Gauge membership_healthy,
        Gauge membership_total,
        Counter lb_healthy_panic,
        Counter update_attempt,
        Counter update_empty,
        Counter update_failure,
        Counter update_success,
        Gauge upstream_cx_active,
        Counter upstream_cx_connect_fail,
        Counter upstream_cx_connect_timeout,
        Counter upstream_cx_destroy,
        Counter upstream_cx_http1_total,
        Counter upstream_cx_http2_total,
        Counter upstream_cx_idle_timeout,
        Counter upstream_cx_max_duration_reached,
        Counter upstream_cx_max_requests,
        Counter upstream_cx_none_healthy,
        Counter upstream_cx_overflow,
        Counter upstream_cx_total,
        Counter upstream_rq_1xx,
        Counter upstream_rq_2xx,
        Counter upstream_rq_3xx,
        Counter upstream_rq_4xx,
        Counter upstream_rq_5xx,
        Gauge upstream_rq_active,
        Counter upstream_rq_active_overflow,
        Counter upstream_rq_completed,
        Counter upstream_rq_max_duration_reached,
        Gauge upstream_rq_pending_active,
        Counter upstream_rq_pending_failure_eject,
        Counter upstream_rq_pending_overflow,
        Counter upstream_rq_pending_total,
        Counter upstream_rq_per_try_idle_timeout,
        Counter upstream_rq_per_try_timeout,
        Counter upstream_rq_retry,
        Counter upstream_rq_retry_limit_exceeded,
        Counter upstream_rq_retry_overflow,
        Counter upstream_rq_retry_success,
        Counter upstream_rq_rx_reset,
        Counter upstream_rq_timeout,
        Counter upstream_rq_total,
        Counter upstream_rq_tx_reset,
    }
}

figures! {
    /// `vhost.NAME.route.PREFIX.*`, all but those of single statuses.
    RouteFigures {
        Counter upstream_rq_1xx,
        Counter upstream_rq_2xx,
        Counter upstream_rq_3xx,
        Counter upstream_rq_4xx,
        Counter upstream_rq_5xx,
        Counter upstream_rq_completed,
        Counter upstream_rq_retry,
        Counter upstream_rq_retry_limit_exceeded,
        Counter upstream_rq_retry_overflow,
        Counter upstream_rq_retry_success,
        Counter upstream_rq_timeout,
        Counter upstream_rq_total,
    }
}

figures! {
    /// `local_rate_limit.PREFIX.*`
    ConnectionRateStats {
        Counter rate_limited,
    }
}

figures! {
    /// `cluster.NAME.outlier_detection.*`
    OutlierStats {
        Gauge ejections_active,
        Counter ejections_consecutive_5xx,
        Counter ejections_detected_consecutive_5xx,
        Counter ejections_detected_consecutive_gateway_failure,
        Counter ejections_detected_consecutive_local_origin_failure,
        Counter ejections_detected_failure_percentage,
        Counter ejections_detected_local_origin_failure_percentage,
        Counter ejections_detected_local_origin_success_rate,
        Counter ejections_detected_success_rate,
        Counter ejections_enforced_consecutive_5xx,
        Counter ejections_enforced_consecutive_gateway_failure,
        Counter ejections_enforced_consecutive_local_origin_failure,
        Counter ejections_enforced_failure_percentage,
        Counter ejections_enforced_local_origin_failure_percentage,
        Counter ejections_enforced_local_origin_success_rate,
        Counter ejections_enforced_success_rate,
        Counter ejections_enforced_total,
        Counter ejections_overflow,
        Counter ejections_success_rate,
        Counter ejections_total,
    }
}

figures! {
    /// `cluster.NAME.health_check.*`
    HealthCheckStats {
        Counter attempt,
        Gauge degraded,
        Counter failure,
        Gauge healthy,
        Counter network_failure,
        Counter passive_failure,
        Counter success,
        Counter verify_cluster,
    }
}

figures! {
    /// `PREFIX.http_local_rate_limit.*`
    RateLimitStats {
        Counter enabled,
        Counter enforced,
        Counter ok,
        Counter rate_limited,
        Counter shadow_mode,
    }
}

figures! {
    /// `PREFIX.rbac.*`, of enforced rules.
    RbacStats {
        Counter allowed,
        Counter denied,
    }
}

figures! {
    /// `PREFIX.rbac.*`, of rules on trial.
    ShadowStats {
        Counter shadow_allowed,
        Counter shadow_denied,
    }
}

figures! {
    /// `http.PREFIX.ext_authz.*`
    ExtAuthzStats {
        Counter denied,
        Counter disabled,
        Counter error,
        Counter failure_mode_allowed,
        Counter ok,
    }
}

figures! {
    /// `ext_authz.PREFIX.*`, of connections.
    NetworkExtAuthzStats {
        Gauge active,
        Counter cx_closed,
        Counter denied,
        Counter disabled,
        Counter error,
        Counter failure_mode_allowed,
        Counter ok,
        Counter total,
    }
}

figures! {
    /// `cluster.NAME.ext_authz.*`, of the cluster that requests go to.
    CheckedStats {
        Counter denied,
        Counter error,
        Counter failure_mode_allowed,
        Counter ok,
    }
}

figures! {
    /// `tcp.PREFIX.*`
    TcpStats {
        Counter downstream_cx_no_route,
        Counter downstream_cx_rx_bytes_total,
        Counter downstream_cx_total,
        Counter downstream_cx_tx_bytes_total,
    }
}

figures! {
    /// `listener_manager.*`
    ListenerManagerStats {
        Counter lds_update_success,
        Counter lds_update_rejected,
        Counter listener_added,
        Counter listener_create_failure,
        Counter listener_create_success,
        Counter listener_modified,
        Counter listener_removed,
        Gauge total_listeners_active,
        Gauge total_listeners_draining,
        Gauge workers_started,
    }
}

figures! {
    /// `cluster_manager.*`
    ClusterManagerStats {
        Gauge active_clusters,
        Counter cds_update_success,
        Counter cds_update_rejected,
        Counter cluster_added,
        Counter cluster_modified,
        Counter cluster_removed,
        Gauge warming_clusters,
    }
}

figures! {
    /// `listener.ADDRESS.*`
    ListenerStats {
        Gauge downstream_cx_active,
        Counter downstream_cx_total,
        Counter no_filter_chain_match,
        Counter ssl_connection_error,
        Counter ssl_handshake,
    }
}

/// All figures that are not a cluster's.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// `listener_manager.*`
    pub listener_manager: ListenerManagerStats,
    /// `cluster_manager.*`
    pub cluster_manager: ClusterManagerStats,
    /// Whether the control plane is connected.
    pub control_plane_connected: Figure,
    /// Panics that were caught.
    pub panics: Figure,
    http: Named<HttpStats>,
    tcp: Named<TcpStats>,
    listeners: Named<ListenerStats>,
    rate_limits: Named<RateLimitStats>,
    rbac: Named<RbacStats>,
    shadows: Named<ShadowStats>,
    ext_authz: Named<ExtAuthzStats>,
    network_ext_authz: Named<NetworkExtAuthzStats>,
    connection_rates: Named<ConnectionRateStats>,
    routes: Named<RouteStats>,
}

type Named<T> = RwLock<BTreeMap<Arc<str>, Arc<T>>>;

fn of<T: Default>(named: &Named<T>, name: &str) -> Arc<T> {
    let mut map = named.write().unwrap_or_else(PoisonError::into_inner);
    map.entry(name.into()).or_default().clone()
}

impl Stats {
    /// The figures of an HTTP prefix; kept over updates of its listener.
    pub(crate) fn http(&self, prefix: &str) -> Arc<HttpStats> {
        of(&self.http, prefix)
    }

    /// The figures of a TCP prefix.
    pub(crate) fn tcp(&self, prefix: &str) -> Arc<TcpStats> {
        of(&self.tcp, prefix)
    }

    /// The figures of a rate limit.
    pub(crate) fn rate_limit(&self, prefix: &str) -> Arc<RateLimitStats> {
        let known = self.rate_limits.read().unwrap_or_else(PoisonError::into_inner).get(prefix).cloned();
        known.unwrap_or_else(|| of(&self.rate_limits, prefix))
    }

    /// The figures of enforced rules; `prefix` is all that comes before the names.
    pub(crate) fn rbac(&self, prefix: &str) -> Arc<RbacStats> {
        of(&self.rbac, prefix)
    }

    /// The figures of rules on trial; `prefix` is all that comes before the names.
    pub(crate) fn shadow(&self, prefix: &str) -> Arc<ShadowStats> {
        of(&self.shadows, prefix)
    }

    /// The figures of checks of requests; `prefix` is all that comes before the names.
    pub(crate) fn ext_authz(&self, prefix: &str) -> Arc<ExtAuthzStats> {
        of(&self.ext_authz, prefix)
    }

    /// The figures of checks of connections; `prefix` is all that comes before the names.
    pub(crate) fn network_ext_authz(&self, prefix: &str) -> Arc<NetworkExtAuthzStats> {
        of(&self.network_ext_authz, prefix)
    }

    /// The figures of a limit of connections.
    pub(crate) fn connection_rate(&self, prefix: &str) -> Arc<ConnectionRateStats> {
        of(&self.connection_rates, prefix)
    }

    /// The figures of a route that has a name for them.
    pub(crate) fn route(&self, virtual_host: &str, prefix: &str) -> Arc<RouteStats> {
        let name = format!("vhost.{virtual_host}.route.{prefix}");
        let known = self.routes.read().unwrap_or_else(PoisonError::into_inner).get(name.as_str()).cloned();
        known.unwrap_or_else(|| of(&self.routes, &name))
    }

    /// The figures of a listening address.
    pub(crate) fn listener(&self, address: &str) -> Arc<ListenerStats> {
        of(&self.listeners, address)
    }

    /// Calls `with` with every figure under its full name.
    pub(crate) fn each(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.listener_manager
            .each(|name, kind, value| with(&format!("listener_manager.{name}"), kind, value));
        self.cluster_manager.each(|name, kind, value| with(&format!("cluster_manager.{name}"), kind, value));
        with("control_plane.connected_state", Kind::Gauge, self.control_plane_connected.value());
        with("server.panics", Kind::Counter, self.panics.value());
        for (prefix, stats) in &*self.http.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("http.{prefix}.{name}"), kind, value));
        }
        for (prefix, stats) in &*self.tcp.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("tcp.{prefix}.{name}"), kind, value));
        }
        for (prefix, stats) in &*self.rate_limits.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| {
                with(&format!("{prefix}.http_local_rate_limit.{name}"), kind, value)
            });
        }
        self.each_of_policies(&mut with);
        for (prefix, stats) in &*self.connection_rates.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("local_rate_limit.{prefix}.{name}"), kind, value));
        }
        for (prefix, stats) in &*self.routes.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("{prefix}.{name}"), kind, value));
        }
        for (address, stats) in &*self.listeners.read().unwrap_or_else(PoisonError::into_inner) {
            stats.each(|name, kind, value| with(&format!("listener.{address}.{name}"), kind, value));
        }
    }
}

impl Stats {
    fn each_of_policies(&self, with: &mut impl FnMut(&str, Kind, u64)) {
        macro_rules! each {
            ($($named:ident),*) => { $(
                for (prefix, stats) in &*self.$named.read().unwrap_or_else(PoisonError::into_inner) {
                    stats.each(|name, kind, value| with(&format!("{prefix}{name}"), kind, value));
                }
            )* };
        }
        each!(rbac, shadows, ext_authz, network_ext_authz);
    }
}

impl HttpStats {
    /// Counts a response.
    pub(crate) fn count_status(&self, status: u16) {
        self.downstream_rq_completed.inc();
        match status / 100 {
            1 => self.downstream_rq_1xx.inc(),
            2 => self.downstream_rq_2xx.inc(),
            3 => self.downstream_rq_3xx.inc(),
            4 => self.downstream_rq_4xx.inc(),
            5 => self.downstream_rq_5xx.inc(),
            _ => {}
        }
    }
}

/// `cluster.NAME.*`
#[derive(Debug, Default)]
pub(crate) struct ClusterStats {
    figures: ClusterFigures,
    statuses: StatusFigures,
    /// Made when a request for it is checked first.
    checked: OnceLock<Box<CheckedStats>>,
}

impl std::ops::Deref for ClusterStats {
    type Target = ClusterFigures;

    fn deref(&self) -> &ClusterFigures {
        &self.figures
    }
}

/// `vhost.NAME.route.PREFIX.*`
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    figures: RouteFigures,
    statuses: StatusFigures,
}

impl std::ops::Deref for RouteStats {
    type Target = RouteFigures;

    fn deref(&self) -> &RouteFigures {
        &self.figures
    }
}

impl RouteStats {
    fn each(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.figures.each(&mut with);
        self.statuses.each(|status, value| with(&format!("upstream_rq_{status}"), Kind::Counter, value));
    }

    /// Counts a response.
    pub(crate) fn count_status(&self, status: u16) {
        self.statuses.count(status);
        self.upstream_rq_completed.inc();
        match status / 100 {
            1 => self.upstream_rq_1xx.inc(),
            2 => self.upstream_rq_2xx.inc(),
            3 => self.upstream_rq_3xx.inc(),
            4 => self.upstream_rq_4xx.inc(),
            5 => self.upstream_rq_5xx.inc(),
            _ => {}
        }
    }
}

/// Counters of single statuses, `upstream_rq_200` and the like, made when the first response comes.
#[derive(Debug, Default)]
struct StatusFigures(OnceLock<Box<[Figure]>>);

/// The first status, and how many there are.
const STATUSES: (u16, usize) = (100, 500);

impl StatusFigures {
    fn count(&self, status: u16) {
        let (first, count) = STATUSES;
        let figures = self.0.get_or_init(|| std::iter::repeat_with(Figure::default).take(count).collect());
        if let Some(figure) = status.checked_sub(first).and_then(|at| figures.get(usize::from(at))) {
            figure.inc();
        }
    }

    /// Calls `with` with every status that was seen.
    fn each(&self, mut with: impl FnMut(u16, u64)) {
        let figures = self.0.get().map_or(&[][..], |figures| figures);
        for (status, figure) in (STATUSES.0..).zip(figures) {
            if figure.value() > 0 {
                with(status, figure.value());
            }
        }
    }
}

impl ClusterStats {
    /// Calls `with` with every figure.
    pub(crate) fn each(&self, mut with: impl FnMut(&str, Kind, u64)) {
        self.figures.each(&mut with);
        self.statuses.each(|status, value| with(&format!("upstream_rq_{status}"), Kind::Counter, value));
        if let Some(checked) = self.checked.get() {
            checked.each(|name, kind, value| with(&format!("ext_authz.{name}"), kind, value));
        }
    }

    /// What authorization services said about requests for the cluster.
    pub(crate) fn checked(&self) -> &CheckedStats {
        self.checked.get_or_init(Box::default)
    }

    /// Counts a response of the cluster, or of ours in its place.
    pub(crate) fn count_status(&self, status: u16) {
        self.statuses.count(status);
        self.upstream_rq_completed.inc();
        match status / 100 {
            1 => self.upstream_rq_1xx.inc(),
            2 => self.upstream_rq_2xx.inc(),
            3 => self.upstream_rq_3xx.inc(),
            4 => self.upstream_rq_4xx.inc(),
            5 => self.upstream_rq_5xx.inc(),
            _ => {}
        }
    }
}
