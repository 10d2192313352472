//! Fields of clusters and endpoints.

use lateen_proto::envoy;

super::fields! {
    envoy::config::cluster::v3::Cluster as "envoy.config.cluster.v3.Cluster" {
        supported: [transport_socket_matches, name, alt_stat_name, eds_cluster_config, connect_timeout, lb_policy, load_balancing_policy, load_assignment, max_requests_per_connection, circuit_breakers, upstream_http_protocol_options, common_http_protocol_options, http_protocol_options, http2_protocol_options, typed_extension_protocol_options, dns_refresh_rate, dns_failure_refresh_rate, dns_jitter, respect_dns_ttl, dns_lookup_family, typed_dns_resolver_config, outlier_detection, upstream_bind_config, common_lb_config, transport_socket, metadata, protocol_selection, upstream_connection_options, filters, cluster_discovery_type, lb_config, health_checks],
        ignored: [
            per_connection_buffer_limit_bytes = "the codec's buffers are small",
            cleanup_interval = "endpoints that were found are forgotten when they are many and unused",
            close_connections_on_host_health_failure = "connections of endpoints that fail end with their requests",
            stats_matcher = "metrics are chosen by the bootstrap",
            per_connection_buffer_high_watermark_timeout = "a slow reader holds its own connection only",
            use_tcp_for_dns_lookups = "the resolver decides",
            dns_resolution_config = "use typed_dns_resolver_config",
            dns_resolvers = "use typed_dns_resolver_config",
            wait_for_warm_on_init = "clusters are warmed always",
            ignore_health_on_host_removal = "a removed endpoint is removed",
            track_timeout_budgets = "no such metrics",
            track_cluster_stats = "no such metrics",
            preconnect_policy = "connections are made when needed",
            lrs_report_endpoint_metrics = "no load reports",
        ],
        refused: [
            transport_socket_matcher = "use transport_socket_matches",
            lb_subset_config = "a subset is a cluster",
            lrs_server = "no load reports",
            upstream_config = "HTTP and TCP are spoken to endpoints",
            connection_pool_per_downstream_connection = "pools are shared",
            queuing_policies = "requests wait in order",
        ],
    }
    envoy::config::cluster::v3::cluster::OriginalDstLbConfig as "envoy.config.cluster.v3.Cluster.OriginalDstLbConfig" {
        supported: [use_http_header, http_header_name, upstream_port_override],
        ignored: [],
        refused: [
            metadata_key = "use a header",
        ],
    }
    envoy::config::cluster::v3::cluster::CommonLbConfig as "envoy.config.cluster.v3.Cluster.CommonLbConfig" {
        supported: [healthy_panic_threshold, consistent_hashing_lb_config, locality_config_specifier],
        ignored: [
            update_merge_window = "updates are merged by the control plane",
            ignore_new_hosts_until_first_hc = "an endpoint that was not checked yet is not used",
            close_connections_on_host_set_change = "connections of removed endpoints end when idle",
            override_host_status = "no filter names a host",
        ],
        refused: [],
    }
    envoy::config::core::v3::BindConfig as "envoy.config.core.v3.BindConfig" {
        supported: [source_address],
        ignored: [
            freebind = "the address is ours",
            socket_options = "the runtime sets them",
            extra_source_addresses = "the first address holds",
            additional_source_addresses = "the first address holds",
        ],
        refused: [
            local_address_selector = "the first address holds",
            validate_network_namespaces = "everything is in one network namespace",
        ],
    }
    envoy::config::cluster::v3::CircuitBreakers as "envoy.config.cluster.v3.CircuitBreakers" {
        supported: [thresholds, per_host_thresholds],
        ignored: [],
        refused: [],
    }
    envoy::config::cluster::v3::circuit_breakers::Thresholds as "envoy.config.cluster.v3.CircuitBreakers.Thresholds" {
        supported: [priority, max_connections, max_pending_requests, max_requests, max_retries, retry_budget, track_remaining],
        ignored: [
            max_connection_pools = "pools are few",
        ],
        refused: [],
    }
    envoy::config::cluster::v3::OutlierDetection as "envoy.config.cluster.v3.OutlierDetection" {
        supported: [consecutive_5xx, interval, base_ejection_time, max_ejection_percent, enforcing_consecutive_5xx, consecutive_gateway_failure, enforcing_consecutive_gateway_failure, split_external_local_origin_errors, consecutive_local_origin_failure, enforcing_consecutive_local_origin_failure, max_ejection_time, enforcing_success_rate, success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor, enforcing_local_origin_success_rate, failure_percentage_threshold, enforcing_failure_percentage, enforcing_failure_percentage_local_origin, failure_percentage_minimum_hosts, failure_percentage_request_volume, max_ejection_time_jitter, successful_active_health_check_uneject_host, always_eject_one_host],
        ignored: [],
        refused: [
            monitors = "the built-in detectors are what there is",
            detect_degraded_hosts = "endpoints are degraded by the control plane",
        ],
    }
    envoy::extensions::upstreams::http::v3::HttpProtocolOptions as "envoy.extensions.upstreams.http.v3.HttpProtocolOptions" {
        supported: [common_http_protocol_options, upstream_http_protocol_options, upstream_protocol_options, outlier_detection],
        ignored: [
            header_validation_config = "the codec validates",
        ],
        refused: [
            http_filters = "filters are on the way in",
            request_mirror_policies = "use those of routes",
            hash_policy = "use those of routes",
            retry_policy = "use those of routes",
        ],
    }
    envoy::config::core::v3::UpstreamHttpProtocolOptions as "envoy.config.core.v3.UpstreamHttpProtocolOptions" {
        supported: [auto_sni, auto_san_validation],
        ignored: [],
        refused: [
            override_auto_sni_header = "the host header decides",
        ],
    }
    envoy::config::endpoint::v3::ClusterLoadAssignment as "envoy.config.endpoint.v3.ClusterLoadAssignment" {
        supported: [cluster_name, endpoints, policy],
        ignored: [],
        refused: [
            named_endpoints = "endpoints are listed",
        ],
    }
    envoy::config::endpoint::v3::cluster_load_assignment::Policy as "envoy.config.endpoint.v3.ClusterLoadAssignment.Policy" {
        supported: [overprovisioning_factor],
        ignored: [
            endpoint_stale_after = "endpoints hold until the next update",
            weighted_priority_health = "hosts are counted",
        ],
        refused: [
            drop_overloads = "nothing is dropped",
        ],
    }
    envoy::config::endpoint::v3::LocalityLbEndpoints as "envoy.config.endpoint.v3.LocalityLbEndpoints" {
        supported: [locality, lb_endpoints, load_balancing_weight, priority],
        ignored: [
            proximity = "priorities decide",
            metadata = "nothing reads it",
        ],
        refused: [
            lb_config = "endpoints are listed in lb_endpoints",
        ],
    }
    envoy::config::endpoint::v3::LbEndpoint as "envoy.config.endpoint.v3.LbEndpoint" {
        supported: [health_status, metadata, load_balancing_weight, host_identifier],
        ignored: [],
        refused: [],
    }
    envoy::config::endpoint::v3::Endpoint as "envoy.config.endpoint.v3.Endpoint" {
        supported: [address, hostname, health_check_config],
        ignored: [
            additional_addresses = "the first address holds",
            observability_name = "the address is the name",
        ],
        refused: [],
    }
    envoy::config::core::v3::HealthCheck as "envoy.config.core.v3.HealthCheck" {
        supported: [timeout, interval, initial_jitter, interval_jitter, interval_jitter_percent, unhealthy_threshold, healthy_threshold, no_traffic_interval, no_traffic_healthy_interval, unhealthy_interval, unhealthy_edge_interval, healthy_edge_interval, health_checker],
        ignored: [
            alt_port = "Envoy does not implement it",
            reuse_connection = "each check has a connection of its own",
            event_log_path = "checks are told in the log",
            event_logger = "checks are told in the log",
            event_service = "Envoy does not implement it",
            always_log_health_check_failures = "checks are told in the log",
            always_log_health_check_success = "checks are told in the log",
        ],
        refused: [
            tls_options = "the cluster's application protocols are offered",
            transport_socket_match_criteria = "the endpoint's own transport is used",
        ],
    }
    envoy::config::core::v3::health_check::HttpHealthCheck as "envoy.config.core.v3.HealthCheck.HttpHealthCheck" {
        supported: [host, path, request_headers_to_add, request_headers_to_remove, expected_statuses, retriable_statuses, codec_client_type, service_name_matcher, method],
        ignored: [
            response_buffer_size = "bodies are not looked at",
        ],
        refused: [
            send = "requests have no body",
            receive = "statuses decide",
        ],
    }
    envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin as "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" {
        supported: [slow_start_config, locality_lb_config],
        ignored: [],
        refused: [],
    }
    envoy::extensions::load_balancing_policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin" {
        supported: [blackout_period, weight_expiration_period, weight_update_period, error_utilization_penalty, metric_names_for_computing_utilization, slow_start_config, enable_oob_load_report],
        ignored: [
            oob_reporting_period = "reports come with responses",
            oob_reporting_config = "reports come with responses",
        ],
        refused: [],
    }
    envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest as "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" {
        supported: [choice_count, active_request_bias, slow_start_config, locality_lb_config],
        ignored: [
            enable_full_scan = "some are drawn",
        ],
        refused: [
            selection_method = "some are drawn",
        ],
    }
    envoy::extensions::load_balancing_policies::random::v3::Random as "envoy.extensions.load_balancing_policies.random.v3.Random" {
        supported: [locality_lb_config],
        ignored: [],
        refused: [],
    }
    envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash as "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" {
        supported: [hash_function, minimum_ring_size, maximum_ring_size, consistent_hashing_lb_config, locality_weighted_lb_config],
        ignored: [
            hash_balance_factor = "the hash alone decides",
        ],
        refused: [
            use_hostname_for_hashing = "use consistent_hashing_lb_config",
        ],
    }
    envoy::extensions::load_balancing_policies::maglev::v3::Maglev as "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" {
        supported: [table_size, consistent_hashing_lb_config, locality_weighted_lb_config],
        ignored: [],
        refused: [],
    }
    envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality as "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality" {
        supported: [endpoint_picking_policy],
        ignored: [],
        refused: [],
    }
    envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig as "envoy.extensions.load_balancing_policies.common.v3.ConsistentHashingLbConfig" {
        supported: [use_hostname_for_hashing],
        ignored: [
            hash_balance_factor = "the hash alone decides",
        ],
        refused: [
            hash_policy = "use those of routes",
        ],
    }
}
