//! The injection webhook, and the CA bundle by which the API server trusts it.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::{Backoff, Cluster, within};
use crate::engine::Published;
use crate::settings::Settings;

type PublishedNow = watch::Receiver<Option<Arc<Published>>>;

/// Kubernetes' limit of an object, and room for the review around it.
const LARGEST_REVIEW: usize = 8 << 20;

/// The webhook's routes.
pub(crate) fn router(published: PublishedNow) -> Router {
    Router::new()
        .route("/inject", post(inject))
        .route("/inject/{*parameters}", post(inject))
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

/// Keeps the CA bundle of the webhook configuration that of the mesh's root.
pub(crate) async fn keep_trusted(
    settings: Arc<Settings>,
    cluster: Arc<dyn Cluster>,
    root_pem: String,
    mut webhook: watch::Receiver<Option<Value>>,
) {
    let mut backoff = Backoff::new(settings.retry);
    let bundle = base64::engine::general_purpose::STANDARD.encode(root_pem);
    loop {
        let object = webhook.borrow_and_update().clone();
        let failed = match object.and_then(|object| with_bundle(object, &bundle)) {
            Some(object) => match within(&settings, cluster.replace_webhook(object)).await {
                Ok(()) => false,
                Err(reason) => {
                    tracing::warn!("CA bundle of the injection webhook: {reason}");
                    true
                }
            },
            None => false,
        };
        let changed = webhook.changed();
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

/// The configuration with the bundle in every webhook; none when it is there already.
fn with_bundle(mut object: Value, bundle: &str) -> Option<Value> {
    let mut changed = false;
    for webhook in object["webhooks"].as_array_mut()? {
        let there = &mut webhook["clientConfig"]["caBundle"];
        if there.as_str() != Some(bundle) {
            *there = json!(bundle);
            changed = true;
        }
    }
    changed.then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_put_once() {
        let object =
            json!({ "webhooks": [{ "clientConfig": {} }, { "clientConfig": { "caBundle": "old" } }] });
        let put = with_bundle(object, "new").unwrap();
        assert_eq!(put["webhooks"][0]["clientConfig"]["caBundle"], "new");
        assert_eq!(put["webhooks"][1]["clientConfig"]["caBundle"], "new");
        assert!(with_bundle(put, "new").is_none());
    }
}
