//! Endpoints as Envoy takes them, and their grouping by locality.

use std::collections::BTreeMap;

use lateen_base::{Labels, Locality};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::endpoint::v3 as endpoint;
use lateen_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_registry::{Endpoint, EndpointAddress, Health, NetworkGateway};

use crate::filters::wire::{pipe_address, structure, tcp_address, text};

/// An endpoint in a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The workload's labels, by which failover may choose.
    pub(crate) labels: Labels,
    /// Its share.
    pub(crate) weight: u32,
    /// The message.
    pub(crate) message: endpoint::LbEndpoint,
}

/// Endpoints of one locality.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Where they run.
    pub(crate) locality: Locality,
    /// The endpoints.
    pub(crate) members: Vec<Member>,
}

/// Groups endpoints by locality, the localities ordered by name, the endpoints as they come.
pub(crate) fn by_locality(endpoints: impl IntoIterator<Item = (Locality, Member)>) -> Vec<Group> {
    let mut groups: BTreeMap<Locality, Vec<Member>> = BTreeMap::new();
    for (locality, member) in endpoints {
        groups.entry(locality).or_default().push(member);
    }
    groups.into_iter().map(|(locality, members)| Group { locality, members }).collect()
}

/// An endpoint and its share.
pub(crate) fn member(endpoint: &Endpoint, mtls: bool, weight: u32) -> Member {
    let labels = &endpoint.labels;
    let identity = [
        endpoint.workload.as_str(),
        endpoint.namespace.as_str(),
        canonical_name(labels, &endpoint.workload),
        canonical_revision(labels),
        endpoint.cluster.as_str(),
    ];
    let address = match &endpoint.address {
        EndpointAddress::Ip(ip) => tcp_address(&ip.to_string(), endpoint.port),
        EndpointAddress::Name(name) => tcp_address(name, endpoint.port),
        EndpointAddress::Unix(path) => pipe_address(path),
        // Those are only ever reached through their network's gateway.
        EndpointAddress::Gateway => core::Address::default(),
    };
    let health = match endpoint.health {
        Health::Healthy => core::HealthStatus::Unknown,
        Health::Unhealthy => core::HealthStatus::Unhealthy,
        Health::Draining | Health::Terminating => core::HealthStatus::Draining,
    };
    Member {
        labels: labels.clone(),
        weight,
        message: message(address, health, mtls, &identity.join(";"), weight),
    }
}

/// A gateway that stands for the endpoints behind it.
pub(crate) fn gateway(gateway: &NetworkGateway, labels: Labels, weight: u32) -> Member {
    let address = tcp_address(&gateway.address, gateway.port);
    let identity = format!(";;;;{}", gateway.cluster);
    Member { labels, weight, message: message(address, core::HealthStatus::Unknown, true, &identity, weight) }
}

fn message(
    address: core::Address,
    health: core::HealthStatus,
    mtls: bool,
    workload: &str,
    weight: u32,
) -> endpoint::LbEndpoint {
    let mut metadata = core::Metadata::default();
    metadata.filter_metadata.insert("istio".to_owned(), structure([("workload", text(workload))]));
    if mtls {
        let takes = structure([("tlsMode", text("istio"))]);
        metadata.filter_metadata.insert("envoy.transport_socket_match".to_owned(), takes);
    }
    endpoint::LbEndpoint {
        health_status: health.into(),
        metadata: Some(metadata),
        load_balancing_weight: Some(weight),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..Default::default()
        })),
    }
}

/// A group as Envoy takes it.
pub(crate) fn into_message(group: Group, priority: u32) -> endpoint::LocalityLbEndpoints {
    let weight = group.members.iter().fold(0u32, |sum, member| sum.saturating_add(member.weight));
    let locality = (!group.locality.is_empty()).then(|| core::Locality {
        region: group.locality.region.clone(),
        zone: group.locality.zone.clone(),
        sub_zone: group.locality.subzone.clone(),
    });
    endpoint::LocalityLbEndpoints {
        locality: Some(locality.unwrap_or_default()),
        lb_endpoints: group.members.into_iter().map(|member| member.message).collect(),
        load_balancing_weight: Some(weight),
        priority,
        ..Default::default()
    }
}

/// The name by which telemetry knows a workload's service.
fn canonical_name<'a>(labels: &'a Labels, workload: &'a str) -> &'a str {
    let keys = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
    keys.into_iter().find_map(|key| labels.value(key)).unwrap_or(workload)
}

/// The revision by which telemetry knows it; the one that stands for none is left out.
fn canonical_revision(labels: &Labels) -> &str {
    let keys = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];
    keys.into_iter().find_map(|key| labels.value(key)).filter(|revision| *revision != "latest").unwrap_or("")
}
