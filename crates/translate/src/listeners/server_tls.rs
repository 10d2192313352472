//! TLS that Gateways and Sidecars write: servers with certificates of their own.

use lateen_api::kinds::gateway::{ServerTlsMode, ServerTlsSettings, TlsProtocol};
use lateen_proto::envoy::config::core::v3::TransportSocket;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3 as envoy;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol as Version;
use lateen_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use crate::Proxy;
use crate::filters::tls::{self, Parameters, Validation};

/// The socket of a server that ends TLS. `defaults` hold where the server says nothing.
pub(crate) fn socket(
    settings: &ServerTlsSettings,
    proxy: &Proxy,
    alpn: &[&str],
    defaults: &Parameters,
) -> TransportSocket {
    tls::socket(&context(settings, proxy, alpn, defaults))
}

fn context(
    settings: &ServerTlsSettings,
    proxy: &Proxy,
    alpn: &[&str],
    defaults: &Parameters,
) -> envoy::DownstreamTlsContext {
    let validation = Validation {
        roots: roots(settings, proxy),
        names: settings.subject_alt_names.iter().map(|name| MatchPattern::Exact(name.clone())).collect(),
        spki: settings.verify_certificate_spki.clone(),
        hashes: settings.verify_certificate_hash.clone(),
        revoked: Some(settings.ca_crl.clone()).filter(|path| !path.is_empty()),
    };
    tls::downstream(
        certificates(settings, proxy),
        validation.into_context(),
        matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::IstioMutual),
        alpn,
        parameters(settings, defaults),
    )
}

fn certificates(settings: &ServerTlsSettings, proxy: &Proxy) -> Vec<envoy::SdsSecretConfig> {
    if settings.mode == ServerTlsMode::IstioMutual {
        let (chain, key) = (&proxy.metadata.tls_server_cert_chain, &proxy.metadata.tls_server_key);
        return match chain.is_empty() || key.is_empty() {
            true => vec![tls::workload_certificate()],
            false => vec![tls::file_certificate(chain, key)],
        };
    }
    let secrets: Vec<_> = secret_names(settings).map(tls::cluster_secret).collect();
    if !secrets.is_empty() {
        return secrets;
    }
    let files = settings
        .tls_certificates
        .iter()
        .map(|files| (&files.server_certificate, &files.private_key))
        .chain([(&settings.server_certificate, &settings.private_key)])
        .filter(|(certificate, _)| !certificate.is_empty());
    let files: Vec<_> = files.map(|(certificate, key)| tls::file_certificate(certificate, key)).collect();
    match files.is_empty() {
        true => vec![tls::workload_certificate()],
        false => files,
    }
}

fn secret_names(settings: &ServerTlsSettings) -> impl Iterator<Item = &str> {
    let single = Some(settings.credential_name.as_str()).filter(|name| !name.is_empty());
    settings.credential_names.iter().map(String::as_str).chain(single)
}

fn roots(settings: &ServerTlsSettings, proxy: &Proxy) -> Option<envoy::SdsSecretConfig> {
    match settings.mode {
        ServerTlsMode::IstioMutual => Some(match proxy.metadata.tls_server_root_cert.as_str() {
            "" => tls::mesh_roots(),
            path => tls::file_roots(path),
        }),
        ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => Some(client_roots(settings)),
        _ => None,
    }
}

fn client_roots(settings: &ServerTlsSettings) -> envoy::SdsSecretConfig {
    let files = settings.tls_certificates.iter().map(|files| files.ca_certificates.as_str());
    let mut files = files.chain([settings.ca_certificates.as_str()]).filter(|path| !path.is_empty());
    match (settings.ca_cert_credential_name.as_str(), secret_names(settings).next()) {
        ("", Some(name)) => tls::cluster_secret(&format!("{name}-cacert")),
        ("", None) => files.next().map_or_else(tls::mesh_roots, tls::file_roots),
        (name, _) => tls::cluster_secret(name),
    }
}

fn parameters(settings: &ServerTlsSettings, defaults: &Parameters) -> Parameters {
    let version = |given: TlsProtocol, otherwise: Version| match given {
        TlsProtocol::TlsAuto => otherwise,
        TlsProtocol::TlsV1_0 => Version::TlSv10,
        TlsProtocol::TlsV1_1 => Version::TlSv11,
        TlsProtocol::TlsV1_2 => Version::TlSv12,
        TlsProtocol::TlsV1_3 => Version::TlSv13,
    };
    let list = |given: &[String], otherwise: &[String]| match given {
        [] => otherwise.to_vec(),
        given => given.to_vec(),
    };
    Parameters {
        minimum: version(settings.min_protocol_version, defaults.minimum),
        maximum: version(settings.max_protocol_version, defaults.maximum),
        ciphers: list(&settings.cipher_suites, &defaults.ciphers),
        curves: list(&settings.ecdh_curves, &defaults.curves),
    }
}
