//! The one writer: takes in what happens, and publishes immutable pictures of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use lateen_api::Kind;
use lateen_base::ObjectRef;
use lateen_kube::WatchEvent;
use lateen_registry::{Event, Registry, Resource};
use lateen_translate::Snapshot;
use tokio::sync::{mpsc, watch};

use crate::authority::{self, SharedSecret};
use crate::debounce::Debounce;
use crate::ingest::Ingest;
use crate::input::{Input, Watched};
use crate::jwks::KeyBook;
use crate::mesh::Mesh;
use crate::roots::RootMaps;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::webhook::Webhooks;

/// Everything that the control plane knows, at one moment.
#[derive(Clone)]
pub(crate) struct Published {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) secrets: Secrets,
    pub(crate) mesh: Mesh,
    /// Objects whose newest version is not used, and why.
    pub(crate) rejected: Arc<BTreeMap<ObjectRef, String>>,
    /// Counts publications.
    pub(crate) number: u64,
}

/// Where the engine's words go. The first publication waits until every kind was listed.
pub(crate) struct Outlets {
    pub(crate) published: watch::Sender<Option<Arc<Published>>>,
    pub(crate) webhooks: watch::Sender<Webhooks>,
    pub(crate) roots: watch::Sender<RootMaps>,
    /// The secret of the authority.
    pub(crate) authority: watch::Sender<SharedSecret>,
    /// The kinds that were not listed yet.
    pub(crate) unlisted: watch::Sender<BTreeSet<Watched>>,
    /// Where the keys of token issuers are to be fetched from.
    pub(crate) key_addresses: watch::Sender<BTreeSet<String>>,
}

/// The state behind the publications.
pub(crate) struct Engine {
    settings: Arc<Settings>,
    registry: Registry,
    mesh: Mesh,
    secrets: Secrets,
    ingest: Ingest,
    keys: KeyBook,
    debounce: Debounce,
    unsynced: BTreeSet<Watched>,
    outlets: Outlets,
    number: u64,
}

impl Engine {
    pub(crate) fn new(settings: Arc<Settings>, outlets: Outlets) -> Self {
        let mesh = Mesh::default();
        Self {
            registry: Registry::new(mesh.registry_settings(&settings)),
            mesh,
            secrets: Secrets::default(),
            ingest: Ingest::default(),
            keys: KeyBook::default(),
            debounce: Debounce::new(settings.debounce),
            unsynced: Watched::all().into_iter().collect(),
            outlets,
            number: 0,
            settings,
        }
    }

    /// Runs until the source of inputs ends. `keys` brings what is at the addresses of keys.
    pub(crate) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut keys: mpsc::Receiver<(String, String)>,
    ) {
        loop {
            let due = self.debounce.due().filter(|_| self.unsynced.is_empty());
            tokio::select! {
                input = inputs.recv() => {
                    let Some(input) = input else { return };
                    self.take(input);
                    while let Ok(input) = inputs.try_recv() {
                        self.take(input);
                    }
                }
                Some((uri, text)) = keys.recv() => self.take_keys(uri, text),
                () = sleep_until(due) => self.publish(),
            }
        }
    }

    fn take(&mut self, input: Input) {
        let Input { cluster, kind, event } = input;
        if is_listing(kind, &event) && self.unsynced.remove(&kind) {
            self.outlets.unlisted.send_replace(self.unsynced.clone());
            if self.unsynced.is_empty() {
                tracing::info!(target: "model", "all kinds are listed");
                self.debounce.changed(Instant::now());
            }
        }
        let changed = match kind {
            Watched::Secret => {
                if let Some(data) = authority::told(&event, &self.settings.namespace) {
                    self.outlets.authority.send_replace(Some(data));
                }
                self.secrets.take(&event)
            }
            Watched::ConfigMap => self.take_maps(event),
            Watched::RootMap => {
                self.outlets.roots.send_modify(|maps| maps.take(event));
                false
            }
            Watched::Webhook | Watched::Validator => self.take_webhooks(kind, event),
            kind => {
                let view = self.registry.view();
                let rejected = self.ingest.rejected().len();
                let event = self.ingest.event(kind, event, &view, &self.settings);
                let event = event.map(|event| self.keys.fill(event));
                let changes = event.map(|event| self.registry.apply(&cluster, event)).unwrap_or_default();
                if kind == Watched::Istio(Kind::RequestAuthentication) {
                    self.want_keys();
                }
                !changes.is_empty() || self.ingest.rejected().len() != rejected
            }
        };
        if changed {
            self.debounce.changed(Instant::now());
        }
    }

    fn want_keys(&mut self) {
        let wanted = self.keys.wanted(&self.registry.view());
        self.outlets.key_addresses.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    fn take_keys(&mut self, uri: String, text: String) {
        let changed = self.keys.learn(uri, text, &self.registry.view());
        for object in changed {
            let event = Event::Applied(Resource::Config(object));
            self.registry.apply(&self.settings.cluster, event);
            self.debounce.changed(Instant::now());
        }
    }

    fn take_maps(&mut self, event: WatchEvent) -> bool {
        let maps = match event {
            WatchEvent::Applied(map) => vec![map],
            WatchEvent::Replaced(maps) => maps,
            // A deleted map says nothing, so the last good word holds.
            WatchEvent::Deleted(_) | WatchEvent::Failed(_) => vec![],
        };
        let changed = maps.iter().fold(false, |changed, map| self.mesh.take(map, &self.settings) | changed);
        if changed {
            self.registry.configure(self.mesh.registry_settings(&self.settings));
        }
        changed
    }

    fn take_webhooks(&mut self, kind: Watched, event: WatchEvent) -> bool {
        self.outlets.webhooks.send_modify(|webhooks| webhooks.take(kind, event));
        false
    }

    fn rejected(&self) -> BTreeMap<ObjectRef, String> {
        let mut rejected = self.mesh.refused(&self.settings);
        rejected.extend(self.ingest.rejected().clone());
        rejected
    }

    fn publish(&mut self) {
        self.debounce.pushed(Instant::now());
        self.number += 1;
        let started = Instant::now();
        let previous = self.outlets.published.borrow().clone();
        let snapshot = Snapshot::build(
            self.mesh.config.clone(),
            self.mesh.networks.clone(),
            self.registry.settings(),
            self.registry.view(),
            previous.as_ref().map(|published| &*published.snapshot),
        );
        let published = Published {
            snapshot,
            secrets: self.secrets.clone(),
            mesh: self.mesh.clone(),
            rejected: Arc::new(self.rejected()),
            number: self.number,
        };
        tracing::debug!(target: "model", "snapshot {} took {:?}", self.number, started.elapsed());
        self.outlets.published.send_replace(Some(Arc::new(published)));
    }
}

/// Whether the event tells all there is of a kind. A server without one of Istio's kinds has none of it.
fn is_listing(kind: Watched, event: &WatchEvent) -> bool {
    match (kind, event) {
        (_, WatchEvent::Replaced(_)) => true,
        (
            Watched::Istio(_)
            | Watched::Webhook
            | Watched::Endpoints
            | Watched::Ingress
            | Watched::IngressClass,
            WatchEvent::Failed(reason),
        ) => reason.contains("404") || reason.to_ascii_lowercase().contains("not found"),
        _ => false,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
