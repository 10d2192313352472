//! The configuration as the control thread holds it: every resource that was accepted, its running form, and what it
//! waits for. Workers see none of this; they get snapshots.
//!
//! A resource is taken in three steps: compile (here it can be refused, by name), warm (it waits for what it refers
//! to while the version before stays in force), publish.

mod clusters;
mod listeners;
mod lookups;
mod secrets;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use lateen_proto::Any;
use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_route::FastMap;
use lateen_route::endpoints::Assignment;
use lateen_telemetry::log_file::LogFiles;

use crate::listener::RouteSlot;
use crate::snapshot::Snapshot;
use crate::upstream::pools::PoolKey;
use crate::worker::{Command, Keep, Shared, WorkerHandle};

pub(crate) use clusters::ClusterEntry;
pub(crate) use listeners::ListenerEntry;
pub(crate) use secrets::SecretEntry;
pub(crate) use tls::{ClientTls, describe as describe_secret};

/// Why a resource is refused. Names the resource; the version before it, if any, stays in force.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{resource}: {reason}")]
pub struct Rejected {
    /// The resource's name.
    pub resource: String,
    /// Field and reason.
    pub reason: String,
}

impl Rejected {
    /// A refusal.
    pub fn new(resource: &str, reason: impl std::fmt::Display) -> Self {
        Self { resource: resource.to_owned(), reason: reason.to_string() }
    }
}

impl From<lateen_route::CompileError> for Rejected {
    fn from(error: lateen_route::CompileError) -> Self {
        Self { reason: format!("{}: {}", error.path, error.reason), resource: error.resource }
    }
}

/// A resource as it came.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Type and bytes.
    pub any: Any,
    /// The version that the control plane gave it.
    pub version: Arc<str>,
    /// When it was taken.
    pub updated: SystemTime,
    /// Whether it is part of the bootstrap.
    pub is_static: bool,
}

/// All resources.
#[derive(Debug)]
pub(crate) struct Store {
    /// What workers share.
    pub shared: Arc<Shared>,
    /// Clusters by name.
    pub clusters: BTreeMap<Arc<str>, ClusterEntry>,
    /// Listeners by name.
    pub listeners: BTreeMap<Arc<str>, ListenerEntry>,
    /// Route configurations by name.
    pub routes: BTreeMap<Arc<str>, RouteEntry>,
    /// Endpoint assignments by name.
    pub endpoints: BTreeMap<Arc<str>, EndpointEntry>,
    /// Secrets by name.
    pub secrets: BTreeMap<Arc<str>, SecretEntry>,
    /// What was refused, by type and name.
    pub rejected: BTreeMap<(String, String), Refusal>,
    workers: Vec<WorkerHandle>,
    logs: Arc<LogFiles>,
    resolver_addresses: Vec<SocketAddr>,
    bind: Option<std::net::IpAddr>,
    publish_due: bool,
    updates: u64,
}

/// A refused resource.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// Field and reason.
    pub reason: String,
    /// The resource.
    pub any: Any,
    /// When it came.
    pub at: SystemTime,
}

/// A route configuration.
#[derive(Debug)]
pub(crate) struct RouteEntry {
    /// As it came; none while listeners wait for it.
    pub source: Option<Source>,
    /// Where managers find it.
    pub slot: Arc<RouteSlot>,
}

/// An endpoint assignment.
#[derive(Debug)]
pub(crate) struct EndpointEntry {
    /// As it came.
    pub source: Source,
    /// The decisions.
    pub assignment: Arc<Assignment>,
}

impl Store {
    /// An empty store.
    pub(crate) fn new(
        shared: Arc<Shared>,
        workers: Vec<WorkerHandle>,
        logs: Arc<LogFiles>,
        resolver_addresses: Vec<SocketAddr>,
        bind: Option<std::net::IpAddr>,
    ) -> Self {
        shared.stats.listener_manager.workers_started.set(1);
        Self {
            shared,
            clusters: BTreeMap::new(),
            listeners: BTreeMap::new(),
            routes: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            secrets: BTreeMap::new(),
            rejected: BTreeMap::new(),
            workers,
            logs,
            resolver_addresses,
            bind,
            publish_due: false,
            updates: 0,
        }
    }

    /// Takes note that resources came.
    pub(crate) fn note_update(&mut self) {
        self.updates += 1;
    }

    /// How many updates there were, from whichever source.
    pub(crate) fn updates(&self) -> u64 {
        self.updates
    }

    /// The workers.
    pub(crate) fn workers(&self) -> &[WorkerHandle] {
        &self.workers
    }

