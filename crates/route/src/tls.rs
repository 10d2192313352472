//! TLS contexts and secrets: which names, which checks; keys stay as PEM for whoever owns the TLS library.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;

use crate::error::{CompileError, Compiled, Cx, Result};
use crate::string_match::StringMatcher;

/// How a listener's filter chain terminates TLS.
#[derive(Clone, Debug)]
pub struct DownstreamTls {
    /// What both directions share.
    pub common: CommonTls,
    /// Whether a client without certificate is turned away.
    pub require_client_certificate: bool,
    /// Whether a client without server name is turned away.
    pub require_sni: bool,
    /// Whether sessions are resumed by identifier or ticket.
    pub resumption: bool,
}

/// How a cluster's connections speak TLS.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// What both directions share.
    pub common: CommonTls,
    /// The server name to ask for.
    pub sni: Option<Arc<str>>,
    /// Whether the server name is the request's host (or the endpoint's host name) when `sni` is unset.
    pub auto_host_sni: bool,
    /// Whether the peer's certificate has to be for the server name asked for.
    pub auto_sni_san_validation: bool,
}

/// What both directions of TLS share.
#[derive(Clone, Debug, Default)]
pub struct CommonTls {
    /// Our certificates, in order of preference.
    pub certificates: Vec<CertificateSource>,
    /// How the peer's certificate is checked; without it, it is not.
    pub validation: Option<Validation>,
    /// The application protocols to offer or accept, in order.
    pub alpn: Vec<Arc<[u8]>>,
    /// The oldest version allowed.
    pub min_version: TlsVersion,
    /// The newest version allowed.
    pub max_version: TlsVersion,
    /// The ciphers of TLS 1.2 that are allowed, as OpenSSL calls them; all of the library's when empty.
    pub ciphers: Vec<Arc<str>>,
    /// The groups of the key exchange that are allowed; all of the library's when empty.
    pub curves: Vec<Arc<str>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum TlsVersion {
    /// TLS 1.2
    #[default]
    V12,
    /// TLS 1.3
    V13,
}

/// Where one of our certificates comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// From secret discovery.
    Sds(SecretRef),
    /// From the resource itself.
    Inline(Arc<Certificate>),
}

/// A secret by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRef {
    /// Its resource name, as `default`, `ROOTCA`, `kubernetes://name`.
    pub name: Arc<str>,
    /// Who serves it.
    pub source: SecretSource,
}

/// Who serves a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// The control plane, by ADS.
    Ads,
    /// A gRPC service that is a cluster of the bootstrap, as `sds-grpc` (the agent beside the proxy).
    Cluster(Arc<str>),
    /// The secrets that came along with the configuration (no `sds_config`: static secrets).
    Static,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, leaf first: PEM, or the path of a PEM file.
    pub chain: DataSource,
    /// The key: PEM, or the path of a PEM file.
    pub key: DataSource,
}

/// Bytes, or where they are. Bytes may be a key: `Debug` tells how many there are.
#[derive(Clone, PartialEq, Eq)]
pub enum DataSource {
    /// The bytes themselves.
    Inline(Bytes),
    /// A file's path.
    File(Arc<str>),
    /// An environment variable's name.
    Environment(Arc<str>),
}

impl std::fmt::Debug for DataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::File(path) => write!(f, "File({path:?})"),
            Self::Environment(name) => write!(f, "Environment({name:?})"),
        }
    }
}

/// How a peer's certificate is checked.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// The checks in the resource itself.
    pub context: ValidationContext,
    /// A context from secret discovery: its trust anchors and checks are merged into `context`.
    pub sds: Option<SecretRef>,
}

/// The checks on a peer's certificate.
#[derive(Clone, Debug, Default)]
pub struct ValidationContext {
    /// The trust anchors, as PEM; without, the chain is not checked.
    pub trusted_ca: Option<DataSource>,
    /// Whether the anchors are the system's.
    pub system_roots: bool,
    /// One of these has to match a subject alternative name; empty takes any.
    pub subject_alt_names: Vec<SanMatcher>,
    /// SHA-256 of the certificates (DER) that are good; with `key_hashes` empty takes any.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// SHA-256 of the public keys (DER of SubjectPublicKeyInfo) that are good; with `certificate_hashes` empty takes any.
    pub key_hashes: Vec<[u8; 32]>,
    /// Lists of revoked certificates, as PEM; without, none is looked up.
    pub revoked: Option<DataSource>,
    /// Whether only the peer's own certificate is looked up there, not those of its authorities.
    pub revoked_leaf_only: bool,
    /// Whether a certificate that fails these checks is accepted all the same (and counts as not validated).
    pub accept_untrusted: bool,
}

