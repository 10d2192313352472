//! How a cluster secures its connections: what the rule says, or mTLS to endpoints that take it.

use std::collections::BTreeSet;

use lateen_api::kinds::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion,
};
use lateen_api::mesh::MeshConfig;
use lateen_api::mesh::config::MeshTlsProtocol;
use lateen_proto::Any;
use lateen_proto::Struct;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use lateen_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use lateen_proto::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use super::class::Class;
use crate::filters::tls::{cluster_secret, file_certificate, file_roots, mesh_roots, workload_certificate};
use crate::filters::wire::{structure, text};

/// The file of roots that a machine has.
const SYSTEM_ROOTS: &str = "system";

/// What TLS to a service has to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The identities that servers may have.
    pub(crate) accounts: BTreeSet<String>,
    /// The name that is asked for unless the rule says another.
    pub(crate) sni: String,
    /// Whether the connection carries HTTP/2.
    pub(crate) http2: bool,
    /// Whether the rule names the clients that it is for.
    pub(crate) rule_selects: bool,
}

/// How a cluster secures its connections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Security {
    /// It does not.
    Plain,
    /// All in one way.
    Tls(Box<tls::UpstreamTlsContext>),
    /// mTLS to endpoints that take it, plain text to others.
    Auto(Box<tls::UpstreamTlsContext>),
}

/// Why a rule's TLS settings cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Mutual TLS needs a certificate.
    #[error("tls.clientCertificate: mode MUTUAL needs a client certificate, or credentialName")]
    NoCertificate,
    /// Mutual TLS needs a key.
    #[error("tls.privateKey: mode MUTUAL needs the key of the client certificate, or credentialName")]
    NoKey,
}

/// mTLS as the mesh does it.
pub(crate) fn mesh_mutual(class: &Class, peer: &Peer, mesh: &MeshConfig) -> tls::UpstreamTlsContext {
    let (certificate, roots) = match &class.client_files {
        Some((chain, key, roots)) => (file_certificate(chain, key), file_roots(roots)),
        None => (workload_certificate(), mesh_roots()),
    };
    let alpn = match (class.metadata_exchange, peer.http2) {
        // What only the metadata-exchange filter speaks is never offered by a proxy that lacks it.
        (true, true) => &["istio-peer-exchange", "istio", "h2"][..],
        (true, false) => &["istio-peer-exchange", "istio"],
        (false, true) => &["istio", "h2"],
        (false, false) => &["istio"],
    };
    let names = peer.accounts.iter().cloned();
    let mut context = common(vec![certificate], Some(roots), names, None, alpn);
    context.tls_params = Some(parameters(mesh));
    tls::UpstreamTlsContext { common_tls_context: Some(context), sni: peer.sni.clone(), ..Default::default() }
}

/// What a rule's TLS settings mean; nothing where they are not for this proxy.
///
/// # Errors
/// When MUTUAL lacks certificate or key.
pub(crate) fn of_rule(
    settings: &ClientTlsSettings,
    class: &Class,
    peer: &Peer,
    mesh: &MeshConfig,
) -> Result<Security, TlsError> {
    let context = match settings.mode {
        ClientTlsMode::Disable => return Ok(Security::Plain),
        ClientTlsMode::IstioMutual => {
            let sni = if settings.sni.is_empty() { peer.sni.clone() } else { settings.sni.clone() };
            let names = settings.subject_alt_names.iter().cloned().collect::<BTreeSet<_>>();
            let accounts = if names.is_empty() { peer.accounts.clone() } else { names };
            mesh_mutual(class, &Peer { sni, accounts, ..peer.clone() }, mesh)
        }
        ClientTlsMode::Simple => originate(settings, class, peer, mesh, Vec::new()),
        ClientTlsMode::Mutual if !settings.credential_name.is_empty() => {
            originate(settings, class, peer, mesh, vec![cluster_secret(&settings.credential_name)])
        }
        ClientTlsMode::Mutual if settings.client_certificate.is_empty() => {
            return Err(TlsError::NoCertificate);
        }
        ClientTlsMode::Mutual if settings.private_key.is_empty() => return Err(TlsError::NoKey),
        ClientTlsMode::Mutual => {
            let certificate = file_certificate(&settings.client_certificate, &settings.private_key);
            originate(settings, class, peer, mesh, vec![certificate])
        }
    };
    let by_name = !settings.credential_name.is_empty() && settings.mode != ClientTlsMode::IstioMutual;
    // Only gateways read secrets by name, and sidecars that a rule names: others have no right to them.
    if by_name && !class.is_router() && !peer.rule_selects {
        return Ok(Security::Plain);
    }
    Ok(Security::Tls(Box::new(context)))
}

