//! The two verifiers: of a server by a client, of a client by a server.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{EndEntityCert, KeyUsage};

use super::pem::{PeerCertificate, Trust};

/// The kind of a subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// A URI, such as a SPIFFE ID.
    Uri,
    /// A DNS name.
    Dns,
}

/// A function over a name.
pub type SanPredicate = Arc<dyn Fn(SanKind, &str) -> bool + Send + Sync>;

/// One entry of the list of names that a peer may have.
#[derive(Clone)]
pub enum SanRule {
    /// The whole name.
    Exact(String),
    /// What the name begins with.
    Prefix(String),
    /// Whatever the function says.
    When(SanPredicate),
}

impl SanRule {
    fn accepts(&self, kind: SanKind, name: &str) -> bool {
        match self {
            Self::Exact(want) => want == name,
            Self::Prefix(want) => name.starts_with(want.as_str()),
            Self::When(predicate) => predicate(kind, name),
        }
    }
}

impl fmt::Debug for SanRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "Exact({name:?})"),
            Self::Prefix(name) => write!(f, "Prefix({name:?})"),
            Self::When(_) => f.write_str("When(..)"),
        }
    }
}

/// Accepts chains that lead to an anchor, and names that are on the list. Without anchors it accepts any chain, as
/// Envoy does for an upstream without a validation context.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    trust: Option<Trust>,
    names: Vec<SanRule>,
    required: bool,
    match_server_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
}

impl PeerVerifier {
    pub(super) fn new(
        trust: Option<Trust>,
        names: Vec<SanRule>,
        required: bool,
        provider: &CryptoProvider,
    ) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        let hints = trust.as_ref().map(|trust| trust.roots().subjects()).unwrap_or_default();
        Self { trust, names, required, match_server_name: false, algorithms, hints }
    }

    /// Whether a server's certificate has to be for the name that was dialled.
    pub(super) fn matching_server_name(self, match_server_name: bool) -> Self {
        Self { match_server_name, ..self }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        if let Some(trust) = &self.trust {
            let parsed = EndEntityCert::try_from(leaf).map_err(refused)?;
            let anchors = &trust.roots().roots;
            parsed
                .verify_for_usage(self.algorithms.all, anchors, intermediates, now, usage, None, None)
                .map_err(refused)?;
        }
        self.check_names(leaf)
    }

    fn check_names(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.names.is_empty() {
            return Ok(());
        }
        let peer = PeerCertificate::from_der(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        let accepted = |kind, names: &[String]| {
            names.iter().any(|name| self.names.iter().any(|rule| rule.accepts(kind, name)))
        };
        if accepted(SanKind::Uri, &peer.uris) || accepted(SanKind::Dns, &peer.dns_names) {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }
}

fn refused(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let reason = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { .. } => CertificateError::Expired,
        E::CertNotValidYet { .. } => CertificateError::NotValidYet,
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    reason.into()
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        if self.match_server_name {
            let parsed = EndEntityCert::try_from(end_entity).map_err(refused)?;
            parsed.verify_is_valid_for_subject_name(server_name).map_err(refused)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
