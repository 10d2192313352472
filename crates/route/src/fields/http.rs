//! Fields of HTTP connection managers, their filters and access logs.

use lateen_proto::envoy;

super::fields! {
    envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" {
        supported: [codec_type, stat_prefix, http_filters, tracing, common_http_protocol_options, http_protocol_options, http2_protocol_options, server_name, server_header_transformation, scheme_header_transformation, max_request_headers_kb, stream_idle_timeout, request_timeout, request_headers_timeout, access_log, use_remote_address, xff_num_trusted_hops, internal_address_config, skip_xff_append, via, generate_request_id, preserve_external_request_id, always_set_request_id_in_response, forward_client_cert_details, set_current_client_cert_details, upgrade_configs, normalize_path, merge_slashes, path_with_escaped_slashes_action, request_id_extension, local_reply_config, strip_matching_host_port, strip_trailing_host_dot, append_x_forwarded_port, route_specifier, strip_port_mode],
        ignored: [
            drain_timeout = "a drain ends with the last request",
            delayed_close_timeout = "a connection is closed once its last byte is written",
            proxy_100_continue = "100 Continue is answered here, once the endpoint takes the body",
            http1_safe_max_connection_duration = "a connection ends between requests always",
            http3_protocol_options = "HTTP/3 is not served",
            stream_flush_timeout = "stream_idle_timeout holds",
            drain_timeout_jitter = "no jitter",
            access_log_flush_interval = "a line is written at the end",
            flush_access_log_on_new_request = "a line is written at the end",
            access_log_options = "a line is written at the end",
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6 = "addresses are written as they are",
            stream_error_on_invalid_http_message = "the codec decides",
            path_normalization_options = "normalize_path and its kin hold",
            append_local_overload = "there is no overload manager",
            add_proxy_protocol_connection_state = "PROXY protocol sets the address only",
        ],
        refused: [
            add_user_agent = "it is for edge proxies of another kind",
            original_ip_detection_extensions = "x-forwarded-for is what is read",
            early_header_mutation_extensions = "use header changes of routes",
            forward_client_cert_matcher = "one rule holds for all",
            proxy_status_config = "no proxy-status header is made",
            typed_header_validation_config = "the codec validates",
            forward_proto_config = "the scheme is that of the connection",
        ],
    }
    envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::UpgradeConfig as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig" {
        supported: [upgrade_type, enabled],
        ignored: [],
        refused: [
            filters = "upgrades pass the filters of the manager",
        ],
    }
    envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing as "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.Tracing" {
        supported: [client_sampling, random_sampling, overall_sampling],
        ignored: [
            max_path_tag_length = "spans are not exported: their context is made and passed on",
            custom_tags = "spans are not exported: their context is made and passed on",
            provider = "spans are not exported: their context is made and passed on",
            verbose = "spans have no events",
            spawn_upstream_span = "the router decides",
            operation = "decorators name spans",
            upstream_operation = "decorators name spans",
        ],
        refused: [
            no_context_propagation = "context is propagated",
        ],
    }
    envoy::config::core::v3::HttpProtocolOptions as "envoy.config.core.v3.HttpProtocolOptions" {
        supported: [idle_timeout, max_connection_duration, max_headers_count, max_stream_duration, headers_with_underscores_action, max_requests_per_connection],
        ignored: [
            max_connection_duration_jitter = "no jitter",
            max_response_headers_kb = "the codec limits heads",
        ],
        refused: [],
    }
    envoy::config::core::v3::Http1ProtocolOptions as "envoy.config.core.v3.Http1ProtocolOptions" {
        supported: [accept_http_10, default_host_for_http_10, header_key_format, enable_trailers],
        ignored: [
            allow_absolute_url = "absolute URLs are read always",
            allow_chunked_length = "the codec decides",
            override_stream_error_on_invalid_http_message = "the codec decides",
            use_balsa_parser = "there is one parser",
            allow_custom_methods = "any method is read",
            ignore_http_11_upgrade = "upgrade_configs decide",
        ],
        refused: [
            send_fully_qualified_url = "paths are sent",
        ],
    }
    envoy::config::core::v3::Http2ProtocolOptions as "envoy.config.core.v3.Http2ProtocolOptions" {
        supported: [max_concurrent_streams, initial_stream_window_size, initial_connection_window_size, allow_connect, connection_keepalive],
        ignored: [
            max_header_field_size_kb = "max_request_headers_kb limits the whole head",
            disallow_obs_text = "the codec validates",
            stream_reset_burst = "the codec limits floods",
            stream_reset_rate = "the codec limits floods",
            hpack_table_size = "4096 holds",
            max_outbound_frames = "the codec limits floods",
            max_outbound_control_frames = "the codec limits floods",
            max_consecutive_inbound_frames_with_empty_payload = "the codec limits floods",
            max_inbound_priority_frames_per_stream = "the codec limits floods",
            max_inbound_window_update_frames_per_data_frame_sent = "the codec limits floods",
            stream_error_on_invalid_http_messaging = "the codec decides",
            override_stream_error_on_invalid_http_message = "the codec decides",
            use_oghttp2_codec = "there is one codec",
            max_metadata_size = "METADATA is not spoken",
            enable_huffman_encoding = "the codec decides",
        ],
        refused: [
            allow_metadata = "METADATA is not spoken",
            custom_settings_parameters = "settings are the codec's",
        ],
    }
    envoy::config::core::v3::SubstitutionFormatString as "envoy.config.core.v3.SubstitutionFormatString" {
        supported: [omit_empty_values, content_type, format],
        ignored: [
            json_format_options = "members keep their order",
        ],
        refused: [
            formatters = "only built-in commands are known",
        ],
    }
    envoy::extensions::filters::http::router::v3::Router as "envoy.extensions.filters.http.router.v3.Router" {
        supported: [suppress_envoy_headers, respect_expected_rq_timeout],
        ignored: [
            start_child_span = "spans are not exported: their context is made and passed on",
            dynamic_stats = "metrics are always made",
            suppress_grpc_request_failure_code_stats = "metrics are by code",
        ],
        refused: [
            upstream_log = "use access_log",
            upstream_log_options = "use access_log",
            strict_check_headers = "headers are read leniently",
            upstream_http_filters = "filters are on the way in",
            reject_connect_request_early_data = "CONNECT data waits for the answer",
        ],
    }
    envoy::extensions::filters::http::fault::v3::HttpFault as "envoy.extensions.filters.http.fault.v3.HTTPFault" {
        supported: [delay, abort, upstream_cluster, headers, max_active_faults],
        ignored: [
            delay_percent_runtime = "there is no runtime layer",
            abort_percent_runtime = "there is no runtime layer",
            delay_duration_runtime = "there is no runtime layer",
            abort_http_status_runtime = "there is no runtime layer",
            max_active_faults_runtime = "there is no runtime layer",
            response_rate_limit_percent_runtime = "there is no runtime layer",
            abort_grpc_status_runtime = "there is no runtime layer",
            disable_downstream_cluster_stats = "there are none",
            filter_metadata = "nothing reads it",
        ],
        refused: [
            downstream_nodes = "x-envoy-downstream-service-node is not read",
            response_rate_limit = "responses are not slowed",
        ],
    }
    envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit as "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" {
        supported: [stat_prefix, status, token_bucket, filter_enabled, filter_enforced, request_headers_to_add_when_not_enforced, response_headers_to_add, descriptors, stage, local_rate_limit_per_downstream_connection, enable_x_ratelimit_headers, vh_rate_limits, always_consume_default_token_bucket, rate_limited_as_resource_exhausted, rate_limits],
        ignored: [
            max_dynamic_descriptors = "descriptors have fixed values",
        ],
        refused: [
            local_cluster_rate_limit = "there is no local cluster to share with",
            enable_retry_after_header = "use enable_x_ratelimit_headers",
        ],
    }
    envoy::extensions::filters::http::set_filter_state::v3::Config as "envoy.extensions.filters.http.set_filter_state.v3.Config" {
        supported: [on_request_headers],
        ignored: [
            clear_route_cache = "the route is chosen after the filters",
        ],
        refused: [],
    }
    envoy::extensions::filters::http::fault::v3::FaultAbort as "envoy.extensions.filters.http.fault.v3.FaultAbort" {
        supported: [percentage, response_body, error_type],
        ignored: [],
        refused: [],
    }
    envoy::extensions::filters::http::cors::v3::CorsPolicy as "envoy.extensions.filters.http.cors.v3.CorsPolicy" {
        supported: [allow_origin_string_match, allow_methods, allow_headers, expose_headers, max_age, allow_credentials, filter_enabled, forward_not_matching_preflights],
        ignored: [
            shadow_enabled = "nothing counts it",
        ],
        refused: [
            allow_private_network_access = "the header is not made",
        ],
    }
    envoy::extensions::filters::http::compressor::v3::Compressor as "envoy.extensions.filters.http.compressor.v3.Compressor" {
        supported: [content_length, content_type, disable_on_etag_header, remove_accept_encoding_header, runtime_enabled, compressor_library, request_direction_config, response_direction_config],
        ignored: [
            choose_first = "one library is known",
        ],
        refused: [],
    }
    envoy::extensions::filters::http::compressor::v3::compressor::ResponseDirectionConfig as "envoy.extensions.filters.http.compressor.v3.Compressor.ResponseDirectionConfig" {
        supported: [common_config, disable_on_etag_header, weaken_etag_on_compress, remove_accept_encoding_header, uncompressible_response_codes],
        ignored: [],
        refused: [
            status_header_enabled = "no such header is made",
        ],
    }
    envoy::extensions::filters::http::compressor::v3::compressor::CommonDirectionConfig as "envoy.extensions.filters.http.compressor.v3.Compressor.CommonDirectionConfig" {
        supported: [enabled, min_content_length, content_type],
        ignored: [],
        refused: [
            content_type_matcher = "use content_type",
        ],
    }
    envoy::extensions::compression::gzip::compressor::v3::Gzip as "envoy.extensions.compression.gzip.compressor.v3.Gzip" {
        supported: [compression_level, window_bits],
        ignored: [
            memory_level = "the library decides",
            compression_strategy = "the library decides",
            chunk_size = "pieces are as they come",
        ],
        refused: [],
    }
    envoy::extensions::filters::http::header_to_metadata::v3::Config as "envoy.extensions.filters.http.header_to_metadata.v3.Config" {
        supported: [request_rules],
        ignored: [
            stat_prefix = "nothing is counted",
        ],
        refused: [
            response_rules = "the request's headers count",
        ],
    }
    envoy::extensions::filters::http::header_to_metadata::v3::config::Rule as "envoy.extensions.filters.http.header_to_metadata.v3.Config.Rule" {
        supported: [header, cookie, on_header_present, on_header_missing, remove],
        ignored: [],
        refused: [],
    }
    envoy::extensions::filters::http::header_to_metadata::v3::config::KeyValuePair as "envoy.extensions.filters.http.header_to_metadata.v3.Config.KeyValuePair" {
        supported: [metadata_namespace, key, value, regex_value_rewrite, r#type, encode],
        ignored: [],
        refused: [],
    }
}
