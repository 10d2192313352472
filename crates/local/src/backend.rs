//! The embedded API server as the controllers' backend, and what it asks of the node in return.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use lateen_apiserver::{
    Client, DeleteOptions, LogRequest, LogStream, ResourceName, Selection, ServiceResolver, Status,
    WatchEvent,
};
use serde_json::Value;
use tokio::sync::watch;

use crate::api::{Api, ApiError, Backend, Collection, Deletion, Part, TokenRequest};
use crate::instant;
use crate::net::directory::DirectoryHandle;
use crate::node::PodLogs;
use crate::node::logs::{LogQuery, LogReader};

/// What the controllers and the node look at.
const WATCHED: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "serviceaccounts"),
    ("", "configmaps"),
    ("", "secrets"),
    ("", "services"),
    ("", "endpoints"),
    ("", "pods"),
    ("", "nodes"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
    ("autoscaling", "horizontalpodautoscalers"),
    ("policy", "poddisruptionbudgets"),
    ("discovery.k8s.io", "endpointslices"),
];

/// How often a followed log is looked at.
const FOLLOW: Duration = Duration::from_millis(200);

/// The API server in this process.
pub(crate) struct Embedded {
    client: Client,
    changed: watch::Sender<u64>,
}

impl Embedded {
    /// Connects to the server, and follows its changes for as long as it runs.
    pub(crate) async fn connect(client: Client) -> Result<Arc<Self>, Status> {
        let this = Arc::new(Self { client: client.clone(), changed: watch::Sender::new(0) });
        for (group, plural) in WATCHED {
            let mut changes = client.watch(ResourceName::new(group, plural), &Selection::default()).await?;
            let changed = this.changed.clone();
            tokio::spawn(async move {
                while let Some(event) = changes.next().await {
                    if !matches!(event, WatchEvent::Synced(_)) {
                        changed.send_modify(|version| *version += 1);
                    }
                }
            });
        }
        Ok(this)
    }
}

fn name(collection: Collection) -> ResourceName {
    ResourceName::new(collection.group, collection.resource)
}

fn refused(status: Status) -> ApiError {
    let text = status.message.clone();
    if status.is_not_found() {
        ApiError::NotFound(text)
    } else if status.is_conflict() || status.is_already_exists() {
        ApiError::Conflict(text)
    } else {
        ApiError::Other(text)
    }
}

#[async_trait]
impl Backend for Embedded {
    async fn list(&self, collection: Collection, namespace: Option<&str>) -> Vec<Value> {
        let selection = Selection { namespace: namespace.map(str::to_owned), ..Selection::default() };
        match self.client.list(name(collection), &selection).await {
            Ok(list) => list.items,
            Err(status) => {
                tracing::warn!(resource = collection.resource, error = status.message, "cannot list");
                Vec::new()
            }
        }
    }

