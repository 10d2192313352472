//! The two verifiers: of a server by a client, of a client by a server.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, SignatureScheme,
};
use webpki::{EndEntityCert, KeyUsage, RawPublicKeyEntity, RevocationOptions};

use super::checks::PeerChecks;
use super::legacy;
use super::pem::PeerCertificate;

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

/// Accepts chains that lead to an anchor and hold against the other checks. Without anchors it accepts any chain, as
/// Envoy does for an upstream without a validation context.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    checks: PeerChecks,
    required: bool,
    match_server_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
    hints: Vec<DistinguishedName>,
}

impl PeerVerifier {
    pub(super) fn new(checks: PeerChecks, required: bool, provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        let hints = checks.trust.as_ref().map(|trust| trust.roots().subjects()).unwrap_or_default();
        Self { checks, required, match_server_name: false, algorithms, hints }
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
        if let Some(trust) = &self.checks.trust {
            let anchors = &trust.roots().roots;
            match (legacy::parse(leaf), &self.checks.revoked) {
                (Some(old), None) => legacy::verify(&old, intermediates, anchors, &self.algorithms, now)?,
                // Nothing looks up leaves of version 1, so none of them is known to be good.
                (Some(_), Some(_)) => return Err(CertificateError::UnknownRevocationStatus.into()),
                (None, revoked) => {
                    let parsed = EndEntityCert::try_from(leaf).map_err(refused)?;
                    let verify = |revoked: Option<RevocationOptions<'_>>| {
                        let algorithms = self.algorithms.all;
                        let path = parsed.verify_for_usage(
                            algorithms,
                            anchors,
                            intermediates,
                            now,
                            usage,
                            revoked,
                            None,
                        );
                        path.map(drop)
                    };
                    revoked
                        .as_ref()
                        .map_or_else(|| verify(None), |lists| lists.apply(verify))
                        .map_err(refused)?;
                }
            }
        }
        self.check_names(leaf)?;
        self.checks.pins.check(leaf).map_err(Error::from)
    }

    /// A signature of the handshake, TLS 1.2: every algorithm of the scheme is tried, as the scheme does not name the
    /// curve.
    fn check_tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(key) = legacy::public_key(cert) else {
            return verify_tls12_signature(message, cert, dss, &self.algorithms);
        };
        let key = RawPublicKeyEntity::try_from(&key).map_err(refused)?;
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme);
        let (_, algorithms) = known.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        let mut results = algorithms.iter().map(|a| key.verify_signature(*a, message, dss.signature()));
        if results.any(|result| result.is_ok()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    /// A signature of the handshake, TLS 1.3.
    fn check_tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match legacy::public_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn check_names(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.checks.names.is_empty() {
            return Ok(());
        }
        let peer = PeerCertificate::from_der(leaf).map_err(|_| Error::from(CertificateError::BadEncoding))?;
        let accepted = |kind, names: &[String]| {
            names.iter().any(|name| self.checks.names.iter().any(|rule| rule.accepts(kind, name)))
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
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    };
    reason.into()
}

/// What both of rustls's verifier traits ask for alike.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.check_tls12(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.check_tls13(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
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
            if legacy::parse(end_entity).is_some() {
                return Err(CertificateError::NotValidForName.into());
            }
            let parsed = EndEntityCert::try_from(end_entity).map_err(refused)?;
            parsed.verify_is_valid_for_subject_name(server_name).map_err(refused)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    handshake_signatures!();
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

    handshake_signatures!();
}
