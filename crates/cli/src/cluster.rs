//! The cluster that a command speaks to, by the common flags.

use std::future::Future;

use lateen_kube::{Access, Client, Discovery, KubeError, ResourceKind};

use crate::commands::CliError;
use crate::globals::Globals;

/// A client, with what the server knows.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) discovery: Discovery,
    /// The namespace that was asked for, else the context's.
    pub(crate) namespace: String,
}

impl From<KubeError> for CliError {
    fn from(error: KubeError) -> Self {
        Self::new(error)
    }
}

/// Runs a command's asynchronous part.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::new)?.block_on(work)
}

/// A client by the common flags.
pub(crate) async fn client(globals: &Globals) -> Result<Client, CliError> {
    Client::connect(&access(globals)).await.map_err(unconfigured)
}

/// A client that tells every failure at once.
pub(crate) async fn frank_client(globals: &Globals) -> Result<Client, CliError> {
    Client::connect_frankly(&access(globals)).await.map_err(unconfigured)
}

/// An answer of the server, within the time that one may take; a failure says what was asked.
pub(crate) async fn answer<T>(
    globals: &Globals,
    what: &str,
    request: impl Future<Output = Result<T, KubeError>>,
) -> Result<T, CliError> {
    let limit = globals.answer_within;
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(|error| CliError(format!("{what}: {}", error.in_full()))),
        Err(_) => Err(CliError(format!(
            "{what}: no answer of the API server within {} s. Is it up, and can it be reached from here?",
            limit.as_secs_f32()
        ))),
    }
}

fn access(globals: &Globals) -> Access {
    Access::Kubeconfig { path: globals.kubeconfig_file(), context: globals.context.clone() }
}

fn unconfigured(error: KubeError) -> CliError {
    CliError(format!(
        "{error}\nIs the cluster up? `lateen up --detach` starts one, `lateen env` says how to reach it."
    ))
}

impl Cluster {
    /// Connects, and asks what kinds there are.
    pub(crate) async fn connect(globals: &Globals) -> Result<Self, CliError> {
        let client = client(globals).await?;
        let discovery = Discovery::of(&client).await?;
        let namespace = globals.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        Ok(Self { client, discovery, namespace })
    }

    /// The kind of a name such as `vs` or `pods`.
    pub(crate) fn kind(&self, name: &str) -> Result<&ResourceKind, CliError> {
        self.discovery
            .by_name(name)
            .ok_or_else(|| CliError(format!("the server doesn't have a resource type {name:?}")))
    }
}