    async fn get(&self, collection: Collection, namespace: Option<&str>, object: &str) -> Option<Value> {
        self.client.get(name(collection), namespace, object).await.ok()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    async fn create(&self, collection: Collection, object: Value) -> Result<Value, ApiError> {
        self.client.create(name(collection), object).await.map_err(refused)
    }

    async fn replace(&self, collection: Collection, object: Value, part: Part) -> Result<Value, ApiError> {
        let done = match part {
            Part::Whole => self.client.update(name(collection), object).await,
            Part::Status => self.client.update_status(name(collection), object).await,
        };
        done.map_err(refused)
    }

    async fn delete(&self, deletion: Deletion) -> Result<(), ApiError> {
        let options = DeleteOptions {
            grace_period_seconds: deletion.grace.and_then(|grace| u64::try_from(grace).ok()),
            uid: deletion.uid,
            ..DeleteOptions::default()
        };
        let namespace = deletion.namespace.as_deref();
        self.client
            .delete(name(deletion.collection), namespace, &deletion.name, options)
            .await
            .map_err(refused)
    }

    async fn token(&self, request: TokenRequest) -> Result<String, ApiError> {
        let wanted = lateen_apiserver::TokenRequest {
            audiences: request.audience.into_iter().collect(),
            expiration_seconds: Some(request.lifetime.as_secs()),
            pod: Some(request.pod),
        };
        let issued = self.client.service_account_token(&request.namespace, &request.account, wanted).await;
        issued.map(|token| token.token).map_err(refused)
    }
}

/// Webhooks' services are reached at an endpoint, not through their address: its port may need a privilege.
pub(crate) struct Resolver(pub(crate) DirectoryHandle);

#[async_trait]
impl ServiceResolver for Resolver {
    async fn resolve(&self, namespace: &str, service: &str, port: u16) -> Result<SocketAddr, Status> {
        let found = self.0.borrow().endpoint(namespace, service, port);
        found.ok_or_else(|| {
            Status::new(
                503,
                "ServiceUnavailable",
                format!(
                    "no endpoints available for service \"{service}\" in namespace {namespace}, port {port}"
                ),
            )
        })
    }
}

/// Logs for `kubectl logs`.
pub(crate) struct Logs {
    pub(crate) api: Api,
    pub(crate) logs: PodLogs,
}

#[async_trait]
impl lateen_apiserver::PodLogs for Logs {
    async fn open(&self, request: LogRequest) -> Result<LogStream, Status> {
        let pod = self.api.get::<Pod>(Some(&request.namespace), &request.pod).await;
        let pod = pod.ok_or_else(|| Status::not_found("pods", &request.pod))?;
        let since = request.since.map(instant::of);
        let query = LogQuery {
            tail: request.tail_lines.and_then(|lines| usize::try_from(lines).ok()),
            since,
            timestamps: request.timestamps,
        };
        let opened = self.logs.open(&pod, &request.container, request.previous, query);
        let reader = opened.map_err(Status::bad_request)?;
        let follower = Follower {
            api: self.api.clone(),
            request: request.clone(),
            uid: pod.metadata.uid.clone(),
            reader,
            left: request.limit_bytes,
            state: Progress::Beginning,
            ready: VecDeque::new(),
        };
        Ok(Box::pin(futures::stream::unfold(follower, Follower::step)))
    }
}

/// A log on its way to a reader.
struct Follower {
    api: Api,
    request: LogRequest,
    uid: Option<String>,
    reader: LogReader,
    left: Option<u64>,
    state: Progress,
    ready: VecDeque<io::Result<Bytes>>,
}

enum Progress {
    Beginning,
    Following,
    /// The container has ended: what is there is read, then no more.
    Last,
    Done,
}

impl Follower {
    async fn step(mut self) -> Option<(io::Result<Bytes>, Self)> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some((piece, self));
            }
            match self.state {
                Progress::Beginning => {
                    self.state = if self.request.follow { Progress::Following } else { Progress::Done };
                    let read = self.reader.begin();
                    self.queue(read);
                }
                Progress::Following => {
                    tokio::time::sleep(FOLLOW).await;
                    if !self.runs().await {
                        self.state = Progress::Last;
                    }
                    let read = self.reader.more();
                    self.queue(read);
                }
                Progress::Last => {
                    self.state = Progress::Done;
                    let read = self.reader.more();
                    self.queue(read);
                }
                Progress::Done => return None,
            }
        }
    }

    fn queue(&mut self, read: io::Result<Vec<u8>>) {
        let piece = match read {
            Ok(mut bytes) => {
                if let Some(left) = &mut self.left {
                    bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= bytes.len() as u64;
                    if *left == 0 {
                        self.state = Progress::Done;
                    }
                }
                if bytes.is_empty() {
                    return;
                }
                Ok(Bytes::from(bytes))
            }
            Err(error) => {
                self.state = Progress::Done;
                Err(error)
            }
        };
        self.ready.push_back(piece);
    }

    /// Whether the container can still write.
    async fn runs(&self) -> bool {
        let Some(pod) = self.api.get::<Pod>(Some(&self.request.namespace), &self.request.pod).await else {
            return false;
        };
        let statuses = pod.status.iter().flat_map(|status| {
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
        });
        let own = statuses.into_iter().find(|status| status.name == self.request.container);
        pod.metadata.uid == self.uid
            && own.is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
    }
}