/// A test of a subject alternative name.
#[derive(Clone, Debug)]
pub struct SanMatcher {
    /// Which names are looked at; `None` is all of them.
    pub kind: Option<SanKind>,
    /// The test.
    pub matcher: StringMatcher,
}

/// A kind of subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// A mail address.
    Email,
    /// A host name, possibly with a wildcard.
    Dns,
    /// A URI, as a SPIFFE identity.
    Uri,
    /// An IP address.
    IpAddress,
}

impl SanMatcher {
    /// Whether a name of a certificate passes. A certificate's DNS wildcard stands for one label.
    pub fn matches(&self, kind: SanKind, name: &str) -> bool {
        if self.kind.is_some_and(|wanted| wanted != kind) {
            return false;
        }
        if let (SanKind::Dns, Some(host), Some(suffix)) =
            (kind, self.matcher.as_exact(), name.strip_prefix("*."))
        {
            return host
                .split_once('.')
                .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(suffix));
        }
        self.matcher.matches(name.as_bytes())
    }
}

/// A compiled `Secret`.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its resource name.
    pub name: Arc<str>,
    /// What it holds.
    pub value: SecretValue,
}

/// What a secret holds.
#[derive(Clone, Debug)]
pub enum SecretValue {
    /// A certificate and its key.
    Certificate(Arc<Certificate>),
    /// Checks on peers.
    Validation(Arc<ValidationContext>),
    /// Anything else, as a filter's password.
    Generic(Option<DataSource>),
}

/// Compiles a `Secret`.
///
/// # Errors
/// Names the field that is missing or not supported.
pub fn compile_secret(message: &tls::Secret) -> Result<Compiled<Secret>, CompileError> {
    use tls::secret::Type;
    Cx::run(&message.name, |cx| {
        let value = match &message.r#type {
            Some(Type::TlsCertificate(certificate)) => SecretValue::Certificate(
                cx.field("tls_certificate", |cx| compile_certificate(cx, certificate))?,
            ),
            Some(Type::ValidationContext(context)) => SecretValue::Validation(Arc::new(
                cx.field("validation_context", |cx| ValidationContext::compile(cx, context))?,
            )),
            Some(Type::GenericSecret(generic)) => {
                SecretValue::Generic(generic.secret.as_ref().map(|s| DataSource::compile(cx, s)).transpose()?)
            }
            Some(Type::SessionTicketKeys(_)) => {
                return Err(
                    cx.refuse_at("session_ticket_keys", "is not supported: tickets use keys of the process")
                );
            }
            None => return Err(cx.refuse("needs tls_certificate, validation_context or generic_secret")),
        };
        Ok(Secret { name: message.name.as_str().into(), value })
    })
}

impl DownstreamTls {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &tls::DownstreamTlsContext) -> Result<Self> {
        cx.check(message)?;
        let common = cx.required("common_tls_context", &message.common_tls_context)?;
        let common = cx.field("common_tls_context", |cx| CommonTls::compile(cx, common))?;
        if common.certificates.is_empty() {
            return Err(
                cx.refuse_at("common_tls_context", "needs a certificate: inline or by secret discovery")
            );
        }
        let require_client_certificate = message.require_client_certificate.unwrap_or(false);
        Ok(Self {
            common,
            require_client_certificate,
            require_sni: message.require_sni.unwrap_or(false),
            resumption: !message.disable_stateful_session_resumption,
        })
    }
}

