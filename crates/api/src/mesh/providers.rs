//! Extension providers: services that policies and telemetry refer to by name.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::proxy::TraceContext;
use crate::field::{enumeration, message, oneof};

message! {
    /// An extension provider: a name and exactly one of the rest.
    pub struct ExtensionProvider [OneOf(&[
        "envoy_ext_authz_http", "envoy_ext_authz_grpc", "zipkin", "lightstep", "datadog", "stackdriver", "opencensus",
        "skywalking", "opentelemetry", "prometheus", "envoy_file_access_log", "envoy_http_als", "envoy_tcp_als",
        "envoy_otel_als", "sds",
    ])] {
        /// Its name, unique in the mesh.
        name: String,
        /// External authorization over HTTP.
        envoy_ext_authz_http: Option<ExtAuthzHttpProvider>,
        /// External authorization over gRPC.
        envoy_ext_authz_grpc: Option<ExtAuthzGrpcProvider>,
        /// Traces to Zipkin.
        zipkin: Option<ZipkinProvider>,
        /// Traces to Lightstep.
        lightstep: Option<LightstepProvider>,
        /// Traces to Datadog.
        datadog: Option<DatadogProvider>,
        /// Traces, metrics and logs to Stackdriver.
        stackdriver: Option<StackdriverProvider>,
        /// Traces to an OpenCensus agent.
        opencensus: Option<OpenCensusProvider>,
        /// Traces to SkyWalking.
        skywalking: Option<SkyWalkingProvider>,
        /// Traces to OpenTelemetry.
        opentelemetry: Option<OpenTelemetryProvider>,
        /// Metrics for Prometheus.
        prometheus: Option<PrometheusProvider>,
        /// Access logs to a file.
        envoy_file_access_log: Option<FileAccessLogProvider>,
        /// Access logs of HTTP to a gRPC service.
        envoy_http_als: Option<HttpGrpcLogProvider>,
        /// Access logs of TCP to a gRPC service.
        envoy_tcp_als: Option<TcpGrpcLogProvider>,
        /// Access logs to OpenTelemetry.
        envoy_otel_als: Option<OpenTelemetryLogProvider>,
        /// Secrets from a service.
        sds: Option<SdsProvider>,
    }
}

message! {
    /// External authorization over HTTP.
    pub struct ExtAuthzHttpProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// How long a check may take; 600 s when absent.
        timeout: Option<Duration>,
        /// What precedes the path of a check.
        path_prefix: String,
        /// Whether requests pass when the check fails.
        fail_open: bool,
        /// Whether the route is computed again after the check.
        clear_route_cache: bool,
        /// The status when the check fails; 403 when empty.
        status_on_error: String,
        /// Old form of includeRequestHeadersInCheck.
        include_headers_in_check: Vec<String>,
        /// Headers of the request that the check gets.
        include_request_headers_in_check: Vec<String>,
        /// Further headers that the check gets.
        include_additional_headers_in_check: BTreeMap<String, String>,
        /// How much of the body the check gets.
        include_request_body_in_check: Option<ExtAuthzRequestBody>,
        /// Headers of the check's answer that go to the upstream when it allows.
        headers_to_upstream_on_allow: Vec<String>,
        /// Headers of the check's answer that go to the downstream when it denies.
        headers_to_downstream_on_deny: Vec<String>,
        /// Headers of the check's answer that go to the downstream when it allows.
        headers_to_downstream_on_allow: Vec<String>,
    }
}

message! {
    /// External authorization over gRPC.
    pub struct ExtAuthzGrpcProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// How long a check may take; 600 s when absent.
        timeout: Option<Duration>,
        /// Whether requests pass when the check fails.
        fail_open: bool,
        /// Whether the route is computed again after the check.
        clear_route_cache: bool,
        /// The status when the check fails; 403 when empty.
        status_on_error: String,
        /// How much of the body the check gets.
        include_request_body_in_check: Option<ExtAuthzRequestBody>,
    }
}

message! {
    /// How much of a request's body a check gets.
    pub struct ExtAuthzRequestBody {
        /// The greatest number of bytes.
        max_request_bytes: u32,
        /// Whether a part of the body suffices.
        allow_partial_message: bool,
        /// Whether it is sent as bytes.
        pack_as_bytes: bool,
    }
}

message! {
    /// Traces to Zipkin.
    pub struct ZipkinProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The greatest length of the path in a span.
        max_tag_length: u32,
        /// Whether trace ids have 64 bits.
        enable_64bit_trace_id: bool,
        /// The path of the collector.
        path: String,
        /// How trace contexts are handed on.
        trace_context_option: ZipkinTraceContext,
        /// How long sending may take.
        timeout: Option<Duration>,
        /// Further headers.
        headers: Vec<ProviderHeader>,
    }
}

enumeration! {
    /// How Zipkin's trace contexts are handed on.
    pub enum ZipkinTraceContext {
        /// By B3.
        UseB3 = "USE_B3" 0,
        /// By B3, and by W3C as well.
        UseB3WithW3cPropagation = "USE_B3_WITH_W3C_PROPAGATION" 1,
    }
}

message! {
    /// Traces to Lightstep.
    pub struct LightstepProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The access token.
        access_token: String,
        /// The greatest length of the path in a span.
        max_tag_length: u32,
    }
}

message! {
    /// Traces to Datadog.
    pub struct DatadogProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The greatest length of the path in a span.
        max_tag_length: u32,
    }
}

