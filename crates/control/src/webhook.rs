//! The webhooks of injection and validation, and what keeps the API server calling them: the CA bundle by which it
//! trusts them, and the policy that nothing passes unseen while they are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use lateen_ca::Authority;
use lateen_kube::WatchEvent;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::{Backoff, Cluster, within};
use crate::engine::Published;
use crate::input::Watched;
use crate::settings::Settings;

type PublishedNow = watch::Receiver<Option<Arc<Published>>>;

/// Kubernetes' limit of an object, and room for the review around it.
const LARGEST_REVIEW: usize = 8 << 20;

/// The webhook's routes.
pub(crate) fn router(published: PublishedNow) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/inject/{*parameters}", post(inject))
        .route("/validate", post(validate))
        .route("/validate/{*parameters}", post(validate))
        .layer(DefaultBodyLimit::max(LARGEST_REVIEW))
        .with_state(published)
}

async fn inject(State(mut published): State<PublishedNow>, Json(review): Json<Value>) -> Json<Value> {
    // A pod that comes before the configuration is read would be injected by the defaults.
    let injector = match published.wait_for(Option::is_some).await {
        Ok(now) => now.as_ref().map(|published| published.mesh.injector.clone()),
        Err(_) => None,
    };
    let request = &review["request"];
    let answer = match injector {
        Some(settings) => lateen_inject::review(&review, &settings),
        None => refusal(&review, "the control plane is shutting down"),
    };
    let name = request["object"]["metadata"]["name"]
        .as_str()
        .or(request["object"]["metadata"]["generateName"].as_str())
        .unwrap_or_default();
    let verdict = match (answer["response"]["allowed"].as_bool(), answer["response"].get("patch")) {
        (Some(true), Some(_)) => "injected",
        (Some(true), None) => "left as it is",
        _ => "refused",
    };
    tracing::info!(
        target: "inject",
        "Sidecar injection request for {}/{name}: {verdict}",
        request["namespace"].as_str().unwrap_or_default()
    );
    Json(answer)
}

async fn validate(Json(review): Json<Value>) -> Json<Value> {
    let answer = lateen_api::admission::review(&review);
    if answer["response"]["allowed"] != true {
        let request = &review["request"];
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        tracing::info!(
            target: "validation",
            "refused {} {}/{}: {}",
            word(&request["kind"]["kind"]),
            word(&request["namespace"]),
            word(&request["name"]),
            word(&answer["response"]["status"]["message"])
        );
    }
    Json(answer)
}

fn refusal(review: &Value, message: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": false,
            "status": { "code": 503, "message": message },
        },
    })
}

/// The webhook configurations of the cluster, by kind and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Webhooks(BTreeMap<(Watched, String), Value>);

impl Webhooks {
    /// Takes in what a watch of the kind tells.
    pub(crate) fn take(&mut self, kind: Watched, event: WatchEvent) {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let there = match event {
            WatchEvent::Applied(object) => vec![object],
            WatchEvent::Deleted(object) => {
                self.0.remove(&(kind, name(&object)));
                vec![]
            }
            WatchEvent::Replaced(objects) => {
                self.0.retain(|(known, _), _| *known != kind);
                objects
            }
            WatchEvent::Failed(_) => vec![],
        };
        for mut object in there {
            // Items of a list do not say their kind.
            object["kind"] = json!(kind.resource().kind);
            self.0.insert((kind, name(&object)), object);
        }
    }

    /// Those of this control plane that are not as they should be, as they should be.
    fn amended(&self, settings: &Settings, bundle: &str) -> Vec<Value> {
        let service = settings.revisioned("istiod");
        self.0
            .values()
            .filter_map(|object| amended(object.clone(), &service, &settings.namespace, bundle))
            .collect()
    }
}

/// Keeps the webhook configurations of this control plane usable, for as long as it runs.
pub(crate) async fn keep_trusted(
    settings: Arc<Settings>,
    cluster: Arc<dyn Cluster>,
    mut authority: watch::Receiver<Arc<Authority>>,
    mut webhooks: watch::Receiver<Webhooks>,
) {
    let mut backoff = Backoff::new(settings.retry);
    loop {
        let bundle =
            base64::engine::general_purpose::STANDARD.encode(authority.borrow_and_update().root_pem());
        let wanting = webhooks.borrow_and_update().amended(&settings, &bundle);
        let mut failed = false;
        for object in wanting {
            let name = object["metadata"]["name"].clone();
            if let Err(reason) = within(&settings, cluster.replace_webhook(object)).await {
                tracing::warn!("CA bundle of the webhook configuration {name}: {reason}");
                failed = true;
            }
        }
        let changed = async {
            tokio::select! {
                changed = webhooks.changed() => changed,
                changed = authority.changed() => changed,
            }
        };
        let going_on = match failed {
            true => tokio::time::timeout(backoff.next(), changed).await.unwrap_or(Ok(())).is_ok(),
            false => {
                backoff = Backoff::new(settings.retry);
                changed.await.is_ok()
            }
        };
        if !going_on {
            return;
        }
    }
}

/// The configuration with the bundle in every webhook that is served here, and with validation that fails rather than
/// is left out; none when it is so already, or nothing of it is served here.
fn amended(mut object: Value, service: &str, namespace: &str, bundle: &str) -> Option<Value> {
    let validates = object["kind"] == "ValidatingWebhookConfiguration";
    let mut changed = false;
    for webhook in object["webhooks"].as_array_mut()? {
        let client = &mut webhook["clientConfig"];
        if client["service"]["name"] != service || client["service"]["namespace"] != namespace {
            continue;
        }
        if client["caBundle"] != bundle {
            client["caBundle"] = json!(bundle);
            changed = true;
        }
        if validates && webhook["failurePolicy"] != "Fail" {
            webhook["failurePolicy"] = json!("Fail");
            changed = true;
        }
    }
    changed.then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(kind: &str, service: &str) -> Value {
        let client = json!({ "service": { "name": service, "namespace": "istio-system" } });
        json!({
            "kind": kind,
            "metadata": { "name": "a" },
            "webhooks": [{ "clientConfig": client, "failurePolicy": "Ignore" }],
        })
    }

    #[test]
    fn webhooks_that_are_served_here_are_amended_once() {
        let amend = |object: Value| amended(object, "istiod", "istio-system", "new");
        let put = amend(configuration("MutatingWebhookConfiguration", "istiod")).unwrap();
        assert_eq!(put["webhooks"][0]["clientConfig"]["caBundle"], "new");
        assert_eq!(put["webhooks"][0]["failurePolicy"], "Ignore");
        assert!(amend(put).is_none());
        let put = amend(configuration("ValidatingWebhookConfiguration", "istiod")).unwrap();
        assert_eq!(put["webhooks"][0]["failurePolicy"], "Fail");
        assert!(amend(configuration("MutatingWebhookConfiguration", "istiod-canary")).is_none());
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut webhooks = Webhooks::default();
        let settings = Settings::default();
        let object = configuration("MutatingWebhookConfiguration", "istiod");
        webhooks.take(Watched::Webhook, WatchEvent::Replaced(vec![object.clone()]));
        webhooks.take(Watched::Validator, WatchEvent::Applied(object.clone()));
        assert_eq!(webhooks.amended(&settings, "new").len(), 2);
        webhooks.take(Watched::Webhook, WatchEvent::Replaced(vec![]));
        webhooks.take(Watched::Validator, WatchEvent::Deleted(object));
        assert!(webhooks.amended(&settings, "new").is_empty());
    }
}
