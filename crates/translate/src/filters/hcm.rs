//! HTTP connection managers.

use std::time::Duration;

use lateen_proto::Any;
use lateen_proto::envoy::config::accesslog::v3::AccessLog;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::listener::v3::Filter;
use lateen_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_proto::envoy::extensions::filters::http::cors::v3::Cors;
use lateen_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use lateen_proto::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use lateen_proto::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use lateen_proto::envoy::extensions::filters::http::router::v3::Router;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as parts;
use lateen_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::extensions::{self, IstioFilters, TrafficClass};
use super::tracing::TracingOptions;
use super::wire::{ads, duration, http_filter, network_filter, zero};
use crate::scoping;

pub(crate) const HCM: &str = "envoy.filters.network.http_connection_manager";

/// How far paths are normalised before anything looks at them (MeshConfig `pathNormalization`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum PathNormalization {
    /// Not at all.
    None,
    /// By RFC 3986.
    #[default]
    Base,
    /// Also runs of slashes become one.
    MergeSlashes,
    /// Also escaped slashes become slashes.
    DecodeAndMergeSlashes,
}

/// What a proxy does to headers that are about itself (ProxyConfig `proxyHeaders`, `gatewayTopology`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxyHeaders {
    /// The `server` header's value; none leaves the upstream's.
    pub(crate) server: Option<String>,
    /// What becomes of `x-forwarded-client-cert`; none: by traffic class.
    pub(crate) forwarded_client_cert: Option<parts::ForwardClientCertDetails>,
    /// Which details of a client certificate are written; none: by traffic class.
    pub(crate) client_cert_details: Option<parts::SetCurrentClientCertDetails>,
    /// Whether requests without `x-request-id` get one.
    pub(crate) request_id: bool,
    /// Whether `x-envoy-attempt-count` is written.
    pub(crate) attempt_count: bool,
    /// Whether `x-envoy-*` headers for debugging are withheld.
    pub(crate) suppress_debug: bool,
    /// Whether `x-forwarded-port` is written.
    pub(crate) forwarded_port: bool,
    /// Whether HTTP/1.1 header names keep their case.
    pub(crate) preserve_case: bool,
    /// Hops before this proxy whose `x-forwarded-for` is believed.
    pub(crate) trusted_hops: u32,
}

impl Default for ProxyHeaders {
    fn default() -> Self {
        Self {
            server: Some("istio-envoy".into()),
            forwarded_client_cert: None,
            client_cert_details: None,
            request_id: true,
            attempt_count: true,
            suppress_debug: false,
            forwarded_port: false,
            preserve_case: false,
            trusted_hops: 0,
        }
    }
}

/// What every connection manager of one proxy and traffic class shares.
#[derive(Clone, Debug)]
pub(crate) struct HttpSettings {
    /// The traffic class.
    pub(crate) class: TrafficClass,
    /// Istio's own filters that the proxy has.
    pub(crate) istio: IstioFilters,
    /// The logs.
    pub(crate) access_log: Vec<AccessLog>,
    /// Tracing, unless the mesh turned it off.
    pub(crate) tracing: Option<TracingOptions>,
    /// Path normalisation.
    pub(crate) normalization: PathNormalization,
    /// Headers about the proxy itself.
    pub(crate) headers: ProxyHeaders,
    /// Whether HTTP/1.0 is taken.
    pub(crate) http10: bool,
    /// How long a connection may be idle.
    pub(crate) idle: Option<Duration>,
    /// Address ranges that count as internal, when networks are configured.
    pub(crate) internal_ranges: Vec<core::CidrRange>,
    /// Whether requests wait for clusters that are loaded on demand.
    pub(crate) on_demand: bool,
    /// Filters that check who asks and whether they may, in order; see `crate::filters::security`.
    pub(crate) security: Vec<hcm::HttpFilter>,
}

/// Where a connection manager's routes come from.
#[derive(Clone, Debug)]
pub(crate) enum RouteSource {
    /// By name over ADS.
    Named(String),
    /// From the listener itself.
    Inline(Box<RouteConfiguration>),
}

