//! The services of the mesh, by host, namespace and visibility.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_api::mesh::MeshConfig;
use lateen_base::{Host, Namespace};
use lateen_registry::{ExportTo, Resolution, Service, Source, View};

/// The services, indexed.
#[derive(Debug, Default)]
pub struct Services {
    by_age: Vec<Arc<Service>>,
    by_host: BTreeMap<Host, BTreeMap<Namespace, Arc<Service>>>,
    /// Places in `by_age`.
    by_id: HashMap<(Host, Namespace), Vec<usize>>,
    /// Places in `by_age` of the services of Kubernetes that select workloads, by namespace.
    selecting: HashMap<Namespace, Vec<usize>>,
    /// Aliases to the service that stands behind all of them.
    concrete: BTreeMap<Host, Host>,
    aliases: BTreeMap<Host, BTreeSet<Host>>,
    default_export: ExportTo,
}

impl Services {
    pub(super) fn of(view: &View, mesh: &MeshConfig) -> Self {
        let mut by_age: Vec<Arc<Service>> = view.services.values().cloned().collect();
        by_age.sort_by(|a, b| a.by_age(b));
        let mut by_host: BTreeMap<Host, BTreeMap<Namespace, Arc<Service>>> = BTreeMap::new();
        for service in &by_age {
            let namespaces = by_host.entry(service.host.clone()).or_default();
            let first = namespaces.entry(service.namespace.clone()).or_insert_with(|| service.clone());
            if first.source == Source::External && service.source == Source::Kubernetes {
                *first = service.clone();
            }
        }
        let mut by_id: HashMap<(Host, Namespace), Vec<usize>> = HashMap::new();
        let mut selecting: HashMap<Namespace, Vec<usize>> = HashMap::new();
        for (at, service) in by_age.iter().enumerate() {
            by_id.entry((service.host.clone(), service.namespace.clone())).or_default().push(at);
            if service.source == Source::Kubernetes && !service.selector.is_empty() {
                selecting.entry(service.namespace.clone()).or_default().push(at);
            }
        }
        let mut services = Self {
            by_id,
            selecting,
            default_export: default_export(mesh),
            by_age,
            by_host,
            ..Self::default()
        };
        services.resolve_aliases();
        services
    }

    /// All services, oldest first.
    pub fn by_age(&self) -> &[Arc<Service>] {
        &self.by_age
    }

    /// Services that may have a workload of a namespace among their endpoints: those of these hosts, and those that select
    /// workloads there; oldest first.
    pub(crate) fn candidates<'a>(
        &'a self,
        hosts: impl Iterator<Item = &'a (Host, Namespace)>,
        namespace: &Namespace,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let known = hosts.filter_map(|id| self.by_id.get(id)).flatten();
        let places: BTreeSet<usize> =
            known.chain(self.selecting.get(namespace).into_iter().flatten()).copied().collect();
        places.into_iter().filter_map(|at| self.by_age.get(at))
    }

    /// The services of a host, by namespace.
    pub fn of_host(&self, host: &Host) -> Option<&BTreeMap<Namespace, Arc<Service>>> {
        self.by_host.get(host)
    }

    /// The service that a host of a namespace is an alias of, through any number of aliases.
    pub fn concrete(&self, alias: &Host) -> Option<&Host> {
        self.concrete.get(alias)
    }

    /// The hosts that are aliases of this one.
    pub fn aliases(&self, host: &Host) -> impl Iterator<Item = &Host> {
        self.aliases.get(host).into_iter().flatten()
    }

    /// Whether a namespace may see a service.
    pub fn shows(&self, service: &Service, viewer: &Namespace) -> bool {
        let own = Some(&service.export_to).filter(|list| !list.0.is_empty());
        own.unwrap_or(&self.default_export).shows(&service.namespace, viewer)
    }

    /// The services that a namespace sees: its own first, then those shown to it, then public ones, each oldest
    /// first.
    pub fn seen_by(&self, viewer: &Namespace) -> Vec<Arc<Service>> {
        let rank = |service: &Service| {
            let own = Some(&service.export_to).filter(|list| !list.0.is_empty());
            match own.unwrap_or(&self.default_export).is_public() {
                true => 2,
                false if service.namespace == *viewer => 0,
                false => 1,
            }
        };
        let mut seen: Vec<Arc<Service>> =
            self.by_age.iter().filter(|service| self.shows(service, viewer)).cloned().collect();
        seen.sort_by_key(|service| rank(service));
        seen
    }

    fn resolve_aliases(&mut self) {
        let mut direct: BTreeMap<Host, Host> = BTreeMap::new();
        for service in self.by_age.iter().filter(|service| service.resolution == Resolution::Alias) {
            if let Some(target) = &service.alias_of {
                direct.insert(service.host.clone(), target.clone());
            }
        }
        for alias in direct.keys() {
            let mut seen = BTreeSet::from([alias.clone()]);
            let mut at = &direct[alias];
            // A circle of aliases leads nowhere.
            let target = loop {
                match direct.get(at) {
                    Some(next) if seen.insert(at.clone()) => at = next,
                    Some(_) => break None,
                    None => break Some(at),
                }
            };
            let known = target.filter(|target| self.by_host.contains_key(*target)).cloned();
            if let Some(target) = known {
                self.aliases.entry(target.clone()).or_default().insert(alias.clone());
                self.concrete.insert(alias.clone(), target);
            }
        }
    }
}

fn default_export(mesh: &MeshConfig) -> ExportTo {
    let words = &mesh.default_service_export_to;
    match words.is_empty() {
        true => ExportTo::parse(["*"]),
        false => ExportTo::parse(words.iter().map(String::as_str)),
    }
}