/// TLS as a rule wants it, to servers that may be outside the mesh.
fn originate(
    settings: &ClientTlsSettings,
    _class: &Class,
    peer: &Peer,
    mesh: &MeshConfig,
    certificates: Vec<tls::SdsSecretConfig>,
) -> tls::UpstreamTlsContext {
    let verify = !settings.insecure_skip_verify.unwrap_or(false);
    let roots = verify.then(|| match (&settings.credential_name, &settings.ca_certificates) {
        (name, _) if !name.is_empty() => cluster_secret(&format!("{name}-cacert")),
        (_, path) if !path.is_empty() => file_roots(path),
        _ => file_roots(SYSTEM_ROOTS),
    });
    let names = settings.subject_alt_names.iter().filter(|_| verify).cloned();
    let crl = Some(settings.ca_crl.as_str()).filter(|path| !path.is_empty());
    let alpn: &[&str] = if peer.http2 { &["h2"] } else { &[] };
    let mut context = common(certificates, roots, names, crl, alpn);
    context.tls_params = Some(outside_parameters(mesh));
    tls::UpstreamTlsContext {
        common_tls_context: Some(context),
        sni: settings.sni.clone(),
        ..Default::default()
    }
}

// Istio still sends the deprecated list of names, as do we; the typed list would ask for the kind of each name.
#[allow(deprecated)]
fn common(
    certificates: Vec<tls::SdsSecretConfig>,
    roots: Option<tls::SdsSecretConfig>,
    names: impl Iterator<Item = String>,
    crl: Option<&str>,
    alpn: &[&str],
) -> tls::CommonTlsContext {
    let exact = |name| StringMatcher { match_pattern: Some(MatchPattern::Exact(name)), ignore_case: false };
    let validation = tls::CertificateValidationContext {
        match_subject_alt_names: names.map(exact).collect(),
        crl: crl.map(|path| core::DataSource {
            specifier: Some(core::data_source::Specifier::Filename(path.to_owned())),
            watched_directory: None,
        }),
        ..Default::default()
    };
    tls::CommonTlsContext {
        tls_certificate_sds_secret_configs: certificates,
        validation_context_type: roots.map(|roots| {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(validation),
                validation_context_sds_secret_config: Some(roots),
                ..Default::default()
            })
        }),
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// Versions inside the mesh: TLS 1.2, or what the mesh asks for, to 1.3.
fn parameters(mesh: &MeshConfig) -> tls::TlsParameters {
    let least = match mesh.mesh_mTLS.as_ref().map(|config| config.min_protocol_version) {
        Some(MeshTlsProtocol::TlsV1_3) => TlsProtocol::TlSv13,
        _ => TlsProtocol::TlSv12,
    };
    versions(least)
}

/// Versions to servers outside: the mesh's defaults for TLS that is not its own.
fn outside_parameters(mesh: &MeshConfig) -> tls::TlsParameters {
    let defaults = mesh.tls_defaults.as_ref();
    let least = match defaults.map(|config| config.min_protocol_version) {
        Some(MeshTlsProtocol::TlsV1_3) => TlsProtocol::TlSv13,
        _ => TlsProtocol::TlSv12,
    };
    tls::TlsParameters {
        cipher_suites: defaults.map(|config| config.cipher_suites.clone()).unwrap_or_default(),
        ecdh_curves: defaults.map(|config| config.ecdh_curves.clone()).unwrap_or_default(),
        ..versions(least)
    }
}

fn versions(least: TlsProtocol) -> tls::TlsParameters {
    tls::TlsParameters {
        tls_minimum_protocol_version: least.into(),
        tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
        ..Default::default()
    }
}

/// A socket that does TLS.
pub(crate) fn socket(context: &tls::UpstreamTlsContext) -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any::pack(context))),
    }
}

/// The two ways of automatic mTLS, by what endpoints say of themselves.
pub(crate) fn matches(context: &tls::UpstreamTlsContext) -> Vec<TransportSocketMatch> {
    vec![
        TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(structure([("tlsMode", text("istio"))])),
            transport_socket: Some(socket(context)),
        },
        TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Struct::default()),
            transport_socket: Some(plain()),
        },
    ]
}

/// A socket that does nothing to the bytes.
fn plain() -> core::TransportSocket {
    core::TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any::pack(&RawBuffer {}))),
    }
}

/// Has every connection of a cluster begin with the PROXY protocol, which names the client.
pub(crate) fn tell_of_client(to: &mut Cluster, settings: &ProxyProtocol) {
    use core::proxy_protocol_config::Version;
    let version = match settings.version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let wrap = |socket: core::TransportSocket| {
        let transport = ProxyProtocolUpstreamTransport {
            config: Some(core::ProxyProtocolConfig { version: version.into(), ..Default::default() }),
            transport_socket: Some(socket),
            ..Default::default()
        };
        core::TransportSocket {
            name: "envoy.transport_sockets.upstream_proxy_protocol".to_owned(),
            config_type: Some(core::transport_socket::ConfigType::TypedConfig(Any::pack(&transport))),
        }
    };
    for one in &mut to.transport_socket_matches {
        one.transport_socket = one.transport_socket.take().map(wrap);
    }
    if to.transport_socket_matches.is_empty() {
        to.transport_socket = Some(wrap(to.transport_socket.take().unwrap_or_else(plain)));
    }
}
