//! TLS contexts and secrets made into rustls configurations.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use lateen_ca::tls::{
    self as ca, ClientAuth, ClientSettings, Offers, PeerCertificate, PeerChecks, Pins, Revocations, SanRule,
    ServerSettings, Trust,
};
use lateen_route::cluster::{HttpProtocol, UpstreamHttp};
use lateen_route::tls::{
    Certificate, CertificateSource, CommonTls, DataSource, DownstreamTls, SanKind, SanMatcher, Secret,
    SecretValue, TlsVersion, UpstreamTls, ValidationContext,
};

use super::SecretEntry;
use crate::listener::ServerIdentity;
use crate::upstream::cluster::Security;

/// Where the system keeps its trust anchors.
const SYSTEM_ROOTS: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Why a context makes no configuration.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    /// It waits for a secret.
    #[error("waits for secret {0}")]
    Waiting(Arc<str>),
    /// It is wrong.
    #[error("{0}")]
    Wrong(String),
}

type Secrets = BTreeMap<Arc<str>, SecretEntry>;

/// The server's side.
pub(super) fn server(tls: &DownstreamTls, secrets: &Secrets) -> Result<ServerIdentity, TlsError> {
    let mut identities = Vec::new();
    let mut local_uris = Vec::new();
    for source in &tls.common.certificates {
        let certificate = certificate(source, secrets)?;
        let chain = read(&certificate.chain)?;
        if local_uris.is_empty() {
            local_uris = uris(&chain);
        }
        identities.push(ca::identity(&chain, &read(&certificate.key)?).map_err(wrong)?);
    }
    let client_auth = match (validation(&tls.common, secrets)?, tls.require_client_certificate) {
        (None, false) => ClientAuth::None,
        (Some(checks), false) => ClientAuth::Optional(checks),
        (checks, true) => ClientAuth::Required(checks.unwrap_or_default()),
    };
    let settings = ServerSettings {
        identities,
        client_auth,
        alpn: alpn(&tls.common),
        versions: versions(&tls.common),
        offers: offers(&tls.common),
        resumption: tls.resumption,
    };
    Ok(ServerIdentity { server: ca::server_config(settings).map_err(wrong)?, local_uris: local_uris.into() })
}

/// The client's side. What the secrets of discovery are for was checked when they came, so that the configuration is made
/// when the first connection needs it: most clusters of a mesh are never called by one proxy.
pub(super) fn client(
    tls: &Arc<UpstreamTls>,
    http: &UpstreamHttp,
    secrets: &Secrets,
) -> Result<Security, TlsError> {
    let certificate =
        tls.common.certificates.first().map(|source| certificate(source, secrets)).transpose()?;
    let by_discovery = |source: &CertificateSource| matches!(source, CertificateSource::Sds(_));
    let inline = !tls.common.certificates.iter().all(by_discovery)
        || tls.common.validation.as_ref().is_some_and(|own| {
            own.context.trusted_ca.is_some() || own.context.system_roots || own.context.revoked.is_some()
        });
    // The request's host, where the cluster says so, goes before a fixed name; the context's own wish does not.
    let auto_server_name = http.auto_sni || (tls.auto_host_sni && tls.sni.is_none());
    let recipe = ClientRecipe {
        certificate,
        discovered: discovered(&tls.common, secrets)?,
        http2: http.protocol == HttpProtocol::Http2,
        sni: tls.sni.is_some() || auto_server_name,
        match_server_name: tls.auto_sni_san_validation || http.auto_san_validation,
        tls: tls.clone(),
    };
    let config = ClientTls { recipe, made: OnceLock::new() };
    if inline || tls.common.min_version > tls.common.max_version {
        config.make().map(drop)?;
    }
    Ok(Security::Tls { config: Arc::new(config), server_name: tls.sni.clone(), auto_server_name })
}

/// The client's side of TLS, made when it is asked for.
#[derive(Debug)]
pub(crate) struct ClientTls {
    recipe: ClientRecipe,
    made: OnceLock<Option<Arc<rustls::ClientConfig>>>,
}

