//! Everything that configuration is made from, at one moment.

mod destination_rules;
mod ingress;
pub(crate) mod label_keys;
mod peer_authentication;
pub(crate) mod policies;
mod scope;
mod services;
mod targets;
mod virtual_services;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_api::{Kind, Object};
use lateen_base::{Host, Namespace};
use lateen_registry::{Generations, Settings, View, created};

use crate::Proxy;
use crate::cache::Cache;
use crate::patches::EnvoyFilters;
use crate::upstream::Upstreams;

pub(crate) use ingress::Derived;
use label_keys::LabelKeys;

pub use destination_rules::{DestinationRules, MergedRule};
pub use peer_authentication::{MtlsMode, PeerPolicy};
pub use policies::Ineffective;
pub use scope::{Egress, Scope};
pub use services::Services;
pub use targets::ServiceTarget;
pub use virtual_services::{MESH_GATEWAY, VirtualServiceConfig, VirtualServices};

/// An immutable picture of mesh configuration, services and Istio objects, and what can be asked of them.
#[derive(Debug)]
pub struct Snapshot {
    /// The mesh configuration.
    pub mesh: Arc<MeshConfig>,
    /// The networks.
    pub networks: Arc<MeshNetworks>,
    /// The registry's settings: domain, trust domain, root namespace.
    pub settings: Settings,
    /// Services, endpoints, workloads and objects as they are.
    pub view: View,
    /// The services, indexed.
    pub services: Arc<Services>,
    /// The virtual services, completed and ordered.
    pub virtual_services: Arc<VirtualServices>,
    /// The destination rules, merged.
    pub destination_rules: Arc<DestinationRules>,
    by_age: Arc<BTreeMap<Kind, ByAge>>,
    /// The EnvoyFilters, compiled.
    pub(crate) envoy_filters: Arc<EnvoyFilters>,
    /// What Ingress objects mean.
    pub(crate) ingress: Arc<Derived>,
    scopes: Mutex<BTreeMap<ScopeKey, Arc<Scope>>>,
    /// The labels of proxies that matter.
    pub(crate) label_keys: Arc<LabelKeys>,
    /// What classes of proxies share.
    pub(crate) upstreams: Upstreams,
    /// The services whose endpoints are others than in the snapshot that this one was built upon.
    pub(crate) changed_sets: BTreeSet<(Host, Namespace)>,
    pub(crate) cache: Arc<Cache>,
    /// How many snapshots this one was built upon.
    pub(crate) number: u64,
}

/// The objects of a kind, oldest first, at one generation.
#[derive(Debug)]
struct ByAge {
    generation: u64,
    objects: Arc<Vec<Arc<Object>>>,
}

/// What a scope depends on: the namespace, the Sidecar that applies, and the kind of proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ScopeKey {
    namespace: Namespace,
    sidecar: Option<(Namespace, String)>,
}

impl Snapshot {
    /// A snapshot of these. What did not change since `previous` is taken over from it.
    pub fn build(
        mesh: Arc<MeshConfig>,
        networks: Arc<MeshNetworks>,
        settings: &Settings,
        view: View,
        previous: Option<&Snapshot>,
    ) -> Arc<Self> {
        let same_mesh = previous.is_some_and(|old| old.mesh == mesh && old.settings == *settings);
        let previous = previous.filter(|_| same_mesh);
        let ingress = Derived::of(&view, &mesh, settings, previous.map(|old| &old.ingress));
        let by_age = Arc::new(by_age(&view, &ingress, previous));
        let same = |kinds: &[Kind]| {
            previous.is_some_and(|old| {
                let same =
                    |kind| generation(&old.view, &old.ingress, kind) == generation(&view, &ingress, kind);
                kinds.iter().all(|kind| same(*kind))
            })
        };
        let same_services =
            previous.is_some_and(|old| old.view.generations.services == view.generations.services);
        let services = match previous.filter(|_| same_services) {
            Some(old) => old.services.clone(),
            None => Arc::new(Services::of(&view, &mesh)),
        };
        let objects = |kind: Kind| by_age.get(&kind).map(|of| of.objects.clone()).unwrap_or_default();
        let virtual_services = match previous.filter(|_| same(&[Kind::VirtualService])) {
            Some(old) => old.virtual_services.clone(),
            None => Arc::new(VirtualServices::of(&objects(Kind::VirtualService), &mesh, settings)),
        };
        let destination_rules = match previous.filter(|_| same(&[Kind::DestinationRule])) {
            Some(old) => old.destination_rules.clone(),
            None => Arc::new(DestinationRules::of(&objects(Kind::DestinationRule), &mesh, settings)),
        };
        let envoy_filters = match previous.filter(|_| same(&[Kind::EnvoyFilter])) {
            Some(old) => old.envoy_filters.clone(),
            None => {
                let before = previous.map(|old| &*old.envoy_filters);
                Arc::new(EnvoyFilters::of(&objects(Kind::EnvoyFilter), before))
            }
        };
        let scope_inputs = [Kind::VirtualService, Kind::DestinationRule, Kind::Sidecar];
        let scopes = match previous.filter(|_| same_services && same(&scope_inputs)) {
            Some(old) => old.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            None => BTreeMap::new(),
        };
        let number = previous.map_or(0, |old| old.number + 1);
        let cache = previous.map(|old| old.cache.clone()).unwrap_or_default();
        cache.tidy(number);
        let changed_sets = previous.map(|old| view.endpoints_since(&old.view)).unwrap_or_default();
        let upstreams = previous.map(|old| old.upstreams.next()).unwrap_or_default();
        let same_labels =
            previous.filter(|old| same_services && old.generations().configs == view.generations.configs);
        let label_keys = same_labels.map(|old| old.label_keys.clone());
        let mut snapshot = Self {
            mesh,
            networks,
            settings: settings.clone(),
            view,
            services,
            virtual_services,
            destination_rules,
            by_age,
            envoy_filters,
            ingress,
            scopes: Mutex::new(scopes),
            label_keys: Arc::default(),
            upstreams,
            changed_sets,
            cache,
            number,
        };
        snapshot.label_keys = label_keys.unwrap_or_else(|| Arc::new(LabelKeys::of(&snapshot)));
        Arc::new(snapshot)
    }

