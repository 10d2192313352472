//! What all proxies of one class share: the clusters of services and their load assignments.
//!
//! It is made part by part, a part for each service. A part is taken over from the snapshot before where nothing that it
//! was made from is different; within a part, what was made of an equal input.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use lateen_api::Kind;
use lateen_api::mesh::MeshConfig;
use lateen_base::Labels;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_registry::{EndpointSet, Protocol, Resolution, Service};

use crate::clusters::{self, Class, outbound};
use crate::endpoints::network::Gateways;
use crate::endpoints::{self, View};
use crate::generate::MadeCluster;
use crate::list::List;
use crate::patches::{Effects, PatchSet, Patching};
use crate::snapshot::{MergedRule, Scope, ScopeKey};
use crate::{Built, Proxy, Resource, Snapshot};

/// What of a proxy the clusters of services and their endpoints depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    class: Arc<Class>,
    view: Arc<View>,
    scope: ScopeKey,
    by_sni: bool,
    /// Patches of clusters.
    patches: PatchSet,
}

/// What all proxies of one class share.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// A part for each service of the scope, in its order.
    parts: Vec<Arc<Part>>,
    scope: Arc<Scope>,
    basis: Basis,
    /// The clusters.
    pub(crate) clusters: Arc<List>,
    /// Their load assignments.
    pub(crate) endpoints: Arc<List>,
    /// The secrets that the clusters ask for over the stream that everything comes over.
    pub(crate) secrets: BTreeSet<String>,
    /// What patches did to the clusters.
    pub(crate) effects: Effects,
}

/// What every part depends on.
#[derive(Debug, PartialEq)]
struct Basis {
    mesh: Arc<MeshConfig>,
    peers: u64,
    networks: u64,
}

/// The clusters of one service.
#[derive(Debug)]
struct Part {
    service: Arc<Service>,
    set: Option<Arc<EndpointSet>>,
    rule: Option<Arc<MergedRule>>,
    /// The clusters by port, each with what they were made from; those by SNI last.
    clusters: Vec<(outbound::Input, Arc<Made>)>,
    /// The load assignments, each with what it was made from.
    endpoints: Vec<(Option<endpoints::Input>, Arc<Resource>)>,
}

/// The clusters of one port of a service.
#[derive(Debug)]
struct Made {
    clusters: Vec<MadeCluster>,
    /// What patches did to them.
    effects: Effects,
}

/// The upstreams of a snapshot, made when they are first asked for, and those of the snapshot before.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    now: Mutex<HashMap<Key, Arc<OnceLock<Arc<Upstream>>>>>,
    before: HashMap<Key, Arc<Upstream>>,
}

impl Upstreams {
    /// Those of a snapshot that is built upon one that has these.
    pub(crate) fn next(&self) -> Self {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let made = now.iter().filter_map(|(key, slot)| Some((key.clone(), slot.get()?.clone())));
        Self { now: Mutex::default(), before: made.collect() }
    }
}

impl Snapshot {
    /// What a proxy shares with all others of its class.
    pub(crate) fn upstream(
        &self,
        proxy: &Proxy,
        scope: &Arc<Scope>,
        scope_key: ScopeKey,
        patches: PatchSet,
    ) -> Arc<Upstream> {
        let key = Key {
            class: Arc::new(Class::of(self, proxy)),
            view: Arc::new(View::of(self, proxy)),
            scope: scope_key,
            by_sni: proxy.is_router() && clusters::passes_by_sni(self, proxy),
            patches,
        };
        let slot = {
            let mut now = self.upstreams.now.lock().unwrap_or_else(PoisonError::into_inner);
            now.entry(key.clone()).or_default().clone()
        };
        // Proxies of one class that ask at once wait for the one that came first.
        slot.get_or_init(|| Upstream::build(self, &key, scope, self.upstreams.before.get(&key))).clone()
    }
}

impl Upstream {
    fn build(snapshot: &Snapshot, key: &Key, scope: &Arc<Scope>, before: Option<&Arc<Self>>) -> Arc<Self> {
        let basis = Basis {
            mesh: snapshot.mesh.clone(),
            peers: snapshot.generation(Kind::PeerAuthentication),
            networks: snapshot.view.generations.networks,
        };
        let before = before.filter(|before| before.basis == basis);
        let builder =
            Builder { snapshot, key, scope, gateways: Arc::new(Gateways::of(&snapshot.view.gateways)) };
        let parts: Vec<Arc<Part>> = match before {
            Some(before) if Arc::ptr_eq(&before.scope, scope) => {
                let mut parts = before.parts.clone();
                let changed = snapshot.changed_sets.iter().filter_map(|(host, _)| scope.place(host));
                let mut any = false;
                for at in changed {
                    let fresh = builder.part(&scope.services[at], Some(&parts[at]));
                    any |= !Arc::ptr_eq(&fresh, &parts[at]);
                    parts[at] = fresh;
                }
                if !any {
                    return before.clone();
                }
                parts
            }
            before => {
                let known: HashMap<_, _> =
                    before.iter().flat_map(|b| &b.parts).map(|part| (&part.service.host, part)).collect();
                let part = |service: &Arc<Service>| builder.part(service, known.get(&service.host).copied());
                scope.services.iter().map(part).collect()
            }
        };
        Arc::new(Self::of(parts, scope.clone(), basis, before))
    }