impl ClientTls {
    /// The configuration; none when it cannot be made, which the log says once.
    pub(crate) fn config(&self) -> Option<Arc<rustls::ClientConfig>> {
        let made = self.made.get_or_init(|| {
            self.make()
                .inspect_err(
                    |reason| tracing::warn!(target: "config", %reason, "TLS of a cluster cannot be made"),
                )
                .ok()
        });
        made.clone()
    }

    fn make(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        self.recipe.make()
    }
}

/// All that a client's configuration is made of.
#[derive(Debug)]
struct ClientRecipe {
    tls: Arc<UpstreamTls>,
    certificate: Option<Arc<Certificate>>,
    discovered: Option<Arc<ValidationContext>>,
    http2: bool,
    sni: bool,
    match_server_name: bool,
}

impl ClientRecipe {
    fn make(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        let identity = match &self.certificate {
            None => None,
            Some(certificate) => {
                let (chain, key) = (read(&certificate.chain)?, read(&certificate.key)?);
                Some(ca::identity(&chain, &key).map_err(wrong)?)
            }
        };
        let common = &self.tls.common;
        let checks = checks(common, self.discovered.as_deref())?.unwrap_or_default();
        let mut alpn = alpn(common);
        if alpn.is_empty() && self.http2 {
            alpn.push(b"h2".to_vec());
        }
        let settings = ClientSettings {
            identity,
            checks,
            alpn,
            versions: versions(common),
            offers: offers(common),
            sni: self.sni,
            match_server_name: self.match_server_name,
        };
        ca::client_config(settings).map_err(wrong)
    }
}

/// Whether a secret can be used at all.
pub(super) fn check_secret(secret: &Secret) -> Result<(), String> {
    match &secret.value {
        SecretValue::Certificate(certificate) => {
            let chain = read(&certificate.chain).map_err(|error| error.to_string())?;
            let key = read(&certificate.key).map_err(|error| error.to_string())?;
            ca::identity(&chain, &key).map(drop).map_err(|error| error.to_string())
        }
        SecretValue::Validation(context) => {
            trust_of(context).and_then(|_| revoked(context)).map(drop).map_err(|error| error.to_string())
        }
        SecretValue::Generic(_) => Ok(()),
    }
}

/// The certificates of a secret, for `/certs`.
pub(crate) fn describe(secret: &Secret) -> Option<(bool, Vec<PeerCertificate>)> {
    let (is_chain, source) = match &secret.value {
        SecretValue::Certificate(certificate) => (true, &certificate.chain),
        SecretValue::Validation(context) => (false, context.trusted_ca.as_ref()?),
        SecretValue::Generic(_) => return None,
    };
    Some((is_chain, PeerCertificate::all_from_pem(&read(source).ok()?).ok()?))
}

fn certificate(source: &CertificateSource, secrets: &Secrets) -> Result<Arc<Certificate>, TlsError> {
    let reference = match source {
        CertificateSource::Inline(certificate) => return Ok(certificate.clone()),
        CertificateSource::Sds(reference) => reference,
    };
    match secrets.get(&reference.name).map(|entry| &entry.secret.value) {
        Some(SecretValue::Certificate(certificate)) => Ok(certificate.clone()),
        Some(_) => Err(TlsError::Wrong(format!("secret {} holds no certificate", reference.name))),
        None => Err(TlsError::Waiting(reference.name.clone())),
    }
}

/// The checks of a context, as they are now.
fn validation(common: &CommonTls, secrets: &Secrets) -> Result<Option<PeerChecks>, TlsError> {
    checks(common, discovered(common, secrets)?.as_deref())
}

/// The part of the checks that secret discovery has.
fn discovered(common: &CommonTls, secrets: &Secrets) -> Result<Option<Arc<ValidationContext>>, TlsError> {
    let Some(reference) = common.validation.as_ref().and_then(|own| own.sds.as_ref()) else {
        return Ok(None);
    };
    match secrets.get(&reference.name).map(|entry| &entry.secret.value) {
        Some(SecretValue::Validation(context)) => Ok(Some(context.clone())),
        Some(_) => Err(TlsError::Wrong(format!("secret {} holds no trust anchors", reference.name))),
        None => Err(TlsError::Waiting(reference.name.clone())),
    }
}