message! {
    /// Traces to SkyWalking.
    pub struct SkyWalkingProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The access token.
        access_token: String,
    }
}

message! {
    /// Traces, metrics and logs to Stackdriver.
    pub struct StackdriverProvider {
        /// Whether spans are printed, too.
        debug: bool,
        /// The greatest number of attributes of a span.
        max_number_of_attributes: Option<i64>,
        /// The greatest number of annotations of a span.
        max_number_of_annotations: Option<i64>,
        /// The greatest number of message events of a span.
        max_number_of_message_events: Option<i64>,
        /// The greatest length of the path in a span.
        max_tag_length: u32,
        /// Logs.
        logging: Option<StackdriverLogging>,
    }
}

message! {
    /// Logs to Stackdriver.
    pub struct StackdriverLogging {
        /// Further labels, as expressions.
        labels: BTreeMap<String, String>,
    }
}

message! {
    /// Traces to an OpenCensus agent.
    pub struct OpenCensusProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// How trace contexts are handed on.
        context: Vec<TraceContext>,
        /// The greatest length of the path in a span.
        max_tag_length: u32,
    }
}

message! {
    /// Metrics for Prometheus.
    pub struct PrometheusProvider {}
}

message! {
    /// Access logs to a file.
    pub struct FileAccessLogProvider {
        /// The path; /dev/stdout when empty.
        path: String,
        /// The format.
        log_format: Option<FileLogFormat>,
        /// Whether empty values are left out of JSON.
        omit_empty_values: bool,
    }
}

oneof! {
    /// The format of access logs in a file.
    pub enum FileLogFormat {
        /// A line of text.
        text => Text(String),
        /// JSON.
        labels => Labels(Map<String, Value>),
    }
}

message! {
    /// Access logs of HTTP to a gRPC service.
    pub struct HttpGrpcLogProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The log's name.
        log_name: String,
        /// Filter state that is logged.
        filter_state_objects_to_log: Vec<String>,
        /// Request headers that are logged.
        additional_request_headers_to_log: Vec<String>,
        /// Response headers that are logged.
        additional_response_headers_to_log: Vec<String>,
        /// Response trailers that are logged.
        additional_response_trailers_to_log: Vec<String>,
    }
}

message! {
    /// Access logs of TCP to a gRPC service.
    pub struct TcpGrpcLogProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The log's name.
        log_name: String,
        /// Filter state that is logged.
        filter_state_objects_to_log: Vec<String>,
    }
}

message! {
    /// Access logs to OpenTelemetry.
    pub struct OpenTelemetryLogProvider {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The log's name.
        log_name: String,
        /// The format.
        log_format: Option<OpenTelemetryLogFormat>,
    }
}

message! {
    /// The format of access logs to OpenTelemetry.
    pub struct OpenTelemetryLogFormat {
        /// The body.
        text: String,
        /// The attributes.
        labels: Option<Map<String, Value>>,
    }
}

message! {
    /// Traces to OpenTelemetry.
    pub struct OpenTelemetryProvider [OneOf(&["http", "grpc"]), OneOf(&["dynatrace_sampler"])] {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The greatest length of the path in a span.
        max_tag_length: u32,
        /// Over HTTP; over gRPC when absent.
        http: Option<HttpService>,
        /// Over gRPC.
        grpc: Option<GrpcService>,
        /// Where further attributes come from.
        resource_detectors: Option<ResourceDetectors>,
        /// Dynatrace decides about sampling.
        dynatrace_sampler: Option<DynatraceSampler>,
    }
}

message! {
    /// A service over HTTP.
    pub struct HttpService {
        /// The path.
        path: String,
        /// How long a request may take; 3 s when absent.
        timeout: Option<Duration>,
        /// Further headers.
        headers: Vec<ProviderHeader>,
    }
}

message! {
    /// A service over gRPC.
    pub struct GrpcService {
        /// How long a request may take.
        timeout: Option<Duration>,
        /// Further metadata.
        initial_metadata: Vec<ProviderHeader>,
    }
}

message! {
    /// A header.
    pub struct ProviderHeader [OneOf(&["value", "env_name"])] {
        /// Its name.
        name: String,
        /// Its value.
        value: Option<String>,
        /// The environment variable of its value.
        env_name: Option<String>,
    }
}

message! {
    /// Where further attributes come from.
    pub struct ResourceDetectors {
        /// From OTEL_RESOURCE_ATTRIBUTES.
        environment: Option<ResourceDetector>,
        /// From Dynatrace's files.
        dynatrace: Option<ResourceDetector>,
    }
}

message! {
    /// A source of attributes, without settings.
    pub struct ResourceDetector {}
}

message! {
    /// Dynatrace decides about sampling.
    pub struct DynatraceSampler {
        /// The tenant.
        tenant: String,
        /// The cluster.
        cluster_id: i32,
        /// How many root spans per minute.
        root_spans_per_minute: u32,
        /// Its service.
        http_service: Option<DynatraceApi>,
    }
}

message! {
    /// Dynatrace's service.
    pub struct DynatraceApi {
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
        /// The request.
        http: Option<HttpService>,
    }
}

message! {
    /// Secrets from a service.
    pub struct SdsProvider {
        /// The name in `sds://NAME`.
        name: String,
        /// The service, as `namespace/host` or `host`.
        service: String,
        /// Its port.
        port: u32,
    }
}
