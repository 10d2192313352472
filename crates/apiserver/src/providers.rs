//! What the server asks of the local cluster: logs of pods, commands and connections in them, and addresses of services
//! for webhooks.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

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
    /// Only lines printed since then.
    pub since: Option<std::time::SystemTime>,
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

/// A command to run in a container (`pods/exec`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod; it exists.
    pub pod: String,
    /// Container; the pod has it.
    pub container: String,
    /// The command and its arguments; there is a command.
    pub command: Vec<String>,
    /// Something will be written to its standard input.
    pub stdin: bool,
    /// It gets a terminal.
    pub tty: bool,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Width.
    pub columns: u16,
    /// Height.
    pub rows: u16,
}

/// Reads what a command prints.
pub type BoxRead = Pin<Box<dyn AsyncRead + Send>>;

/// Writes what a command reads. Dropping it is the end of its input.
pub type BoxWrite = Pin<Box<dyn AsyncWrite + Send>>;

/// A command that runs. Dropping it ends the command.
pub struct RunningCommand {
    /// Its standard input, when it was asked for.
    pub stdin: Option<BoxWrite>,
    /// Its standard output; with a terminal all its output.
    pub stdout: Option<BoxRead>,
    /// Its standard error; none with a terminal.
    pub stderr: Option<BoxRead>,
    /// Takes the sizes of the client's terminal.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Its exit status; 128 and the signal's number when a signal has ended it.
    pub exit: Pin<Box<dyn Future<Output = Result<i32, Status>> + Send>>,
}

/// A connection to a port of a pod.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Runs commands in pods and connects to their ports.
#[async_trait]
pub trait PodStreams: Send + Sync {
    /// Starts a command. The refusal is what kubectl prints.
    async fn exec(&self, request: CommandRequest) -> Result<RunningCommand, Status>;

    /// The standard input of a running container that has one (`stdin: true`). The end of what is written is the client's;
    /// whether it is the container's, `stdinOnce` says.
    async fn input(&self, namespace: &str, pod: &str, container: &str) -> Result<BoxWrite, Status>;

    /// Connects to the port as a process in the pod would by `localhost`.
    async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<Box<dyn Connection>, Status>;
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
    streams: RwLock<Option<Arc<dyn PodStreams>>>,
    services: RwLock<Option<Arc<dyn ServiceResolver>>>,
}

impl Providers {
    pub(crate) fn set_logs(&self, logs: Arc<dyn PodLogs>) {
        *self.logs.write() = Some(logs);
    }

    pub(crate) fn set_streams(&self, streams: Arc<dyn PodStreams>) {
        *self.streams.write() = Some(streams);
    }

    pub(crate) fn set_services(&self, services: Arc<dyn ServiceResolver>) {
        *self.services.write() = Some(services);
    }

    pub(crate) fn logs(&self) -> Result<Arc<dyn PodLogs>, Status> {
        self.logs.read().clone().ok_or_else(|| Status::not_supported("pods/log without a node agent"))
    }

    pub(crate) fn streams(&self) -> Result<Arc<dyn PodStreams>, Status> {
        let streams = self.streams.read().clone();
        streams.ok_or_else(|| Status::not_supported("running commands in pods without a node agent"))
    }

    pub(crate) fn services(&self) -> Option<Arc<dyn ServiceResolver>> {
        self.services.read().clone()
    }
}
