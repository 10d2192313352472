//! A workload's call to the certificate service.

use std::time::Duration;

use lateen_proto::istio::v1::auth::IstioCertificateRequest;
use lateen_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

/// Why no certificate came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The token has characters that no header may have.
    #[error("the service-account token is not usable in a header")]
    Token,
    /// The authority refused or was not reached.
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(#[from] tonic::Status),
    /// The authority answered with no certificate and root.
    #[error("the authority's answer has {0} certificates; it must have the certificate and the root")]
    Short(usize),
}

/// What the authority gave.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate and its intermediates, PEM.
    pub chain_pem: String,
    /// The root, PEM.
    pub root_pem: String,
}

/// Has a request signed, by the bearer of the token or the holder of the certificate that the channel shows.
///
/// # Errors
/// When the token or the request is refused, or the authority cannot be reached.
pub async fn request(
    channel: Channel,
    token: Option<&str>,
    csr_pem: String,
    ttl: Duration,
) -> Result<Issued, ClientError> {
    let mut request = Request::new(IstioCertificateRequest {
        csr: csr_pem,
        validity_duration: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX),
        metadata: None,
    });
    if let Some(token) = token {
        let header = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
        request.metadata_mut().insert("authorization", header);
    }
    let mut client = IstioCertificateServiceClient::new(channel);
    let mut chain = client.create_certificate(request).await?.into_inner().cert_chain;
    let count = chain.len();
    let root_pem = chain.pop().filter(|_| count > 1).ok_or(ClientError::Short(count))?;
    Ok(Issued { chain_pem: chain.concat(), root_pem })
}
