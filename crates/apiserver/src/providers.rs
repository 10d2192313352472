//! What the server asks of the local cluster: logs of pods, and addresses of services for webhooks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use parking_lot::RwLock;

use crate::status::Status;

/// Query parameters of `pods/log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod; it exists.
    pub pod: String,
    /// Container; the server fills in the only or default one and refuses unknown ones.
    pub container: String,
    /// Goes on with what is written later.
    pub follow: bool,
    /// The container's run before the current one.
    pub previous: bool,
    /// Only so many lines of what is there.
    pub tail_lines: Option<u64>,
    /// Only so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only lines younger than so many seconds.
    pub since_seconds: Option<u64>,
    /// Each line starts with its time in RFC 3339.
    pub timestamps: bool,
}

/// Log content, in pieces of any size.
pub type LogStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Gives the logs of pods.
#[async_trait]
pub trait PodLogs: Send + Sync {
    /// Opens a container's log. With `follow` the stream ends with the container.
    async fn open(&self, request: LogRequest) -> Result<LogStream, Status>;
}

/// Where a webhook's service listens.
#[async_trait]
pub trait ServiceResolver: Send + Sync {
    /// An address at which the port of the service is reached from this process.
    async fn resolve(
        &self,
        namespace: &str,
        service: &str,
        port: u16,
    ) -> Result<std::net::SocketAddr, Status>;
}

/// Set after the server has started, by the parts that need its client first.
#[derive(Default)]
pub(crate) struct Providers {
    logs: RwLock<Option<Arc<dyn PodLogs>>>,
    services: RwLock<Option<Arc<dyn ServiceResolver>>>,
}

impl Providers {
    pub(crate) fn set_logs(&self, logs: Arc<dyn PodLogs>) {
        *self.logs.write() = Some(logs);
    }

    pub(crate) fn set_services(&self, services: Arc<dyn ServiceResolver>) {
        *self.services.write() = Some(services);
    }

    pub(crate) fn logs(&self) -> Result<Arc<dyn PodLogs>, Status> {
        self.logs.read().clone().ok_or_else(|| Status::not_supported("pods/log without a node agent"))
    }

    pub(crate) fn services(&self) -> Option<Arc<dyn ServiceResolver>> {
        self.services.read().clone()
    }
}
