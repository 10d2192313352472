//! What mesh configuration, Telemetry and the proxy itself say about all connection managers of a proxy.

use lateen_api::field;
use lateen_api::mesh::NetworkEndpoints;
use lateen_api::mesh::config::{MeshTlsProtocol, NormalizationType, TlsConfig};
use lateen_api::mesh::proxy::{ForwardClientCertDetails, MeshProxyConfig};
use lateen_base::parse_duration;
use lateen_proto::envoy::config::core::v3::CidrRange;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;

use super::extensions::{IstioFilters, TrafficClass};
use super::hcm::{HttpSettings, PathNormalization, ProxyHeaders};
use super::telemetry;
use super::tls::Parameters;
use crate::{Note, Proxy, Snapshot};

/// The proxy's own configuration: what its agent sent, else the mesh's default.
pub(crate) fn proxy_config(snapshot: &Snapshot, proxy: &Proxy) -> MeshProxyConfig {
    let own = proxy.metadata.proxy_config.as_ref().and_then(|json| field::read(json).ok());
    own.or_else(|| snapshot.mesh.default_config.clone()).unwrap_or_default()
}

impl HttpSettings {
    /// The settings of a traffic class.
    pub(crate) fn of(snapshot: &Snapshot, proxy: &Proxy, class: TrafficClass, notes: &mut Vec<Note>) -> Self {
        let config = proxy_config(snapshot, proxy);
        Self {
            class,
            istio: IstioFilters::among(proxy.extensions.iter().map(String::as_str)),
            access_log: telemetry::access_log(snapshot, proxy, class, notes),
            tracing: telemetry::tracing(snapshot, proxy, &config, class, notes),
            normalization: normalization(snapshot),
            headers: headers(&config, class),
            http10: proxy.metadata.http10,
            idle: parse_duration(&proxy.metadata.idle_timeout).ok(),
            internal_ranges: internal_ranges(snapshot),
            on_demand: proxy.loads_on_demand && class == TrafficClass::Outbound,
            security: Vec::new(),
        }
    }
}

fn normalization(snapshot: &Snapshot) -> PathNormalization {
    match snapshot.mesh.path_normalization.as_ref().map(|given| given.normalization) {
        Some(NormalizationType::None) => PathNormalization::None,
        Some(NormalizationType::MergeSlashes) => PathNormalization::MergeSlashes,
        Some(NormalizationType::DecodeAndMergeSlashes) => PathNormalization::DecodeAndMergeSlashes,
        _ => PathNormalization::Base,
    }
}

fn headers(config: &MeshProxyConfig, class: TrafficClass) -> ProxyHeaders {
    let mut headers = ProxyHeaders::default();
    if let Some(topology) = config.gateway_topology.as_ref().filter(|_| class == TrafficClass::Gateway) {
        headers.trusted_hops = topology.num_trusted_proxies;
        headers.forwarded_client_cert = forward(topology.forward_client_cert_details);
    }
    let Some(given) = &config.proxy_headers else { return headers };
    if let Some(server) = &given.server {
        headers.server = match (server.disabled == Some(true), server.value.as_str()) {
            (true, _) => None,
            (false, "") => headers.server,
            (false, name) => Some(name.to_owned()),
        };
    }
    headers.forwarded_client_cert = forward(given.forwarded_client_cert).or(headers.forwarded_client_cert);
    headers.client_cert_details =
        given.set_current_client_cert_details.as_ref().map(|details| hcm::SetCurrentClientCertDetails {
            subject: details.subject,
            cert: details.cert.unwrap_or_default(),
            chain: details.chain.unwrap_or_default(),
            dns: details.dns.unwrap_or_default(),
            uri: details.uri.unwrap_or_default(),
            ..Default::default()
        });
    headers.request_id = given.request_id.as_ref().is_none_or(|s| s.disabled != Some(true));
    headers.attempt_count = given.attempt_count.as_ref().is_none_or(|s| s.disabled != Some(true));
    headers.suppress_debug = given.envoy_debug_headers.as_ref().is_some_and(|s| s.disabled == Some(true));
    headers.forwarded_port = given.x_forwarded_port.as_ref().is_some_and(|s| s.enabled == Some(true));
    headers.preserve_case = given.preserve_http1_header_case == Some(true);
    headers
}

fn forward(details: ForwardClientCertDetails) -> Option<hcm::ForwardClientCertDetails> {
    Some(match details {
        ForwardClientCertDetails::Undefined => return None,
        ForwardClientCertDetails::Sanitize => hcm::ForwardClientCertDetails::Sanitize,
        ForwardClientCertDetails::ForwardOnly => hcm::ForwardClientCertDetails::ForwardOnly,
        ForwardClientCertDetails::AppendForward => hcm::ForwardClientCertDetails::AppendForward,
        ForwardClientCertDetails::SanitizeSet => hcm::ForwardClientCertDetails::SanitizeSet,
        ForwardClientCertDetails::AlwaysForwardOnly => hcm::ForwardClientCertDetails::AlwaysForwardOnly,
    })
}

/// The address ranges of configured networks, ordered.
fn internal_ranges(snapshot: &Snapshot) -> Vec<CidrRange> {
    let endpoints = snapshot.networks.networks.values().flat_map(|network| &network.endpoints);
    let mut ranges: Vec<CidrRange> = endpoints
        .filter_map(|endpoint| {
            let NetworkEndpoints::FromCidr(text) = endpoint else { return None };
            let (address, length) = text.split_once('/')?;
            Some(CidrRange { address_prefix: address.to_owned(), prefix_len: Some(length.parse().ok()?) })
        })
        .collect();
    ranges.sort_by(|a, b| a.address_prefix.cmp(&b.address_prefix));
    ranges
}

/// Versions and ciphers of mutual TLS between workloads.
pub(crate) fn mesh_tls(snapshot: &Snapshot) -> Parameters {
    let given = snapshot.mesh.mesh_mTLS.as_ref();
    let minimum = match given.map(|tls| tls.min_protocol_version) {
        Some(MeshTlsProtocol::TlsV1_3) => TlsProtocol::TlSv13,
        _ => TlsProtocol::TlSv12,
    };
    let ciphers = given.map(|tls| tls.cipher_suites.as_slice()).unwrap_or_default();
    let mut parameters = Parameters::of_mesh(minimum, ciphers);
    parameters.curves = given.map(|tls| tls.ecdh_curves.clone()).unwrap_or_default();
    parameters
}

/// Versions and ciphers of servers that say nothing of their own.
pub(crate) fn default_tls(snapshot: &Snapshot) -> Parameters {
    snapshot.mesh.tls_defaults.as_ref().map(default_parameters).unwrap_or_default()
}

fn default_parameters(given: &TlsConfig) -> Parameters {
    Parameters {
        minimum: match given.min_protocol_version {
            MeshTlsProtocol::TlsAuto => TlsProtocol::TlsAuto,
            MeshTlsProtocol::TlsV1_2 => TlsProtocol::TlSv12,
            MeshTlsProtocol::TlsV1_3 => TlsProtocol::TlSv13,
        },
        maximum: TlsProtocol::TlsAuto,
        ciphers: given.cipher_suites.clone(),
        curves: given.ecdh_curves.clone(),
    }
}
