//! Downstream TLS contexts: what a filter chain presents and demands.

use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use lateen_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use super::wire::{ads, agent_sds};

/// Ciphers of the mesh, in Istio's order. (rustls has none of the last two; our proxy says so.)
pub(crate) const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Protocols that clients of an HTTP chain may choose from.
pub(crate) const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];
/// Protocols that clients of a TCP chain may choose from.
pub(crate) const TCP_ALPN: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];

/// The workload's own certificate, which the agent serves.
pub(crate) fn workload_certificate() -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: "default".into(), sds_config: Some(agent_sds(false)) }
}

/// The roots of the mesh, which the agent serves.
pub(crate) fn mesh_roots() -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: "ROOTCA".into(), sds_config: Some(agent_sds(false)) }
}

/// A certificate in files of the workload, which the agent reads.
pub(crate) fn file_certificate(certificate: &str, key: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: format!("file-cert:{certificate}~{key}"), sds_config: Some(agent_sds(true)) }
}

/// Roots in a file of the workload.
pub(crate) fn file_roots(path: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: format!("file-root:{path}"), sds_config: Some(agent_sds(true)) }
}

/// A secret of the cluster that the proxy runs in, which the control plane serves.
pub(crate) fn cluster_secret(name: &str) -> tls::SdsSecretConfig {
    let name = match name.contains("://") {
        true => name.to_owned(),
        false => format!("kubernetes://{name}"),
    };
    tls::SdsSecretConfig { name, sds_config: Some(ads(true)) }
}

/// What a chain accepts of clients' certificates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Validation {
    /// The roots; without them only the names are checked.
    pub(crate) roots: Option<tls::SdsSecretConfig>,
    /// Names of which the certificate must bear one.
    pub(crate) names: Vec<MatchPattern>,
    /// SPKI hashes of which the certificate must have one.
    pub(crate) spki: Vec<String>,
    /// Certificate hashes of which the certificate must have one.
    pub(crate) hashes: Vec<String>,
    /// A file of revoked certificates.
    pub(crate) revoked: Option<String>,
}

impl Validation {
    /// The context's form of this, or none when nothing is asked.
    // Istio still sends the deprecated list of names, as do we; the typed list would ask for the kind of each name.
    #[allow(deprecated)]
    pub(crate) fn into_context(self) -> Option<ValidationContextType> {
        let context = tls::CertificateValidationContext {
            match_subject_alt_names: names(self.names),
            verify_certificate_spki: self.spki,
            verify_certificate_hash: self.hashes,
            crl: self.revoked.map(|path| core::DataSource {
                specifier: Some(core::data_source::Specifier::Filename(path)),
                watched_directory: None,
            }),
            ..Default::default()
        };
        match self.roots {
            Some(roots) => {
                Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                    default_validation_context: Some(context),
                    validation_context_sds_secret_config: Some(roots),
                    ..Default::default()
                }))
            }
            None if context == tls::CertificateValidationContext::default() => None,
            None => Some(ValidationContextType::ValidationContext(context)),
        }
    }
}

/// Versions and ciphers of a chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    /// The lowest version; automatic means Envoy's own default.
    pub(crate) minimum: TlsProtocol,
    /// The highest version.
    pub(crate) maximum: TlsProtocol,
    /// The ciphers up to TLS 1.2; none means Envoy's own.
    pub(crate) ciphers: Vec<String>,
    /// The curves; none means Envoy's own.
    pub(crate) curves: Vec<String>,
}

impl Parameters {
    /// TLS 1.2 (or 1.3, where the mesh says so) to 1.3 with the mesh's ciphers.
    pub(crate) fn of_mesh(minimum: TlsProtocol, ciphers: &[String]) -> Self {
        let ciphers = match ciphers {
            [] => MESH_CIPHERS.map(str::to_owned).to_vec(),
            given => given.to_vec(),
        };
        Self { minimum, maximum: TlsProtocol::TlSv13, ciphers, curves: Vec::new() }
    }

    fn into_message(self) -> Option<tls::TlsParameters> {
        let message = tls::TlsParameters {
            tls_minimum_protocol_version: self.minimum.into(),
            tls_maximum_protocol_version: self.maximum.into(),
            cipher_suites: self.ciphers,
            ecdh_curves: self.curves,
            ..Default::default()
        };
        (message != tls::TlsParameters::default()).then_some(message)
    }
}

/// The context of a chain that terminates TLS.
pub(crate) fn downstream(
    certificates: Vec<tls::SdsSecretConfig>,
    validation: Option<ValidationContextType>,
    require_client: bool,
    alpn: &[&str],
    parameters: Parameters,
) -> tls::DownstreamTlsContext {
    tls::DownstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            tls_params: parameters.into_message(),
            tls_certificate_sds_secret_configs: certificates,
            alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            validation_context_type: validation,
            ..Default::default()
        }),
        require_client_certificate: Some(require_client),
        ..Default::default()
    }
}

/// Mutual TLS between workloads: the agent's certificate, the mesh's roots, clients required. With aliases of the trust
/// domain, clients must be of one of the domains; without, the roots alone decide.
pub(crate) fn mesh_mutual(
    alpn: &[&str],
    parameters: Parameters,
    trust_domains: &[String],
) -> tls::DownstreamTlsContext {
    let validation = Validation {
        roots: Some(mesh_roots()),
        names: trust_domains.iter().map(|td| MatchPattern::Prefix(format!("spiffe://{td}/"))).collect(),
        ..Default::default()
    };
    downstream(vec![workload_certificate()], validation.into_context(), true, alpn, parameters)
}

/// A transport socket that terminates TLS.
pub(crate) fn socket(context: &tls::DownstreamTlsContext) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any::pack(context))),
    }
}

fn names(patterns: Vec<MatchPattern>) -> Vec<StringMatcher> {
    patterns
        .into_iter()
        .map(|pattern| StringMatcher { ignore_case: false, match_pattern: Some(pattern) })
        .collect()
}