/// A context with what a secret adds: lists of both hold, single values of the secret replace the context's.
fn checks(
    common: &CommonTls,
    discovered: Option<&ValidationContext>,
) -> Result<Option<PeerChecks>, TlsError> {
    let Some(validation) = &common.validation else { return Ok(None) };
    let both = || [Some(&validation.context), discovered].into_iter().flatten();
    if both().any(|context| context.accept_untrusted) {
        return Ok(Some(PeerChecks::default()));
    }
    let matchers: Vec<_> = both().flat_map(|context| &context.subject_alt_names).cloned().collect();
    let out = PeerChecks {
        trust: both().rev().find_map(|context| trust_of(context).transpose()).transpose()?,
        names: if matchers.is_empty() { Vec::new() } else { vec![rule(matchers)] },
        pins: Pins {
            certificates: both().flat_map(|context| &context.certificate_hashes).copied().collect(),
            keys: both().flat_map(|context| &context.key_hashes).copied().collect(),
        },
        revoked: both().rev().find_map(|context| revoked(context).transpose()).transpose()?,
    };
    match (&out.trust, &out.revoked) {
        (None, _) if !out.names.is_empty() => Err(TlsError::Wrong(
            "names of peers are asked for without trust anchors: anybody could have them; give trusted_ca".into(),
        )),
        (None, Some(_)) => Err(TlsError::Wrong(
            "revoked certificates are listed without trust anchors: the list would have no effect; give trusted_ca"
                .into(),
        )),
        _ => Ok(Some(out)),
    }
}

fn revoked(context: &ValidationContext) -> Result<Option<Revocations>, TlsError> {
    let Some(source) = &context.revoked else { return Ok(None) };
    Revocations::from_pem(&read(source)?, context.revoked_leaf_only).map(Some).map_err(wrong)
}

fn rule(matchers: Vec<SanMatcher>) -> SanRule {
    SanRule::When(Arc::new(move |kind, name| {
        let kind = match kind {
            ca::SanKind::Uri => SanKind::Uri,
            ca::SanKind::Dns => SanKind::Dns,
        };
        matchers.iter().any(|matcher| matcher.matches(kind, name))
    }))
}

fn trust_of(context: &ValidationContext) -> Result<Option<Trust>, TlsError> {
    let pem = match (&context.trusted_ca, context.system_roots) {
        (Some(source), _) => read(source)?,
        (None, true) => {
            let found = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok());
            found.map(Bytes::from).ok_or_else(|| {
                TlsError::Wrong(format!(
                    "system trust anchors are asked for, and none of {SYSTEM_ROOTS:?} exists"
                ))
            })?
        }
        (None, false) => return Ok(None),
    };
    Trust::from_pem(&pem).map(Some).map_err(wrong)
}

fn read(source: &DataSource) -> Result<Bytes, TlsError> {
    match source {
        DataSource::Inline(bytes) => Ok(bytes.clone()),
        DataSource::File(path) => std::fs::read(&**path)
            .map(Bytes::from)
            .map_err(|error| TlsError::Wrong(format!("{path}: {error}"))),
        DataSource::Environment(name) => std::env::var(&**name)
            .map(Bytes::from)
            .map_err(|_| TlsError::Wrong(format!("environment variable {name} is not set"))),
    }
}

fn uris(chain: &[u8]) -> Vec<String> {
    let certificates = PeerCertificate::all_from_pem(chain).unwrap_or_default();
    certificates.into_iter().next().map(|leaf| leaf.uris).unwrap_or_default()
}

fn alpn(common: &CommonTls) -> Vec<Vec<u8>> {
    common.alpn.iter().map(|name| name.to_vec()).collect()
}

fn offers(common: &CommonTls) -> Offers {
    let text = |names: &[Arc<str>]| names.iter().map(|name| (**name).to_owned()).collect();
    Offers { ciphers: text(&common.ciphers), groups: text(&common.curves) }
}

fn versions(common: &CommonTls) -> (ca::Version, ca::Version) {
    let of = |version| match version {
        TlsVersion::V12 => ca::Version::Tls12,
        TlsVersion::V13 => ca::Version::Tls13,
    };
    (of(common.min_version), of(common.max_version))
}

fn wrong(error: impl std::fmt::Display) -> TlsError {
    TlsError::Wrong(error.to_string())
}
