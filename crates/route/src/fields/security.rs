//! Fields of TLS contexts, secrets and RBAC.

use lateen_proto::envoy;

super::fields! {
    envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext as "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" {
        supported: [common_tls_context, require_client_certificate, require_sni, disable_stateful_session_resumption],
        ignored: [
            session_timeout = "the library decides",
            ocsp_staple_policy = "staples are not sent",
            full_scan_certs_on_sni_mismatch = "there is one certificate",
            prefer_client_ciphers = "the library decides",
        ],
        refused: [
            session_ticket_keys_type = "tickets use keys of the process",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext as "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" {
        supported: [common_tls_context, sni, auto_host_sni, auto_sni_san_validation],
        ignored: [
            max_session_keys = "the library decides",
            enforce_rsa_key_usage = "the library decides",
        ],
        refused: [
            allow_renegotiation = "TLS 1.2 renegotiation is not spoken",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::CommonTlsContext as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext" {
        supported: [tls_params, tls_certificates, tls_certificate_sds_secret_configs, alpn_protocols, validation_context_type],
        ignored: [],
        refused: [
            tls_certificate_provider_instance = "use secret discovery",
            custom_tls_certificate_selector = "use secret discovery",
            tls_certificate_certificate_provider = "use secret discovery",
            tls_certificate_certificate_provider_instance = "use secret discovery",
            custom_handshaker = "handshakes are the library's",
            key_log = "keys are not logged",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::TlsParameters as "envoy.extensions.transport_sockets.tls.v3.TlsParameters" {
        supported: [tls_minimum_protocol_version, tls_maximum_protocol_version, cipher_suites, ecdh_curves],
        ignored: [
            signature_algorithms = "the library decides",
        ],
        refused: [
            compliance_policies = "the library is not certified",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::common_tls_context::CombinedCertificateValidationContext as "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext" {
        supported: [default_validation_context, validation_context_sds_secret_config],
        ignored: [],
        refused: [
            validation_context_certificate_provider = "use secret discovery",
            validation_context_certificate_provider_instance = "use secret discovery",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::CertificateValidationContext as "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext" {
        supported: [trusted_ca, system_root_certs, match_typed_subject_alt_names, match_subject_alt_names, trust_chain_verification, verify_certificate_spki, verify_certificate_hash, crl, only_verify_leaf_cert_crl],
        ignored: [
            watched_directory = "secret discovery watches",
            suppress_client_ca_list = "the list is not sent",
        ],
        refused: [
            allow_expired_certificate = "an expired certificate is never good",
            max_verify_depth = "the library limits chains",
            ca_certificate_provider_instance = "use secret discovery",
            require_signed_certificate_timestamp = "Envoy does not implement it",
            custom_validator_config = "the built-in validator is what there is",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::SubjectAltNameMatcher as "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher" {
        supported: [san_type, matcher],
        ignored: [],
        refused: [
            oid = "OTHER_NAME is not supported",
        ],
    }
    envoy::extensions::transport_sockets::tls::v3::TlsCertificate as "envoy.extensions.transport_sockets.tls.v3.TlsCertificate" {
        supported: [certificate_chain, private_key],
        ignored: [
            watched_directory = "secret discovery watches",
            ocsp_staple = "staples are not sent",
            signed_certificate_timestamp = "Envoy does not implement it",
            tls_params = "those of the context hold",
        ],
        refused: [
            pkcs12 = "give PEM",
            private_key_provider = "keys are in memory",
            password = "give a key without password",
        ],
    }
    envoy::config::rbac::v3::Rbac as "envoy.config.rbac.v3.RBAC" {
        supported: [action, policies],
        ignored: [
            audit_logging_options = "use access_log",
        ],
        refused: [],
    }
    envoy::config::rbac::v3::Policy as "envoy.config.rbac.v3.Policy" {
        supported: [permissions, principals],
        ignored: [
            cel_config = "there are no expressions",
        ],
        refused: [
            condition = "expressions are not supported",
            checked_condition = "expressions are not supported",
        ],
    }
    envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication as "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" {
        supported: [providers, rules, bypass_cors_preflight, requirement_map, strip_failure_response],
        ignored: [
            stat_prefix = "no such metrics",
        ],
        refused: [
            filter_state_rules = "no filter state is kept for tokens",
        ],
    }
    envoy::extensions::filters::http::jwt_authn::v3::JwtProvider as "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider" {
        supported: [
            issuer, audiences, forward, from_headers, from_params, from_cookies, forward_payload_header,
            pad_forward_payload_header, payload_in_metadata, normalize_payload_in_metadata, header_in_metadata,
            clock_skew_seconds, claim_to_headers, clear_route_cache, jwks_source_specifier,
        ],
        ignored: [
            jwt_cache_config = "every token is validated",
        ],
        refused: [
            subjects = "use an authorization policy",
            require_expiration = "use an authorization policy",
            max_lifetime = "use tokens that end",
            failed_status_in_metadata = "a refusal is in the response",
        ],
    }
    envoy::extensions::filters::http::jwt_authn::v3::JwtClaimToHeader as "envoy.extensions.filters.http.jwt_authn.v3.JwtClaimToHeader" {
        supported: [header_name, claim_name],
        ignored: [],
        refused: [
            claim_path = "use claim_name",
        ],
    }
    envoy::extensions::filters::http::rbac::v3::Rbac as "envoy.extensions.filters.http.rbac.v3.RBAC" {
        supported: [rules, rules_stat_prefix, shadow_rules, shadow_rules_stat_prefix],
        ignored: [
            track_per_rule_stats = "metrics are by policy",
        ],
        refused: [
            matcher = "use rules",
            shadow_matcher = "use shadow_rules",
        ],
    }
    envoy::extensions::filters::network::rbac::v3::Rbac as "envoy.extensions.filters.network.rbac.v3.RBAC" {
        supported: [rules, shadow_rules, shadow_rules_stat_prefix, stat_prefix],
        ignored: [],
        refused: [
            matcher = "use rules",
            shadow_matcher = "use shadow_rules",
            enforcement_type = "rules are looked at once",
            delay_deny = "a denial is at once",
        ],
    }
    envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport as "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport" {
        supported: [config, transport_socket],
        ignored: [
            allow_unspecified_address = "addresses are always known",
            tlv_as_pool_key = "TLVs are not sent",
        ],
        refused: [],
    }
    envoy::config::core::v3::ProxyProtocolConfig as "envoy.config.core.v3.ProxyProtocolConfig" {
        supported: [version],
        ignored: [
            pass_through_tlvs = "TLVs are not read, so there is none to pass on",
        ],
        refused: [
            added_tlvs = "TLVs are not sent",
        ],
    }
    envoy::extensions::filters::http::ext_authz::v3::ExtAuthz as "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz" {
        supported: [
            failure_mode_allow, failure_mode_allow_header_add, with_request_body, clear_route_cache, status_on_error,
            metadata_context_namespaces, filter_enabled, filter_enabled_metadata, deny_at_disable, include_peer_certificate,
            stat_prefix, allowed_headers, disallowed_headers, include_tls_session, charge_cluster_response_stats, services,
            transport_api_version,
        ],
        ignored: [
            validate_mutations = "an answer whose headers cannot be sent is a failure always",
            emit_filter_state_stats = "no filter state is kept",
            filter_metadata = "nothing reads it",
            emit_client_span = "spans are not exported",
            bootstrap_metadata_labels_key = "no labels are sent",
            enable_dynamic_metadata_ingestion = "what a service says is kept always",
            typed_metadata_context_namespaces = "filters keep no typed metadata",
            route_typed_metadata_context_namespaces = "routes have no typed metadata",
            enforce_response_header_limits = "the codec limits heads",
        ],
        refused: [
            route_metadata_context_namespaces = "use context_extensions of the route",
            encode_raw_headers = "headers are sent as text",
            decoder_header_mutation_rules = "what a service may change is not limited",
            max_denied_response_body_bytes = "answers are limited always",
            shadow_mode = "use failure_mode_allow",
        ],
    }
    envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as "envoy.extensions.filters.network.ext_authz.v3.ExtAuthz" {
        supported: [
            stat_prefix, grpc_service, failure_mode_allow, include_peer_certificate, transport_api_version,
            filter_enabled_metadata, include_tls_session, metadata_context_namespaces,
        ],
        ignored: [
            bootstrap_metadata_labels_key = "no labels are sent",
            typed_metadata_context_namespaces = "filters keep no typed metadata",
            send_tls_alert_on_denial = "the connection is closed",
        ],
        refused: [
            shadow_mode = "use failure_mode_allow",
        ],
    }
    envoy::extensions::filters::http::ext_authz::v3::HttpService as "envoy.extensions.filters.http.ext_authz.v3.HttpService" {
        supported: [server_uri, path_prefix, authorization_request, authorization_response],
        ignored: [],
        refused: [
            path_override = "use path_prefix",
            retry_policy = "a check is made once",
        ],
    }
    envoy::extensions::filters::http::ext_authz::v3::AuthorizationResponse as "envoy.extensions.filters.http.ext_authz.v3.AuthorizationResponse" {
        supported: [
            allowed_upstream_headers, allowed_upstream_headers_to_append, allowed_client_headers,
            allowed_client_headers_on_success,
        ],
        ignored: [],
        refused: [
            dynamic_metadata_from_headers = "use a gRPC service",
        ],
    }
    envoy::extensions::filters::http::ext_authz::v3::CheckSettings as "envoy.extensions.filters.http.ext_authz.v3.CheckSettings" {
        supported: [context_extensions, disable_request_body_buffering, with_request_body],
        ignored: [
            emit_client_span = "spans are not exported",
        ],
        refused: [
            service_override = "one service is asked on all routes",
        ],
    }
    envoy::config::core::v3::GrpcService as "envoy.config.core.v3.GrpcService" {
        supported: [timeout, initial_metadata, target_specifier],
        ignored: [],
        refused: [
            retry_policy = "a call is made once",
        ],
    }
    envoy::config::core::v3::grpc_service::EnvoyGrpc as "envoy.config.core.v3.GrpcService.EnvoyGrpc" {
        supported: [cluster_name, authority],
        ignored: [
            max_receive_message_length = "answers are limited always",
            skip_envoy_headers = "what Envoy says of itself is told always",
        ],
        refused: [
            retry_policy = "a call is made once",
        ],
    }
}
