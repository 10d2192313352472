//! The client on gRPC: one task that connects, reconnects, and carries requests and updates.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use lateen_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::subscriptions::{Subscriptions, Update};
use crate::transport::{Target, TransportError};
use crate::{Backoff, Rejection};

/// Updates that wait for the consumer; beyond them reading stops and the server merges.
const INBOX: usize = 4;
/// The largest response that is accepted.
const LARGEST: usize = 256 << 20;

/// Where to ask, and who is asking.
#[derive(Clone)]
pub struct Config {
    /// The server.
    pub target: Target,
    /// The client's identity, sent with the first request of every connection.
    pub node: Node,
    /// The bearer token, read anew for every connection since tokens rotate.
    pub token: Option<Arc<dyn Fn() -> Option<String> + Send + Sync>>,
    /// The waits between connections.
    pub backoff: Backoff,
    /// What is asked.
    pub service: Service,
}

/// A discovery service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Resources of all types on one stream: a control plane.
    #[default]
    Aggregated,
    /// Secrets alone: the agent beside a proxy.
    Secrets,
}

impl Config {
    /// A client without token and with the default waits.
    pub fn new(target: Target, node: Node) -> Self {
        Self { target, node, token: None, backoff: Backoff::default(), service: Service::default() }
    }
}

/// What a client hears.
#[derive(Debug)]
pub enum Event {
    /// A connection is open, and the subscriptions are on their way.
    Connected,
    /// The connection is gone or none could be made; the next try comes after the wait.
    Disconnected {
        /// Why.
        reason: String,
        /// The wait.
        retry_in: Duration,
    },
    /// A response; answer it with [`Handle::ack`] or [`Handle::nack`].
    Update(Update),
}

/// Steers a client. The client ends when every handle or the receiver of events is dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Subscribe(String, Vec<String>),
    Unsubscribe(String, Vec<String>),
    Ack(Update),
    Nack(Update, Vec<Rejection>),
}

impl Handle {
    /// Asks for names of a type; `*` asks for everything.
    pub fn subscribe<S: Into<String>>(&self, type_url: &str, names: impl IntoIterator<Item = S>) {
        self.send(Command::Subscribe(type_url.to_owned(), names.into_iter().map(Into::into).collect()));
    }

    /// Asks for names no more.
    pub fn unsubscribe<S: Into<String>>(&self, type_url: &str, names: impl IntoIterator<Item = S>) {
        self.send(Command::Unsubscribe(type_url.to_owned(), names.into_iter().map(Into::into).collect()));
    }

    /// Accepts an update.
    pub fn ack(&self, update: Update) {
        self.send(Command::Ack(update));
    }

    /// Refuses some resources of an update; the others count as accepted.
    pub fn nack(&self, update: Update, rejections: Vec<Rejection>) {
        self.send(Command::Nack(update, rejections));
    }

    fn send(&self, command: Command) {
        // The task is gone only when nobody listens to its events any more.
        let _ = self.commands.send(command);
    }
}

/// Starts a client. Must be called within a tokio runtime.
pub fn connect(config: Config) -> (Handle, mpsc::Receiver<Event>) {
    let (commands, inbox) = mpsc::unbounded_channel();
    let (events, updates) = mpsc::channel(INBOX);
    let subscriptions = Subscriptions::new(config.node.clone());
    tokio::spawn(Task { config, subscriptions, commands: inbox, events }.run());
    (Handle { commands }, updates)
}

type Call = Pin<Box<dyn Future<Output = Result<Response<Streaming<DeltaDiscoveryResponse>>, Status>> + Send>>;

struct Task {
    config: Config,
    subscriptions: Subscriptions,
    commands: mpsc::UnboundedReceiver<Command>,
    events: mpsc::Sender<Event>,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("the server closed the stream")]
    Closed,
    #[error("the token is not usable in a header")]
    Token,
    #[error("the client is not wanted any more")]
    Unwanted,
}

impl Task {
    async fn run(mut self) {
        loop {
            let reason = match self.converse().await {
                Err(Ended::Unwanted) | Ok(()) => return,
                Err(ended) => ended.to_string(),
            };
            self.subscriptions.close();
            let retry_in = self.config.backoff.next(rand::random());
            if self.events.send(Event::Disconnected { reason, retry_in }).await.is_err() {
                return;
            }
            if self.wait(retry_in).await.is_none() {
                return;
            }
        }
    }

