//! TLS towards servers that are not of the mesh.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

use super::pem::provider;

/// A client that trusts the roots of the machine, and those of `extra_roots` (PEM; may be empty).
///
/// # Errors
/// When there are no roots at all, or the given ones are no certificates.
pub fn public_client(extra_roots: &str) -> Result<Arc<ClientConfig>, String> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(extra_roots.as_bytes()).collect();
    let roots = roots.map_err(|error| format!("further roots: {error}"))?;
    let provider = Arc::new(provider());
    let verifier =
        Verifier::new_with_extra_roots(roots, provider.clone()).map_err(|error| error.to_string())?;
    let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    // What rustls calls dangerous is a verifier that is not its own; this one is the platform's.
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(Arc::new(config))
}
