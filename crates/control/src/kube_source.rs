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
            let mut health = Health { kind, failing: None };
            while let Some(event) = events.next().await {
                health.tell(&event);
                if inputs.send(Input { cluster: (*cluster).clone(), kind, event }).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Whether a watch works: what changes is said once.
struct Health {
    kind: Watched,
    failing: Option<String>,
}

impl Health {
    fn tell(&mut self, event: &WatchEvent) {
        let plural = self.kind.resource().plural;
        match event {
            WatchEvent::Failed(reason) if self.failing.as_ref() == Some(reason) => {}
            WatchEvent::Failed(reason) => {
                tracing::warn!(target: "kube", "watch of {plural}: {reason}; what is known stays, trying again");
                self.failing = Some(reason.clone());
            }
            _ => {
                if self.failing.take().is_some() {
                    tracing::info!(target: "kube", "watch of {plural} works again");
                }
            }
        }
    }
}
