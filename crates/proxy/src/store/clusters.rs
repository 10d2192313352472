//! Clusters: compiled, warmed, kept up to date with endpoints, secrets and DNS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lateen_proto::envoy::config::cluster::v3::Cluster as Message;
use lateen_route::cluster::{Discovery, Dns, Transport};
use lateen_route::endpoints::Assignment;
use tokio::task::AbortHandle;

use super::tls::{self, TlsError};
use super::{Rejected, Source, Store, lookups, secrets, unpack};
use crate::dns::Resolver;
use crate::upstream::check;
use crate::upstream::cluster::{Cluster, HostSet, Security, Way};

/// A cluster.
#[derive(Debug)]
pub(crate) struct ClusterEntry {
    /// As it came.
    pub source: Source,
    /// The newest version, warm or not.
    pub newest: Arc<Cluster>,
    /// The version that workers use; none while the first one warms.
    pub active: Option<Arc<Cluster>>,
    lookups: Option<AbortHandle>,
    checks: Option<AbortHandle>,
}

impl ClusterEntry {
    /// Whether the newest version is in force.
    pub(crate) fn is_warm(&self) -> bool {
        self.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, &self.newest))
    }
}

impl Drop for ClusterEntry {
    fn drop(&mut self) {
        for task in self.lookups.iter().chain(&self.checks) {
            task.abort();
        }
    }
}

