//! `ProxyConfig` inside the mesh configuration: how proxies are started.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::field::{enumeration, message, oneof};
use crate::kinds::destination_rule::{ClientTlsSettings, TcpKeepalive};
use crate::kinds::proxy_config::ProxyImage;
use crate::kinds::workload::ReadinessProbe;

message! {
    /// How proxies are started (`istio.mesh.v1alpha1.ProxyConfig`); a pod's annotation `proxy.istio.io/config` says more.
    pub struct MeshProxyConfig [OneOf(&["service_cluster", "tracing_service_name"])] {
        /// The folder of generated configuration.
        config_path: String,
        /// The proxy's executable.
        binary_path: String,
        /// The service cluster of all proxies.
        service_cluster: Option<String>,
        /// How the service cluster is named.
        tracing_service_name: Option<TracingServiceName>,
        /// How long connections drain at a hot restart.
        drain_duration: Option<Duration>,
        /// Not in use.
        parent_shutdown_duration: Option<Duration>,
        /// Where xDS is served over mTLS.
        discovery_address: String,
        /// Not in use.
        discovery_refresh_delay: Option<Duration>,
        /// Old form of tracing.zipkin.address.
        zipkin_address: String,
        /// A statsd listener.
        statsd_udp_address: String,
        /// Not in use.
        envoy_metrics_service_address: String,
        /// The port of the administrative interface.
        proxy_admin_port: i32,
        /// Not in use.
        availability_zone: String,
        /// How the proxy authenticates itself to the control plane.
        control_plane_auth_policy: AuthenticationPolicy,
        /// A bootstrap that takes the generated one's place.
        custom_config_file: String,
        /// The greatest length of statistics' names.
        stat_name_length: i32,
        /// Worker threads; zero means one per core.
        concurrency: Option<i32>,
        /// A bootstrap template.
        proxy_bootstrap_template_path: String,
        /// How inbound traffic gets to the proxy.
        interception_mode: InboundInterceptionMode,
        /// Traces.
        tracing: Option<MeshTracing>,
        /// Not in use.
        sds: Option<SdsConfig>,
        /// Where access logs go.
        envoy_access_log_service: Option<RemoteService>,
        /// Where metrics go.
        envoy_metrics_service: Option<RemoteService>,
        /// Further environment variables; names with `ISTIO_META_` become node metadata.
        proxy_metadata: BTreeMap<String, String>,
        /// Runtime values of the bootstrap.
        runtime_values: BTreeMap<String, String>,
        /// The port of readiness and merged metrics.
        status_port: i32,
        /// Further tags of statistics.
        extra_stat_tags: Vec<String>,
        /// What is in front of gateways.
        gateway_topology: Option<Topology>,
        /// How long connections drain at termination.
        termination_drain_duration: Option<Duration>,
        /// The mesh.
        mesh_id: String,
        /// How readiness of a machine is probed.
        readiness_probe: Option<ReadinessProbe>,
        /// Which further statistics are kept.
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// Whether the application starts after the proxy.
        hold_application_until_proxy_starts: Option<bool>,
        /// Further authorities.
        ca_certificates_pem: Vec<String>,
        /// The image.
        image: Option<ProxyImage>,
        /// Hardware for private keys.
        private_key_provider: Option<PrivateKeyProvider>,
        /// Headers that the proxy adds.
        proxy_headers: Option<ProxyHeaders>,
        /// How often access logs are flushed.
        file_flush_interval: Option<Duration>,
        /// How many kilobytes of access log are buffered.
        file_flush_min_size_kb: Option<u32>,
        /// Whether the statistics are compressed when asked for.
        stats_compression: Option<bool>,
        /// How often unused statistics are dropped.
        stats_eviction_interval: Option<Duration>,
    }
}

enumeration! {
    /// How the service cluster is named.
    pub enum TracingServiceName {
        /// By the label `app` and the namespace.
        AppLabelAndNamespace = "APP_LABEL_AND_NAMESPACE" 0,
        /// By the canonical name.
        CanonicalNameOnly = "CANONICAL_NAME_ONLY" 1,
        /// By the canonical name and the namespace.
        CanonicalNameAndNamespace = "CANONICAL_NAME_AND_NAMESPACE" 2,
    }
}