impl UpstreamTls {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &tls::UpstreamTlsContext) -> Result<Self> {
        cx.check(message)?;
        let common = match &message.common_tls_context {
            Some(common) => cx.field("common_tls_context", |cx| CommonTls::compile(cx, common))?,
            None => CommonTls { max_version: TlsVersion::V13, ..CommonTls::default() },
        };
        Ok(Self {
            common,
            sni: (!message.sni.is_empty()).then(|| message.sni.as_str().into()),
            auto_host_sni: message.auto_host_sni,
            auto_sni_san_validation: message.auto_sni_san_validation,
        })
    }
}

impl CommonTls {
    fn compile(cx: &mut Cx<'_>, message: &tls::CommonTlsContext) -> Result<Self> {
        cx.check(message)?;
        let inline = cx.each("tls_certificates", &message.tls_certificates, |cx, certificate| {
            Ok(CertificateSource::Inline(compile_certificate(cx, certificate)?))
        })?;
        let sds = cx.each(
            "tls_certificate_sds_secret_configs",
            &message.tls_certificate_sds_secret_configs,
            |cx, sds| Ok(CertificateSource::Sds(SecretRef::compile(cx, sds)?)),
        )?;
        let validation = match &message.validation_context_type {
            None => None,
            Some(kind) => Some(compile_validation(cx, kind)?),
        };
        let params = message.tls_params.clone().unwrap_or_default();
        let (min_version, max_version) = cx.field("tls_params", |cx| versions(cx, &params))?;
        Ok(Self {
            certificates: inline.into_iter().chain(sds).collect(),
            validation,
            alpn: message.alpn_protocols.iter().map(|name| name.as_bytes().into()).collect(),
            min_version,
            max_version,
            ciphers: params.cipher_suites.iter().map(|name| name.as_str().into()).collect(),
            curves: params.ecdh_curves.iter().map(|name| name.as_str().into()).collect(),
        })
    }
}

fn versions(cx: &mut Cx<'_>, params: &tls::TlsParameters) -> Result<(TlsVersion, TlsVersion)> {
    use tls::tls_parameters::TlsProtocol as P;
    cx.check(params)?;
    let min = match params.tls_minimum_protocol_version() {
        P::TlsAuto | P::TlSv12 => TlsVersion::V12,
        P::TlSv13 => TlsVersion::V13,
        P::TlSv10 | P::TlSv11 => {
            cx.note_at(
                "tls_minimum_protocol_version",
                "TLS below 1.2 is not spoken; 1.2 is the oldest offered",
            );
            TlsVersion::V12
        }
    };
    let max = match params.tls_maximum_protocol_version() {
        P::TlsAuto | P::TlSv13 => TlsVersion::V13,
        P::TlSv12 => TlsVersion::V12,
        P::TlSv10 | P::TlSv11 => {
            return Err(cx.refuse_at("tls_maximum_protocol_version", "TLS below 1.2 is not supported"));
        }
    };
    if min > max {
        return Err(cx.refuse_at("tls_minimum_protocol_version", "is above the maximum"));
    }
    Ok((min, max))
}

fn compile_validation(cx: &mut Cx<'_>, kind: &ValidationContextType) -> Result<Validation> {
    match kind {
        ValidationContextType::ValidationContext(context) => Ok(Validation {
            context: cx.field("validation_context", |cx| ValidationContext::compile(cx, context))?,
            sds: None,
        }),
        ValidationContextType::ValidationContextSdsSecretConfig(sds) => Ok(Validation {
            context: ValidationContext::default(),
            sds: Some(cx.field("validation_context_sds_secret_config", |cx| SecretRef::compile(cx, sds))?),
        }),
        ValidationContextType::CombinedValidationContext(both) => {
            cx.field("combined_validation_context", |cx| {
                cx.check(both)?;
                let context = cx.required("default_validation_context", &both.default_validation_context)?;
                let sds = cx.required(
                    "validation_context_sds_secret_config",
                    &both.validation_context_sds_secret_config,
                )?;
                Ok(Validation {
                    context: cx
                        .field("default_validation_context", |cx| ValidationContext::compile(cx, context))?,
                    sds: Some(
                        cx.field("validation_context_sds_secret_config", |cx| SecretRef::compile(cx, sds))?,
                    ),
                })
            })
        }
        ValidationContextType::ValidationContextCertificateProvider(_)
        | ValidationContextType::ValidationContextCertificateProviderInstance(_) => {
            Err(cx.refuse("certificate providers are not supported: use secret discovery"))
        }
    }
}

