//! Fields of route configurations and of matchers.

use lateen_proto::envoy;

super::fields! {
    envoy::config::route::v3::RouteConfiguration as "envoy.config.route.v3.RouteConfiguration" {
        supported: [name, virtual_hosts, internal_only_headers, response_headers_to_add, response_headers_to_remove, request_headers_to_add, request_headers_to_remove, most_specific_header_mutations_wins, request_mirror_policies, ignore_port_in_host_matching, typed_per_filter_config],
        ignored: [
            validate_clusters = "a missing cluster is a 503 when it is used",
            max_direct_response_body_size_bytes = "bodies are in memory anyway",
            metadata = "nothing reads it",
        ],
        refused: [
            vhds = "virtual hosts come with the route configuration",
            cluster_specifier_plugins = "a route names its cluster",
            vhost_header = "the host header decides",
            ignore_path_parameters_in_path_matching = "paths are matched whole",
            route_specifiers = "a route names its cluster",
        ],
    }
    envoy::config::route::v3::VirtualHost as "envoy.config.route.v3.VirtualHost" {
        supported: [name, domains, routes, require_tls, request_headers_to_add, request_headers_to_remove, response_headers_to_add, response_headers_to_remove, typed_per_filter_config, include_request_attempt_count, include_attempt_count_in_response, retry_policy, include_is_timeout_retry_header, request_mirror_policies, metadata, rate_limits],
        ignored: [
            virtual_clusters = "metrics are by cluster",
            per_request_buffer_limit_bytes = "the route's limit holds",
            request_body_buffer_limit = "the route's limit holds",
        ],
        refused: [
            matcher = "use routes",
            cors = "use typed_per_filter_config",
            retry_policy_typed_config = "use retry_policy",
            hedge_policy = "requests are not hedged",
            route_specifiers = "a route names its cluster",
        ],
    }
    envoy::config::route::v3::Route as "envoy.config.route.v3.Route" {
        supported: [name, r#match, metadata, decorator, typed_per_filter_config, request_headers_to_add, request_headers_to_remove, response_headers_to_add, response_headers_to_remove, per_request_buffer_limit_bytes, request_body_buffer_limit, action, stat_prefix],
        ignored: [
            tracing = "the connection manager's sampling holds",
        ],
        refused: [
            route_specifiers = "a route names its cluster",
        ],
    }
    envoy::config::route::v3::RouteMatch as "envoy.config.route.v3.RouteMatch" {
        supported: [case_sensitive, runtime_fraction, headers, query_parameters, cookies, grpc, tls_context, dynamic_metadata, path_specifier],
        ignored: [],
        refused: [
            filter_state = "no filter state is kept for routing",
        ],
    }
    envoy::config::route::v3::RouteAction as "envoy.config.route.v3.RouteAction" {
        supported: [cluster_not_found_response_code, prefix_rewrite, regex_rewrite, append_x_forwarded_host, timeout, idle_timeout, retry_policy, request_mirror_policies, priority, hash_policy, max_grpc_timeout, grpc_timeout_offset, upgrade_configs, max_stream_duration, cluster_specifier, host_rewrite_specifier, rate_limits],
        ignored: [
            flush_timeout = "timeouts end a stream",
            early_data_policy = "0-RTT is not accepted",
            include_vh_rate_limits = "vh_rate_limits of the filter holds",
        ],
        refused: [
            metadata_match = "there are no subsets",
            path_rewrite_policy = "templates only match: use regex_rewrite",
            path_rewrite = "use prefix_rewrite or regex_rewrite",
            retry_policy_typed_config = "use retry_policy",
            cors = "use typed_per_filter_config",
            internal_redirect_policy = "redirects go to the client",
            internal_redirect_action = "redirects go to the client",
            max_internal_redirects = "redirects go to the client",
            hedge_policy = "requests are not hedged",
        ],
    }
    envoy::config::route::v3::WeightedCluster as "envoy.config.route.v3.WeightedCluster" {
        supported: [clusters, random_value_specifier],
        ignored: [
            runtime_key_prefix = "there is no runtime layer",
            total_weight = "the sum of the weights holds",
        ],
        refused: [],
    }
    envoy::config::route::v3::weighted_cluster::ClusterWeight as "envoy.config.route.v3.WeightedCluster.ClusterWeight" {
        supported: [name, weight, request_headers_to_add, request_headers_to_remove, response_headers_to_add, response_headers_to_remove, typed_per_filter_config, host_rewrite_specifier],
        ignored: [],
        refused: [
            cluster_header = "weighted clusters are named",
            metadata_match = "there are no subsets",
        ],
    }
    envoy::config::route::v3::route_action::RequestMirrorPolicy as "envoy.config.route.v3.RouteAction.RequestMirrorPolicy" {
        supported: [cluster, cluster_header, runtime_fraction, disable_shadow_host_suffix_append],
        ignored: [
            trace_sampled = "a copy has the trace of the request",
        ],
        refused: [
            request_headers_mutations = "copies have the headers of the request",
            host_rewrite_literal = "copies have the host of the request",
        ],
    }
    envoy::config::route::v3::route_action::UpgradeConfig as "envoy.config.route.v3.RouteAction.UpgradeConfig" {
        supported: [upgrade_type, enabled, connect_config],
        ignored: [],
        refused: [],
    }
    envoy::config::route::v3::RetryPolicy as "envoy.config.route.v3.RetryPolicy" {
        supported: [retry_on, num_retries, per_try_timeout, retry_host_predicate, host_selection_retry_max_attempts, retriable_status_codes, retry_back_off, retriable_headers, retriable_request_headers, per_try_idle_timeout, retry_priority, rate_limited_retry_back_off],
        ignored: [
            refresh_cluster_on_retry = "the cluster is kept",
        ],
        refused: [
            retry_options_predicates = "options stay the same",
        ],
    }
    envoy::config::route::v3::RedirectAction as "envoy.config.route.v3.RedirectAction" {
        supported: [host_redirect, port_redirect, response_code, strip_query, scheme_rewrite_specifier, path_rewrite_specifier],
        ignored: [],
        refused: [],
    }
    envoy::config::route::v3::HeaderMatcher as "envoy.config.route.v3.HeaderMatcher" {
        supported: [name, invert_match, treat_missing_header_as_empty, header_match_specifier],
        ignored: [],
        refused: [],
    }
    envoy::config::route::v3::QueryParameterMatcher as "envoy.config.route.v3.QueryParameterMatcher" {
        supported: [name, query_parameter_match_specifier],
        ignored: [],
        refused: [],
    }
    envoy::config::route::v3::CookieMatcher as "envoy.config.route.v3.CookieMatcher" {
        supported: [name, string_match, invert_match],
        ignored: [],
        refused: [],
    }
    envoy::config::core::v3::HeaderValueOption as "envoy.config.core.v3.HeaderValueOption" {
        supported: [header, append, append_action, keep_empty_value],
        ignored: [],
        refused: [],
    }
    envoy::r#type::matcher::v3::StringMatcher as "envoy.type.matcher.v3.StringMatcher" {
        supported: [ignore_case, match_pattern],
        ignored: [],
        refused: [],
    }
    envoy::r#type::matcher::v3::MetadataMatcher as "envoy.type.matcher.v3.MetadataMatcher" {
        supported: [filter, path, value, invert],
        ignored: [],
        refused: [],
    }
}