enumeration! {
    /// How the proxy authenticates itself to the control plane.
    pub enum AuthenticationPolicy {
        /// Not at all.
        None = "NONE" 0,
        /// By mTLS.
        MutualTls = "MUTUAL_TLS" 1,
        /// As the parent says.
        Inherit = "INHERIT" 1000,
    }
}

enumeration! {
    /// How inbound traffic gets to the proxy.
    pub enum InboundInterceptionMode {
        /// By iptables REDIRECT.
        Redirect = "REDIRECT" 0,
        /// By iptables TPROXY.
        Tproxy = "TPROXY" 1,
        /// By addressing it.
        None = "NONE" 2,
    }
}

message! {
    /// Traces.
    pub struct MeshTracing [OneOf(&["zipkin", "lightstep", "datadog", "stackdriver", "open_census_agent"])] {
        /// To Zipkin.
        zipkin: Option<TracerAddress>,
        /// To Lightstep.
        lightstep: Option<Lightstep>,
        /// To Datadog.
        datadog: Option<TracerAddress>,
        /// To Stackdriver.
        stackdriver: Option<Stackdriver>,
        /// To an OpenCensus agent.
        open_census_agent: Option<OpenCensusAgent>,
        /// Further tags of spans.
        custom_tags: BTreeMap<String, MeshCustomTag>,
        /// The greatest length of the path in a span.
        max_path_tag_length: u32,
        /// How many of the requests are traced, in percent.
        sampling: f64,
        /// TLS towards the collector.
        tls_settings: Option<ClientTlsSettings>,
        /// Whether spans carry Istio's tags.
        enable_istio_tags: Option<bool>,
    }
}

message! {
    /// Where a tracer's collector is.
    pub struct TracerAddress {
        /// Host and port.
        address: String,
    }
}

message! {
    /// Lightstep.
    pub struct Lightstep {
        /// Host and port.
        address: String,
        /// The access token.
        access_token: String,
    }
}

message! {
    /// Stackdriver.
    pub struct Stackdriver {
        /// Whether spans are printed, too.
        debug: bool,
        /// The greatest number of attributes of a span.
        max_number_of_attributes: Option<i64>,
        /// The greatest number of annotations of a span.
        max_number_of_annotations: Option<i64>,
        /// The greatest number of message events of a span.
        max_number_of_message_events: Option<i64>,
    }
}

message! {
    /// An OpenCensus agent.
    pub struct OpenCensusAgent {
        /// Its address.
        address: String,
        /// How trace contexts are handed on.
        context: Vec<TraceContext>,
    }
}

enumeration! {
    /// How trace contexts are handed on.
    pub enum TraceContext {
        /// Nothing was said.
        Unspecified = "UNSPECIFIED" 0,
        /// By `traceparent`.
        W3cTraceContext = "W3C_TRACE_CONTEXT" 1,
        /// By `grpc-trace-bin`.
        GrpcBin = "GRPC_BIN" 2,
        /// By `X-Cloud-Trace-Context`.
        CloudTraceContext = "CLOUD_TRACE_CONTEXT" 3,
        /// By `X-B3-*`.
        B3 = "B3" 4,
    }
}

oneof! {
    /// The value of a tag.
    pub enum MeshCustomTag {
        /// A fixed text.
        literal => Literal(MeshLiteralTag),
        /// An environment variable of the proxy.
        environment => Environment(MeshNamedTag),
        /// A header of the request.
        header => Header(MeshNamedTag),
    }
}

message! {
    /// A fixed text.
    pub struct MeshLiteralTag {
        /// The text.
        value: String,
    }
}

message! {
    /// A named source with a default.
    pub struct MeshNamedTag {
        /// The name.
        name: String,
        /// The value when there is none.
        default_value: String,
    }
}

message! {
    /// Not in use.
    pub struct SdsConfig {
        /// Whether it is on.
        enabled: bool,
        /// The path of the token.
        k8s_sa_jwt_path: String,
    }
}

message! {
    /// A service that proxies send to.
    pub struct RemoteService {
        /// Host and port.
        address: String,
        /// TLS.
        tls_settings: Option<ClientTlsSettings>,
        /// TCP keepalive.
        tcp_keepalive: Option<TcpKeepalive>,
    }
}

