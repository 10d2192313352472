//! Destination rules: merged by host, found by the proxy's namespace, the service's, then the root namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::kinds::DestinationRule;
use lateen_api::mesh::MeshConfig;
use lateen_api::{Object, Spec};
use lateen_base::{Host, Labels, Namespace, ObjectRef};
use lateen_registry::{ExportTo, Service, Settings};

use crate::hosts;

/// Destination rules of one namespace, host and workload selector, merged: the first one's policy, all subsets.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedRule {
    /// The first of them; clusters refer to it.
    pub object: ObjectRef,
    /// All of them.
    pub from: Vec<ObjectRef>,
    /// What they say together.
    pub spec: Arc<DestinationRule>,
    /// The host, completed.
    pub host: Host,
    /// Whom it is shown to, the mesh's default filled in.
    pub export_to: ExportTo,
    /// The clients that it is for; `None` for all.
    pub selector: Option<Labels>,
}

type ByHost = BTreeMap<Host, Vec<Arc<MergedRule>>>;

/// The destination rules of the mesh.
#[derive(Debug, Default)]
pub struct DestinationRules {
    by_namespace: BTreeMap<Namespace, ByHost>,
    root: Namespace,
}

impl DestinationRules {
    pub(super) fn of(objects: &[Arc<Object>], mesh: &MeshConfig, settings: &Settings) -> Self {
        let mut rules = Self { root: settings.root_namespace.clone(), ..Self::default() };
        for object in objects {
            let Spec::DestinationRule(spec) = &object.spec else { continue };
            let words = match spec.export_to.is_empty() {
                true => &mesh.default_destination_rule_export_to,
                false => &spec.export_to,
            };
            let export_to = match words.is_empty() {
                true => ExportTo::parse(["*"]),
                false => ExportTo::parse(words.iter().map(String::as_str)),
            };
            let host = hosts::resolve(&spec.host, &object.namespace, &settings.domain);
            let selector = spec.workload_selector.as_ref().map(|s| s.match_labels.clone());
            let of_host = rules
                .by_namespace
                .entry(object.namespace.clone())
                .or_default()
                .entry(host.clone())
                .or_default();
            merge(of_host, object.reference(), spec, host, export_to, selector.filter(|s| !s.is_empty()));
        }
        rules
    }

    /// The rules for a service as proxies of a namespace see it: those of the first namespace that has any, of the
    /// proxy's, the service's and the root namespace; there, of the most specific host.
    pub fn lookup(&self, service: &Service, viewer: &Namespace) -> &[Arc<MergedRule>] {
        let own = Some(viewer).filter(|viewer| **viewer != self.root);
        if let Some(found) = own.and_then(|own| self.most_specific(own, &service.host, None)) {
            return found;
        }
        let theirs = Some(&service.namespace).filter(|namespace| !namespace.is_empty());
        if let Some(found) = theirs.and_then(|theirs| self.most_specific(theirs, &service.host, Some(viewer)))
        {
            return found;
        }
        self.most_specific(&self.root, &service.host, Some(viewer)).unwrap_or_default()
    }

    /// The rules of a namespace for a host, of those that `viewer` is shown where given.
    fn most_specific(
        &self,
        namespace: &Namespace,
        host: &Host,
        viewer: Option<&Namespace>,
    ) -> Option<&[Arc<MergedRule>]> {
        let by_host = self.by_namespace.get(namespace)?;
        let shown = by_host.iter().filter(|(_, rules)| {
            viewer.is_none_or(|viewer| rules.iter().any(|rule| rule.export_to.shows(namespace, viewer)))
        });
        let best = hosts::most_specific(host, shown.map(|(host, _)| host))?;
        by_host.get(best).map(Vec::as_slice)
    }
}

/// The rule that applies to a client: one whose selector has its labels, else the one for all. Selectors count only
/// in the client's own namespace.
pub(super) fn for_client<'a>(
    rules: &'a [Arc<MergedRule>],
    client: &Labels,
    namespace: &Namespace,
) -> Option<&'a Arc<MergedRule>> {
    let selected = rules.iter().find(|rule| {
        let selector = rule.selector.as_ref();
        rule.object.namespace == *namespace && selector.is_some_and(|selector| selector.selects(client))
    });
    selected.or_else(|| rules.iter().find(|rule| rule.selector.is_none()))
}

fn merge(
    of_host: &mut Vec<Arc<MergedRule>>,
    object: ObjectRef,
    spec: &Arc<DestinationRule>,
    host: Host,
    export_to: ExportTo,
    selector: Option<Labels>,
) {
    let same = |rule: &&mut Arc<MergedRule>| rule.selector == selector && rule.export_to == export_to;
    let Some(merged) = of_host.iter_mut().find(same) else {
        let from = vec![object.clone()];
        of_host.push(Arc::new(MergedRule { object, from, spec: spec.clone(), host, export_to, selector }));
        return;
    };
    let merged = Arc::make_mut(merged);
    merged.from.push(object);
    let into = Arc::make_mut(&mut merged.spec);
    for subset in &spec.subsets {
        if !into.subsets.iter().any(|known| known.name == subset.name) {
            into.subsets.push(subset.clone());
        }
    }
    if into.traffic_policy.is_none() {
        into.traffic_policy.clone_from(&spec.traffic_policy);
    }
}
