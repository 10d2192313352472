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
        self.of_host(&service.host, &service.namespace, viewer)
    }

    /// The same for a host of a namespace.
    fn of_host(&self, host: &Host, namespace: &Namespace, viewer: &Namespace) -> &[Arc<MergedRule>] {
        let own = Some(viewer).filter(|viewer| **viewer != self.root);
        let theirs = Some(namespace).filter(|namespace| !namespace.is_empty());
        let mut places = own.into_iter().chain(theirs).chain([&self.root]);
        places.find_map(|place| self.most_specific(place, host, viewer)).unwrap_or_default()
    }

    /// The rules of a namespace for the most specific host that has one which `viewer` is shown.
    fn most_specific(
        &self,
        namespace: &Namespace,
        host: &Host,
        viewer: &Namespace,
    ) -> Option<&[Arc<MergedRule>]> {
        let by_host = self.by_namespace.get(namespace)?;
        let shown = by_host.iter().filter(|(_, rules)| rules.iter().any(|rule| rule.is_shown_to(viewer)));
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
    let shown = || rules.iter().filter(|rule| rule.is_shown_to(namespace));
    let selected = shown().find(|rule| {
        let selector = rule.selector.as_ref();
        rule.object.namespace == *namespace && selector.is_some_and(|selector| selector.selects(client))
    });
    selected.or_else(|| shown().find(|rule| rule.selector.is_none()))
}

impl MergedRule {
    /// Whether a namespace is shown it; its own is only if it is named, too.
    fn is_shown_to(&self, namespace: &Namespace) -> bool {
        self.export_to.shows(&self.object.namespace, namespace)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(objects: &[(&str, &str, &str)]) -> DestinationRules {
        let object = |(namespace, name, spec): &(&str, &str, &str)| {
            let text = format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}"
            );
            match lateen_api::parse_yaml("rules", &text).remove(0) {
                Ok(lateen_api::Document::Istio(object)) => Arc::new(*object),
                other => panic!("{other:?}"),
            }
        };
        let objects: Vec<Arc<Object>> = objects.iter().map(object).collect();
        DestinationRules::of(&objects, &MeshConfig::istio_default(), &Settings::default())
    }

    /// The names of the rules that a client of a namespace uses for `a.shop`.
    fn used(rules: &DestinationRules, client: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let host = Host::new("a.shop.svc.cluster.local");
        let labels: Labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let found = rules.of_host(&host, &"shop".into(), &client.into());
        let used = for_client(found, &labels, &client.into());
        used.into_iter().flat_map(|rule| rule.from.iter().map(|object| object.name.clone())).collect()
    }

    #[test]
    fn the_clients_namespace_comes_first_then_the_services_then_the_root() {
        let all = rules(&[
            ("client", "own", "{host: a.shop.svc.cluster.local}"),
            ("shop", "theirs", "{host: a}"),
            ("istio-system", "root", "{host: '*.shop.svc.cluster.local'}"),
        ]);
        assert_eq!(used(&all, "client", &[]), ["own"]);
        assert_eq!(used(&all, "other", &[]), ["theirs"]);
        assert_eq!(used(&all, "istio-system", &[]), ["theirs"], "the root namespace has no rules of its own");
        let root = rules(&[("istio-system", "root", "{host: '*.shop.svc.cluster.local'}")]);
        assert_eq!(used(&root, "other", &[]), ["root"]);
        assert!(
            used(&rules(&[("elsewhere", "x", "{host: a.shop.svc.cluster.local}")]), "other", &[]).is_empty()
        );
    }

    #[test]
    fn a_rule_is_for_those_who_are_shown_it() {
        let all = rules(&[
            ("shop", "private", "{host: a, exportTo: ['.']}"),
            ("shop", "for-web", "{host: a, exportTo: [web]}"),
            ("client", "given-away", "{host: a.shop.svc.cluster.local, exportTo: [web]}"),
        ]);
        assert_eq!(used(&all, "shop", &[]), ["private"]);
        assert_eq!(used(&all, "web", &[]), ["for-web"], "the private one stays private");
        assert!(used(&all, "client", &[]).is_empty() && used(&all, "other", &[]).is_empty());
    }

    #[test]
    fn rules_of_one_host_are_one_and_selectors_keep_theirs_apart() {
        let all = rules(&[
            (
                "shop",
                "first",
                "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1}]}",
            ),
            (
                "shop",
                "second",
                "{host: a.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}, subsets: [{name: v1, labels: {x: z}}, {name: v2}]}",
            ),
            ("shop", "for-web", "{host: a, workloadSelector: {matchLabels: {app: web}}}"),
        ]);
        assert_eq!(used(&all, "shop", &[]), ["first", "second"]);
        assert_eq!(used(&all, "shop", &[("app", "web")]), ["for-web"]);
        assert_eq!(
            used(&all, "other", &[("app", "web")]),
            ["first", "second"],
            "selectors count in their namespace"
        );
        let host = Host::new("a.shop.svc.cluster.local");
        let merged = &all.of_host(&host, &"shop".into(), &"shop".into())[0].spec;
        let subsets: Vec<(&str, usize)> =
            merged.subsets.iter().map(|subset| (subset.name.as_str(), subset.labels.0.len())).collect();
        assert_eq!(subsets, [("v1", 0), ("v2", 0)], "of one name the first counts");
        let policy = merged.traffic_policy.as_ref().unwrap().load_balancer.as_ref().unwrap();
        assert_eq!(policy.simple, Some(lateen_api::kinds::destination_rule::SimpleLb::Random));
    }
}