    /// Waits for the next try, and takes in what is asked for meanwhile.
    async fn wait(&mut self, wait: Duration) -> Option<()> {
        let sleep = tokio::time::sleep(wait);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return Some(()),
                command = self.commands.recv() => {
                    // Answers to a connection that is gone still tell which versions are held.
                    self.apply(command?);
                }
                () = self.events.closed() => return None,
            }
        }
    }

    async fn converse(&mut self) -> Result<(), Ended> {
        let channel = self.config.target.channel().await?;
        let (outbox, requests) = mpsc::unbounded_channel();
        while let Ok(command) = self.commands.try_recv() {
            self.apply(command);
        }
        for request in self.subscriptions.open() {
            send(&outbox, request)?;
        }
        let mut request = Request::new(UnboundedReceiverStream::new(requests));
        if let Some(token) = self.config.token.as_ref().and_then(|token| token()) {
            let value = MetadataValue::try_from(format!("Bearer {token}")).map_err(|_| Ended::Token)?;
            request.metadata_mut().insert("authorization", value);
        }
        let mut call = self.call(channel, request);
        let mut responses = loop {
            tokio::select! {
                response = &mut call => break response?.into_inner(),
                command = self.commands.recv() => self.forward(command, &outbox)?,
                () = self.events.closed() => return Err(Ended::Unwanted),
            }
        };
        self.tell(Event::Connected).await?;
        loop {
            tokio::select! {
                response = responses.next() => {
                    let response = response.ok_or(Ended::Closed)??;
                    self.config.backoff.reset();
                    let update = self.subscriptions.on_response(response);
                    self.deliver(update, &outbox).await?;
                }
                command = self.commands.recv() => self.forward(command, &outbox)?,
                () = self.events.closed() => return Err(Ended::Unwanted),
            }
        }
    }

    fn call(
        &self,
        channel: Channel,
        request: Request<UnboundedReceiverStream<DeltaDiscoveryRequest>>,
    ) -> Call {
        match self.config.service {
            Service::Aggregated => Box::pin(async move {
                let client = AggregatedDiscoveryServiceClient::new(channel);
                client.max_decoding_message_size(LARGEST).delta_aggregated_resources(request).await
            }),
            Service::Secrets => {
                Box::pin(
                    async move { SecretDiscoveryServiceClient::new(channel).delta_secrets(request).await },
                )
            }
        }
    }

    /// Hands an update to the consumer, taking its commands meanwhile.
    async fn deliver(
        &mut self,
        update: Update,
        outbox: &mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    ) -> Result<(), Ended> {
        loop {
            tokio::select! {
                permit = self.events.reserve() => {
                    permit.map_err(|_| Ended::Unwanted)?.send(Event::Update(update));
                    return Ok(());
                }
                command = self.commands.recv() => {
                    let command = command.ok_or(Ended::Unwanted)?;
                    if let Some(request) = apply(&mut self.subscriptions, command) {
                        send(outbox, request)?;
                    }
                }
            }
        }
    }

    async fn tell(&self, event: Event) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended::Unwanted)
    }

    fn forward(
        &mut self,
        command: Option<Command>,
        outbox: &mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    ) -> Result<(), Ended> {
        match self.apply(command.ok_or(Ended::Unwanted)?) {
            Some(request) => send(outbox, request),
            None => Ok(()),
        }
    }

    fn apply(&mut self, command: Command) -> Option<DeltaDiscoveryRequest> {
        apply(&mut self.subscriptions, command)
    }
}

fn apply(subscriptions: &mut Subscriptions, command: Command) -> Option<DeltaDiscoveryRequest> {
    match command {
        Command::Subscribe(type_url, names) => subscriptions.subscribe(&type_url, names),
        Command::Unsubscribe(type_url, names) => subscriptions.unsubscribe(&type_url, names),
        Command::Ack(update) => Some(subscriptions.ack(&update)),
        Command::Nack(update, rejections) => Some(subscriptions.nack(&update, &rejections)),
    }
}

fn send(
    outbox: &mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    request: DeltaDiscoveryRequest,
) -> Result<(), Ended> {
    outbox.send(request).map_err(|_| Ended::Closed)
}
