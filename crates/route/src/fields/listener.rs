//! Fields of listeners and network filters.

use lateen_proto::envoy;

super::fields! {
    envoy::config::listener::v3::Listener as "envoy.config.listener.v3.Listener" {
        supported: [name, address, additional_addresses, filter_chains, use_original_dst, default_filter_chain, per_connection_buffer_limit_bytes, metadata, deprecated_v1, listener_filters, listener_filters_timeout, continue_on_listener_filters_timeout, transparent, freebind, traffic_direction, access_log, tcp_backlog_size, bind_to_port, tcp_keepalive, listener_specifier],
        ignored: [
            enable_reuse_port = "each worker has its own socket",
            stat_prefix = "metrics are named after the address",
            stats_matcher = "metrics are chosen by the bootstrap",
            drain_type = "draining is gradual always",
            tcp_fast_open_queue_length = "connections are opened the usual way",
            connection_balance_config = "each worker has its own socket",
            max_connections_to_accept_per_socket_event = "the runtime accepts fairly",
            reuse_port = "each worker has its own socket",
            enable_mptcp = "plain TCP is spoken",
            ignore_global_conn_limit = "there is no global limit",
            bypass_overload_manager = "there is no overload manager",
            per_connection_buffer_high_watermark_timeout = "a slow reader holds its own connection only",
            socket_options = "the runtime sets them",
        ],
        refused: [
            fcds_config = "filter chains come with the listener",
            filter_chain_matcher = "use filter_chain_match",
            udp_listener_config = "only TCP is served",
            api_listener = "it is for embedded Envoys",
        ],
    }
    envoy::config::listener::v3::AdditionalAddress as "envoy.config.listener.v3.AdditionalAddress" {
        supported: [address],
        ignored: [
            socket_options = "the runtime sets them",
            tcp_keepalive = "the listener's own holds",
        ],
        refused: [],
    }
    envoy::config::listener::v3::FilterChain as "envoy.config.listener.v3.FilterChain" {
        supported: [filter_chain_match, filters, metadata, transport_socket, transport_socket_connect_timeout, name],
        ignored: [],
        refused: [
            use_proxy_proto = "use the proxy_protocol listener filter",
        ],
    }
    envoy::config::listener::v3::FilterChainMatch as "envoy.config.listener.v3.FilterChainMatch" {
        supported: [destination_port, prefix_ranges, direct_source_prefix_ranges, source_type, source_prefix_ranges, source_ports, server_names, transport_protocol, application_protocols],
        ignored: [],
        refused: [
            address_suffix = "Envoy does not implement it",
            suffix_len = "Envoy does not implement it",
        ],
    }
    envoy::config::core::v3::SocketAddress as "envoy.config.core.v3.SocketAddress" {
        supported: [protocol, address, port_specifier],
        ignored: [
            ipv4_compat = "IPv6 sockets are dual-stack by the system",
        ],
        refused: [
            resolver_name = "names are resolved by the cluster",
            network_namespace_filepath = "everything is in one network namespace",
        ],
    }
    envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol as "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" {
        supported: [allow_requests_without_proxy_protocol],
        ignored: [
            pass_through_tlvs = "TLVs are not passed on",
            stat_prefix = "metrics have no prefix",
        ],
        refused: [
            rules = "TLVs are not read",
            disallowed_versions = "both versions are read",
            tlv_location = "TLVs are not read",
        ],
    }
    envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" {
        supported: [stat_prefix, idle_timeout, access_log, max_connect_attempts, hash_policy, max_downstream_connection_duration, cluster_specifier, tunneling_config],
        ignored: [
            backoff_options = "a failed connect is tried again at once",
            access_log_flush_interval = "a line is written at the end",
            flush_access_log_on_connected = "a line is written at the end",
            access_log_options = "a line is written at the end",
            max_downstream_connection_duration_jitter_percentage = "no jitter",
            check_drain_close = "connections end when they end",
            downstream_idle_timeout = "idle_timeout holds",
            upstream_idle_timeout = "idle_timeout holds",
        ],
        refused: [
            on_demand = "clusters come from discovery",
            metadata_match = "there are no subsets",
            proxy_protocol_tlvs = "PROXY protocol is not sent",
            proxy_protocol_tlv_merge_policy = "PROXY protocol is not sent",
            upstream_connect_mode = "upstream is connected at once",
            max_early_data_bytes = "upstream is connected at once",
        ],
    }
    envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig as "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.TunnelingConfig" {
        supported: [hostname, use_post, headers_to_add, post_path],
        ignored: [
            propagate_response_headers = "nothing reads them",
            propagate_response_trailers = "nothing reads them",
            request_id_header = "requests of tunnels have no identifier",
            request_id_metadata_key = "requests of tunnels have no identifier",
        ],
        refused: [
            request_id_extension = "requests of tunnels have no identifier",
            formatters = "only built-in commands are known",
        ],
    }
    envoy::extensions::filters::network::set_filter_state::v3::Config as "envoy.extensions.filters.network.set_filter_state.v3.Config" {
        supported: [on_new_connection],
        ignored: [],
        refused: [
            on_downstream_tls_handshake = "only new connections set values",
            on_downstream_data = "only new connections set values",
        ],
    }
    envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue as "envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue" {
        supported: [factory_key, shared_with_upstream, skip_if_empty, key, value],
        ignored: [
            read_only = "nothing writes twice",
        ],
        refused: [],
    }
    envoy::extensions::filters::network::local_ratelimit::v3::LocalRateLimit as "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" {
        supported: [stat_prefix, token_bucket, runtime_enabled],
        ignored: [],
        refused: [
            share_key = "each filter has a bucket of its own",
        ],
    }
}
