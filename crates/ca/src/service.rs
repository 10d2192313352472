//! The certificate service: `istio.v1.auth.IstioCertificateService`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use lateen_base::{Clock, SpiffeId};
use lateen_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use lateen_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use crate::authority::{Authority, CaError};
use crate::limit::{Limiter, Rate};

/// What is granted. The defaults are Istio's.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The lifetime of a certificate when the request asks for none (`DEFAULT_WORKLOAD_CERT_TTL`).
    pub default_ttl: Duration,
    /// The longest that may be asked for (`MAX_WORKLOAD_CERT_TTL`).
    pub longest_ttl: Duration,
    /// How often one identity may ask.
    pub rate: Rate,
}

impl Default for Policy {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            default_ttl: Duration::from_secs(DAY),
            longest_ttl: Duration::from_secs(90 * DAY),
            rate: Rate::default(),
        }
    }
}

impl Policy {
    fn ttl(&self, asked: i64) -> Result<Duration, Status> {
        match u64::try_from(asked) {
            Ok(0) | Err(_) => Ok(self.default_ttl),
            Ok(seconds) if Duration::from_secs(seconds) > self.longest_ttl => {
                let longest = self.longest_ttl.as_secs();
                let text = format!("a lifetime of {seconds}s is asked for; the longest is {longest}s");
                Err(Status::invalid_argument(text))
            }
            Ok(seconds) => Ok(Duration::from_secs(seconds)),
        }
    }
}

/// Hears what becomes of requests, to count them.
pub trait Witness: Send + Sync + 'static {
    /// A request came.
    fn asked(&self) {}
    /// Its sender is not known.
    fn unauthenticated(&self) {}
    /// It is refused for what it is.
    fn refused(&self) {}
    /// It could not be signed.
    fn failed(&self) {}
    /// It was signed.
    fn issued(&self) {}
}

/// Counts nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoWitness;

impl Witness for NoWitness {}

/// The holder of a certificate of the mesh that a connection was made with; in the extensions of its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The one identity that the certificate is for.
    pub id: SpiffeId,
    /// When it runs out.
    pub not_after: SystemTime,
}

/// What a caller shows of itself.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// A bearer token.
    pub token: Option<&'a str>,
    /// A certificate that was verified.
    pub certificate: Option<&'a Holder>,
}

/// Tells who a caller is.
pub trait Authenticator: Send + Sync + 'static {
    /// The identity of the caller; the text of an error goes to it.
    fn authenticate<'a>(&'a self, shown: Credentials<'a>) -> BoxFuture<'a, Result<SpiffeId, String>>;
}

/// What the service is built on.
pub struct Deps {
    /// The authority, which may be exchanged for another while the service runs.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Tells who asks.
    pub authenticator: Arc<dyn Authenticator>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Hears what becomes of requests.
    pub witness: Arc<dyn Witness>,
}

/// The largest message that is read, in bytes. The request within is looked at up to a quarter of it.
const LARGEST: usize = 64 << 10;
/// The member of a request's metadata by which a node's proxy asks for a pod of its own (Istio's ambient mode).
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// Builds the gRPC service.
pub fn service(policy: Policy, deps: Deps) -> IstioCertificateServiceServer<Service> {
    IstioCertificateServiceServer::new(Service { policy, limiter: Limiter::new(policy.rate), deps })
        .max_decoding_message_size(LARGEST)
}

/// The adapter around an [`Authority`].
pub struct Service {
    policy: Policy,
    limiter: Limiter,
    deps: Deps,
}

impl Service {
    async fn caller<T>(&self, request: &Request<T>) -> Result<SpiffeId, Status> {
        let token = bearer(request);
        let shown =
            Credentials { token: token.as_deref(), certificate: request.extensions().get::<Holder>() };
        self.deps.authenticator.authenticate(shown).await.map_err(Status::unauthenticated)
    }

    fn sign(&self, caller: &SpiffeId, request: &IstioCertificateRequest) -> Result<Vec<String>, Status> {
        let asked_for = request.metadata.as_ref().and_then(|metadata| metadata.fields.get(IMPERSONATED));
        if asked_for.is_some() {
            let text =
                format!("{caller} asks in the name of another ({IMPERSONATED}): that is granted to nobody");
            return Err(Status::permission_denied(text));
        }
        let ttl = self.policy.ttl(request.validity_duration)?;
        let authority = self.deps.authority.borrow().clone();
        let signed = authority.sign(&request.csr, caller, self.deps.clock.now(), ttl);
        signed
            .inspect(|_| tracing::debug!("signed a certificate for {caller}, ttl={}s", ttl.as_secs()))
            .map_err(|error| match error {
                CaError::Request(_) => Status::invalid_argument(error.to_string()),
                _ => Status::internal(error.to_string()),
            })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let witness = &self.deps.witness;
        witness.asked();
        let caller = self.caller(&request).await.inspect_err(|_| witness.unauthenticated())?;
        if !self.limiter.admits(&caller, self.deps.clock.now()) {
            witness.refused();
            let Rate { burst, per_second } = self.policy.rate;
            return Err(Status::resource_exhausted(format!(
                "{caller} asks for certificates too often: {burst} at once and {per_second} per second are granted"
            )));
        }
        match self.sign(&caller, &request.into_inner()) {
            Ok(cert_chain) => {
                witness.issued();
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(status) => {
                tracing::warn!("{caller}: {}", status.message());
                match status.code() {
                    Code::InvalidArgument | Code::PermissionDenied => witness.refused(),
                    _ => witness.failed(),
                }
                Err(status)
            }
        }
    }
}

fn bearer<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer "))?.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_granted_up_to_the_longest() {
        let policy = Policy::default();
        assert_eq!(policy.ttl(0).unwrap(), policy.default_ttl);
        assert_eq!(policy.ttl(-5).unwrap(), policy.default_ttl);
        assert_eq!(policy.ttl(90 * 86_400).unwrap(), policy.longest_ttl);
        let refused = policy.ttl(90 * 86_400 + 1).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("7776000s"), "{refused}");
    }
}
