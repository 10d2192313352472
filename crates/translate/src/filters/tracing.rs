//! Tracing: which requests are sampled, and where spans go.

use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::trace::v3 as trace;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use lateen_proto::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use lateen_proto::envoy::r#type::v3::Percent;

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpanCollector {
    /// Where the proxy's bootstrap says (`defaultConfig.tracing`), or nowhere; trace context travels all the same.
    Bootstrap,
    /// A Zipkin collector.
    Zipkin {
        /// The cluster.
        cluster: String,
        /// Its host name.
        hostname: String,
        /// The path that takes spans.
        path: String,
        /// Whether trace ids are of 64 bits.
        short_ids: bool,
    },
    /// An OpenTelemetry collector, by gRPC.
    OpenTelemetry {
        /// The cluster.
        cluster: String,
        /// Its host name.
        hostname: String,
        /// The name that this workload reports itself by.
        service: String,
    },
}

/// Tracing of one proxy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TracingOptions {
    /// The share of requests without a decision that are sampled, in percent.
    pub(crate) sampling: f64,
    /// Where spans go.
    pub(crate) collector: SpanCollector,
    /// The longest path that is put in a span.
    pub(crate) max_path_length: Option<u32>,
    /// Tags with the same value on each span.
    pub(crate) literal_tags: Vec<(String, String)>,
    /// Tags from request headers: name, header, default.
    pub(crate) header_tags: Vec<(String, String, String)>,
    /// Tags from the proxy's environment: name, variable, default.
    pub(crate) environment_tags: Vec<(String, String, String)>,
}

impl TracingOptions {
    /// The connection manager's part.
    pub(crate) fn to_message(&self) -> Tracing {
        let percent = |value| Some(Percent { value });
        Tracing {
            client_sampling: percent(100.0),
            random_sampling: percent(self.sampling.clamp(0.0, 100.0)),
            overall_sampling: percent(100.0),
            max_path_tag_length: self.max_path_length,
            custom_tags: self.tags(),
            provider: provider(&self.collector),
            ..Default::default()
        }
    }

    fn tags(&self) -> Vec<CustomTag> {
        let literal = self.literal_tags.iter().map(|(tag, value)| CustomTag {
            tag: tag.clone(),
            r#type: Some(custom_tag::Type::Literal(custom_tag::Literal { value: value.clone() })),
        });
        let header = self.header_tags.iter().map(|(tag, name, default)| CustomTag {
            tag: tag.clone(),
            r#type: Some(custom_tag::Type::RequestHeader(custom_tag::Header {
                name: name.clone(),
                default_value: default.clone(),
            })),
        });
        let environment = self.environment_tags.iter().map(|(tag, name, default)| CustomTag {
            tag: tag.clone(),
            r#type: Some(custom_tag::Type::Environment(custom_tag::Environment {
                name: name.clone(),
                default_value: default.clone(),
            })),
        });
        let mut tags: Vec<_> = literal.chain(header).chain(environment).collect();
        tags.sort_by(|a, b| a.tag.cmp(&b.tag));
        tags
    }
}

fn provider(collector: &SpanCollector) -> Option<trace::tracing::Http> {
    let (name, config) = match collector {
        SpanCollector::Bootstrap => return None,
        SpanCollector::Zipkin { cluster, hostname, path, short_ids } => {
            let config = trace::ZipkinConfig {
                collector_cluster: cluster.clone(),
                collector_endpoint: path.clone(),
                collector_endpoint_version: trace::zipkin_config::CollectorEndpointVersion::HttpJson.into(),
                collector_hostname: hostname.clone(),
                trace_id_128bit: !short_ids,
                shared_span_context: Some(false),
                ..Default::default()
            };
            ("envoy.tracers.zipkin", Any::pack(&config))
        }
        SpanCollector::OpenTelemetry { cluster, hostname, service } => {
            let grpc = core::grpc_service::EnvoyGrpc {
                cluster_name: cluster.clone(),
                authority: hostname.clone(),
                ..Default::default()
            };
            let config = trace::OpenTelemetryConfig {
                grpc_service: Some(core::GrpcService {
                    target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
                    ..Default::default()
                }),
                service_name: service.clone(),
                ..Default::default()
            };
            ("envoy.tracers.opentelemetry", Any::pack(&config))
        }
    };
    Some(trace::tracing::Http {
        name: name.into(),
        config_type: Some(trace::tracing::http::ConfigType::TypedConfig(config)),
    })
}
