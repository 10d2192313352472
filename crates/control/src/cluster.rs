//! What the control plane asks of its cluster, beside watching it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use futures::future::BoxFuture;
use lateen_base::ObjectRef;
use lateen_kube::{Client, KubeError, Patch, ResourceKind, TokenIdentity};
use serde_json::{Value, json};

use crate::input::Watched;
use crate::roots::{ROOT_MAP, RootWrite};
use crate::settings::{Retry, Settings};

/// Data of a secret, decoded.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// What is known of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// There is one, with this uid.
    Here(String),
    /// There is none.
    Gone,
    /// It may not be read, for this reason.
    Hidden(String),
}

/// The requests that a control plane makes. Errors are words for the log.
pub trait Cluster: Send + Sync + 'static {
    /// Whose a token is that has one of the audiences; none when it is not good.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<TokenIdentity>, String>>;

    /// Whether a service account may list the secrets of its namespace.
    fn may_list_secrets<'a>(
        &'a self,
        namespace: &'a str,
        service_account: &'a str,
    ) -> BoxFuture<'a, Result<bool, String>>;

    /// A secret; none when there is none.
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretData>, String>>;

    /// Creates a secret; false when it exists.
    fn create_secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        kind: &'a str,
        data: SecretData,
    ) -> BoxFuture<'a, Result<bool, String>>;

    /// The uid of a `ClusterRole`.
    fn role<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Role, String>>;

    /// Writes the ConfigMap of the root certificate into a namespace. Nothing is done, and nothing is wrong, where
    /// somebody wrote it meanwhile or the namespace is going: the watches tell.
    fn publish_root<'a>(&'a self, namespace: &'a str, write: RootWrite) -> BoxFuture<'a, Result<(), String>>;

    /// Replaces a webhook configuration.
    fn replace_webhook(&self, object: Value) -> BoxFuture<'_, Result<(), String>>;

    /// Merges into the status of an Istio object.
    fn patch_status<'a>(&'a self, object: &'a ObjectRef, status: Value) -> BoxFuture<'a, Result<(), String>>;
}

/// Waits for an answer, but not for ever: a server that hangs is one that failed.
pub(crate) async fn within<T>(
    settings: &Settings,
    request: BoxFuture<'_, Result<T, String>>,
) -> Result<T, String> {
    let limit = settings.retry.answer_within;
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer of the API server within {limit:?}")),
    }
}

/// The waits between tries: each twice the one before.
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(retry: Retry) -> Self {
        Self { next: retry.first, longest: retry.longest }
    }

    /// How long to wait now.
    pub(crate) fn next(&mut self) -> Duration {
        let now = self.next.min(self.longest);
        self.next = now.saturating_mul(2);
        now
    }
}

impl Cluster for Client {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
    ) -> BoxFuture<'a, Result<Option<TokenIdentity>, String>> {
        Box::pin(async move {
            let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
            self.review_token(token, &audiences).await.map_err(|e| e.to_string())
        })
    }

    fn may_list_secrets<'a>(
        &'a self,
        namespace: &'a str,
        service_account: &'a str,
    ) -> BoxFuture<'a, Result<bool, String>> {
        Box::pin(async move {
            Client::may_list_secrets(self, namespace, service_account).await.map_err(|e| e.to_string())
        })
    }

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretData>, String>> {
        Box::pin(async move {
            match self.get(&secrets(), namespace, name).await {
                Ok(secret) => decode(&secret).map(Some),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn create_secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        kind: &'a str,
        data: SecretData,
    ) -> BoxFuture<'a, Result<bool, String>> {
        let engine = base64::engine::general_purpose::STANDARD;
        let data: BTreeMap<String, String> =
            data.iter().map(|(k, v)| (k.clone(), engine.encode(v))).collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "namespace": namespace },
            "type": kind,
            "data": data,
        });
        Box::pin(async move {
            match self.create(&secrets(), namespace, object).await {
                Ok(_) => Ok(true),
                Err(error) if error.is_conflict() => Ok(false),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn role<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Role, String>> {
        Box::pin(async move {
            let kind =
                ResourceKind::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false);
            match self.get(&kind, "", name).await {
                Ok(role) => Ok(Role::Here(role["metadata"]["uid"].as_str().unwrap_or_default().to_owned())),
                Err(error) if error.is_not_found() => Ok(Role::Gone),
                Err(KubeError::Status { code: 403, message, .. }) => Ok(Role::Hidden(message)),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn publish_root<'a>(&'a self, namespace: &'a str, write: RootWrite) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let kind = Watched::RootMap.resource();
            let done = match write {
                RootWrite::Create(map) => self.create(&kind, namespace, map).await,
                RootWrite::Merge(patch) => self.patch(&kind, namespace, ROOT_MAP, &Patch::Merge(patch)).await,
            };
            match done {
                Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
                Err(KubeError::Status { code: 403, message, .. }) if message.contains("being terminated") => {
                    Ok(())
                }
                done => done.map(drop).map_err(|error| error.to_string()),
            }
        })
    }

    fn replace_webhook(&self, object: Value) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let kind = match object["kind"].as_str() {
                Some("ValidatingWebhookConfiguration") => Watched::Validator,
                _ => Watched::Webhook,
            };
            let kind = kind.resource();
            self.replace(&kind, "", &name, object).await.map(drop).map_err(|e| e.to_string())
        })
    }

    fn patch_status<'a>(&'a self, object: &'a ObjectRef, status: Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let kind = lateen_api::KINDS
                .iter()
                .find(|info| info.name == object.kind)
                .ok_or_else(|| format!("no kind {}", object.kind))?;
            let kind = Watched::Istio(kind.kind).resource();
            let patch = Patch::Merge(json!({ "status": status }));
            let done =
                Client::patch_status(self, &kind, object.namespace.as_str(), &object.name, &patch).await;
            match done {
                Err(error) if !error.is_not_found() => Err(error.to_string()),
                _ => Ok(()),
            }
        })
    }
}

fn secrets() -> ResourceKind {
    Watched::Secret.resource()
}

/// The data of a secret.
pub(crate) fn decode(secret: &Value) -> Result<SecretData, String> {
    let data = secret["data"].as_object().into_iter().flatten();
    data.map(|(key, value)| {
        let text = value.as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        bytes.map(|bytes| (key.clone(), bytes)).map_err(|e| format!("key {key}: {e}"))
    })
    .collect()
}
