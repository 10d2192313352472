//! Objects that apply to a workload: of the root namespace and its own, by selector.

use std::sync::Arc;

use lateen_api::{Kind, Object, Spec};
use lateen_base::{Labels, Namespace};

use super::Snapshot;

impl Snapshot {
    /// The objects of a kind that apply to workloads of these labels in a namespace: the root namespace's first, then
    /// its own, each oldest first. Kinds without selector apply to the whole namespace.
    pub fn applicable(&self, kind: Kind, namespace: &Namespace, labels: &Labels) -> Vec<Arc<Object>> {
        let applies = |object: &&Arc<Object>| selector(&object.spec).is_none_or(|s| s.selects(labels));
        let root = self.objects_in(kind, self.root_namespace()).filter(applies);
        let mut all: Vec<Arc<Object>> = root.cloned().collect();
        if namespace != self.root_namespace() {
            all.extend(self.objects_in(kind, namespace).filter(applies).cloned());
        }
        all
    }
}

/// The labels that an object selects workloads by.
pub(super) fn selector(spec: &Spec) -> Option<&Labels> {
    match spec {
        Spec::Gateway(spec) => Some(&spec.selector),
        Spec::Sidecar(spec) => spec.workload_selector.as_ref().map(|s| &s.labels),
        Spec::EnvoyFilter(spec) => spec.workload_selector.as_ref().map(|s| &s.labels),
        Spec::ProxyConfig(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::PeerAuthentication(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::RequestAuthentication(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::AuthorizationPolicy(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::Telemetry(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::WasmPlugin(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        Spec::TrafficExtension(spec) => spec.selector.as_ref().map(|s| &s.match_labels),
        _ => None,
    }
}
