//! The aggregated discovery service on gRPC: one task per connection around a [`Session`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3 as wire;
use lateen_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use lateen_proto::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::push::Push;
use super::session::{Dialect, Heard, ProtocolError, Session};
use crate::Catalog;

/// Responses that wait for the network. Beyond them a slow client's pushes merge into one.
const OUTBOX: usize = 8;
/// How long a stream may stay silent after it was opened.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
const LATE: &str = "no discovery request within 10s of the stream's start";

/// What a server of discovery has behind it.
pub trait Discovery: Send + Sync + 'static {
    /// A client opened a stream; nothing of what it says is read before it is admitted. What is learned of it goes into
    /// [`Peer::extensions`].
    fn admit<'a>(&'a self, _peer: &'a mut Peer) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }

    /// A client introduced itself. What it may see is published through [`Opened::catalogs`]; each publication
    /// replaces the one before, so that a slow client gets one merged push.
    fn open<'a>(&'a self, peer: Peer, node: &'a Node) -> BoxFuture<'a, Result<Opened, Status>>;
}

/// Who is at the other end, as the transport knows it. `Debug` leaves the token out.
#[derive(Clone)]
pub struct Peer {
    /// The form of the protocol that the client speaks.
    pub dialect: Dialect,
    /// The remote address, when there is one.
    pub address: Option<std::net::SocketAddr>,
    /// The bearer token of the `authorization` header.
    pub token: Option<String>,
    /// What an outer layer put into the request about the connection (such as a verified client certificate).
    pub extensions: http::Extensions,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dialect, address, .. } = self;
        f.debug_struct("Peer").field("dialect", dialect).field("address", address).finish_non_exhaustive()
    }
}

/// An accepted connection.
pub struct Opened {
    /// What the client may see now, and every later state of it.
    pub catalogs: watch::Receiver<Arc<dyn Catalog>>,
    /// Hears what happens; dropped when the connection ends.
    pub observer: Box<dyn Observer>,
}

/// Follows one connection. Calls must not block.
pub trait Observer: Send {
    /// A request came.
    fn heard(&mut self, session: &Session, heard: &Heard);
    /// A response goes out.
    fn pushed(&mut self, session: &Session, push: &Push);
}

/// The gRPC service over a [`Discovery`].
pub type Server<D> = AggregatedDiscoveryServiceServer<Service<D>>;

/// Builds the gRPC service.
pub fn service<D: Discovery>(discovery: Arc<D>) -> Server<D> {
    AggregatedDiscoveryServiceServer::new(Service { discovery }).max_decoding_message_size(16 << 20)
}

/// The same for secrets alone, as an agent serves them beside its proxy.
pub type SecretServer<D> = SecretDiscoveryServiceServer<Service<D>>;

/// Builds the secret discovery service.
pub fn secret_service<D: Discovery>(discovery: Arc<D>) -> SecretServer<D> {
    SecretDiscoveryServiceServer::new(Service { discovery })
}

/// The adapter behind [`Server`] and [`SecretServer`].
pub struct Service<D> {
    discovery: Arc<D>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<D: Discovery> AggregatedDiscoveryService for Service<D> {
    type DeltaAggregatedResourcesStream = Responses<wire::DeltaDiscoveryResponse>;
    type StreamAggregatedResourcesStream = Responses<wire::DiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(Response::new(start::<DeltaForm, D>(self.discovery.clone(), request)))
    }

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(Response::new(start::<WorldForm, D>(self.discovery.clone(), request)))
    }
}

#[tonic::async_trait]
impl<D: Discovery> SecretDiscoveryService for Service<D> {
    type DeltaSecretsStream = Responses<wire::DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<wire::DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<wire::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(start::<DeltaForm, D>(self.discovery.clone(), request)))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<wire::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(start::<WorldForm, D>(self.discovery.clone(), request)))
    }

    async fn fetch_secrets(
        &self,
        _: Request<wire::DiscoveryRequest>,
    ) -> Result<Response<wire::DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are served as a stream: use StreamSecrets or DeltaSecrets"))
    }
}

/// A form of the protocol on the wire.
trait Form: 'static {
    type In: Send + 'static;
    type Out: Send + 'static;
    const DIALECT: Dialect;
    fn hear(session: &mut Session, request: Self::In) -> Result<Heard, ProtocolError>;
    fn say(push: Push) -> Self::Out;
}

struct DeltaForm;

impl Form for DeltaForm {
    type In = wire::DeltaDiscoveryRequest;
    type Out = wire::DeltaDiscoveryResponse;
    const DIALECT: Dialect = Dialect::Delta;

    fn hear(session: &mut Session, request: Self::In) -> Result<Heard, ProtocolError> {
        session.on_delta(request)
    }

    fn say(push: Push) -> Self::Out {
        push.into_delta()
    }
}

struct WorldForm;

impl Form for WorldForm {
    type In = wire::DiscoveryRequest;
    type Out = wire::DiscoveryResponse;
    const DIALECT: Dialect = Dialect::StateOfTheWorld;

    fn hear(session: &mut Session, request: Self::In) -> Result<Heard, ProtocolError> {
        session.on_state_of_the_world(request)
    }

    fn say(push: Push) -> Self::Out {
        push.into_state_of_the_world()
    }
}

fn start<F: Form, D: Discovery>(discovery: Arc<D>, request: Request<Streaming<F::In>>) -> Responses<F::Out> {
    let peer = Peer {
        dialect: F::DIALECT,
        address: request.remote_addr(),
        token: bearer(&request),
        extensions: request.extensions().clone(),
    };
    let (outbox, responses) = mpsc::channel(OUTBOX);
    tokio::spawn(async move {
        if let Err(status) = serve::<F, D>(&*discovery, peer, request.into_inner(), &outbox).await {
            // The client may be gone already; then nobody is left to be told.
            let _ = outbox.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(responses))
}

async fn serve<F: Form, D: Discovery>(
    discovery: &D,
    mut peer: Peer,
    mut requests: Streaming<F::In>,
    outbox: &mpsc::Sender<Result<F::Out, Status>>,
) -> Result<(), Status> {
    discovery.admit(&mut peer).await?;
    let first = tokio::time::timeout(FIRST_WITHIN, requests.next());
    let Some(first) = first.await.map_err(|_| Status::deadline_exceeded(LATE))? else { return Ok(()) };
    let mut session = Session::new(F::DIALECT);
    let heard = F::hear(&mut session, first?).map_err(refuse)?;
    let node = session.node().cloned().unwrap_or_default();
    let Opened { mut catalogs, mut observer } = discovery.open(peer, &node).await?;
    observer.heard(&session, &heard);
    loop {
        let catalog = catalogs.borrow_and_update().clone();
        for push in session.pushes(&*catalog) {
            observer.pushed(&session, &push);
            if outbox.send(Ok(F::say(push))).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            request = requests.next() => {
                let Some(request) = request else { return Ok(()) };
                let heard = F::hear(&mut session, request?).map_err(refuse)?;
                observer.heard(&session, &heard);
            }
            changed = catalogs.changed() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the control plane is shutting down"));
                }
            }
            () = outbox.closed() => return Ok(()),
        }
    }
}

fn refuse(error: ProtocolError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn bearer<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    let token = value.strip_prefix("Bearer ").or_else(|| value.strip_prefix("bearer "))?;
    Some(token.trim().to_owned())
}
