//! What one proxy gets, as its connection serves it.

use std::sync::Arc;

use lateen_proto::Message;
use lateen_translate as translate;
use lateen_xds::{Catalog, Entry, Resource, types};
use xxhash_rust::xxh3::Xxh3;

use crate::secrets::Secrets;

/// A proxy's resources at one moment.
pub(crate) struct ProxyCatalog {
    clusters: List,
    endpoints: List,
    listeners: List,
    routes: List,
    name_table: List,
    secrets: Secrets,
    /// The namespace whose secrets the proxy may have; none for a proxy that gets no secrets.
    namespace: Option<String>,
}

/// The resources of one type, by name.
#[derive(Default)]
struct List {
    resources: Vec<Arc<translate::Resource>>,
    stamp: u64,
}

impl List {
    fn new(mut resources: Vec<Arc<translate::Resource>>) -> Self {
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        resources.dedup_by(|a, b| a.name == b.name);
        let mut hash = Xxh3::new();
        for resource in &resources {
            hash.update(resource.name.as_bytes());
            hash.update(&[0]);
            hash.update(resource.version.as_bytes());
            hash.update(&[0]);
        }
        Self { stamp: hash.digest(), resources }
    }

    fn find(&self, name: &str) -> Option<&Arc<translate::Resource>> {
        let at = self.resources.binary_search_by(|resource| (*resource.name).cmp(name)).ok()?;
        self.resources.get(at)
    }
}

impl ProxyCatalog {
    /// The catalog of what was generated. Secrets go to gateways, from their own namespace.
    pub(crate) fn new(generated: translate::Resources, secrets: Secrets, proxy: &translate::Proxy) -> Self {
        let table = generated.name_table.encode_to_vec();
        let name_table = match table.is_empty() {
            true => List::default(),
            false => List::new(vec![Arc::new(translate::Resource::pack("", &*generated.name_table, vec![]))]),
        };
        Self {
            clusters: List::new(generated.clusters),
            endpoints: List::new(generated.endpoints),
            listeners: List::new(generated.listeners),
            routes: List::new(generated.routes),
            name_table,
            secrets,
            namespace: proxy.is_router().then(|| proxy.namespace.to_string()),
        }
    }

    /// Whether a client that has seen the other sees anything new in this.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        let stamps = |c: &Self| types::ORDER.iter().map(|kind| c.stamp(kind)).collect::<Vec<_>>();
        stamps(self) != stamps(other)
    }

    /// The resource as it was generated.
    pub(crate) fn generated(&self, type_url: &str, name: &str) -> Option<&Arc<translate::Resource>> {
        self.list(type_url)?.find(name)
    }

    /// The resources of a type as they were generated.
    pub(crate) fn of_type(&self, type_url: &str) -> &[Arc<translate::Resource>] {
        self.list(type_url).map_or(&[], |list| &list.resources)
    }

    fn list(&self, type_url: &str) -> Option<&List> {
        Some(match type_url {
            types::CLUSTER => &self.clusters,
            types::ENDPOINT => &self.endpoints,
            types::LISTENER => &self.listeners,
            types::ROUTE => &self.routes,
            types::NAME_TABLE => &self.name_table,
            _ => return None,
        })
    }
}

impl Catalog for ProxyCatalog {
    fn stamp(&self, type_url: &str) -> u64 {
        match type_url {
            types::SECRET => self.secrets.generation(),
            other => self.list(other).map_or(0, |list| list.stamp),
        }
    }

    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        let resources = self.of_type(type_url).iter();
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

    /// A gateway's listener waits for a secret that nobody made yet, as Istio has it.
    fn is_pending(&self, type_url: &str, name: &str) -> bool {
        type_url == types::SECRET
            && self.namespace.is_some()
            && Secrets::knows_form(name)
            && !self.contains(type_url, name)
    }
}