impl ValidationContext {
    fn compile(cx: &mut Cx<'_>, message: &tls::CertificateValidationContext) -> Result<Self> {
        use tls::certificate_validation_context::TrustChainVerification;
        cx.check(message)?;
        let mut names = cx.each(
            "match_typed_subject_alt_names",
            &message.match_typed_subject_alt_names,
            SanMatcher::compile,
        )?;
        names.extend(cx.each(
            "match_subject_alt_names",
            &message.match_subject_alt_names,
            |cx, matcher| Ok(SanMatcher { kind: None, matcher: StringMatcher::compile(cx, matcher)? }),
        )?);
        let source = |cx: &mut Cx<'_>, field: &str, source: &Option<core::DataSource>| {
            source.as_ref().map(|s| cx.field(field, |cx| DataSource::compile(cx, s))).transpose()
        };
        Ok(Self {
            trusted_ca: source(cx, "trusted_ca", &message.trusted_ca)?,
            system_roots: message.system_root_certs.is_some(),
            subject_alt_names: names,
            certificate_hashes: cx.each("verify_certificate_hash", &message.verify_certificate_hash, |cx, hash| {
                hexadecimal(hash).ok_or_else(|| {
                    cx.refuse("expected the SHA-256 of a certificate: 64 hexadecimal digits, or 32 pairs with colons")
                })
            })?,
            key_hashes: cx.each("verify_certificate_spki", &message.verify_certificate_spki, |cx, hash| {
                let bytes = base64::engine::general_purpose::STANDARD.decode(hash).ok();
                let digest = bytes.and_then(|bytes| bytes.try_into().ok());
                digest.ok_or_else(|| cx.refuse("expected the SHA-256 of a public key in base64, which has 44 characters"))
            })?,
            revoked: source(cx, "crl", &message.crl)?,
            revoked_leaf_only: message.only_verify_leaf_cert_crl,
            accept_untrusted: message.trust_chain_verification() == TrustChainVerification::AcceptUntrusted,
        })
    }
}

/// A SHA-256 digest, as `openssl x509 -fingerprint` writes it, or without the colons.
fn hexadecimal(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = match text.len() {
        64 => text.bytes().collect(),
        95 if text.bytes().skip(2).step_by(3).all(|byte| byte == b':') => {
            text.bytes().enumerate().filter(|(at, _)| at % 3 != 2).map(|(_, byte)| byte).collect()
        }
        _ => return None,
    };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

impl SanMatcher {
    fn compile(cx: &mut Cx<'_>, message: &tls::SubjectAltNameMatcher) -> Result<Self> {
        cx.check(message)?;
        let kind = match message.san_type() {
            SanType::Email => SanKind::Email,
            SanType::Dns => SanKind::Dns,
            SanType::Uri => SanKind::Uri,
            SanType::IpAddress => SanKind::IpAddress,
            SanType::OtherName => return Err(cx.refuse_at("san_type", "OTHER_NAME is not supported")),
            SanType::Unspecified => return Err(cx.refuse_at("san_type", "is required")),
        };
        let matcher = cx.required("matcher", &message.matcher)?;
        Ok(Self { kind: Some(kind), matcher: cx.field("matcher", |cx| StringMatcher::compile(cx, matcher))? })
    }
}

impl SecretRef {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &tls::SdsSecretConfig) -> Result<Self> {
        if message.name.is_empty() {
            return Err(cx.refuse_at("name", "must not be empty"));
        }
        let source = match &message.sds_config {
            None => SecretSource::Static,
            Some(config) => cx.field("sds_config", |cx| secret_source(cx, config))?,
        };
        Ok(Self { name: message.name.as_str().into(), source })
    }
}

