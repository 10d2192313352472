//! Service addresses and node ports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec, ServiceStatus,
};

use super::template_hash::fnv;
use crate::addresses::{self, ClusterNumber, Pool};
use crate::api::{Change, name_of, namespace_of};

/// The node ports Kubernetes gives out.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The index of the API server's own service address.
pub(crate) const KUBERNETES: u16 = 1;

/// Gives every service the addresses and ports it lacks. Equal services get equal node ports again, also in a new cluster.
pub(crate) fn reconcile(cluster: ClusterNumber, services: &[Arc<Service>]) -> Vec<Change> {
    let mut order: Vec<&Service> = services.iter().map(AsRef::as_ref).collect();
    order.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
    let mut addresses = Pool::new(order.iter().flat_map(|service| indices(cluster, service)));
    let mut ports: BTreeSet<u16> = order.iter().flat_map(|service| node_ports(service)).collect();
    order
        .into_iter()
        .filter(|service| service.metadata.deletion_timestamp.is_none())
        .flat_map(|service| one(cluster, service, &mut addresses, &mut ports))
        .collect()
}

fn one(
    cluster: ClusterNumber,
    service: &Service,
    addresses: &mut Pool,
    ports: &mut BTreeSet<u16>,
) -> Vec<Change> {
    let mut wanted = service.clone();
    if let Some(spec) = wanted.spec.as_mut() {
        give_address(cluster, spec, addresses);
        give_ports(&service.metadata, spec, ports);
    }
    if wanted != *service {
        // The status follows, with the object this write makes.
        return Change::replace(&wanted).into_iter().collect();
    }
    let balancer = balancer(cluster, service, addresses);
    let former = service.status.as_ref().and_then(|status| status.load_balancer.clone()).unwrap_or_default();
    if former == balancer {
        return Vec::new();
    }
    let status = ServiceStatus { load_balancer: Some(balancer), ..service.status.clone().unwrap_or_default() };
    Change::status(&Service { status: Some(status), ..wanted }).into_iter().collect()
}

fn kind(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

fn give_address(cluster: ClusterNumber, spec: &mut ServiceSpec, addresses: &mut Pool) {
    if kind(spec) == "ExternalName" || is_headless(spec) {
        return;
    }
    if spec.cluster_ip.as_deref().unwrap_or_default().is_empty()
        && let Some(index) = addresses.take()
    {
        let address = cluster.service(index).to_string();
        spec.cluster_ips = Some(vec![address.clone()]);
        spec.cluster_ip = Some(address);
    }
}

fn give_ports(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    spec: &mut ServiceSpec,
    taken: &mut BTreeSet<u16>,
) {
    let balanced = kind(spec) == "LoadBalancer" && spec.allocate_load_balancer_node_ports != Some(false);
    let gives = balanced || kind(spec) == "NodePort";
    let keeps = gives || kind(spec) == "LoadBalancer";
    for port in spec.ports.iter_mut().flatten() {
        if !keeps {
            port.node_port = None;
        } else if gives && port.node_port.unwrap_or(0) == 0 {
            let name = port.name.as_deref().unwrap_or_default();
            let seed = format!("{}/{}/{name}/{}", namespace_of(meta), name_of(meta), port.port);
            port.node_port = free_port(&seed, taken).map(i32::from);
        }
    }
}

fn free_port(seed: &str, taken: &mut BTreeSet<u16>) -> Option<u16> {
    let (first, count) = (*NODE_PORTS.start(), NODE_PORTS.end() - NODE_PORTS.start() + 1);
    // The lower ports are left to those who choose theirs, as Kubernetes does.
    let reserved = 128;
    let start = u16::try_from(fnv(seed.as_bytes()) % u32::from(count - reserved)).unwrap_or(0);
    (0..count - reserved)
        .map(|step| first + reserved + (start + step) % (count - reserved))
        .find(|port| taken.insert(*port))
}

fn node_ports(service: &Service) -> Vec<u16> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port: &ServicePort| u16::try_from(port.node_port?).ok()).collect()
}

fn indices(cluster: ClusterNumber, service: &Service) -> Vec<u16> {
    let own = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    let balanced = balancer_addresses(service);
    let all = std::iter::once(own).chain(balanced.iter().map(|ip| Some(&**ip)));
    all.filter_map(|ip| cluster.service_index(addresses::parse(ip)?)).chain([KUBERNETES]).collect()
}

/// The addresses at which a load balancer of the service answers.
pub(crate) fn balancer_addresses(service: &Service) -> Vec<String> {
    service
        .status
        .iter()
        .flat_map(|status| status.load_balancer.iter())
        .flat_map(|balancer| balancer.ingress.iter().flatten())
        .filter_map(|ingress| ingress.ip.clone())
        .collect()
}

