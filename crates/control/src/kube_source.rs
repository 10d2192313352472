//! The cluster as a source of inputs.

use std::sync::Arc;

use futures::StreamExt as _;
use lateen_kube::{Client, WatchEvent};
use tokio::sync::mpsc;

use crate::input::{Input, Watched};
use crate::settings::Settings;

/// How many inputs wait for the engine; beyond them the watches wait.
const WAITING: usize = 1024;

/// Watches everything; must be called within a tokio runtime. The watches end when the receiver is dropped.
pub fn watch(client: &Client, settings: &Settings) -> mpsc::Receiver<Input> {
    let (inputs, receiver) = mpsc::channel(WAITING);
    let cluster = Arc::new(settings.cluster.clone());
    for kind in Watched::all() {
        let events = client.watch(&kind.resource(), &kind.scope(settings));
        let (inputs, cluster) = (inputs.clone(), cluster.clone());
        tokio::spawn(async move {
            let mut events = Box::pin(events);
            while let Some(event) = events.next().await {
                if let WatchEvent::Failed(reason) = &event {
                    tracing::debug!(target: "kube", "watch of {}: {reason}", kind.resource().plural);
                }
                if inputs.send(Input { cluster: (*cluster).clone(), kind, event }).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}