fn secret_source(cx: &mut Cx<'_>, config: &core::ConfigSource) -> Result<SecretSource> {
    use core::grpc_service::TargetSpecifier;
    match &config.config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(SecretSource::Ads),
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            let service = api.grpc_services.first().and_then(|service| service.target_specifier.as_ref());
            match service {
                Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
                    Ok(SecretSource::Cluster(grpc.cluster_name.as_str().into()))
                }
                _ => Err(cx.refuse_at("api_config_source", "needs an envoy_grpc service")),
            }
        }
        Some(ConfigSourceSpecifier::Path(_) | ConfigSourceSpecifier::PathConfigSource(_)) => {
            Err(cx.refuse("secrets from files are not supported: use ads or api_config_source"))
        }
        None => Err(cx.refuse("needs ads or api_config_source")),
    }
}

fn compile_certificate(cx: &mut Cx<'_>, message: &tls::TlsCertificate) -> Result<Arc<Certificate>> {
    cx.check(message)?;
    let chain = cx.required("certificate_chain", &message.certificate_chain)?;
    let key = cx.required("private_key", &message.private_key)?;
    Ok(Arc::new(Certificate {
        chain: cx.field("certificate_chain", |cx| DataSource::compile(cx, chain))?,
        key: cx.field("private_key", |cx| DataSource::compile(cx, key))?,
    }))
}

impl DataSource {
    pub(crate) fn compile(cx: &mut Cx<'_>, message: &core::DataSource) -> Result<Self> {
        use core::data_source::Specifier;
        match &message.specifier {
            Some(Specifier::InlineBytes(bytes)) => Ok(Self::Inline(bytes.clone())),
            Some(Specifier::InlineString(text)) => Ok(Self::Inline(Bytes::from(text.clone().into_bytes()))),
            Some(Specifier::Filename(path)) => Ok(Self::File(path.as_str().into())),
            Some(Specifier::EnvironmentVariable(name)) => Ok(Self::Environment(name.as_str().into())),
            None => Err(cx.refuse("names no source")),
        }
    }
}

/// A transport socket of a filter chain.
pub(crate) fn compile_downstream(
    cx: &mut Cx<'_>,
    socket: &core::TransportSocket,
) -> Result<Option<Arc<DownstreamTls>>> {
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return match socket.name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Ok(None),
            _ => Err(cx.refuse_at("typed_config", "is required")),
        };
    };
    cx.field("typed_config", |cx| {
        if any.is::<tls::DownstreamTlsContext>() {
            let message = cx.unpack(any)?;
            return Ok(Some(Arc::new(DownstreamTls::compile(cx, &message)?)));
        }
        if any.type_url.ends_with("/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") {
            return Ok(None);
        }
        Err(cx
            .refuse(format!("transport socket {} is not supported: use DownstreamTlsContext", any.type_url)))
    })
}

/// A transport socket of a cluster.
pub(crate) fn compile_upstream(
    cx: &mut Cx<'_>,
    socket: &core::TransportSocket,
) -> Result<Option<Arc<UpstreamTls>>> {
    let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type else {
        return match socket.name.as_str() {
            "envoy.transport_sockets.raw_buffer" => Ok(None),
            _ => Err(cx.refuse_at("typed_config", "is required")),
        };
    };
    cx.field("typed_config", |cx| {
        if any.is::<tls::UpstreamTlsContext>() {
            let message = cx.unpack(any)?;
            return Ok(Some(Arc::new(UpstreamTls::compile(cx, &message)?)));
        }
        if any.type_url.ends_with("/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") {
            return Ok(None);
        }
        Err(cx.refuse(format!("transport socket {} is not supported: use UpstreamTlsContext", any.type_url)))
    })
}

/// Whether text is an IP address, which is never sent as a server name (RFC 6066).
pub fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_certificates_are_read_with_and_without_colons() {
        let plain = "0aFF".repeat(16);
        let pairs: Vec<&str> = (0..32).map(|at| &plain[at * 2..at * 2 + 2]).collect();
        let colons = pairs.join(":");
        let mut expected = [0; 32];
        expected.chunks_exact_mut(2).for_each(|pair| pair.copy_from_slice(&[0x0a, 0xff]));
        assert_eq!((hexadecimal(&plain), hexadecimal(&colons)), (Some(expected), Some(expected)));
        for bad in
            ["", &plain[1..], &plain.replace('F', "x"), &colons.replace(':', "-"), &colons.replace('a', ":")]
        {
            assert_eq!(hexadecimal(bad), None, "{bad}");
        }
    }
}