fn balancer(cluster: ClusterNumber, service: &Service, addresses: &mut Pool) -> LoadBalancerStatus {
    if service.spec.as_ref().map(kind) != Some("LoadBalancer") {
        return LoadBalancerStatus::default();
    }
    let present = balancer_addresses(service);
    let ours = |ip: &&String| addresses::parse(Some(ip)).and_then(|ip| cluster.service_index(ip)).is_some();
    let ip = match present.iter().find(ours) {
        Some(ip) => Some(ip.clone()),
        None => addresses.take().map(|index| cluster.service(index).to_string()),
    };
    let ingress = ip.map(|ip| {
        vec![LoadBalancerIngress { ip: Some(ip), ip_mode: Some("VIP".into()), ..Default::default() }]
    });
    LoadBalancerStatus { ingress }
}

/// Node ports that more than one service asks for: the older one has it.
pub(crate) fn contested(services: &[Arc<Service>]) -> BTreeMap<u16, Vec<String>> {
    let mut claims: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for service in services {
        for port in node_ports(service) {
            let meta = &service.metadata;
            claims.entry(port).or_default().push(format!("{}/{}", namespace_of(meta), name_of(meta)));
        }
    }
    claims.retain(|_, names| names.len() > 1);
    claims
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Part;
    use serde_json::{Value, json};

    fn service(name: &str, spec: Value) -> Arc<Service> {
        let service = json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
        Arc::new(serde_json::from_value(service).unwrap())
    }

    /// Carries the changes out until nothing changes.
    fn settle(mut services: Vec<Arc<Service>>) -> Vec<Service> {
        let cluster = ClusterNumber::new(0).unwrap();
        for _ in 0..5 {
            let changes = reconcile(cluster, &services);
            if changes.is_empty() {
                return services.iter().map(|service| (**service).clone()).collect();
            }
            for change in changes {
                let Change::Replace(_, object, part) = change else { panic!("{change:?}") };
                let new: Service = serde_json::from_value(object).unwrap();
                let place = services.iter_mut().find(|old| old.metadata.name == new.metadata.name).unwrap();
                let mut merged = (**place).clone();
                match part {
                    Part::Whole => merged.spec = new.spec,
                    Part::Status => merged.status = new.status,
                }
                *place = Arc::new(merged);
            }
        }
        panic!("the services do not come to rest");
    }

    fn spec(service: &Service) -> &ServiceSpec {
        service.spec.as_ref().unwrap()
    }

    #[test]
    fn every_service_gets_an_address_of_its_own() {
        let port = json!([{"port": 80}]);
        let services = settle(vec![
            service("a", json!({"ports": port})),
            service("b", json!({"ports": port})),
            service("headless", json!({"clusterIP": "None"})),
            service("external", json!({"type": "ExternalName", "externalName": "x.y"})),
        ]);
        let ip = |at: usize| spec(&services[at]).cluster_ip.clone();
        assert!(ip(0).unwrap().starts_with("127.210."));
        assert_ne!(ip(0), ip(1));
        assert_eq!((ip(2).as_deref(), ip(3)), (Some("None"), None));
    }

    #[test]
    fn node_ports_are_the_same_in_every_cluster() {
        let gateway = json!({"type": "LoadBalancer", "ports": [
            {"name": "http2", "port": 80}, {"name": "https", "port": 443}, {"name": "own", "port": 1, "nodePort": 31400}]});
        let first = settle(vec![service("gateway", gateway.clone())]);
        let second = settle(vec![service("other", json!({"ports": [{"port": 1}]})), service("gateway", gateway)]);
        assert_eq!(node_ports(&first[0]), node_ports(&second[1]));
        assert_eq!(node_ports(&first[0])[2], 31_400);
        assert!(node_ports(&first[0]).iter().all(|port| NODE_PORTS.contains(port)));
        assert!(balancer_addresses(&first[0])[0].starts_with("127.210."));
    }

    #[test]
    fn a_service_that_becomes_internal_loses_its_ports_and_balancer() {
        let mut services = settle(vec![service("a", json!({"type": "LoadBalancer", "ports": [{"port": 80}]}))]);
        services[0].spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
        let after = settle(services.into_iter().map(Arc::new).collect());
        assert!(node_ports(&after[0]).is_empty());
        assert!(balancer_addresses(&after[0]).is_empty());
    }

    #[test]
    fn contested_node_ports_are_found() {
        let ask = json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]});
        let services = [service("a", ask.clone()), service("b", ask)];
        assert_eq!(contested(&services)[&30_001], ["default/a", "default/b"]);
    }
}