message! {
    /// What is in front of gateways.
    pub struct Topology {
        /// How many trusted proxies.
        num_trusted_proxies: u32,
        /// What becomes of X-Forwarded-Client-Cert.
        forward_client_cert_details: ForwardClientCertDetails,
        /// The PROXY protocol of what is in front.
        proxy_protocol: Option<TopologyProxyProtocol>,
    }
}

message! {
    /// The PROXY protocol of what is in front.
    pub struct TopologyProxyProtocol {}
}

enumeration! {
    /// What becomes of X-Forwarded-Client-Cert.
    pub enum ForwardClientCertDetails {
        /// Nothing was said.
        Undefined = "UNDEFINED" 0,
        /// It is dropped.
        Sanitize = "SANITIZE" 1,
        /// It is forwarded when the client uses mTLS.
        ForwardOnly = "FORWARD_ONLY" 2,
        /// The client's certificate is appended.
        AppendForward = "APPEND_FORWARD" 3,
        /// The client's certificate takes its place.
        SanitizeSet = "SANITIZE_SET" 4,
        /// It is always forwarded.
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY" 5,
    }
}

message! {
    /// Which further statistics are kept.
    pub struct ProxyStatsMatcher {
        /// By prefixes.
        inclusion_prefixes: Vec<String>,
        /// By suffixes.
        inclusion_suffixes: Vec<String>,
        /// By regular expressions.
        inclusion_regexps: Vec<String>,
    }
}

message! {
    /// Hardware for private keys.
    pub struct PrivateKeyProvider [OneOf(&["cryptomb", "qat"])] {
        /// CryptoMB.
        cryptomb: Option<PollingKeyProvider>,
        /// QAT.
        qat: Option<PollingKeyProvider>,
    }
}

message! {
    /// Hardware that is polled.
    pub struct PollingKeyProvider {
        /// The time between polls.
        poll_delay: Option<Duration>,
        /// Whether software is used without the hardware.
        fallback: Option<bool>,
    }
}

message! {
    /// Headers that the proxy adds.
    pub struct ProxyHeaders {
        /// X-Forwarded-Client-Cert.
        forwarded_client_cert: ForwardClientCertDetails,
        /// What of the client's certificate is written there.
        set_current_client_cert_details: Option<ClientCertDetails>,
        /// X-Request-Id.
        request_id: Option<Switch>,
        /// Server.
        server: Option<ServerHeader>,
        /// X-Envoy-Attempt-Count.
        attempt_count: Option<Switch>,
        /// Other X-Envoy headers.
        envoy_debug_headers: Option<Switch>,
        /// X-Envoy-Peer-Metadata.
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        /// X-Forwarded-Host.
        x_forwarded_host: Option<EnableSwitch>,
        /// X-Forwarded-Port.
        x_forwarded_port: Option<EnableSwitch>,
        /// Whether the case of HTTP/1.x headers is kept.
        preserve_http1_header_case: Option<bool>,
    }
}

message! {
    /// What of a client's certificate is written to X-Forwarded-Client-Cert.
    pub struct ClientCertDetails {
        /// The subject.
        subject: Option<bool>,
        /// The certificate.
        cert: Option<bool>,
        /// The chain.
        chain: Option<bool>,
        /// The DNS names.
        dns: Option<bool>,
        /// The URI.
        uri: Option<bool>,
    }
}

message! {
    /// Turns something off.
    pub struct Switch {
        /// Whether it is off.
        disabled: Option<bool>,
    }
}

message! {
    /// Turns something on.
    pub struct EnableSwitch {
        /// Whether it is on.
        enabled: Option<bool>,
    }
}

message! {
    /// The header Server.
    pub struct ServerHeader {
        /// Whether it is left as it is.
        disabled: Option<bool>,
        /// Its value.
        value: String,
    }
}

message! {
    /// Headers of metadata exchange.
    pub struct MetadataExchangeHeaders {
        /// When they are sent.
        mode: MetadataExchangeMode,
    }
}

enumeration! {
    /// When headers of metadata exchange are sent.
    pub enum MetadataExchangeMode {
        /// Always.
        Undefined = "UNDEFINED" 0,
        /// Within the mesh.
        InMesh = "IN_MESH" 1,
    }
}
