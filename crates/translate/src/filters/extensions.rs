//! What a proxy can do beyond stock Envoy, and the `istio.*` filters that only such proxies get.
//!
//! Their configurations are typed structs: their message types are Istio's proxy's, and nobody else needs them.

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::config::core::v3::substitution_format_string::Format;
use lateen_proto::envoy::config::listener::v3::Filter;
use lateen_proto::envoy::extensions::filters::common::set_filter_state::v3 as state;
use lateen_proto::envoy::extensions::filters::http::set_filter_state::v3::Config as HttpFilterState;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_proto::udpa::r#type::v1::TypedStruct;
use lateen_proto::{Any, Struct, Value, value};

use super::wire::{http_filter, http_filter_of, network_filter_of, structure, text};

/// The side of a workload that traffic passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum TrafficClass {
    /// Into a workload.
    Inbound,
    /// Out of a workload.
    Outbound,
    /// Through a gateway.
    Gateway,
}

/// Which of Istio's own filters a proxy has, as its node announces them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct IstioFilters {
    /// `istio.metadata_exchange`, for HTTP and TCP: peers tell each other who they are.
    pub(crate) metadata_exchange: bool,
    /// `istio.alpn`: the protocols offered to an upstream depend on the request.
    pub(crate) alpn: bool,
    /// `istio.stats`: Istio's standard metrics.
    pub(crate) stats: bool,
}

impl IstioFilters {
    /// Reads the names of a node's extensions.
    pub(crate) fn among<'a>(extensions: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for name in extensions {
            match name {
                "istio.metadata_exchange" | "envoy.filters.http.peer_metadata" => {
                    found.metadata_exchange = true;
                }
                "istio.alpn" => found.alpn = true,
                "istio.stats" => found.stats = true,
                _ => {}
            }
        }
        found
    }
}

/// The name of the HTTP filter that chooses upstream protocols for proxies without `istio.alpn`.
pub(crate) const FILTER_STATE: &str = "envoy.filters.http.set_filter_state";

/// What mesh peers are offered over TLS for HTTP/1.1.
pub(crate) const MESH_HTTP11: &str = "istio-http/1.1";
/// What mesh peers are offered over TLS for HTTP/2.
pub(crate) const MESH_HTTP2: &str = "istio-h2";

/// `istio.metadata_exchange` for HTTP.
pub(crate) fn http_metadata_exchange(class: TrafficClass) -> HttpFilter {
    let headers = || object([("istioHeaders", object([]))]);
    let discovery = list([headers(), object([("workloadDiscovery", object([]))])]);
    let config = match class {
        TrafficClass::Inbound => {
            structure([("downstreamDiscovery", discovery), ("downstreamPropagation", list([headers()]))])
        }
        TrafficClass::Outbound | TrafficClass::Gateway => {
            structure([("upstreamDiscovery", discovery), ("upstreamPropagation", list([headers()]))])
        }
    };
    http_filter_of("istio.metadata_exchange", typed("io.istio.http.peer_metadata.Config", config))
}

/// `istio.metadata_exchange` for TCP.
pub(crate) fn tcp_metadata_exchange() -> Filter {
    let config = structure([("protocol", text("istio-peer-exchange")), ("enableDiscovery", boolean(true))]);
    network_filter_of(
        "istio.metadata_exchange",
        typed("envoy.tcp.metadataexchange.config.MetadataExchange", config),
    )
}

/// `istio.alpn`, with Istio's lists.
pub(crate) fn http_alpn() -> HttpFilter {
    let row = |protocol: Option<&str>, offers: [&str; 3]| {
        let offers = ("alpnOverride", list(offers.map(text)));
        object(protocol.map(|name| ("upstreamProtocol", text(name))).into_iter().chain([offers]))
    };
    let rows = list([
        row(None, ["istio-http/1.0", "istio", "http/1.0"]),
        row(Some("HTTP11"), [MESH_HTTP11, "istio", "http/1.1"]),
        row(Some("HTTP2"), [MESH_HTTP2, "istio", "h2"]),
    ]);
    let config = structure([("alpnOverride", rows)]);
    http_filter_of("istio.alpn", typed("istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", config))
}

/// What stands in for `istio.alpn` in stock Envoy: the protocols offered upstream, as filter state that the upstream
/// connection shares. Routes whose cluster begins its own TLS turn it off, others may override it.
pub(crate) fn http_alpn_state(protocol: &str) -> HttpFilter {
    http_filter(FILTER_STATE, &alpn_state(protocol))
}

/// The configuration of [`http_alpn_state`], also used per route.
pub(crate) fn alpn_state(protocol: &str) -> HttpFilterState {
    let source = core::DataSource {
        specifier: Some(Specifier::InlineString(protocol.to_owned())),
        watched_directory: None,
    };
    let offers = state::FilterStateValue {
        shared_with_upstream: state::filter_state_value::SharedWithUpstream::Once.into(),
        key: Some(state::filter_state_value::Key::ObjectKey("envoy.network.application_protocols".into())),
        value: Some(state::filter_state_value::Value::FormatString(core::SubstitutionFormatString {
            format: Some(Format::TextFormatSource(source)),
            ..Default::default()
        })),
        ..Default::default()
    };
    HttpFilterState { on_request_headers: vec![offers], ..Default::default() }
}

/// `istio.stats` for HTTP.
pub(crate) fn http_stats(class: TrafficClass) -> HttpFilter {
    http_filter_of("istio.stats", stats(class))
}

/// `istio.stats` for TCP.
pub(crate) fn tcp_stats(class: TrafficClass) -> Filter {
    network_filter_of("istio.stats", stats(class))
}

fn stats(class: TrafficClass) -> Any {
    let config = match class {
        TrafficClass::Outbound => Struct::default(),
        TrafficClass::Inbound | TrafficClass::Gateway => {
            structure([("disable_host_header_fallback", boolean(true))])
        }
    };
    typed("stats.PluginConfig", config)
}

fn typed(name: &str, value: Struct) -> Any {
    Any::pack(&TypedStruct { type_url: format!("type.googleapis.com/{name}"), value: Some(value) })
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value { kind: Some(value::Kind::StructValue(structure(fields))) }
}

fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value::from(values.into_iter().collect::<Vec<_>>())
}

fn boolean(value: bool) -> Value {
    Value::from(value)
}