    /// Takes a route configuration.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) fn set_routes(&mut self, source: Source) -> Result<(), Rejected> {
        let message = unpack(&source.any)?;
        let table = lateen_route::compile_routes(&message)?.value;
        let slot = self.route_slot(&message.name);
        slot.table.store(Some(Arc::new(table)));
        if let Some(entry) = self.routes.get_mut(message.name.as_str()) {
            entry.source = Some(source);
        }
        self.warm_listeners();
        Ok(())
    }

    /// Forgets a route configuration.
    pub(crate) fn remove_routes(&mut self, name: &str) {
        if let Some(entry) = self.routes.remove(name) {
            entry.slot.table.store(None);
        }
    }

    fn route_slot(&mut self, name: &str) -> Arc<RouteSlot> {
        let name: Arc<str> = name.into();
        let entry = self.routes.entry(name.clone()).or_insert_with(|| RouteEntry {
            source: None,
            slot: Arc::new(RouteSlot { name, table: arc_swap::ArcSwapOption::empty() }),
        });
        entry.slot.clone()
    }

    /// Takes an endpoint assignment.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) fn set_endpoints(&mut self, source: Source) -> Result<(), Rejected> {
        let message: lateen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment = unpack(&source.any)?;
        let assignment = Arc::new(lateen_route::compile_endpoints(&message)?.value);
        let name: Arc<str> = message.cluster_name.as_str().into();
        self.endpoints.insert(name.clone(), EndpointEntry { source, assignment: assignment.clone() });
        self.endpoints_changed(&name, &assignment);
        Ok(())
    }

    /// Forgets an endpoint assignment; its clusters keep the endpoints they have, as Envoy's do.
    pub(crate) fn remove_endpoints(&mut self, name: &str) {
        self.endpoints.remove(name);
    }

    /// The route configurations that listeners want; those that no listener wants any more are forgotten.
    pub(crate) fn wanted_routes(&self) -> BTreeSet<Arc<str>> {
        let managers =
            self.listeners.values().flat_map(|entry| &entry.served.chains).flat_map(|chain| &chain.filters);
        let slots = managers.filter_map(|filter| match filter {
            crate::listener::Filter::Http(manager) => match &manager.routes {
                crate::listener::Routes::Named(slot) => Some(slot.name.clone()),
                crate::listener::Routes::Inline(_) => None,
            },
            _ => None,
        });
        slots.collect()
    }

    /// Remembers a refused resource, for `/config_dump`.
    pub(crate) fn note_rejected(&mut self, type_url: &str, error: &Rejected, any: Any, at: SystemTime) {
        let key = (type_url.to_owned(), error.resource.clone());
        self.rejected.insert(key, Refusal { reason: error.reason.clone(), any, at });
    }

    /// The resource was accepted after all.
    pub(crate) fn forget_rejected(&mut self, type_url: &str, name: &str) {
        if !self.rejected.is_empty() {
            self.rejected.remove(&(type_url.to_owned(), name.to_owned()));
        }
    }

    /// Counts an update.
    pub(crate) fn count_update(&mut self, type_url: &str, accepted: bool) {
        self.note_update();
        let stats = &self.shared.stats;
        let (success, refused) = if type_url.ends_with(".Listener") {
            (&stats.listener_manager.lds_update_success, &stats.listener_manager.lds_update_rejected)
        } else if type_url.ends_with(".Cluster") {
            (&stats.cluster_manager.cds_update_success, &stats.cluster_manager.cds_update_rejected)
        } else {
            return;
        };
        if accepted { success.inc() } else { refused.inc() }
    }

    /// Whether what a bootstrap asks for has come: the first clusters and listeners, and all they wait for.
    pub(crate) fn is_initialized(&self, bootstrap: &Bootstrap) -> bool {
        let stats = &self.shared.stats;
        let dynamic = bootstrap.dynamic_resources.as_ref();
        let clusters = dynamic.is_none_or(|d| d.cds_config.is_none())
            || stats.cluster_manager.cds_update_success.value()
                + stats.cluster_manager.cds_update_rejected.value()
                > 0;
        let listeners = dynamic.is_none_or(|d| d.lds_config.is_none())
            || stats.listener_manager.lds_update_success.value()
                + stats.listener_manager.lds_update_rejected.value()
                > 0;
        clusters && listeners && self.listeners.values().all(|entry| !entry.warming || entry.was_active)
    }

    /// Makes changes visible to workers, if there are any.
    pub(crate) fn publish(&mut self) {
        if !std::mem::take(&mut self.publish_due) {
            return;
        }
        let clusters: FastMap<_, _> = self
            .clusters
            .iter()
            .filter_map(|(name, entry)| Some((name.clone(), entry.active.clone()?)))
            .collect();
        let stats = &self.shared.stats;
        stats.cluster_manager.active_clusters.set(clusters.len() as u64);
        stats.cluster_manager.warming_clusters.set((self.clusters.len() - clusters.len()) as u64);
        let listeners = self.listener_addresses();
        stats.listener_manager.total_listeners_active.set(self.listeners.len() as u64);
        self.shared.snapshot.store(Arc::new(Snapshot { clusters, listeners }));
        self.prune();
        if !self.shared.on_demand.is_empty() {
            let snapshot = self.shared.snapshot.load();
            self.shared.on_demand.answer_known(|name| snapshot.cluster(name).is_some());
        }
    }

    /// Ends the ejections of hosts whose time is over, and weighs hosts by what they report.
    pub(crate) fn sweep_hosts(&self) {
        for cluster in self.clusters.values().filter_map(|entry| entry.active.as_ref()) {
            cluster.sweep_outliers();
            cluster.sweep_load();
        }
    }

    /// Has workers close the connections of ways and hosts that are gone.
    fn prune(&self) {
        let mut ways = std::collections::HashSet::new();
        let mut hosts = std::collections::HashSet::new();
        let mut finds = std::collections::HashSet::new();
        for cluster in self.clusters.values().filter_map(|entry| entry.active.as_ref()) {
            let found = cluster.finds_hosts();
            for way in cluster.ways.load().iter() {
                ways.insert(way.id);
                if found {
                    finds.insert(way.id);
                }
            }
            hosts.extend(cluster.hosts.load().hosts.iter().map(|member| member.host.id));
        }
        let keep = Keep(Arc::new(move |key: &PoolKey| {
            ways.contains(&key.way) && (finds.contains(&key.way) || hosts.contains(&key.host))
        }));
        for worker in &self.workers {
            worker.tell(Command::Prune(keep.clone()));
        }
    }
}

/// Reads a resource as its type.
fn unpack<M: lateen_proto::Message + lateen_proto::Name + Default>(any: &Any) -> Result<M, Rejected> {
    any.unpack().map_err(|error| Rejected::new("(unreadable)", error))
}
