//! The resources that both proxies run: a sidecar's outbound chain with all its filters, or the two sides of mutual TLS.
//!
//! They have the shape of Istio's: inspector, connection manager with fault, CORS and router, tracing, file access log
//! in Istio's format, several virtual hosts, retries, circuit breakers. Routes and endpoints are inlined, so that the
//! same JSON is a static bootstrap for Envoy and a file of resources for ours.

use serde_json::{Value, json};

/// Istio's text log.
const LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The host that requests are for.
pub(crate) const HOST: &str = "echo.default.svc.cluster.local:8000";
const CLUSTER: &str = "outbound|8000||echo.default.svc.cluster.local";

/// PEM texts of one identity and the anchor of both.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The certificate.
    pub(crate) chain: String,
    /// Its key.
    pub(crate) key: String,
    /// The anchor.
    pub(crate) root: String,
}

/// Which HTTP a hop speaks to its upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A hop of the outbound side, plain.
pub(crate) fn outbound(listen: u16, to: u16, log: &str, upstream: Upstream, extra_clusters: usize) -> Value {
    let mut clusters = vec![cluster(CLUSTER, to, upstream, None)];
    for index in 0..extra_clusters {
        let name = format!("outbound|8000||service-{index}.default.svc.cluster.local");
        clusters.push(cluster(&name, to, Upstream::Http1, None));
    }
    json!({
        "listeners": [listener("0.0.0.0_8000", listen, log, "OUTBOUND", None)],
        "clusters": clusters,
    })
}

/// The client's side of mutual TLS: plain in, mutual TLS with HTTP/2 out.
pub(crate) fn client_side(listen: u16, to: u16, log: &str, identity: &Identity) -> Value {
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "outbound_.8000_._.echo.default.svc.cluster.local",
            "common_tls_context": common(identity, &["istio-http/1.1", "h2"]),
        }
    });
    json!({
        "listeners": [listener("0.0.0.0_8000", listen, log, "OUTBOUND", None)],
        "clusters": [cluster(CLUSTER, to, Upstream::Http2, Some(tls))],
    })
}

/// The server's side of mutual TLS: mutual TLS with HTTP/2 in, plain HTTP/1.1 out.
pub(crate) fn server_side(listen: u16, to: u16, log: &str, identity: &Identity) -> Value {
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": common(identity, &["h2", "http/1.1"]),
        }
    });
    json!({
        "listeners": [listener("virtualInbound", listen, log, "INBOUND", Some(tls))],
        "clusters": [cluster(CLUSTER, to, Upstream::Http1, None)],
    })
}

fn common(identity: &Identity, alpn: &[&str]) -> Value {
    json!({
        "alpn_protocols": alpn,
        "tls_certificates": [{
            "certificate_chain": {"inline_string": identity.chain},
            "private_key": {"inline_string": identity.key},
        }],
        "validation_context": {"trusted_ca": {"inline_string": identity.root}},
    })
}

fn listener(name: &str, port: u16, log: &str, direction: &str, tls: Option<Value>) -> Value {
    let inspector = match tls {
        None => json!({
            "name": "envoy.filters.listener.http_inspector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
            }
        }),
        Some(_) => json!({
            "name": "envoy.filters.listener.tls_inspector",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
            }
        }),
    };
    let mut chain = json!({"name": name, "filters": [manager(log)]});
    if let Some(tls) = tls {
        chain["transport_socket"] = tls;
    }
    json!({
        "name": name,
        "address": address(port),
        "traffic_direction": direction,
        "listener_filters": [inspector],
        "continue_on_listener_filters_timeout": true,
        "filter_chains": [chain],
    })
}

fn manager(log: &str) -> Value {
    let filter = |name: &str, kind: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}});
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "outbound_0.0.0.0_8000;",
            "route_config": routes(),
            "http_filters": [
                filter("envoy.filters.http.fault", "fault.v3.HTTPFault"),
                filter("envoy.filters.http.cors", "cors.v3.Cors"),
                filter("envoy.filters.http.router", "router.v3.Router"),
            ],
            "access_log": [{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": log,
                    "log_format": {"text_format_source": {"inline_string": LOG}},
                }
            }],
            "use_remote_address": false,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "stream_idle_timeout": "0s",
            "normalize_path": true,
            "request_id_extension": {"typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                "use_request_id_for_trace_sampling": true,
            }},
        }
    })
}

fn routes() -> Value {
    let host = |name: &str, domains: Value| {
        json!({
            "name": name,
            "domains": domains,
            "include_request_attempt_count": true,
            "routes": [
                route(json!({"prefix": "/api/", "headers": [{"name": "end-user", "string_match": {"exact": "jason"}}]})),
                route(json!({"prefix": "/"})),
            ],
        })
    };
    let mut hosts: Vec<Value> = (0..20)
        .map(|index| {
            host(
                &format!("service-{index}:8000"),
                json!([format!("service-{index}"), format!("service-{index}.default")]),
            )
        })
        .collect();
    hosts.push(host(HOST, json!(["echo.default.svc.cluster.local", "echo", "echo.default"])));
    hosts.push(json!({
        "name": "allow_any",
        "domains": ["*"],
        "routes": [{"name": "allow_any", "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }));
    json!({
        "name": "8000",
        "virtual_hosts": hosts,
        "ignore_port_in_host_matching": true,
        "validate_clusters": false,
    })
}

fn route(matches: Value) -> Value {
    json!({
        "name": "default",
        "match": matches,
        "decorator": {"operation": "echo.default.svc.cluster.local:8000/*"},
        "route": {
            "cluster": CLUSTER,
            "timeout": "0s",
            "max_grpc_timeout": "0s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
                "num_retries": 2,
                "retriable_status_codes": [503],
                "host_selection_retry_max_attempts": 5,
                "retry_host_predicate": [{
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    }
                }],
            },
        },
    })
}

fn cluster(name: &str, to: u16, upstream: Upstream, tls: Option<Value>) -> Value {
    let max = 4_294_967_295u32;
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": {"thresholds": [{
            "max_connections": max, "max_pending_requests": max, "max_requests": max, "max_retries": max,
            "track_remaining": true,
        }]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}],
        },
    });
    if upstream == Upstream::Http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        });
    }
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// The resources as a bootstrap for Envoy.
pub(crate) fn bootstrap(resources: &Value, admin: u16) -> Value {
    json!({
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": resources["listeners"],
            "clusters": resources["clusters"],
        },
    })
}