/// One connection manager.
#[derive(Clone, Debug)]
pub(crate) struct HttpChain {
    /// The prefix of its statistics, without the closing `;`.
    pub(crate) stat_prefix: String,
    /// Its routes.
    pub(crate) routes: RouteSource,
    /// Whether clients speak gRPC-Web.
    pub(crate) grpc_web: bool,
    /// Whether it is a forward proxy for applications: absolute URLs and CONNECT.
    pub(crate) forward_proxy: bool,
    /// Whether the peer is the client itself, so that `x-forwarded-for` begins here.
    pub(crate) edge: bool,
    /// What mesh peers are offered by proxies without `istio.alpn`.
    pub(crate) alpn: &'static str,
    /// Filters directly before the router.
    pub(crate) last_filters: Vec<hcm::HttpFilter>,
}

impl HttpChain {
    /// A connection manager with routes by name.
    pub(crate) fn named(stat_prefix: impl Into<String>, routes: impl Into<String>) -> Self {
        Self::of(stat_prefix, RouteSource::Named(routes.into()))
    }

    /// A connection manager that brings its routes.
    pub(crate) fn inline(stat_prefix: impl Into<String>, routes: RouteConfiguration) -> Self {
        Self::of(stat_prefix, RouteSource::Inline(Box::new(routes)))
    }

    fn of(stat_prefix: impl Into<String>, routes: RouteSource) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            routes,
            grpc_web: false,
            forward_proxy: false,
            edge: false,
            alpn: extensions::MESH_HTTP11,
            last_filters: Vec::new(),
        }
    }

    /// The network filter.
    pub(crate) fn into_filter(self, settings: &HttpSettings) -> Filter {
        network_filter(HCM, &self.into_message(settings))
    }

    fn into_message(self, settings: &HttpSettings) -> hcm::HttpConnectionManager {
        let headers = &settings.headers;
        let (forward, details) = client_cert(settings);
        let mut upgrades = vec![upgrade("websocket")];
        if self.forward_proxy {
            upgrades.push(upgrade("CONNECT"));
        }
        let mut message = hcm::HttpConnectionManager {
            codec_type: parts_codec(),
            stat_prefix: format!("{};", self.stat_prefix),
            http_filters: self.filters(settings),
            tracing: settings.tracing.as_ref().map(TracingOptions::to_message),
            common_http_protocol_options: settings.idle.map(|idle| core::HttpProtocolOptions {
                idle_timeout: Some(duration(idle)),
                ..Default::default()
            }),
            http_protocol_options: http1(settings, self.forward_proxy),
            stream_idle_timeout: Some(zero()),
            access_log: settings.access_log.clone(),
            use_remote_address: Some(self.edge),
            xff_num_trusted_hops: if self.edge { headers.trusted_hops } else { 0 },
            internal_address_config: internal(settings),
            generate_request_id: (!headers.request_id).then_some(false),
            forward_client_cert_details: forward.into(),
            set_current_client_cert_details: details,
            proxy_100_continue: true,
            upgrade_configs: upgrades,
            request_id_extension: Some(request_ids()),
            append_x_forwarded_port: headers.forwarded_port,
            route_specifier: Some(routes(self.routes)),
            ..Default::default()
        };
        normalize(&mut message, settings.normalization);
        name_server(&mut message, settings);
        message
    }

    fn filters(&self, settings: &HttpSettings) -> Vec<hcm::HttpFilter> {
        let (class, istio) = (settings.class, settings.istio);
        let mut filters = Vec::with_capacity(8);
        if istio.metadata_exchange {
            filters.push(extensions::http_metadata_exchange(class));
        }
        filters.extend(settings.security.iter().cloned());
        if self.grpc_web {
            filters.push(http_filter("envoy.filters.http.grpc_web", &GrpcWeb {}));
        }
        filters.push(http_filter("envoy.filters.http.grpc_stats", &grpc_statistics()));
        if class != TrafficClass::Inbound {
            filters.push(match istio.alpn {
                true => extensions::http_alpn(),
                false => extensions::http_alpn_state(self.alpn),
            });
        }
        filters.push(http_filter("envoy.filters.http.fault", &HttpFault::default()));
        filters.push(http_filter("envoy.filters.http.cors", &Cors {}));
        if istio.stats {
            filters.push(extensions::http_stats(class));
        }
        filters.extend(self.last_filters.iter().cloned());
        if settings.on_demand {
            filters.push(scoping::filter());
        }
        let router = Router { suppress_envoy_headers: settings.headers.suppress_debug, ..Default::default() };
        filters.push(http_filter("envoy.filters.http.router", &router));
        filters
    }
}

