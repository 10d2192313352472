//! A rendered installation onto an API server, and off again.
//!
//! What is installed carries labels ([`OWNER_LABEL`] and others); what an installation owned before and no longer has
//! is removed. Every step can be repeated: an installation that was interrupted is finished by installing again.

mod apply;
mod kinds;
mod ready;
mod remove;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::try_join_all;
use lateen_manifests::{
    Installation, InstallationError, OWNER_LABEL, Part, Rendered, namespaces, render, tags,
};
use serde_json::{Value, json};

pub use kinds::kind_of;
pub use remove::Removal;

use crate::{Client, KubeError};

/// Under this name the installer owns fields (server-side apply).
const MANAGER: &str = "lateen-installer";

/// Why an installation is not complete.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The installation cannot be rendered.
    #[error(transparent)]
    Rendering(#[from] InstallationError),
    /// The server refused an object.
    #[error(
        "{action} {object}: {}\n{}\nWhat was done so far stays; the same command goes on from here.",
        .source.in_full(), advice(.source)
    )]
    Refused {
        /// What was asked.
        action: &'static str,
        /// `Kind:namespace:name`.
        object: String,
        /// The answer.
        source: KubeError,
    },
    /// An object of a kind that no installation has.
    #[error("{object}: this kind of object is not known to the installer")]
    UnknownKind {
        /// `Kind:namespace:name`.
        object: String,
    },
    /// Something does not become ready.
    #[error("not ready after {} s:\n{what}\nThe objects stay; the same command goes on waiting.", .patience.as_secs())]
    NotReady {
        /// How long was waited.
        patience: Duration,
        /// Every deployment that is not ready, its pods, what they say.
        what: String,
    },
}

/// What happens, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A part is being installed.
    Installing(Part),
    /// A part is installed and ready.
    Installed(Part),
    /// This object has to become ready: `Kind:namespace:name`.
    Waiting(String),
    /// What is no longer wanted is being removed.
    Pruning,
    /// An object was removed: `Kind:namespace:name`.
    Removed(String),
    /// This revision now serves `istio-injection=enabled`, because none did.
    MadeDefault,
}

/// Installs and uninstalls by a client.
#[derive(Clone)]
pub struct Installer {
    client: Client,
    /// How long readiness is waited for; none: not at all.
    patience: Option<Duration>,
    /// Whether the server merges by itself; found out at the first object.
    server_side: Arc<AtomicBool>,
    /// How long one answer may take.
    answer_within: Duration,
    /// Hears why the server is asked again, and when.
    waits: Arc<dyn Fn(&str) + Send + Sync>,
}

/// How long an answer may take when nobody says.
const ANSWER: Duration = Duration::from_secs(15);

/// What an operator can do about a failure.
fn advice(error: &KubeError) -> String {
    let tried = apply::ATTEMPTS;
    match error {
        KubeError::Status { code: 401, .. } => {
            "The server does not know who asks: are the credentials of the kubeconfig's context current?".into()
        }
        KubeError::Status { code: 403, .. } => {
            "An installation takes the rights of a cluster administrator: `lateen x precheck` lists what is missing."
                .into()
        }
        KubeError::Status { code: 429, .. } => {
            format!("The server is overloaded; it was asked up to {tried} times. Try again later.")
        }
        KubeError::Status { code: 500..=599, .. } => {
            format!("The server failed, {tried} times if it named no long wait; its own log says why.")
        }
        KubeError::Status { .. } => "The server refuses this object as it is.".into(),
        KubeError::Transport(_) => {
            format!("It was tried {tried} times: is the server up, and can it be reached from here?")
        }
        KubeError::Config(_) => "The kubeconfig has to be put right.".into(),
    }
}

impl Installer {
    /// An installer that waits this long for readiness, or not at all.
    pub fn new(client: Client, patience: Option<Duration>) -> Self {
        Self {
            client,
            patience,
            server_side: Arc::new(AtomicBool::new(true)),
            answer_within: ANSWER,
            waits: Arc::new(|_| ()),
        }
    }

    /// With this limit for one answer of the server, and somebody who hears why it is asked again.
    #[must_use]
    pub fn asking(mut self, answer_within: Duration, waits: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.answer_within = answer_within;
        self.waits = Arc::new(waits);
        self
    }

