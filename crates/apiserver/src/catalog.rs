//! The resources that are served right now: built in, and from CustomResourceDefinitions.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::builtin;
use crate::custom;
use crate::resource::{Resource, ResourceName};
use crate::store::Store;

/// The store's name of CustomResourceDefinitions.
pub(crate) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// An immutable table of resources.
pub(crate) struct Catalog {
    resources: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), Arc<Resource>>,
    /// Per resource its versions, preferred first.
    by_name: HashMap<ResourceName, Vec<Arc<Resource>>>,
    /// Groups with their versions, preferred first, in the order of discovery.
    groups: Vec<(String, Vec<String>)>,
    /// State of the definitions that it was made from.
    pub(crate) definitions_at: u64,
}

impl Catalog {
    /// From the definitions in the store.
    pub(crate) fn load(store: &Store) -> Self {
        let definitions = ResourceName::from(CRDS);
        let definitions_at = store.changed_at(&definitions);
        let mut resources: Vec<Arc<Resource>> = builtin::resources().into_iter().map(Arc::new).collect();
        for object in store.list(&definitions, None).objects {
            let definition = object.neutral().unwrap_or(Value::Null);
            match custom::resources(&definition) {
                Ok(served) => resources.extend(served.into_iter().map(Arc::new)),
                Err(causes) => {
                    tracing::error!(name = &*object.name, ?causes, "a stored definition cannot be served")
                }
            }
        }
        Self::new(resources, definitions_at)
    }

    fn new(resources: Vec<Arc<Resource>>, definitions_at: u64) -> Self {
        let mut by_path = HashMap::new();
        let mut by_name: HashMap<ResourceName, Vec<Arc<Resource>>> = HashMap::new();
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &resources {
            let key = (resource.group.clone(), resource.version.clone(), resource.plural().to_owned());
            by_path.insert(key, resource.clone());
            by_name.entry(resource.name.clone()).or_default().push(resource.clone());
            let index = groups.iter().position(|(name, _)| *name == resource.group).unwrap_or_else(|| {
                groups.push((resource.group.clone(), Vec::new()));
                groups.len() - 1
            });
            let versions = &mut groups[index].1;
            if !versions.contains(&resource.version) {
                versions.push(resource.version.clone());
            }
        }
        for (_, versions) in &mut groups {
            versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        }
        for versions in by_name.values_mut() {
            // Events live in two groups: their core form is the stored one and comes first.
            versions.sort_by_key(|r| (r.group != r.name.group(), std::cmp::Reverse(priority(&r.version))));
        }
        Self { resources, by_path, by_name, groups, definitions_at }
    }

    pub(crate) fn at(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// A resource by name, in `version` when it is served, else in the preferred one.
    pub(crate) fn by_name(&self, name: &ResourceName, version: Option<&str>) -> Option<Arc<Resource>> {
        let versions = self.by_name.get(name)?;
        let asked = version.and_then(|v| versions.iter().find(|r| r.version == v));
        asked.or_else(|| versions.first()).cloned()
    }

    /// All served versions of a resource, preferred first.
    pub(crate) fn versions(&self, name: &ResourceName) -> &[Arc<Resource>] {
        self.by_name.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Group names with versions, preferred first; the core group is "".
    pub(crate) fn groups(&self) -> &[(String, Vec<String>)] {
        &self.groups
    }

    /// Every resource in every version.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// Resources of one group and version.
    pub(crate) fn of<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources.iter().filter(move |r| r.group == group && r.version == version)
    }

    /// Each stored resource once, in its preferred version.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_name.values().filter_map(|versions| versions.first()).filter(|r| !r.is_review())
    }
}

/// Kubernetes' order of versions: stable over beta over alpha, then the higher number.
pub(crate) fn priority(version: &str) -> (u8, u32, u32) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        Some(match &rest[digits..] {
            "" => (3, major, 0),
            beta if beta.starts_with("beta") => (2, major, beta[4..].parse().ok()?),
            alpha if alpha.starts_with("alpha") => (1, major, alpha[5..].parse().ok()?),
            _ => return None,
        })
    };
    parsed().unwrap_or((0, 0, 0))
}
