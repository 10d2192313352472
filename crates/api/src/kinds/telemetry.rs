//! `Telemetry`: what is traced, measured and logged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rules::{DURATION, ONE_TARGET, part, text};
use super::selector::{LabelSelector, PolicyTargetReference};
use crate::field::{enumeration, message, oneof};

message! {
    /// What is traced, measured and logged. See https://istio.io/docs/reference/config/telemetry/.
    pub struct Telemetry [ONE_TARGET] {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// The object it is attached to.
        target_ref: Option<PolicyTargetReference>,
        /// The objects it is attached to.
        target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Traces.
        tracing: Vec<Tracing>,
        /// Metrics.
        metrics: Vec<Metrics>,
        /// Access logs.
        access_logging: Vec<AccessLogging>,
    }
}

message! {
    /// Settings of traces.
    pub struct Tracing {
        /// Which side.
        r#match: Option<TracingSelector>,
        /// Where spans go.
        providers: Vec<ProviderRef>,
        /// How many of the requests are traced, in percent.
        random_sampling_percentage: Option<f64> [Min(0), Max(100), Nullable],
        /// Whether no span is reported.
        disable_span_reporting: Option<bool> [Nullable],
        /// Whether no trace context is handed on.
        disable_context_propagation: Option<bool> [Nullable],
        /// Further tags of spans.
        custom_tags: BTreeMap<String, CustomTag>,
        /// Whether the request id decides about sampling.
        use_request_id_for_trace_sampling: Option<bool> [Nullable],
        /// Whether spans carry Istio's tags.
        enable_istio_tags: Option<bool> [Nullable],
    }
}

message! {
    /// Which side is traced.
    pub struct TracingSelector {
        /// The side.
        mode: WorkloadMode,
    }
}

enumeration! {
    /// A side of traffic.
    pub enum WorkloadMode {
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER" 0,
        /// The client's.
        Client = "CLIENT" 1,
        /// The server's.
        Server = "SERVER" 2,
    }
}

message! {
    /// Refers to a provider.
    pub struct ProviderRef {
        /// The name of an extension provider in the mesh configuration.
        name: String [Required, MinLength(1)],
    }
}

oneof! {
    /// The value of a tag.
    pub enum CustomTag {
        /// A fixed text.
        literal => Literal(LiteralTag),
        /// An environment variable of the proxy.
        environment => Environment(DefaultedTag),
        /// A header of the request.
        header => Header(DefaultedTag),
        /// An access-log format.
        formatter => Formatter(LiteralTag),
    }
}

message! {
    /// A text.
    pub struct LiteralTag {
        /// The text.
        value: String [Required, MinLength(1)],
    }
}

message! {
    /// A named source with a default.
    pub struct DefaultedTag {
        /// The name.
        name: String [Required, MinLength(1)],
        /// The value when there is none.
        default_value: String,
    }
}

message! {
    /// Settings of metrics.
    pub struct Metrics {
        /// Who computes them.
        providers: Vec<ProviderRef>,
        /// Changes of single metrics, in order.
        overrides: Vec<MetricsOverrides>,
        /// How often they are reported.
        reporting_interval: Option<Duration> [DURATION],
    }
}

message! {
    /// Changes of metrics.
    pub struct MetricsOverrides {
        /// Which metrics.
        r#match: Option<MetricSelector>,
        /// Whether they are off.
        disabled: Option<bool> [Nullable],
        /// Changes of tags.
        tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// Which metrics.
    pub struct MetricSelector [OneOf(&["metric", "custom_metric"])] {
        /// One of Istio's.
        metric: Option<IstioMetric>,
        /// By its name.
        custom_metric: Option<String> [MinLength(1)],
        /// The side.
        mode: WorkloadMode,
    }
}

enumeration! {
    /// Istio's metrics.
    pub enum IstioMetric {
        /// All.
        AllMetrics = "ALL_METRICS" 0,
        /// istio_requests_total
        RequestCount = "REQUEST_COUNT" 1,
        /// istio_request_duration_milliseconds
        RequestDuration = "REQUEST_DURATION" 2,
        /// istio_request_bytes
        RequestSize = "REQUEST_SIZE" 3,
        /// istio_response_bytes
        ResponseSize = "RESPONSE_SIZE" 4,
        /// istio_tcp_connections_opened_total
        TcpOpenedConnections = "TCP_OPENED_CONNECTIONS" 5,
        /// istio_tcp_connections_closed_total
        TcpClosedConnections = "TCP_CLOSED_CONNECTIONS" 6,
        /// istio_tcp_sent_bytes_total
        TcpSentBytes = "TCP_SENT_BYTES" 7,
        /// istio_tcp_received_bytes_total
        TcpReceivedBytes = "TCP_RECEIVED_BYTES" 8,
        /// istio_request_messages_total
        GrpcRequestMessages = "GRPC_REQUEST_MESSAGES" 9,
        /// istio_response_messages_total
        GrpcResponseMessages = "GRPC_RESPONSE_MESSAGES" 10,
    }
}

message! {
    /// A change of a tag.
    pub struct TagOverride [
        Cel {
            rule: "((has(self.operation) ? self.operation : \"\") == \"UPSERT\") ? (self.value != \"\") : true",
            message: "value must be set when operation is UPSERT",
            holds: |value| text(value, "operation") != "UPSERT" || !text(value, "value").is_empty(),
        },
        Cel {
            rule: "((has(self.operation) ? self.operation : \"\") == \"REMOVE\") ? !has(self.value) : true",
            message: "value must not be set when operation is REMOVE",
            holds: |value| text(value, "operation") != "REMOVE" || part(value, "value").is_none(),
        },
    ] {
        /// What is done.
        operation: TagOperation,
        /// The expression of its value.
        value: String,
    }
}

enumeration! {
    /// What is done to a tag.
    pub enum TagOperation {
        /// It is set.
        Upsert = "UPSERT" 0,
        /// It is removed.
        Remove = "REMOVE" 1,
    }
}

message! {
    /// Settings of access logs.
    pub struct AccessLogging {
        /// Which side.
        r#match: Option<LogSelector>,
        /// Where they go.
        providers: Vec<ProviderRef>,
        /// Whether they are off.
        disabled: Option<bool> [Nullable],
        /// Which requests.
        filter: Option<LogFilter>,
    }
}

message! {
    /// Which side is logged.
    pub struct LogSelector {
        /// The side.
        mode: WorkloadMode,
    }
}

message! {
    /// Which requests are logged.
    pub struct LogFilter {
        /// A CEL expression.
        expression: String,
    }
}