    /// Installs, waits until each part is ready, and removes what the installation owned before and no longer has.
    ///
    /// # Errors
    /// The first object that is refused, or what does not become ready. Doing it again goes on.
    pub async fn install(
        &self,
        installation: &Installation,
        tell: &(dyn Fn(Step) + Sync),
    ) -> Result<(), InstallError> {
        let parts = render(installation)?;
        for namespace in namespaces(&parts) {
            self.ensure_namespace(&namespace, &installation.network()).await?;
        }
        let (gateways, first): (Vec<&Rendered>, Vec<&Rendered>) =
            parts.iter().partition(|part| matches!(part.part, Part::IngressGateways | Part::EgressGateways));
        for part in first {
            self.part(part, tell).await?;
        }
        try_join_all(gateways.into_iter().map(|part| self.part(part, tell))).await?;
        if installation.prunes() {
            self.prune(installation, &parts, tell).await?;
        }
        if parts.iter().any(|part| part.part == Part::Pilot) {
            self.default_revision(installation, tell).await?;
        }
        Ok(())
    }

    /// Creates the objects, or changes them to what they say, one after the other.
    ///
    /// # Errors
    /// The first object that is refused.
    pub async fn apply_all(&self, objects: &[Value]) -> Result<(), InstallError> {
        for object in objects {
            self.apply(object).await?;
        }
        Ok(())
    }

    async fn part(&self, part: &Rendered, tell: &(dyn Fn(Step) + Sync)) -> Result<(), InstallError> {
        tell(Step::Installing(part.part));
        // Definitions before their kinds are used, permissions before what needs them, webhooks when all the rest is
        // there: objects come in that order, each group of a kind at once.
        for group in part.objects.chunk_by(|a, b| a["kind"] == b["kind"]) {
            try_join_all(group.iter().map(|object| self.apply(object))).await?;
        }
        if let Some(patience) = self.patience {
            self.ready(&part.objects, patience, tell).await?;
        }
        tell(Step::Installed(part.part));
        Ok(())
    }

    async fn ensure_namespace(&self, name: &str, network: &str) -> Result<(), InstallError> {
        let mut namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        if !network.is_empty() {
            namespace["metadata"]["labels"] = json!({ "topology.istio.io/network": network });
        }
        let kind = kinds::namespace();
        let refused = |source| InstallError::Refused { action: "creating", object: key(&namespace), source };
        match self.retried("reading", &key(&namespace), || self.client.get(&kind, "", name)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => {
                let create = || self.client.create(&kind, "", namespace.clone());
                match self.retried("creating", &key(&namespace), create).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.is_conflict() => Ok(()),
                    Err(error) => Err(refused(error)),
                }
            }
            Err(error) => Err(refused(error)),
        }
    }

    /// A revision that is installed where none is the default becomes it.
    async fn default_revision(
        &self,
        installation: &Installation,
        tell: &(dyn Fn(Step) + Sync),
    ) -> Result<(), InstallError> {
        if installation.revision().is_empty() {
            return Ok(());
        }
        let tag = tags::Tag {
            name: tags::DEFAULT_TAG,
            revision: installation.revision(),
            namespace: installation.control_namespace(),
            bundle: None,
        };
        let kind = kinds::mutating();
        for name in ["istio-sidecar-injector", &tag.object_name()] {
            let object = format!("MutatingWebhookConfiguration::{name}");
            match self.retried("reading", &object, || self.client.get(&kind, "", name)).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => {}
                Err(source) => {
                    return Err(InstallError::Refused { action: "reading", object, source });
                }
            }
        }
        for object in tag.objects() {
            self.apply(&object).await?;
        }
        tell(Step::MadeDefault);
        Ok(())
    }
}

/// `Kind:namespace:name`.
pub fn key(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{}:{}:{}", word(&object["kind"]), word(&metadata["namespace"]), word(&metadata["name"]))
}

/// The owner of an object, by its label.
pub(crate) fn owner(object: &Value) -> Option<&str> {
    object["metadata"]["labels"][OWNER_LABEL].as_str()
}