impl Store {
    /// Takes a cluster.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) fn set_cluster(&mut self, source: Source) -> Result<(), Rejected> {
        let message: Message = unpack(&source.any)?;
        if self.clusters.get(message.name.as_str()).is_some_and(|known| known.source.any == source.any) {
            return Ok(());
        }
        let mut compiled = lateen_route::compile_cluster(&message)?.value;
        compiled.bind = compiled.bind.or(self.bind);
        let compiled = Arc::new(compiled);
        let previous = self.clusters.get(&compiled.name).map(|entry| entry.newest.clone());
        let active = self.clusters.get(&compiled.name).and_then(|entry| entry.active.clone());
        let resolver = self.resolver(&compiled.discovery);
        let found = self.shared.found.clone();
        let cluster = Cluster::new(compiled.clone(), previous.as_deref(), resolver, found);
        self.make_ways(&cluster).map_err(|reason| Rejected::new(&message.name, reason))?;
        let known = previous.as_ref().map(|previous| previous.hosts.load_full()).unwrap_or_default();
        let mut lookups = None;
        match &compiled.discovery {
            Discovery::Static(assignment) => cluster.set_hosts(assignment.clone(), &known),
            Discovery::Eds(name) => {
                if let Some(entry) = self.endpoints.get(name) {
                    cluster.set_hosts(entry.assignment.clone(), &known);
                }
            }
            Discovery::StrictDns(dns) => lookups = self.look_up(&cluster, dns, false, known),
            Discovery::LogicalDns(dns) => lookups = self.look_up(&cluster, dns, true, known),
            Discovery::OriginalDst { .. } | Discovery::DynamicForwardProxy(_) => {}
        }
        let checks = check::watch(&cluster);
        let stats = &self.shared.stats.cluster_manager;
        if previous.is_some() {
            stats.cluster_modified.inc()
        } else {
            stats.cluster_added.inc()
        }
        self.clusters
            .insert(compiled.name.clone(), ClusterEntry { source, newest: cluster, active, lookups, checks });
        self.warm_cluster(&compiled.name);
        Ok(())
    }

    fn look_up(
        &self,
        cluster: &Arc<Cluster>,
        dns: &Dns,
        one: bool,
        known: Arc<HostSet>,
    ) -> Option<AbortHandle> {
        lookups::watch(cluster, dns, one, known, self.shared.found.clone())
    }

    /// Removes a cluster.
    pub(crate) fn remove_cluster(&mut self, name: &str) {
        if self.clusters.remove(name).is_some() {
            self.shared.stats.cluster_manager.cluster_removed.inc();
            self.publish_due = true;
        }
    }

    /// Puts a cluster into force once it has all it needs.
    fn warm_cluster(&mut self, name: &str) {
        let Some(entry) = self.clusters.get_mut(name) else { return };
        let endpoints = match &entry.newest.compiled.discovery {
            Discovery::Eds(service) => self.endpoints.contains_key(service),
            Discovery::StrictDns(_) | Discovery::LogicalDns(_) => {
                entry.newest.looked_up.load(Ordering::Relaxed)
            }
            _ => true,
        };
        let checked =
            entry.newest.compiled.health_checks.is_empty() || entry.newest.checked.load(Ordering::Relaxed);
        let secrets = entry.newest.ways.load().iter().all(|way| !matches!(way.security, Security::Waiting));
        if endpoints && secrets && checked && !entry.newest.waits_for_plan() {
            entry.active = Some(entry.newest.clone());
            self.publish_due = true;
        }
    }

    /// Puts clusters into force whose endpoints were all checked, looked up, or planned once.
    pub(crate) fn warm_found_clusters(&mut self) {
        let done = self.clusters.iter().filter(|(_, entry)| {
            let newest = &entry.newest;
            !entry.is_warm()
                && (newest.checked.load(Ordering::Relaxed)
                    || newest.looked_up.load(Ordering::Relaxed)
                    || newest.is_planned())
        });
        for name in done.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.warm_cluster(&name);
        }
    }

    /// New endpoints for the clusters of a service.
    pub(super) fn endpoints_changed(&mut self, service: &str, assignment: &Arc<Assignment>) {
        let mut warm = Vec::new();
        for (name, entry) in &self.clusters {
            if matches!(&entry.newest.compiled.discovery, Discovery::Eds(wanted) if **wanted == *service) {
                let known = entry.newest.hosts.load_full();
                entry.newest.set_hosts(assignment.clone(), &known);
                warm.push(name.clone());
            }
        }
        for name in warm {
            self.warm_cluster(&name);
        }
    }

    /// The names of endpoint assignments that clusters want.
    pub(crate) fn wanted_endpoints(&self) -> impl Iterator<Item = &Arc<str>> {
        self.clusters.values().filter_map(|entry| match &entry.newest.compiled.discovery {
            Discovery::Eds(service) => Some(service),
            _ => None,
        })
    }

    /// Makes the TLS of clusters again that use a secret.
    pub(super) fn clusters_use_secret(&mut self, secret: &str) {
        let names: Vec<Arc<str>> = self
            .clusters
            .iter()
            .filter(|(_, entry)| references(&entry.newest).any(|used| &**used == secret))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            let Some(cluster) = self.clusters.get(&name).map(|entry| entry.newest.clone()) else { continue };
            if let Err(reason) = self.make_ways(&cluster) {
                tracing::warn!(target: "config", cluster = %name, secret, %reason, "a secret cannot be used");
            }
            self.warm_cluster(&name);
        }
    }

    fn make_ways(&self, cluster: &Cluster) -> Result<(), String> {
        let http = &cluster.compiled.http;
        let mut ways = Vec::new();
        for transport in transports(&cluster.compiled) {
            let security = match transport.tls() {
                None => Security::Plain,
                Some(tls) => match tls::client(tls, http, &self.secrets) {
                    Ok(security) => security,
                    Err(TlsError::Waiting(_)) => Security::Waiting,
                    Err(TlsError::Wrong(reason)) => return Err(reason),
                },
            };
            ways.push(Way::new(security, transport.proxy_protocol()));
        }
        cluster.ways.store(Arc::new(ways));
        Ok(())
    }

    fn resolver(&self, discovery: &Discovery) -> Option<Arc<Resolver>> {
        let dns = match discovery {
            Discovery::StrictDns(dns) | Discovery::LogicalDns(dns) | Discovery::DynamicForwardProxy(dns) => {
                dns
            }
            _ => return None,
        };
        let servers = if dns.resolvers.is_empty() { &self.resolver_addresses } else { &dns.resolvers };
        Some(Arc::new(Resolver::new(servers, dns.family)))
    }
}

fn transports(compiled: &lateen_route::Cluster) -> impl Iterator<Item = &Transport> {
    std::iter::once(&compiled.transport_default)
        .chain(compiled.transport_matches.iter().map(|m| &m.transport))
}

/// The secrets that a cluster's transports refer to.
pub(super) fn references(cluster: &Cluster) -> impl Iterator<Item = &Arc<str>> {
    secret_refs(cluster).map(|reference| &reference.name)
}

/// As [`references`], with who serves them.
pub(super) fn secret_refs(cluster: &Cluster) -> impl Iterator<Item = &lateen_route::tls::SecretRef> {
    transports(&cluster.compiled)
        .filter_map(|transport| Some(&transport.tls()?.common))
        .flat_map(secrets::names)
}
