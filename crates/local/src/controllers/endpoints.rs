//! Endpoints of services: EndpointSlices, and the Endpoints of older clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::owner::controller;
use super::replica_sets::is_ready;
use super::selector::selects;
use super::template_hash::{five, fnv};
use crate::api::{Change, name_of, namespace_of};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
/// What the API allows in one slice.
const SLICE: usize = 1000;

/// Brings slices and endpoints to what services and pods say.
pub(crate) fn reconcile(
    services: &[Arc<Service>],
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    endpoints: &[Arc<Endpoints>],
) -> Vec<Change> {
    let living: Vec<&Service> = services
        .iter()
        .map(AsRef::as_ref)
        .filter(|service| service.metadata.deletion_timestamp.is_none())
        .collect();
    let mut wanted_slices = Vec::new();
    let mut wanted_endpoints = Vec::new();
    for service in &living {
        if has_selector(service) {
            let members = members(service, pods);
            wanted_slices.extend(selected(service, &members));
            wanted_endpoints.push(old_form(service, &members));
        } else if let Some(own) = endpoints.iter().find(|own| same_name(&own.metadata, &service.metadata)) {
            wanted_slices.extend(mirrored(service, own));
        }
    }
    let mut changes = of_slices(wanted_slices, slices);
    changes.extend(of_endpoints(wanted_endpoints, endpoints));
    changes
}

fn has_selector(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            && spec.type_.as_deref() != Some("ExternalName")
    })
}

fn same_name(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.name == b.name && a.namespace == b.namespace
}

/// Names and numbers of ports: pods that agree in them share a slice.
type PortKey = Vec<(Option<String>, i32)>;

/// A pod behind a service.
struct Member<'a> {
    pod: &'a Pod,
    address: String,
    ready: bool,
}

fn members<'a>(service: &Service, pods: &'a [Arc<Pod>]) -> Vec<Member<'a>> {
    let spec = service.spec.as_ref();
    let always = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let mut members: Vec<Member<'a>> = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod: &&Pod| pod.metadata.namespace == service.metadata.namespace)
        .filter(|pod| selects(spec.and_then(|spec| spec.selector.as_ref()), pod.metadata.labels.as_ref()))
        .filter_map(|pod| {
            let status = pod.status.as_ref()?;
            let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
            let address = status.pod_ip.clone().filter(|ip| !ip.is_empty() && !ended)?;
            Some(Member { pod, address, ready: always || is_ready(pod) })
        })
        .collect();
    members.sort_by(|a, b| a.pod.metadata.name.cmp(&b.pod.metadata.name));
    members
}

/// The service's ports as this pod has them: named target ports differ from pod to pod.
fn ports(service: &Service, pod: &Pod) -> Vec<(ServicePort, i32)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| Some((port.clone(), target_port(port, pod)?))).collect()
}

fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            containers
                .flat_map(|container| container.ports.iter().flatten())
                .find(|one| one.name.as_ref() == Some(name))
                .map(|one| one.container_port)
        }
    }
}

fn selected(service: &Service, members: &[Member<'_>]) -> Vec<EndpointSlice> {
    let mut groups: BTreeMap<PortKey, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for member in members {
        let ports = ports(service, member.pod);
        let key = ports.iter().map(|(port, number)| (port.name.clone(), *number)).collect();
        let group = groups.entry(key).or_insert_with(|| (ports.iter().map(slice_port).collect(), Vec::new()));
        group.1.push(endpoint(service, member));
    }
    if groups.is_empty() {
        // An empty slice says: known, and nobody is there.
        groups.insert(Vec::new(), (Vec::new(), Vec::new()));
    }
    let chunked = groups.into_values().flat_map(|(ports, endpoints)| {
        let chunks: Vec<Vec<Endpoint>> = match endpoints.is_empty() {
            true => vec![Vec::new()],
            false => endpoints.chunks(SLICE).map(<[Endpoint]>::to_vec).collect(),
        };
        chunks.into_iter().map(move |chunk| (ports.clone(), chunk))
    });
    chunked
        .enumerate()
        .map(|(number, (ports, endpoints))| slice(service, CONTROLLER, number, ports, endpoints))
        .collect()
}

fn slice_port((port, number): &(ServicePort, i32)) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(*number),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(service: &Service, member: &Member<'_>) -> Endpoint {
    let pod = member.pod;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let spec = pod.spec.as_ref();
    let subdomain = spec.and_then(|spec| spec.subdomain.as_ref());
    let hostname = spec.filter(|_| subdomain == service.metadata.name.as_ref());
    Endpoint {
        addresses: vec![member.address.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(member.ready && !terminating),
            serving: Some(member.ready),
            terminating: Some(terminating),
        }),
        hostname: hostname.and_then(|spec| spec.hostname.clone()),
        node_name: spec.and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target(pod)),
        ..Endpoint::default()
    }
}

fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