    /// A number that grows with every change to the objects of a kind, derived ones included.
    pub(crate) fn generation(&self, kind: Kind) -> u64 {
        generation(&self.view, &self.ingress, kind)
    }

    /// How often each part of the registry had changed.
    pub fn generations(&self) -> Generations {
        self.view.generations
    }

    /// The domain of Kubernetes services.
    pub fn domain(&self) -> &str {
        &self.settings.domain
    }

    /// The namespace whose objects hold for the whole mesh.
    pub fn root_namespace(&self) -> &Namespace {
        &self.settings.root_namespace
    }

    /// The objects of a kind, oldest first, then by name and namespace.
    pub fn objects(&self, kind: Kind) -> &[Arc<Object>] {
        self.by_age.get(&kind).map_or(&[], |of| of.objects.as_slice())
    }

    /// The objects of a kind in one namespace, oldest first.
    pub fn objects_in<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a Namespace,
    ) -> impl Iterator<Item = &'a Arc<Object>> + 'a {
        self.objects(kind).iter().filter(move |object| object.namespace == *namespace)
    }

    /// What a proxy sees: decided by its namespace and the Sidecar that applies to it.
    pub fn scope(&self, proxy: &Proxy) -> Arc<Scope> {
        self.scope_and_key(proxy).1
    }

    pub(crate) fn scope_and_key(&self, proxy: &Proxy) -> (ScopeKey, Arc<Scope>) {
        let sidecar = scope::sidecar_for(self, proxy);
        let key = ScopeKey {
            namespace: proxy.namespace.clone(),
            sidecar: sidecar.map(|object| (object.namespace.clone(), object.name.clone())),
        };
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = scopes.entry(key.clone());
        let scope = entry.or_insert_with(|| Arc::new(Scope::of(self, &proxy.namespace, sidecar))).clone();
        (key, scope)
    }

    /// A name completed by a namespace and the mesh's domain.
    pub fn resolve(&self, name: &str, namespace: &Namespace) -> Host {
        crate::hosts::resolve(name, namespace, self.domain())
    }
}

/// A number that grows with every change to the objects of a kind, derived ones included.
fn generation(view: &View, ingress: &Derived, kind: Kind) -> u64 {
    let derived = match kind {
        Kind::Gateway | Kind::VirtualService => ingress.generation,
        _ => 0,
    };
    view.configs.generation(kind) + derived
}

fn by_age(view: &View, ingress: &Derived, previous: Option<&Snapshot>) -> BTreeMap<Kind, ByAge> {
    let all = || view.configs.iter().chain(&ingress.objects);
    let kinds: std::collections::BTreeSet<Kind> = all().map(|object| object.kind).collect();
    let sorted = |kind: Kind| {
        let generation = generation(view, ingress, kind);
        let known = previous.and_then(|old| old.by_age.get(&kind)).filter(|of| of.generation == generation);
        let objects = match known {
            Some(known) => known.objects.clone(),
            None => {
                let derived = ingress.objects.iter().filter(|object| object.kind == kind);
                let mut objects: Vec<Arc<Object>> =
                    view.configs.of_kind(kind).chain(derived).cloned().collect();
                objects.sort_by(|a, b| {
                    (created(a), &a.name, &a.namespace).cmp(&(created(b), &b.name, &b.namespace))
                });
                Arc::new(objects)
            }
        };
        (kind, ByAge { generation, objects })
    };
    kinds.into_iter().map(sorted).collect()
}