    fn of(parts: Vec<Arc<Part>>, scope: Arc<Scope>, basis: Basis, before: Option<&Arc<Self>>) -> Self {
        let list = |resources, before: Option<&Arc<List>>| match before {
            Some(before) => List::upon(resources, before),
            None => Arc::new(List::new(resources)),
        };
        // Endpoints change more often than what leads to them.
        let (clusters, secrets, effects) = match before.filter(|before| before.has_clusters_of(&parts)) {
            Some(before) => (before.clusters.clone(), before.secrets.clone(), before.effects.clone()),
            None => {
                let of_ports = || parts.iter().flat_map(|part| &part.clusters);
                let made = || of_ports().flat_map(|(_, made)| &made.clusters);
                let clusters = made().map(|cluster| cluster.resource.clone()).collect();
                let secrets = made().flat_map(|cluster| cluster.secrets.iter().cloned()).collect();
                let mut effects = Effects::default();
                of_ports().for_each(|(_, made)| effects.add(&made.effects));
                (list(clusters, before.map(|before| &before.clusters)), secrets, effects)
            }
        };
        let endpoints = parts.iter().flat_map(|part| &part.endpoints).map(|(_, made)| made.clone()).collect();
        let endpoints = list(endpoints, before.map(|before| &before.endpoints));
        Self { parts, scope, basis, clusters, endpoints, secrets, effects }
    }

    /// Whether these parts have the very same clusters.
    fn has_clusters_of(&self, parts: &[Arc<Part>]) -> bool {
        let same = |(a, b): (&Arc<Part>, &Arc<Part>)| {
            Arc::ptr_eq(a, b)
                || a.clusters.len() == b.clusters.len()
                    && a.clusters.iter().zip(&b.clusters).all(|((_, a), (_, b))| Arc::ptr_eq(a, b))
        };
        self.parts.len() == parts.len() && self.parts.iter().zip(parts).all(same)
    }

    /// The clusters in the order of their services, those by SNI last.
    pub(crate) fn clusters_in_order(&self) -> Vec<Arc<Resource>> {
        let of = |by_sni: bool| {
            let all = self.parts.iter().flat_map(|part| &part.clusters);
            all.filter(move |(input, _)| input.by_sni == by_sni).flat_map(|(_, made)| &made.clusters)
        };
        of(false).chain(of(true)).map(|cluster| cluster.resource.clone()).collect()
    }
}

/// What parts are made with.
struct Builder<'a> {
    snapshot: &'a Snapshot,
    key: &'a Key,
    scope: &'a Arc<Scope>,
    gateways: Arc<Gateways>,
}

impl Builder<'_> {
    fn labels(&self) -> &Labels {
        &self.key.class.labels
    }

    /// The part of a service: `before` itself where it was made from the very same.
    fn part(&self, service: &Arc<Service>, before: Option<&Arc<Part>>) -> Arc<Part> {
        let set = self.snapshot.view.endpoints_of(service);
        let rule = self.scope.destination_rule(&service.host, self.labels());
        if let Some(before) = before
            && same(Some(&before.service), Some(service))
            && same(before.set.as_ref(), set)
            && same(before.rule.as_ref(), rule)
        {
            return before.clone();
        }
        let before = before.map(Arc::as_ref);
        let clusters: Vec<_> =
            self.inputs(service).into_iter().map(|input| self.clusters_of(input, before)).collect();
        let names =
            clusters.iter().flat_map(|(_, made)| &made.clusters).filter_map(|made| made.endpoints.as_ref());
        let endpoints = names.map(|name| self.assignment(name, before)).collect();
        Arc::new(Part {
            service: service.clone(),
            set: set.cloned(),
            rule: rule.cloned(),
            clusters,
            endpoints,
        })
    }

    fn inputs(&self, service: &Arc<Service>) -> Vec<outbound::Input> {
        let mut inputs = Vec::new();
        let mut add = |by_sni: bool| {
            let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
            let input =
                |port| clusters::input(self.snapshot, self.scope, &self.key.class, service, port, by_sni);
            inputs.extend(ports.map(input));
        };
        if service.resolution != Resolution::Alias {
            add(false);
        }
        if self.key.by_sni && clusters::by_sni(service) {
            add(true);
        }
        inputs
    }

    fn assignment(&self, name: &str, before: Option<&Part>) -> (Option<endpoints::Input>, Arc<Resource>) {
        let (view, gateways) = (&self.key.view, &self.gateways);
        let input = endpoints::input(self.snapshot, self.labels(), self.scope, view, gateways, name);
        let known = before.into_iter().flat_map(|part| &part.endpoints);
        let known = known.filter(|(_, made)| &*made.name == name).find(|(made_from, _)| *made_from == input);
        let made = match (known, &input) {
            (Some((_, made)), _) => made.clone(),
            (None, Some(input)) => endpoints::assignment(input).pack(),
            (None, None) => endpoints::empty(name).pack(),
        };
        (input, made)
    }

    fn clusters_of(&self, input: outbound::Input, before: Option<&Part>) -> (outbound::Input, Arc<Made>) {
        let known =
            before.into_iter().flat_map(|part| &part.clusters).find(|(made_from, _)| *made_from == input);
        let made = match known {
            Some((_, made)) => made.clone(),
            None => {
                let mut patching = Patching::new(&self.key.patches);
                let built = patching.clusters(self.key.class.is_router(), outbound::build(&input));
                let clusters = built.into_iter().map(|built: Built<Cluster>| built.into()).collect();
                Arc::new(Made { clusters, effects: patching.effects })
            }
        };
        (input, made)
    }
}

/// Whether both are the very same.
fn same<T>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}
