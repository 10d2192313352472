//! The certificate service: `istio.v1.auth.IstioCertificateService`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use lateen_base::{Clock, SpiffeId};
use lateen_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use lateen_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status};

use crate::authority::{Authority, CaError};

/// The lifetime of a workload's certificate when the request asks for none.
pub const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// The longest lifetime that is granted.
pub const LONGEST_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// Tells who a token belongs to.
pub trait Authenticator: Send + Sync + 'static {
    /// The identity of the bearer; the text of an error goes to the caller.
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<SpiffeId, String>>;
}

/// Builds the gRPC service.
pub fn service(
    authority: Arc<Authority>,
    authenticator: Arc<dyn Authenticator>,
    clock: Arc<dyn Clock>,
) -> IstioCertificateServiceServer<Service> {
    IstioCertificateServiceServer::new(Service { authority, authenticator, clock })
}

/// The adapter around an [`Authority`].
pub struct Service {
    authority: Arc<Authority>,
    authenticator: Arc<dyn Authenticator>,
    clock: Arc<dyn Clock>,
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let token = bearer(&request)
            .ok_or_else(|| Status::unauthenticated("no bearer token in the authorization header"))?;
        let caller = self.authenticator.authenticate(&token).await.map_err(Status::unauthenticated)?;
        let request = request.into_inner();
        let ttl = match u64::try_from(request.validity_duration) {
            Ok(0) | Err(_) => DEFAULT_TTL,
            Ok(seconds) => Duration::from_secs(seconds).min(LONGEST_TTL),
        };
        let signed = self.authority.sign(&request.csr, &caller, self.clock.now(), ttl);
        let cert_chain = signed.map_err(|error| {
            tracing::warn!("{caller}: {error}");
            match error {
                CaError::Request(_) => Status::invalid_argument(error.to_string()),
                _ => Status::internal(error.to_string()),
            }
        })?;
        tracing::debug!("signed a certificate for {caller}, ttl={}s", ttl.as_secs());
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

fn bearer<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer "))?.trim();
    (!token.is_empty()).then(|| token.to_owned())
}