fn parts_codec() -> i32 {
    parts::CodecType::Auto.into()
}

fn upgrade(kind: &str) -> parts::UpgradeConfig {
    parts::UpgradeConfig { upgrade_type: kind.into(), ..Default::default() }
}

fn grpc_statistics() -> grpc_stats::FilterConfig {
    grpc_stats::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(
            grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(false),
        ),
        ..Default::default()
    }
}

fn http1(settings: &HttpSettings, forward_proxy: bool) -> Option<core::Http1ProtocolOptions> {
    let options = core::Http1ProtocolOptions {
        allow_absolute_url: forward_proxy.then_some(true),
        accept_http_10: settings.http10,
        header_key_format: settings.headers.preserve_case.then(preserved_case),
        ..Default::default()
    };
    (options != core::Http1ProtocolOptions::default()).then_some(options)
}

const PRESERVE_CASE: &str = concat!(
    "type.googleapis.com/",
    "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig"
);

fn preserved_case() -> core::http1_protocol_options::HeaderKeyFormat {
    use core::http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat};
    HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(core::TypedExtensionConfig {
            name: "preserve_case".into(),
            // The message is empty: its name says all.
            typed_config: Some(Any { type_url: PRESERVE_CASE.into(), ..Default::default() }),
        })),
    }
}

/// What becomes of `x-forwarded-client-cert`.
fn client_cert(
    settings: &HttpSettings,
) -> (parts::ForwardClientCertDetails, Option<parts::SetCurrentClientCertDetails>) {
    use parts::ForwardClientCertDetails as Forward;
    let forward = match (settings.headers.forwarded_client_cert, settings.class) {
        (Some(given), TrafficClass::Inbound | TrafficClass::Gateway) => given,
        (None, TrafficClass::Inbound) => Forward::AppendForward,
        (None, TrafficClass::Gateway) => Forward::SanitizeSet,
        (_, TrafficClass::Outbound) => return (Forward::Sanitize, None),
    };
    let written = matches!(forward, Forward::AppendForward | Forward::SanitizeSet);
    let details = settings.headers.client_cert_details.unwrap_or(parts::SetCurrentClientCertDetails {
        subject: Some(true),
        // The certificate itself only at the edge: between sidecars it would be a kilobyte on every request.
        cert: settings.class == TrafficClass::Gateway,
        dns: true,
        uri: true,
        ..Default::default()
    });
    (forward, written.then_some(details))
}

fn internal(settings: &HttpSettings) -> Option<parts::InternalAddressConfig> {
    (!settings.internal_ranges.is_empty()).then(|| parts::InternalAddressConfig {
        cidr_ranges: settings.internal_ranges.clone(),
        ..Default::default()
    })
}

fn request_ids() -> hcm::RequestIdExtension {
    hcm::RequestIdExtension { typed_config: Some(Any::pack(&UuidRequestIdConfig::default())) }
}

fn routes(source: RouteSource) -> parts::RouteSpecifier {
    match source {
        RouteSource::Named(name) => {
            parts::RouteSpecifier::Rds(hcm::Rds { config_source: Some(ads(false)), route_config_name: name })
        }
        RouteSource::Inline(config) => parts::RouteSpecifier::RouteConfig(*config),
    }
}

fn normalize(message: &mut hcm::HttpConnectionManager, normalization: PathNormalization) {
    use parts::PathWithEscapedSlashesAction as Escaped;
    message.normalize_path = (normalization != PathNormalization::None).then_some(true);
    message.merge_slashes =
        matches!(normalization, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    let escaped = match normalization {
        PathNormalization::DecodeAndMergeSlashes => Escaped::UnescapeAndForward,
        _ => Escaped::KeepUnchanged,
    };
    message.path_with_escaped_slashes_action = escaped.into();
}

fn name_server(message: &mut hcm::HttpConnectionManager, settings: &HttpSettings) {
    use parts::ServerHeaderTransformation as Transformation;
    match (&settings.headers.server, settings.class) {
        (None, _) => message.server_header_transformation = Transformation::PassThrough.into(),
        (Some(_), TrafficClass::Outbound) => {}
        (Some(name), _) => message.server_name = name.clone(),
    }
}
