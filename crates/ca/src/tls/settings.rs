//! What a side of TLS wants, and the rustls configuration that does it.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme, SupportedProtocolVersion};

use super::checks::PeerChecks;
use super::offers::Offers;
use super::verify::PeerVerifier;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2, the lowest spoken.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What a server asks of its clients.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// No certificate.
    None,
    /// A certificate if there is one; when given, it has to be good.
    Optional(PeerChecks),
    /// A good certificate.
    Required(PeerChecks),
}

/// The server's side.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Certificates with keys; the first one whose algorithm the client takes is shown.
    pub identities: Vec<Arc<CertifiedKey>>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// Application protocols, best first; with none of them in common the handshake goes on without one, as Envoy's.
    pub alpn: Vec<Vec<u8>>,
    /// Lowest and highest version.
    pub versions: (Version, Version),
    /// Ciphers and groups.
    pub offers: Offers,
    /// Whether sessions can be resumed.
    pub resumption: bool,
}

/// The client's side.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The certificate shown when the server asks.
    pub identity: Option<Arc<CertifiedKey>>,
    /// What the server's certificate has to be.
    pub checks: PeerChecks,
    /// Application protocols offered, best first.
    pub alpn: Vec<Vec<u8>>,
    /// Lowest and highest version.
    pub versions: (Version, Version),
    /// Ciphers and groups.
    pub offers: Offers,
    /// Whether the server is told the name that was dialled.
    pub sni: bool,
    /// Whether the server's certificate has to be for the name that was dialled.
    pub match_server_name: bool,
}

/// Why settings make no configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The versions leave nothing.
    #[error("no TLS version is left between the minimum {0:?} and the maximum {1:?}")]
    Versions(Version, Version),
    /// No cipher is left.
    #[error(
        "none of the ciphers {0:?} is known, and TLS 1.3 is not allowed: use ECDHE with AES-GCM or ChaCha20-Poly1305"
    )]
    Ciphers(Vec<String>),
    /// No group is left.
    #[error("none of the curves {0:?} is known: use X25519MLKEM768, X25519, P-256 or P-384")]
    Groups(Vec<String>),
    /// A server without a certificate.
    #[error("a server needs a certificate")]
    NoIdentity,
    /// rustls refuses.
    #[error("TLS settings refused: {0}")]
    Rustls(#[from] rustls::Error),
}

/// A server's configuration. rustls breaks a handshake off when the client's application protocols and the server's
/// have none in common; Envoy goes on without, and Istio's clients count on it. Hence two configurations.
#[derive(Clone, Debug)]
pub struct Server {
    negotiating: Arc<ServerConfig>,
    silent: Arc<ServerConfig>,
}

impl Server {
    /// The configuration for a client that offers these application protocols.
    pub fn for_client<'a>(&self, mut offered: impl Iterator<Item = &'a [u8]>) -> Arc<ServerConfig> {
        let common = offered.any(|name| self.negotiating.alpn_protocols.iter().any(|ours| ours == name));
        if common { self.negotiating.clone() } else { self.silent.clone() }
    }
}

/// The configuration of a server.
///
/// # Errors
/// When there is no certificate, or no version.
pub fn server_config(settings: ServerSettings) -> Result<Server, SettingsError> {
    if settings.identities.is_empty() {
        return Err(SettingsError::NoIdentity);
    }
    let provider = Arc::new(settings.offers.provider(settings.versions.1)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(settings.versions)?)?;
    let verifier = |checks, required| Arc::new(PeerVerifier::new(checks, required, &provider));
    let builder = match settings.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional(checks) => builder.with_client_cert_verifier(verifier(checks, false)),
        ClientAuth::Required(checks) => builder.with_client_cert_verifier(verifier(checks, true)),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Identities(settings.identities)));
    config.send_tls13_tickets = usize::from(settings.resumption);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if settings.resumption {
        // Tickets carry the session, under keys of this process that change: nothing is kept for a client. They end
        // with the configuration, so that a session of other certificates or anchors is never resumed.
        config.ticketer = Ticketer::new()?;
    }
    let silent = Arc::new(config.clone());
    config.alpn_protocols = settings.alpn;
    Ok(Server { negotiating: Arc::new(config), silent })
}

/// The configuration of a client.
///
/// # Errors
/// When no version is left.
pub fn client_config(settings: ClientSettings) -> Result<Arc<ClientConfig>, SettingsError> {
    let provider = Arc::new(settings.offers.provider(settings.versions.1)?);
    let verifier =
        PeerVerifier::new(settings.checks, true, &provider).matching_server_name(settings.match_server_name);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(settings.versions)?)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match settings.identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Identity(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = settings.alpn;
    config.enable_sni = settings.sni;
    Ok(Arc::new(config))
}

fn versions(
    (low, high): (Version, Version),
) -> Result<&'static [&'static SupportedProtocolVersion], SettingsError> {
    static BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
    static OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    static NEW: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
    match (low, high) {
        (Version::Tls12, Version::Tls13) => Ok(BOTH),
        (Version::Tls12, Version::Tls12) => Ok(OLD),
        (Version::Tls13, Version::Tls13) => Ok(NEW),
        (Version::Tls13, Version::Tls12) => Err(SettingsError::Versions(low, high)),
    }
}

/// A server's certificates.
#[derive(Debug)]
struct Identities(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |identity: &&Arc<CertifiedKey>| identity.key.choose_scheme(schemes).is_some();
        self.0.iter().find(fits).or(self.0.first()).cloned()
    }
}

/// A client's certificate, shown whatever issuers the server hints at.
#[derive(Debug)]
struct Identity(Arc<CertifiedKey>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).is_some().then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