fn slice(
    service: &Service,
    manager: &str,
    number: usize,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let meta = &service.metadata;
    let seed = format!("{}/{number}/{manager}", meta.uid.as_deref().unwrap_or_default());
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name_of(meta).to_owned());
    labels.insert(MANAGED_BY.to_owned(), manager.to_owned());
    if service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None")) {
        labels.insert("service.kubernetes.io/headless".to_owned(), String::new());
    }
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", name_of(meta), five(fnv(seed.as_bytes())))),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller(service)]),
            ..ObjectMeta::default()
        },
        address_type: "IPv4".to_owned(),
        endpoints,
        ports: Some(ports),
    }
}

/// A service without a selector whose Endpoints somebody keeps by hand.
fn mirrored(service: &Service, own: &Endpoints) -> Vec<EndpointSlice> {
    let subsets = own.subsets.iter().flatten().enumerate();
    subsets
        .map(|(number, subset)| {
            let addresses = |list: &Option<Vec<EndpointAddress>>, ready: bool| -> Vec<Endpoint> {
                list.iter().flatten().map(|address| mirror(address, ready)).collect()
            };
            let mut endpoints = addresses(&subset.addresses, true);
            endpoints.extend(addresses(&subset.not_ready_addresses, false));
            let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            });
            slice(service, MIRROR, number, ports.collect(), endpoints)
        })
        .collect()
}

fn mirror(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(ready),
            terminating: Some(false),
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn old_form(service: &Service, members: &[Member<'_>]) -> Endpoints {
    let mut groups: BTreeMap<PortKey, EndpointSubset> = BTreeMap::new();
    for member in members.iter().filter(|member| member.pod.metadata.deletion_timestamp.is_none()) {
        let ports = ports(service, member.pod);
        let key = ports.iter().map(|(port, number)| (port.name.clone(), *number)).collect();
        let subset = groups.entry(key).or_insert_with(|| EndpointSubset {
            ports: Some(ports.iter().map(old_port).collect()),
            ..EndpointSubset::default()
        });
        let address = EndpointAddress {
            ip: member.address.clone(),
            node_name: member.pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            target_ref: Some(target(member.pod)),
            ..EndpointAddress::default()
        };
        let list = if member.ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: service.metadata.labels.clone(),
            owner_references: Some(vec![controller(service)]),
            ..ObjectMeta::default()
        },
        subsets: Some(groups.into_values().collect::<Vec<_>>()).filter(|subsets| !subsets.is_empty()),
    }
}

fn old_port((port, number): &(ServicePort, i32)) -> OldPort {
    OldPort {
        name: port.name.clone(),
        port: *number,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn of_slices(wanted: Vec<EndpointSlice>, present: &[Arc<EndpointSlice>]) -> Vec<Change> {
    let mut kept: BTreeSet<(String, String)> = BTreeSet::new();
    let mut changes = Vec::new();
    for wanted in wanted {
        kept.insert((namespace_of(&wanted.metadata).to_owned(), name_of(&wanted.metadata).to_owned()));
        match present.iter().find(|one| same_name(&one.metadata, &wanted.metadata)) {
            None => changes.extend(Change::create(&wanted)),
            Some(now)
                if now.endpoints == wanted.endpoints
                    && none_if_empty(&now.ports) == none_if_empty(&wanted.ports)
                    && now.metadata.labels == wanted.metadata.labels => {}
            Some(now) => {
                let mut next = (**now).clone();
                (next.endpoints, next.ports) = (wanted.endpoints, wanted.ports);
                next.metadata.labels = wanted.metadata.labels;
                changes.extend(Change::replace(&next));
            }
        }
    }
    let ours = present.iter().filter(|slice| {
        let manager = slice.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        manager.is_some_and(|manager| manager == CONTROLLER || manager == MIRROR)
    });
    let left = ours.filter(|slice| {
        let key = (namespace_of(&slice.metadata).to_owned(), name_of(&slice.metadata).to_owned());
        !kept.contains(&key)
    });
    changes.extend(left.filter_map(|slice| Change::delete(&**slice)));
    changes
}

fn none_if_empty<T>(list: &Option<Vec<T>>) -> Option<&Vec<T>> {
    list.as_ref().filter(|list| !list.is_empty())
}

fn of_endpoints(wanted: Vec<Endpoints>, present: &[Arc<Endpoints>]) -> Vec<Change> {
    let changes = wanted.into_iter().filter_map(|wanted| {
        match present.iter().find(|one| same_name(&one.metadata, &wanted.metadata)) {
            None => Change::create(&wanted),
            Some(now)
                if none_if_empty(&now.subsets) == none_if_empty(&wanted.subsets)
                    && now.metadata.labels == wanted.metadata.labels =>
            {
                None
            }
            Some(now) => {
                let mut next = (**now).clone();
                next.subsets = wanted.subsets;
                next.metadata.labels = wanted.metadata.labels;
                Change::replace(&next)
            }
        }
    });
    changes.collect()
}

#[cfg(test)]
mod tests;
