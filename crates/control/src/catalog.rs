//! What one proxy gets, as its connection serves it.

use std::sync::Arc;

use lateen_translate as translate;
use lateen_translate::{AtStart, Generated, List, Made, PatchReport, Patched, Scoping};
use lateen_xds::{Catalog, Entry, Resource, types};

use crate::secrets::Secrets;

/// The types of which there are lists.
const LISTED: [&str; 7] = [
    types::CLUSTER,
    types::ENDPOINT,
    types::LISTENER,
    types::ROUTE,
    types::NAME_TABLE,
    types::EXTENSION,
    types::BOOTSTRAP,
];

/// A proxy's resources at one moment.
pub(crate) struct ProxyCatalog {
    /// By type, in the order of [`LISTED`]: what is shared with other proxies, and what is the proxy's own.
    lists: [[Arc<List>; 2]; LISTED.len()],
    /// What is different from the catalog before, by type.
    news: Option<[News; LISTED.len()]>,
    /// The patches of EnvoyFilters that are meant for the proxy, and what they did.
    pub(crate) patched: Patched,
    /// Whether the proxy loads clusters on demand.
    pub(crate) scoping: Scoping,
    /// The clusters of services that it has from the start, where it loads the others on demand.
    at_start: Option<AtStart>,
    secrets: Secrets,
    /// The namespace whose secrets the proxy may have; none for a proxy that gets no secrets.
    namespace: Option<String>,
}

struct News {
    since: u64,
    names: Vec<Arc<str>>,
}

impl ProxyCatalog {
    /// The catalog of what was generated, with the secrets of a namespace, where the proxy may have them.
    pub(crate) fn new(generated: Generated, secrets: Secrets, namespace: Option<String>) -> Self {
        let empty = Arc::<List>::default;
        Self {
            lists: [
                generated.clusters,
                generated.endpoints,
                [generated.listeners, empty()],
                [generated.routes, empty()],
                [generated.name_table, empty()],
                [generated.extensions, empty()],
                [generated.bootstrap, empty()],
            ],
            news: None,
            patched: generated.patched,
            scoping: generated.scoping,
            at_start: generated.at_start,
            secrets,
            namespace,
        }
    }

    /// Remembers what is different from the catalog that the client saw before; false when nothing is.
    pub(crate) fn follow(&mut self, before: &Self) -> bool {
        let news = std::array::from_fn(|at| {
            let pairs = self.lists[at].iter().zip(&before.lists[at]);
            let mut names: Vec<Arc<str>> = pairs.flat_map(|(new, old)| new.since(old).to_vec()).collect();
            if LISTED[at] == types::CLUSTER {
                names.extend(self.scope_changes(before));
            }
            names.sort();
            names.dedup();
            News { since: before.stamp(LISTED[at]), names }
        });
        let differs = self.secrets.generation() != before.secrets.generation()
            || LISTED.iter().any(|kind| self.stamp(kind) != before.stamp(kind));
        self.news = Some(news);
        differs
    }

    /// The names that a wildcard covers in only one of both, though the same resource may bear it.
    fn scope_changes(&self, before: &Self) -> Vec<Arc<str>> {
        match (&self.at_start, &before.at_start) {
            (None, None) => Vec::new(),
            (Some(now), Some(before)) => now.differing(before).map(Arc::from).collect(),
            _ => {
                let both = self.of_type(types::CLUSTER).chain(before.of_type(types::CLUSTER));
                both.map(|cluster| cluster.name.clone()).collect()
            }
        }
    }

    /// Of how many clusters the proxy has how many from the start.
    pub(crate) fn clusters(&self) -> (usize, usize) {
        let of_kind = || self.of_type(types::CLUSTER);
        let at_start = of_kind().filter(|cluster| self.covers(types::CLUSTER, &cluster.name)).count();
        (of_kind().count(), at_start)
    }

    /// What each patch of an EnvoyFilter did, or why it did nothing.
    pub(crate) fn patches(&self) -> Vec<PatchReport> {
        self.patched.reports(&Made {
            listeners: self.of_type(types::LISTENER).collect(),
            clusters: self.of_type(types::CLUSTER).collect(),
            routes: self.of_type(types::ROUTE).collect(),
        })
    }

    /// The resource as it was generated.
    pub(crate) fn generated(&self, type_url: &str, name: &str) -> Option<&Arc<translate::Resource>> {
        self.lists_of(type_url)?.iter().find_map(|list| list.find(name))
    }

    /// The resources of a type as they were generated.
    pub(crate) fn of_type<'a>(
        &'a self,
        type_url: &str,
    ) -> impl Iterator<Item = &'a Arc<translate::Resource>> + use<'a> {
        self.lists_of(type_url).into_iter().flatten().flat_map(|list| list.resources())
    }

    fn lists_of(&self, type_url: &str) -> Option<&[Arc<List>; 2]> {
        self.lists.get(LISTED.iter().position(|kind| *kind == type_url)?)
    }
}

/// A stamp of both lists.
fn stamp([shared, own]: &[Arc<List>; 2]) -> u64 {
    shared.stamp() ^ own.stamp().rotate_left(1)
}

impl Catalog for ProxyCatalog {
    fn stamp(&self, type_url: &str) -> u64 {
        match type_url {
            types::SECRET => self.secrets.generation(),
            types::CLUSTER => {
                let at_start = self.at_start.as_ref().map_or(0, AtStart::stamp);
                self.lists_of(type_url).map_or(0, stamp) ^ at_start.rotate_left(3)
            }
            other => self.lists_of(other).map_or(0, stamp),
        }
    }

    fn since(&self, type_url: &str, seen: u64) -> Option<&[Arc<str>]> {
        let at = LISTED.iter().position(|kind| *kind == type_url)?;
        let news = self.news.as_ref()?.get(at)?;
        (news.since == seen).then_some(&news.names)
    }

    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        let at_start = self.at_start.as_ref().filter(|_| type_url == types::CLUSTER);
        let covered = move |r: &&Arc<translate::Resource>| at_start.is_none_or(|names| names.has(&r.name));
        let resources = self.of_type(type_url).filter(covered);
        Box::new(resources.map(|r| Entry { name: &r.name, version: &r.version, any: &r.any }))
    }

    fn find(&self, type_url: &str, name: &str) -> Option<Resource> {
        if type_url == types::SECRET {
            return self.secrets.find(name, self.namespace.as_deref()?);
        }
        let resource = self.generated(type_url, name)?;
        Some(Resource {
            name: resource.name.clone(),
            version: resource.version.clone(),
            any: resource.any.clone(),
        })
    }

    fn contains(&self, type_url: &str, name: &str) -> bool {
        match type_url {
            types::SECRET => self.find(type_url, name).is_some(),
            _ => self.generated(type_url, name).is_some(),
        }
    }

    fn covers(&self, type_url: &str, name: &str) -> bool {
        let wild = match type_url {
            types::CLUSTER => self.at_start.as_ref().is_none_or(|names| names.has(name)),
            other => other != types::SECRET,
        };
        wild && self.contains(type_url, name)
    }

    /// A gateway's listener waits for a secret that nobody made yet, as Istio has it.
    fn is_pending(&self, type_url: &str, name: &str) -> bool {
        type_url == types::SECRET
            && self.namespace.is_some()
            && Secrets::knows_form(name)
            && !self.contains(type_url, name)
    }
}
