//! What proxies refuse, and what patches did, told to the authors of the objects it came from: on the object's status.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use lateen_base::ObjectRef;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3::Metadata;
use lateen_proto::envoy::config::listener::v3::Listener;
use lateen_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_proto::value::Kind as ValueKind;
use lateen_translate::Resource;
use lateen_xds::{Rejection, types};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::cluster::{Backoff, Cluster as KubeCluster, within};
use crate::ingest::kind_of_path;
use crate::proxies::Connected;
use crate::settings::Settings;

/// The condition on an object's status.
const CONDITION: &str = "lateen.dev/AcceptedByProxies";

/// What is refused now. Clones share it.
#[derive(Clone)]
pub(crate) struct Refusals {
    state: Arc<Mutex<State>>,
    news: mpsc::UnboundedSender<ObjectRef>,
}

/// Who refuses what of an object: by proxy, type and resource.
type ByProxy = BTreeMap<(String, String, String), String>;

#[derive(Default)]
struct State {
    of_object: BTreeMap<ObjectRef, ByProxy>,
    /// What the patches of each EnvoyFilter did, as a condition.
    patched: BTreeMap<ObjectRef, Value>,
    /// Whether policies do what they say, as a condition.
    policies: BTreeMap<ObjectRef, Value>,
}

impl Refusals {
    /// Starts the task that writes statuses.
    pub(crate) fn start(settings: Arc<Settings>, cluster: Arc<dyn KubeCluster>) -> Self {
        let (news, changed) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(State::default()));
        tokio::spawn(write_statuses(settings, state.clone(), changed, cluster));
        Self { state, news }
    }

    /// What a proxy refuses of a type now; what it refused before and does not any more is over.
    pub(crate) fn set(&self, connected: &Connected, type_url: &str, rejections: &[Rejection]) {
        self.forget(|(proxy, kind, _)| *proxy == connected.proxy.id && kind == type_url);
        let catalog = connected.catalog();
        for rejection in rejections {
            let Some(resource) = catalog.generated(type_url, &rejection.resource) else { continue };
            for object in objects_of(type_url, resource) {
                let key = (connected.proxy.id.clone(), type_url.to_owned(), rejection.resource.to_string());
                let mut state = self.lock();
                state.of_object.entry(object.clone()).or_default().insert(key, rejection.reason.clone());
                drop(state);
                self.tell(object);
            }
        }
    }

    /// What the patches of every EnvoyFilter did; what is as it was is not told again.
    pub(crate) fn set_patches(&self, conditions: BTreeMap<ObjectRef, Value>) {
        self.replace(|state| &mut state.patched, conditions);
    }

    /// Whether policies do what they say; what is as it was is not told again.
    pub(crate) fn set_policies(&self, conditions: BTreeMap<ObjectRef, Value>) {
        self.replace(|state| &mut state.policies, conditions);
    }

    fn replace(
        &self,
        which: impl Fn(&mut State) -> &mut BTreeMap<ObjectRef, Value>,
        conditions: BTreeMap<ObjectRef, Value>,
    ) {
        let mut state = self.lock();
        let known = which(&mut state);
        let differ = |object: &&ObjectRef| known.get(*object) != conditions.get(*object);
        let changed: Vec<ObjectRef> = conditions.keys().filter(differ).cloned().collect();
        *known = conditions;
        drop(state);
        changed.into_iter().for_each(|object| self.tell(object));
    }

    pub(crate) fn disconnected(&self, connected: &Connected) {
        self.forget(|(proxy, ..)| *proxy == connected.proxy.id);
    }

    fn forget(&self, which: impl Fn(&(String, String, String)) -> bool) {
        let mut cleared = Vec::new();
        for (object, by_proxy) in &mut self.lock().of_object {
            let before = by_proxy.len();
            by_proxy.retain(|key, _| !which(key));
            if by_proxy.len() != before {
                cleared.push(object.clone());
            }
        }
        cleared.into_iter().for_each(|object| self.tell(object));
    }

    fn tell(&self, object: ObjectRef) {
        // Without a writer the control plane is ending.
        let _ = self.news.send(object);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the status of objects whose refusals changed; what cannot be written is tried again.
async fn write_statuses(
    settings: Arc<Settings>,
    state: Arc<Mutex<State>>,
    mut changed: mpsc::UnboundedReceiver<ObjectRef>,
    cluster: Arc<dyn KubeCluster>,
) {
    let mut due: BTreeSet<ObjectRef> = BTreeSet::new();
    let mut backoff = Backoff::new(settings.retry);
    loop {
        let news = match due.is_empty() {
            true => changed.recv().await.map(Some),
            false => {
                tokio::time::timeout(backoff.next(), changed.recv()).await.map_or(Some(None), |n| n.map(Some))
            }
        };
        let Some(news) = news else { return };
        due.extend(news);
        while let Ok(more) = changed.try_recv() {
            due.insert(more);
        }
        for object in std::mem::take(&mut due) {
            let status = {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let refused = state.of_object.get(&object).cloned().unwrap_or_default();
                if refused.is_empty() {
                    state.of_object.remove(&object);
                }
                let told = [&state.patched, &state.policies];
                let told = told.into_iter().filter_map(|conditions| conditions.get(&object).cloned());
                let conditions: Vec<Value> = [accepted(&refused)].into_iter().chain(told).collect();
                json!({ "conditions": conditions })
            };
            if let Err(reason) = within(&settings, cluster.patch_status(&object, status)).await {
                tracing::warn!(target: "status", "{object}: {reason}; trying again");
                due.insert(object);
            }
        }
        if due.is_empty() {
            backoff = Backoff::new(settings.retry);
        }
    }
}

fn accepted(refused: &ByProxy) -> Value {
    let words = refused.iter().map(|((proxy, kind, resource), reason)| {
        format!("{proxy}: {} {resource}: {reason}", types::short_name(kind))
    });
    let (status, reason) = match refused.is_empty() {
        true => ("True", "Accepted"),
        false => ("False", "Rejected"),
    };
    json!({
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": words.collect::<Vec<_>>().join("\n"),
    })
}

/// The objects that a resource was made from.
fn objects_of(type_url: &str, resource: &Resource) -> BTreeSet<ObjectRef> {
    let mut objects: BTreeSet<ObjectRef> =
        resource.notes.iter().filter_map(|note| note.object.clone()).collect();
    let mut add = |metadata: Option<&Metadata>| objects.extend(metadata.and_then(config_of));
    match type_url {
        types::CLUSTER => {
            if let Ok(cluster) = resource.any.unpack::<Cluster>() {
                add(cluster.metadata.as_ref());
            }
        }
        types::LISTENER => {
            if let Ok(listener) = resource.any.unpack::<Listener>() {
                add(listener.metadata.as_ref());
                listener.filter_chains.iter().for_each(|chain| add(chain.metadata.as_ref()));
            }
        }
        types::ROUTE => {
            if let Ok(routes) = resource.any.unpack::<RouteConfiguration>() {
                for host in &routes.virtual_hosts {
                    add(host.metadata.as_ref());
                    host.routes.iter().for_each(|route| add(route.metadata.as_ref()));
                }
            }
        }
        _ => {}
    }
    objects
}

/// Reads `/apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME` under `istio`, `config`.
fn config_of(metadata: &Metadata) -> Option<ObjectRef> {
    let config = metadata.filter_metadata.get("istio")?.fields.get("config")?;
    let Some(ValueKind::StringValue(path)) = &config.kind else { return None };
    let parts: Vec<&str> = path.split('/').collect();
    let ["", "apis", _, _, "namespaces", namespace, kind, name] = parts[..] else { return None };
    let kind = kind_of_path(kind)?.name().to_owned();
    Some(ObjectRef { kind, namespace: namespace.into(), name: name.to_owned() })
}
