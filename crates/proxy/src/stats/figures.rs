//! Which figures there are, by what they are about.

use super::{Figure, Kind};

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
    /// `cluster.NAME.*`, all but those of responses.
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
        Gauge upstream_rq_active,
        Counter upstream_rq_active_overflow,
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
    /// Responses by the first digit of their status.
    ClassFigures {
        Counter upstream_rq_1xx,
        Counter upstream_rq_2xx,
        Counter upstream_rq_3xx,
        Counter upstream_rq_4xx,
        Counter upstream_rq_5xx,
        Counter upstream_rq_completed,
    }
}

figures! {
    /// `vhost.NAME.route.PREFIX.*`, all but those of responses.
    RouteFigures {
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
