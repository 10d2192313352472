//! Clusters: where each service, each subset of it and the workload itself are.

mod balance;
pub(crate) mod class;
mod dns;
mod fixed;
mod inbound;
pub(crate) mod outbound;
pub mod policy;
mod pool;
mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_api::kinds::gateway::ServerTlsMode;
use lateen_base::Namespace;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_registry::{EndpointSet, Port, Protocol, Resolution, Service, Source};

pub use class::Class;
pub use tls::TlsError;

use crate::cache::Shared;
use crate::snapshot::{MtlsMode, Scope, ServiceTarget};
use crate::{Built, Proxy, Snapshot};
use outbound::Input;

/// The clusters of a proxy: those of services, the fixed ones, those of its own workload.
pub fn build(snapshot: &Snapshot, proxy: &Proxy) -> Vec<Built<Cluster>> {
    inputs(snapshot, proxy)
        .into_iter()
        .flat_map(|input| outbound::build(&input))
        .chain(own(snapshot, proxy, &snapshot.scope(proxy), &snapshot.service_targets(proxy)))
        .collect()
}

/// The fixed clusters and those of the proxy's own workload.
pub(crate) fn own(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
) -> Vec<Built<Cluster>> {
    let class = Arc::new(Class::of(snapshot, proxy));
    let mesh = &snapshot.mesh;
    let mut clusters = vec![fixed::black_hole(mesh)];
    if class.is_router() {
        return clusters;
    }
    clusters.push(fixed::passthrough(&class, mesh));
    if class.loopback || fixed::resolves_unknown(mesh) {
        clusters.push(fixed::dynamic_dns(&class, mesh));
    }
    clusters.extend(inbound::build(proxy, scope, targets, &class, mesh));
    if class.captures {
        clusters.push(fixed::inbound_passthrough(&class, mesh));
    }
    clusters
}

/// The inputs of all clusters of services, in the order of their clusters.
fn inputs(snapshot: &Snapshot, proxy: &Proxy) -> Vec<Input> {
    let class = Arc::new(Class::of(snapshot, proxy));
    let scope = snapshot.scope(proxy);
    let mut inputs = Vec::new();
    let mut add = |service: &Arc<Service>, by_sni: bool| {
        let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
        inputs.extend(ports.map(|port| input(snapshot, &scope, &class, service, port, by_sni)));
    };
    scope.services.iter().filter(|s| s.resolution != Resolution::Alias).for_each(|s| add(s, false));
    if class.is_router() && passes_by_sni(snapshot, proxy) {
        scope.services.iter().filter(|service| by_sni(service)).for_each(|service| add(service, true));
    }
    inputs
}

/// Whether a gateway passes mesh mTLS on to a service by its SNI: the service has to be in the mesh, under one name.
pub(crate) fn by_sni(service: &Service) -> bool {
    !service.mesh_external && !service.host.is_wildcard() && service.resolution != Resolution::Alias
}

/// What the clusters of a port are made from.
pub(crate) fn input(
    snapshot: &Snapshot,
    scope: &Scope,
    class: &Arc<Class>,
    service: &Arc<Service>,
    port: &Port,
    by_sni: bool,
) -> Input {
    let set = snapshot.view.endpoints_of(service);
    // Load assignments are their own resource; only clusters that name endpoints themselves depend on them.
    let names = service.resolution.is_dns() || service.resolution == Resolution::None;
    let rule = scope.destination_rule(&service.host, &class.labels).cloned().map(Shared);
    Input {
        service: service.clone(),
        port: port.clone(),
        endpoints: set.filter(|_| names || passes_anywhere(rule.as_deref())).cloned(),
        accounts: accounts(snapshot, service, set.map(Arc::as_ref)),
        leaves_loopback: class.loopback && outbound::leaves_loopback(service, set.map(Arc::as_ref)),
        rule,
        peer_mode: snapshot.namespace_mode(&service.namespace),
        class: class.clone(),
        mesh: Shared(snapshot.mesh.clone()),
        by_sni,
    }
}

/// Whether a rule sends anything where the client wanted it: mTLS then depends on all endpoints.
fn passes_anywhere(rule: Option<&crate::snapshot::MergedRule>) -> bool {
    let Some(rule) = rule else { return false };
    let of_subsets = rule.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    rule.spec.traffic_policy.iter().chain(of_subsets).any(|policy| {
        let of_ports = policy.port_level_settings.iter().map(|settings| settings.load_balancer.as_ref());
        of_ports.chain([policy.load_balancer.as_ref()]).any(balance::passes_through)
    })
}

/// The identities that servers of a service may have: its workloads' and those declared, in every trust domain that
/// stands for the mesh's.
fn accounts(snapshot: &Snapshot, service: &Service, set: Option<&EndpointSet>) -> BTreeSet<String> {
    let known = set.into_iter().flat_map(|set| &set.service_accounts);
    let mut all: BTreeSet<String> = known.chain(&service.subject_alt_names).cloned().collect();
    let domain = format!("spiffe://{}/", snapshot.settings.trust_domain);
    let own: Vec<String> = all.iter().filter_map(|id| id.strip_prefix(&domain)).map(str::to_owned).collect();
    for alias in &snapshot.mesh.trust_domain_aliases {
        all.extend(own.iter().map(|rest| format!("spiffe://{alias}/{rest}")));
    }
    all
}

/// Whether any server of this gateway passes TLS on by SNI.
pub(crate) fn passes_by_sni(snapshot: &Snapshot, proxy: &Proxy) -> bool {
    let all = snapshot.objects(lateen_api::Kind::Gateway).iter();
    all.filter_map(|object| match &object.spec {
        lateen_api::Spec::Gateway(spec) if spec.selector.selects(&proxy.labels) => Some(spec),
        _ => None,
    })
    .flat_map(|spec| &spec.servers)
    .any(|server| server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough))
}

impl Snapshot {
    /// What workloads of a namespace accept that have no policy of their own.
    pub fn namespace_mode(&self, namespace: &Namespace) -> MtlsMode {
        self.peer_policy(namespace, &lateen_base::Labels::default()).mode
    }
}

/// The name under which statistics are kept: the mesh's pattern, or the cluster's name.
fn stat_name(pattern: &str, name: &str, service: &Service, port: &Port, subset: &str) -> String {
    stat_name_of(pattern, name, service, &port.name, port.number, subset)
}

fn stat_name_of(
    pattern: &str,
    name: &str,
    service: &Service,
    port_name: &str,
    port: u16,
    subset: &str,
) -> String {
    if pattern.is_empty() {
        return format!("{name};");
    }
    let short = match service.source {
        Source::Kubernetes => service.name.as_str(),
        Source::External => service.host.as_str(),
    };
    let text = pattern
        .replace("%SERVICE%", &outbound::stat_host(service))
        .replace("%SERVICE_NAME%", short)
        .replace("%SERVICE_FQDN%", service.host.as_str())
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &port.to_string())
        .replace("%SERVICE_PORT_NAME%", port_name)
        .replace("%SERVICE_PORT%", &port.to_string());
    format!("{text};")
}
