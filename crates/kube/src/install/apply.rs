//! One object onto the server.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{InstallError, Installer, MANAGER, key, kind_of};
use crate::{Client, KubeError, Patch, ResourceKind};

/// How often a request is tried that fails for a reason that passes.
pub(super) const ATTEMPTS: u32 = 5;
/// The wait before the second try, where the server names none; it doubles.
const BACKOFF: Duration = Duration::from_millis(200);
/// The longest wait that a server may ask for.
const LONGEST: Duration = Duration::from_secs(60);

impl Installer {
    /// Creates the object, or changes it to what it says.
    pub(super) async fn apply(&self, object: &Value) -> Result<(), InstallError> {
        let Some(kind) = object["kind"].as_str().and_then(kind_of) else {
            return Err(InstallError::UnknownKind { object: key(object) });
        };
        let applied = self.retried("applying", &key(object), || self.apply_kind(&kind, object)).await;
        applied.map_err(|source| InstallError::Refused { action: "applying", object: key(object), source })
    }

    /// Asks again where the reason of a failure passes: an overloaded or restarting server, one that does not answer.
    pub(super) async fn retried<T, F: Future<Output = Result<T, KubeError>>>(
        &self,
        action: &'static str,
        object: &str,
        ask: impl Fn() -> F,
    ) -> Result<T, KubeError> {
        let mut backoff = BACKOFF;
        let mut attempt = 1;
        loop {
            let error = match timeout(self.answer_within, ask()).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => error,
                Err(_) => {
                    KubeError::Transport(format!("no answer within {} s", self.answer_within.as_secs_f32()))
                }
            };
            let wait = error.retry_after().unwrap_or(backoff);
            // Somebody wrote it between our reading and writing: what it is now is read again.
            let passes = error.is_passing() || error.is_conflict();
            if attempt == ATTEMPTS || !passes || wait > LONGEST {
                return Err(error);
            }
            (self.waits)(&format!(
                "{action} {object}: {error}; again in {} s (try {attempt} of {ATTEMPTS})",
                wait.as_secs_f32()
            ));
            sleep(wait).await;
            backoff *= 2;
            attempt += 1;
        }
    }
}

impl Installer {
    async fn apply_kind(&self, kind: &ResourceKind, object: &Value) -> Result<(), KubeError> {
        let client = &self.client;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut object = object.clone();
        let webhooks = kind.kind.ends_with("WebhookConfiguration");
        let found = match webhooks {
            true => existing(client, kind, namespace, name).await?,
            false => None,
        };
        if let Some(found) = &found {
            keep_webhooks(&mut object, found);
        }
        if self.server_side.load(Ordering::Relaxed) {
            match client.apply_owned(kind, namespace, MANAGER, &object).await {
                // A server that does not know it.
                Err(KubeError::Status { code: 405 | 415 | 501, .. }) => {
                    self.server_side.store(false, Ordering::Relaxed)
                }
                done => return done.map(drop),
            }
        }
        match client.create(kind, namespace, object.clone()).await {
            Err(error) if error.is_conflict() => {}
            done => return done.map(drop),
        }
        if kind.kind == "Service"
            && let Some(found) = existing(client, kind, namespace, name).await?
        {
            keep_node_ports(&mut object, &found);
        }
        client.patch(kind, namespace, name, &Patch::Merge(object)).await.map(drop)
    }
}

async fn existing(
    client: &Client,
    kind: &ResourceKind,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, KubeError> {
    match client.get(kind, namespace, name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Keeps what the control plane has put into webhooks: its bundle, and the policy that holds while it is there.
fn keep_webhooks(object: &mut Value, found: &Value) {
    for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
        let same = |known: &&Value| known["name"] == webhook["name"];
        let Some(known) = found["webhooks"].as_array().into_iter().flatten().find(same) else { continue };
        let bundle = &known["clientConfig"]["caBundle"];
        if webhook["clientConfig"]["caBundle"].is_null() && !bundle.is_null() {
            webhook["clientConfig"]["caBundle"] = bundle.clone();
        }
        if webhook["failurePolicy"] == "Ignore" && known["failurePolicy"] == "Fail" {
            webhook["failurePolicy"] = json!("Fail");
        }
    }
}

/// Node ports that the server chose stay what they are; a merge patch would take them away with the list.
fn keep_node_ports(object: &mut Value, found: &Value) {
    if object["spec"]["type"] == "ClusterIP" {
        return;
    }
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        let same = |known: &&Value| known["port"] == port["port"];
        let known = found["spec"]["ports"].as_array().into_iter().flatten().find(same);
        if let Some(known) = known.filter(|known| port["nodePort"].is_null() && !known["nodePort"].is_null())
        {
            port["nodePort"] = known["nodePort"].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_control_plane_has_put_into_a_webhook_stays() {
        let mut object = json!({ "webhooks": [
            { "name": "a", "clientConfig": {}, "failurePolicy": "Ignore" },
            { "name": "b", "clientConfig": {}, "failurePolicy": "Ignore" },
        ]});
        let found = json!({ "webhooks": [
            { "name": "a", "clientConfig": { "caBundle": "x" }, "failurePolicy": "Fail" },
        ]});
        keep_webhooks(&mut object, &found);
        assert_eq!(object["webhooks"][0], found["webhooks"][0]);
        assert_eq!(object["webhooks"][1]["failurePolicy"], "Ignore");
    }

    #[test]
    fn node_ports_stay() {
        let mut object = json!({ "spec": { "ports": [{ "port": 80 }, { "port": 443, "nodePort": 1 }] } });
        let found = json!({ "spec": { "ports": [{ "port": 80, "nodePort": 30080 }, { "port": 443, "nodePort": 2 }] } });
        keep_node_ports(&mut object, &found);
        assert_eq!(
            object["spec"]["ports"],
            json!([{ "port": 80, "nodePort": 30080 }, { "port": 443, "nodePort": 1 }])
        );
    }
}
