//! The small messages that every resource is made of: addresses, durations, percentages, config sources, metadata.

use std::time::Duration;

use lateen_base::ObjectRef;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use lateen_proto::envoy::config::listener::v3 as listener;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_proto::envoy::r#type::v3::FractionalPercent;
use lateen_proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use lateen_proto::{Any, Message, Name, Struct, Value, value};

/// A TCP address.
pub(crate) fn tcp_address(ip: &str, port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: ip.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// A unix domain socket.
pub(crate) fn pipe_address(path: &str) -> core::Address {
    core::Address {
        address: Some(core::address::Address::Pipe(core::Pipe { path: path.to_owned(), mode: 0 })),
    }
}

/// A duration on the wire.
pub(crate) fn duration(duration: Duration) -> lateen_proto::Duration {
    lateen_proto::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// No time at all, which in most of Envoy's fields means "no limit".
pub(crate) fn zero() -> lateen_proto::Duration {
    lateen_proto::Duration { seconds: 0, nanos: 0 }
}

/// A percentage of parts per million, as Istio's `Percent` fields are translated.
pub(crate) fn per_million(percent: f64) -> FractionalPercent {
    FractionalPercent {
        numerator: (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32,
        denominator: DenominatorType::Million.into(),
    }
}

/// A percentage of parts per hundred, as Istio's old integer fields are translated.
pub(crate) fn per_hundred(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred.into() }
}

/// Resources that come over the stream that everything comes over. `wait` false: the listener serves at once.
pub(crate) fn ads(wait: bool) -> core::ConfigSource {
    core::ConfigSource {
        initial_fetch_timeout: (!wait).then(zero),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..Default::default()
    }
}

/// Secrets that the agent serves on its socket.
pub(crate) fn agent_sds(wait: bool) -> core::ConfigSource {
    let service = core::GrpcService {
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..Default::default() },
        )),
        ..Default::default()
    };
    core::ConfigSource {
        initial_fetch_timeout: (!wait).then(zero),
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::ApiConfigSource(
            core::ApiConfigSource {
                api_type: core::api_config_source::ApiType::Grpc.into(),
                transport_api_version: core::ApiVersion::V3.into(),
                set_node_on_first_message_only: true,
                grpc_services: vec![service],
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

/// A network filter.
pub(crate) fn network_filter<M: Message + Name>(name: &str, config: &M) -> listener::Filter {
    network_filter_of(name, Any::pack(config))
}

/// A network filter whose configuration is packed already.
pub(crate) fn network_filter_of(name: &str, config: Any) -> listener::Filter {
    listener::Filter {
        name: name.to_owned(),
        config_type: Some(listener::filter::ConfigType::TypedConfig(config)),
    }
}

/// An HTTP filter.
pub(crate) fn http_filter<M: Message + Name>(name: &str, config: &M) -> hcm::HttpFilter {
    http_filter_of(name, Any::pack(config))
}

/// An HTTP filter whose configuration is packed already.
pub(crate) fn http_filter_of(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

/// A text as a protobuf value.
pub(crate) fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(value::Kind::StringValue(value.into())) }
}

/// Pairs as a protobuf struct.
pub(crate) fn structure<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, value)| (key.into(), value)).collect() }
}

/// The provenance of a resource: `filter_metadata.istio.config`, a path of the Kubernetes API
/// (`/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME`).
pub(crate) fn provenance(object: &ObjectRef) -> core::Metadata {
    let config = structure([("config", text(object_path(object)))]);
    core::Metadata { filter_metadata: [("istio".to_owned(), config)].into(), ..Default::default() }
}

/// Where an object is found, as Istio writes it in metadata.
pub(crate) fn object_path(object: &ObjectRef) -> String {
    let group = match object.kind.as_str() {
        "PeerAuthentication" | "RequestAuthentication" | "AuthorizationPolicy" => "security.istio.io",
        "Telemetry" => "telemetry.istio.io",
        "WasmPlugin" => "extensions.istio.io",
        "Ingress" => "networking.k8s.io",
        _ => "networking.istio.io",
    };
    format!("/apis/{group}/v1/namespaces/{}/{}/{}", object.namespace, kebab(&object.kind), object.name)
}

fn kebab(kind: &str) -> String {
    let mut text = String::with_capacity(kind.len() + 4);
    for (at, letter) in kind.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_is_a_path() {
        let object =
            ObjectRef { kind: "VirtualService".into(), namespace: "default".into(), name: "reviews".into() };
        assert_eq!(
            object_path(&object),
            "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"
        );
    }

    #[test]
    fn percentages() {
        assert_eq!(per_million(50.0).numerator, 500_000);
        assert_eq!(per_million(0.0001).numerator, 1);
        assert_eq!(per_million(250.0).numerator, 1_000_000);
    }
}
