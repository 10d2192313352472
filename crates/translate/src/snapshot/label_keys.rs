//! The labels of proxies that matter: what is made for proxies that differ in no other is the same.

use std::collections::BTreeSet;

use lateen_api::kinds::DestinationRule;
use lateen_api::kinds::destination_rule::{LoadBalancerSettings, TrafficPolicy};
use lateen_api::mesh::MeshConfig;
use lateen_api::{Kind, Spec};
use lateen_base::Labels;

use super::policies::{GATEWAY_CLASS, GATEWAY_NAME, selector, targets};
use super::{Services, Snapshot};

/// Labels that metrics, spans and logs tell of a workload.
const CANONICAL: &[&str] = &[
    "service.istio.io/canonical-name",
    "app.kubernetes.io/name",
    "app",
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];
/// The label that names the node that a proxy is on.
pub(crate) const NODE: &str = "kubernetes.io/hostname";
/// Where a proxy is: these come from its locality, network and cluster.
const PLACE: &[&str] = &[
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
    "topology.istio.io/cluster",
    "topology.istio.io/network",
];

/// The keys of labels that matter, and whether nodes do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelKeys {
    /// To routes, clusters and endpoints.
    routing: BTreeSet<String>,
    /// To listeners.
    listening: BTreeSet<String>,
    /// Whether endpoints depend on the node that a proxy is on.
    pub(crate) nodes: bool,
}

impl LabelKeys {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut keys = Self::default();
        keys.routing.extend(PLACE.iter().map(|key| (*key).to_owned()));
        keys.failover_of_mesh(&snapshot.mesh);
        for kind in [Kind::Sidecar, Kind::Gateway, Kind::DestinationRule, Kind::VirtualService] {
            for object in snapshot.objects(kind) {
                match &object.spec {
                    Spec::Gateway(spec) => keys.routing.extend(spec.selector.0.keys().cloned()),
                    Spec::DestinationRule(spec) => keys.destination_rule(spec),
                    Spec::VirtualService(spec) => {
                        let http =
                            spec.http.iter().flat_map(|route| &route.r#match).map(|m| &m.source_labels);
                        let tcp = spec.tcp.iter().flat_map(|route| &route.r#match).map(|m| &m.source_labels);
                        let tls = spec.tls.iter().flat_map(|route| &route.r#match).map(|m| &m.source_labels);
                        keys.routing
                            .extend(http.chain(tcp).chain(tls).flat_map(|labels| labels.keys().cloned()));
                    }
                    spec => keys.routing.extend(selector(spec).into_iter().flat_map(|s| s.0.keys().cloned())),
                }
            }
        }
        keys.listening = keys.routing.clone();
        keys.listening.extend(CANONICAL.iter().map(|key| (*key).to_owned()));
        let policies = [
            Kind::Telemetry,
            Kind::AuthorizationPolicy,
            Kind::RequestAuthentication,
            Kind::PeerAuthentication,
            Kind::ProxyConfig,
            Kind::WasmPlugin,
            Kind::TrafficExtension,
        ];
        for object in policies.into_iter().flat_map(|kind| snapshot.objects(kind)) {
            keys.listening.extend(selector(&object.spec).into_iter().flat_map(|s| s.0.keys().cloned()));
            if !targets(&object.spec).is_empty() {
                keys.listening.extend([GATEWAY_NAME, GATEWAY_CLASS].map(str::to_owned));
            }
        }
        keys.nodes = keys.routing.contains(NODE) || by_node(&snapshot.services);
        if keys.nodes {
            keys.routing.insert(NODE.to_owned());
        }
        keys
    }

    /// The labels that routes, clusters and endpoints depend on.
    pub(crate) fn routing(&self, labels: &Labels) -> Labels {
        kept(labels, &self.routing)
    }

    /// The labels that listeners depend on.
    pub(crate) fn listening(&self, labels: &Labels) -> Labels {
        kept(labels, &self.listening)
    }

    fn destination_rule(&mut self, spec: &DestinationRule) {
        let selected = spec.workload_selector.iter().flat_map(|selector| selector.match_labels.0.keys());
        self.routing.extend(selected.cloned());
        let of_subsets = spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        spec.traffic_policy.iter().chain(of_subsets).for_each(|policy| self.failover_of(policy));
    }

    fn failover_of(&mut self, policy: &TrafficPolicy) {
        let of_ports = policy.port_level_settings.iter().filter_map(|port| port.load_balancer.as_ref());
        let all: Vec<&LoadBalancerSettings> = policy.load_balancer.iter().chain(of_ports).collect();
        for setting in all.into_iter().filter_map(|balancer| balancer.locality_lb_setting.as_ref()) {
            self.failover(&setting.failover_priority);
        }
    }

    fn failover_of_mesh(&mut self, mesh: &MeshConfig) {
        if let Some(setting) = &mesh.locality_lb_setting {
            self.failover(&setting.failover_priority);
        }
    }

    /// Entries are keys, or `KEY=VALUE`.
    fn failover(&mut self, priority: &[String]) {
        let key = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
        self.routing.extend(priority.iter().map(key));
    }
}

fn kept(labels: &Labels, keys: &BTreeSet<String>) -> Labels {
    let kept = labels.0.iter().filter(|(key, _)| keys.contains(*key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Whether any service prefers endpoints of the client's own node.
fn by_node(services: &Services) -> bool {
    let prefers = |wish: &String| wish.eq_ignore_ascii_case("PreferSameNode");
    services
        .by_age()
        .iter()
        .any(|service| service.node_local || service.traffic_distribution.as_ref().is_some_and(prefers))
}
