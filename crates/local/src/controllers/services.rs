//! Addresses of load balancers. (The API server itself gives services their addresses and node ports.)

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Service, ServiceStatus};

use crate::addresses::{self, ClusterNumber};
use crate::api::Change;

/// Gives every service of type LoadBalancer an address of its own, and takes it from those that are none any more.
pub(crate) fn reconcile(cluster: ClusterNumber, services: &[Arc<Service>]) -> Vec<Change> {
    let mut taken: BTreeSet<String> =
        services.iter().flat_map(|service| balancer_addresses(service)).collect();
    let living = services.iter().filter(|service| service.metadata.deletion_timestamp.is_none());
    living
        .filter_map(|service| {
            let balancer = balancer(cluster, service, &mut taken);
            let former =
                service.status.as_ref().and_then(|status| status.load_balancer.clone()).unwrap_or_default();
            if former == balancer {
                return None;
            }
            let mut next = (**service).clone();
            next.status = Some(ServiceStatus {
                load_balancer: Some(balancer),
                ..service.status.clone().unwrap_or_default()
            });
            Change::status(&next)
        })
        .collect()
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

fn balancer(cluster: ClusterNumber, service: &Service, taken: &mut BTreeSet<String>) -> LoadBalancerStatus {
    if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) != Some("LoadBalancer") {
        return LoadBalancerStatus::default();
    }
    let ours = |ip: &String| {
        addresses::parse(Some(ip)).is_some_and(|ip| cluster.balancers().any(|balancer| balancer == ip))
    };
    let ip = balancer_addresses(service)
        .into_iter()
        .find(ours)
        .or_else(|| cluster.balancers().map(|ip| ip.to_string()).find(|ip| taken.insert(ip.clone())));
    let ingress =
        |ip| LoadBalancerIngress { ip: Some(ip), ip_mode: Some("VIP".into()), ..Default::default() };
    LoadBalancerStatus { ingress: ip.map(|ip| vec![ingress(ip)]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Part;
    use serde_json::{Value, json};

    fn service(name: &str, kind: &str, status: Value) -> Arc<Service> {
        let service = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"type": kind},
            "status": status});
        Arc::new(serde_json::from_value(service).unwrap())
    }

    fn statuses(services: &[Arc<Service>]) -> Vec<Value> {
        let changes = reconcile(ClusterNumber::new(0).unwrap(), services);
        let status = |change| match change {
            Change::Replace(_, object, Part::Status) => object["status"]["loadBalancer"].clone(),
            other => panic!("{other:?}"),
        };
        changes.into_iter().map(status).collect()
    }

    #[test]
    fn every_balancer_has_an_address_of_its_own() {
        let own = json!({"loadBalancer": {"ingress": [{"ip": "127.10.240.1", "ipMode": "VIP"}]}});
        let services = [
            service("a", "LoadBalancer", json!({})),
            service("b", "LoadBalancer", own.clone()),
            service("c", "ClusterIP", json!({})),
            service("d", "ClusterIP", own),
        ];
        let statuses = statuses(&services);
        assert_eq!(statuses.len(), 2);
        assert_eq!(statuses[0]["ingress"][0]["ip"], "127.10.240.2");
        assert_eq!(statuses[1], json!({}));
    }
}
