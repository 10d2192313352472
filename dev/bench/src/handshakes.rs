//! Handshakes: how many a proxy makes with clients of the mesh, whole ones and ones that take a session up again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::BenchError;
use crate::resources::Identity;

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Certificates both ways, each time.
    Full,
    /// A session is taken up again by its ticket.
    Resumed,
}

impl Sort {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
        }
    }

    fn kinds(self) -> &'static [HandshakeKind] {
        match self {
            Self::Full => &[HandshakeKind::Full],
            Self::Resumed => &[HandshakeKind::Resumed],
        }
    }
}

/// Clients that do nothing but connect, with the key exchange that every proxy knows, so that all do the same.
pub(crate) struct Handshakes<'a> {
    /// Where the proxy listens.
    pub(crate) address: SocketAddr,
    /// What is made.
    pub(crate) sort: Sort,
    /// Clients at a time.
    pub(crate) connections: usize,
    /// For how long.
    pub(crate) duration: Duration,
    /// The identity of clients and proxy.
    pub(crate) identity: &'a Identity,
}

impl Handshakes<'_> {
    /// Runs them; tells how many were made, and how long it took.
    ///
    /// # Errors
    /// When one fails, or is of the other sort.
    pub(crate) async fn run(self) -> Result<(u64, Duration), BenchError> {
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            let connector = TlsConnector::from(Arc::new(self.client()?));
            let (address, sort, end) = (self.address, self.sort, start + self.duration);
            tasks.spawn(async move {
                if sort == Sort::Resumed {
                    // The first one has no session to take up.
                    connect(&connector, address).await?;
                }
                let mut made = 0;
                while Instant::now() < end {
                    let kind = connect(&connector, address).await?;
                    if !sort.kinds().contains(&kind) {
                        let text = format!("a handshake was {kind:?}, not {}", sort.as_str());
                        return Err(BenchError::Text(text));
                    }
                    made += 1;
                }
                Ok(made)
            });
        }
        let mut made = 0;
        while let Some(done) = tasks.join_next().await {
            made += done.map_err(|error| BenchError::Text(error.to_string()))??;
        }
        Ok((made, start.elapsed()))
    }

    fn client(&self) -> Result<ClientConfig, BenchError> {
        let failed = |error: &dyn std::fmt::Display| BenchError::Text(error.to_string());
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        });
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.identity.root.as_bytes()).map_err(|e| failed(&e))?;
        roots.add(root).map_err(|e| failed(&e))?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|e| failed(&e))?;
        let chain = CertificateDer::pem_slice_iter(self.identity.chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| failed(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.identity.key.as_bytes()).map_err(|e| failed(&e))?;
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| failed(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unnamed { inner, provider }))
            .with_client_auth_cert(chain, key)
            .map_err(|e| failed(&e))?;
        config.alpn_protocols = vec![b"istio".to_vec(), b"h2".to_vec()];
        config.resumption = match self.sort {
            Sort::Full => Resumption::disabled(),
            Sort::Resumed => Resumption::in_memory_sessions(8),
        };
        Ok(config)
    }
}

/// One connection: made, told to close, and read to its end, which brings the tickets.
async fn connect(connector: &TlsConnector, address: SocketAddr) -> Result<HandshakeKind, BenchError> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    // Closed by a reset: addresses of closed connections would run out.
    socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))?;
    let name = ServerName::try_from("bench.test").map_err(|error| BenchError::Text(error.to_string()))?;
    let mut stream = connector.connect(name, tcp).await?;
    let kind = stream.get_ref().1.handshake_kind();
    stream.get_mut().1.send_close_notify();
    stream.flush().await?;
    let mut rest = [0; 4096];
    // How a proxy ends a connection that said nothing is its own matter.
    while matches!(stream.read(&mut rest).await, Ok(count) if count > 0) {}
    kind.ok_or_else(|| BenchError::Text("a handshake did not end".into()))
}

/// The mesh's certificates have no host's name: the chain is checked, the name is not.
#[derive(Debug)]
struct Unnamed {
    inner: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
