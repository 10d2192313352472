//! Which patches a proxy gets, and in which order.

use std::sync::Arc;

use super::compile::{Compiled, Entry};
use super::{PatchReport, PatchSet};
use crate::snapshot::policies::GATEWAY_NAME;
use crate::{Proxy, ProxyKind, Snapshot};

/// The patches that are meant for a proxy.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Those that can be followed.
    pub(crate) patches: PatchSet,
    /// What is to be said before any was tried: those that cannot be followed, values with unknown fields.
    pub(crate) problems: Vec<PatchReport>,
}

impl Snapshot {
    /// The patches for a proxy: by priority, those of the root namespace first, the older first, then by name.
    pub(crate) fn patches(&self, proxy: &Proxy) -> Selection {
        let filters = &self.envoy_filters;
        let root = self.root_namespace();
        let mut chosen: Vec<&Arc<Compiled>> = filters.in_namespace(root).iter().collect();
        if proxy.namespace != *root {
            chosen.extend(filters.in_namespace(&proxy.namespace));
        }
        chosen.retain(|filter| filter.is_for(proxy));
        chosen.sort_by_key(|filter| {
            let name = format!("{}.{}", filter.reference.name, filter.reference.namespace);
            (filter.priority, filter.reference.namespace != *root, filter.created, name)
        });
        let mut selection = Selection::default();
        let mut patches = Vec::new();
        for filter in chosen {
            for (index, entry) in filter.entries.iter().enumerate().filter(|(_, entry)| entry.is_for(proxy)) {
                match &entry.patch {
                    Ok(patch) => patches.push(patch.clone()),
                    Err(reason) => selection.problems.push(PatchReport::refused(filter, index, reason)),
                }
                if let Some(warning) = &entry.warning {
                    selection.problems.push(PatchReport::warning(filter, index, warning));
                }
            }
        }
        selection.patches = patches.into_iter().collect();
        selection
    }
}

impl Compiled {
    fn is_for(&self, proxy: &Proxy) -> bool {
        if self.targets.is_empty() {
            return self.selector.selects(&proxy.labels);
        }
        // Services, and classes of gateways, are targets for waypoints alone.
        self.targets.iter().any(|target| {
            let gateway = target.group == "gateway.networking.k8s.io" && target.kind == "Gateway";
            gateway
                && proxy.kind == ProxyKind::Router
                && proxy.namespace == self.reference.namespace
                && proxy.labels.value(GATEWAY_NAME) == Some(target.name.as_str())
        })
    }
}

impl Entry {
    fn is_for(&self, proxy: &Proxy) -> bool {
        let metadata = &proxy.metadata;
        let version = self.version.as_ref().is_none_or(|version| {
            !metadata.istio_version.is_empty() && version.is_match(&metadata.istio_version)
        });
        version && self.metadata.iter().all(|(key, value)| metadata.text(key).as_deref() == Some(value))
    }
}
