//! The clusters of one port of a service: its own, and one for each subset.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::kinds::destination_rule::{ClientTlsMode, Subset};
use lateen_api::mesh::MeshConfig;
use lateen_base::{Host, Labels};
use lateen_proto::envoy::config::cluster::v3 as cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_proto::{Struct, Value, value};
use lateen_registry::{Endpoint, EndpointSet, Port, Protocol, Resolution, Service, Source};

use super::balance::{self, passes_through};
use super::class::{Class, is_loopback};
use super::dns;
use super::policy::Policy;
use super::pool::{self, HttpVersion};
use super::tls::{self, Peer, Security};
use super::{fixed, stat_name};
use crate::cache::Shared;
use crate::endpoints::group;
use crate::endpoints::locality::{self, Client, Rules};
use crate::filters::wire::{ads, duration, object_path, text};
use crate::names::{self, Direction};
use crate::snapshot::{MergedRule, MtlsMode};
use crate::{Built, Note};

/// Everything that the clusters of one port of a service are made from: equal inputs make equal clusters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Input {
    /// The service.
    pub(crate) service: Arc<Service>,
    /// Its port.
    pub(crate) port: Port,
    /// Its endpoints, where the cluster names them itself, or mTLS depends on all of them.
    pub(crate) endpoints: Option<Arc<EndpointSet>>,
    /// The identities of its workloads, aliases of the trust domain included.
    pub(crate) accounts: BTreeSet<String>,
    /// Whether all endpoints are in the loopback block; `None` where nothing asks.
    pub(crate) leaves_loopback: bool,
    /// The rule that holds.
    pub(crate) rule: Option<Shared<MergedRule>>,
    /// What the workloads of the namespace accept.
    pub(crate) peer_mode: MtlsMode,
    /// What of the proxy matters.
    pub(crate) class: Arc<Class>,
    /// The mesh's settings.
    pub(crate) mesh: Shared<MeshConfig>,
    /// Whether these are the clusters that a gateway passes TLS through to by SNI.
    pub(crate) by_sni: bool,
}

/// The clusters of one port of a service, its own first.
pub(crate) fn build(input: &Input) -> Vec<Built<cluster::Cluster>> {
    let mut seen = BTreeSet::new();
    let subsets = input.rule.iter().flat_map(|rule| &rule.spec.subsets);
    // Of two subsets of one name the first counts.
    let subsets = subsets.filter(|subset| seen.insert(&subset.name));
    let mut clusters = Vec::new();
    clusters.extend(one(input, None));
    clusters.extend(subsets.filter_map(|subset| one(input, Some(subset))));
    clusters
}

fn one(input: &Input, subset: Option<&Subset>) -> Option<Built<cluster::Cluster>> {
    let (service, port, class) = (&input.service, &input.port, &input.class);
    let subset_name = subset.map_or("", |subset| subset.name.as_str());
    let name = match input.by_sni {
        true => names::sni_cluster(port.number, subset_name, &service.host),
        false => names::cluster(Direction::Outbound, port.number, subset_name, &service.host),
    };
    let of_rule = input.rule.as_ref().and_then(|rule| rule.spec.traffic_policy.as_ref());
    let of_subset = subset.and_then(|subset| subset.traffic_policy.as_ref());
    let policy = Policy::at(of_rule, of_subset, port.number).or_mesh(&input.mesh);
    let mut notes = Vec::new();

    let mut to = cluster::Cluster {
        name: name.clone(),
        alt_stat_name: stat_name(&input.mesh.outbound_cluster_stat_name, &name, service, port, subset_name),
        connect_timeout: input.mesh.connect_timeout.map(duration),
        metadata: Some(metadata(input, subset_name)),
        ..Default::default()
    };
    let kind = discovery(input, &policy)?;
    balance::apply(&mut to, policy.load_balancer.as_ref());
    set_discovery(&mut to, kind, input, subset.map(|subset| &subset.labels), &policy)?;

    let version = HttpVersion::of(protocol_of(port, class), policy.pool.as_ref(), &input.mesh);
    let mut http =
        pool::apply(&mut to, policy.pool.as_ref(), policy.retry_budget.as_ref(), version, &input.mesh);
    pool::apply_outlier(&mut to, policy.outlier.as_ref());
    let error_codes =
        policy.outlier.as_ref().map(|outlier| outlier.outlier_detection_http_error_codes.clone());
    http.error_codes = error_codes.unwrap_or_default();
    if kind != DiscoveryType::OriginalDst {
        let weighs = locality_rules(input, &policy).is_some_and(|rules| rules.weighs());
        balance::weigh_localities(&mut to, weighs);
    }
    if !input.by_sni {
        let http2 = version == HttpVersion::Two;
        let security = secure(&mut to, input, &policy, kind, subset_name, http2, &mut notes);
        if security == Originated::ByRequest {
            http.upstream = policy.tls.as_ref().map(fixed::by_request);
        }
    }
    http.write(&mut to);
    if let Some(settings) = policy.proxy_protocol.as_ref().filter(|_| !input.by_sni) {
        tls::tell_of_client(&mut to, settings);
    }
    if class.metadata_exchange && !input.by_sni {
        to.filters.push(fixed::metadata_exchange());
    }
    if class.loopback && input.leaves_loopback {
        to.upstream_bind_config = Some(fixed::any_source());
    }
    Some(Built { name, message: to, notes })
}

/// Gateways have no inspected protocols: what is found out per connection is bytes to them.
fn protocol_of(port: &Port, class: &Class) -> Protocol {
    match (port.protocol, class.is_router()) {
        (Protocol::Auto, true) => Protocol::Tcp,
        (protocol, _) => protocol,
    }
}

/// How the endpoints come; `None` for services that have no cluster of their own.
fn discovery(input: &Input, policy: &Policy) -> Option<DiscoveryType> {
    let service = &input.service;
    // Without interception nobody knows where the client wanted to go; at a gateway, a request's header may say so.
    let passes = input.class.captures && !input.class.loopback;
    let told = passes || input.class.is_router();
    Some(match service.resolution {
        Resolution::Alias => return None,
        _ if passes_through(policy.load_balancer.as_ref()) && told && !input.by_sni => {
            DiscoveryType::OriginalDst
        }
        Resolution::Static => DiscoveryType::Eds,
        Resolution::Dns => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        // The type has no number: the cluster is of a custom kind.
        Resolution::DynamicDns => DiscoveryType::Static,
        Resolution::None if passes => DiscoveryType::OriginalDst,
        Resolution::None => DiscoveryType::Eds,
    })
}

/// Writes the way endpoints come; `None` drops the cluster, which nobody could reach anything by.
fn set_discovery(
    to: &mut cluster::Cluster,
    kind: DiscoveryType,
    input: &Input,
    subset: Option<&Labels>,
    policy: &Policy,
) -> Option<()> {
    to.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    if to.lb_policy() == LbPolicy::ClusterProvided {
        // Where nobody knows the client's choice, the proxy has to make one.
        to.lb_policy = LbPolicy::LeastRequest.into();
    }
    match kind {
        DiscoveryType::Eds => {
            to.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads(false)), service_name: to.name.clone() });
        }
        DiscoveryType::OriginalDst => {
            to.lb_policy = LbPolicy::ClusterProvided.into();
            to.lb_config = None;
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let set = input.endpoints.as_ref()?;
            let wanted = |endpoint: &&Endpoint| subset.is_none_or(|subset| subset.selects(&endpoint.labels));
            let endpoints: Vec<&Endpoint> = set.of_port(&input.port.name).filter(wanted).collect();
            if endpoints.is_empty() {
                return None;
            }
            let accepts = input.peer_mode != MtlsMode::Disable;
            let members = endpoints.into_iter().map(|endpoint| {
                let member = group::member(endpoint, endpoint.mtls && accepts, endpoint.weight());
                (endpoint.locality.clone(), member)
            });
            let client =
                Client { locality: input.class.locality.clone(), labels: input.class.labels.clone() };
            let groups = group::by_locality(members);
            to.load_assignment = Some(ClusterLoadAssignment {
                cluster_name: to.name.clone(),
                endpoints: locality::arrange(groups, &client, locality_rules(input, policy).as_ref()),
                ..Default::default()
            });
            dns::apply(to, &input.class, &input.mesh);
        }
        _ => dns::dynamic(to, &input.class),
    }
    Some(())
}

fn locality_rules<'a>(input: &'a Input, policy: &'a Policy) -> Option<Rules<'a>> {
    let distribution = input.service.traffic_distribution.as_deref();
    Rules::of(policy.load_balancer.as_ref(), distribution, &input.mesh, policy.outlier.is_some())
}

/// Whether TLS takes its name from requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Originated {
    /// It does.
    ByRequest,
    /// It is told, or there is none.
    Otherwise,
}

fn secure(
    to: &mut cluster::Cluster,
    input: &Input,
    policy: &Policy,
    kind: DiscoveryType,
    subset: &str,
    http2: bool,
    notes: &mut Vec<Note>,
) -> Originated {
    let peer = Peer {
        accounts: input.accounts.clone(),
        sni: names::sni_cluster(input.port.number, subset, &input.service.host),
        http2,
        rule_selects: input.rule.as_ref().is_some_and(|rule| rule.selector.is_some()),
    };
    let security = match &policy.tls {
        Some(settings) => tls::of_rule(settings, &input.class, &peer, &input.mesh).unwrap_or_else(|error| {
            // As Istio does. Validation refuses such rules, so only those that never passed it get here.
            let object = input.rule.as_ref().map(|rule| rule.object.clone());
            notes.push(Note { text: error.to_string(), object });
            Security::Plain
        }),
        None => automatic(input, &peer, kind),
    };
    match security {
        Security::Plain => {}
        Security::Tls(context) => to.transport_socket = Some(tls::socket(&context)),
        Security::Auto(context) => to.transport_socket_matches = tls::matches(&context),
    }
    let Some(settings) = &policy.tls else { return Originated::Otherwise };
    let outside = matches!(settings.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
    if outside && to.transport_socket.is_some() {
        set_istio(to, "alpn_override", text("false"));
        if settings.sni.is_empty() {
            return Originated::ByRequest;
        }
    }
    Originated::Otherwise
}

/// mTLS where nobody says anything: by what each endpoint takes, unless nothing there takes it.
fn automatic(input: &Input, peer: &Peer, kind: DiscoveryType) -> Security {
    let on = input.mesh.enable_auto_mtls.unwrap_or(true);
    if !on || input.service.mesh_external || input.peer_mode == MtlsMode::Disable {
        return Security::Plain;
    }
    let context = Box::new(tls::mesh_mutual(&input.class, peer, &input.mesh));
    if kind != DiscoveryType::OriginalDst {
        return Security::Auto(context);
    }
    // The proxy does not know the endpoint that the client chose, so all must take it.
    let all = input.endpoints.as_ref().is_some_and(|set| {
        let mut of_port = set.of_port(&input.port.name).peekable();
        of_port.peek().is_some() && of_port.all(|endpoint| endpoint.mtls)
    });
    if all { Security::Tls(context) } else { Security::Plain }
}

fn metadata(input: &Input, subset: &str) -> core::Metadata {
    let service = &input.service;
    let mut istio = vec![("services".to_owned(), services(std::slice::from_ref(service)))];
    if let Some(rule) = &input.rule {
        istio.push(("config".to_owned(), text(object_path(&rule.object))));
    }
    if !subset.is_empty() {
        istio.push(("subset".to_owned(), text(subset)));
    }
    if service.mesh_external {
        istio.push(("external".to_owned(), Value { kind: Some(value::Kind::BoolValue(true)) }));
    }
    let fields = Struct { fields: istio.into_iter().collect() };
    core::Metadata { filter_metadata: [("istio".to_owned(), fields)].into(), ..Default::default() }
}

/// The services that a cluster stands for, as telemetry reads them.
pub(crate) fn services(services: &[Arc<Service>]) -> Value {
    let one = |service: &Arc<Service>| {
        let fields = [
            ("host".to_owned(), text(service.host.as_str())),
            ("name".to_owned(), text(short_name(service))),
            ("namespace".to_owned(), text(service.namespace.as_str())),
        ];
        Value { kind: Some(value::Kind::StructValue(Struct { fields: fields.into() })) }
    };
    let values = services.iter().map(one).collect();
    Value { kind: Some(value::Kind::ListValue(lateen_proto::ListValue { values })) }
}

/// The name that telemetry shows: the object's for Kubernetes, the host for entries.
fn short_name(service: &Service) -> &str {
    match service.source {
        Source::Kubernetes => &service.name,
        Source::External => service.host.as_str(),
    }
}

/// Sets a field of the cluster's `istio` metadata.
pub(crate) fn set_istio(to: &mut cluster::Cluster, key: &str, value: Value) {
    let metadata = to.metadata.get_or_insert_default();
    metadata.filter_metadata.entry("istio".to_owned()).or_default().fields.insert(key.to_owned(), value);
}

/// Whether a service may be at addresses outside the loopback block: names always may.
pub(crate) fn leaves_loopback(service: &Service, set: Option<&EndpointSet>) -> bool {
    let outside = |ip: Option<IpAddr>| ip.is_some() && !is_loopback(ip);
    service.resolution.is_dns()
        || service.resolution == Resolution::DynamicDns
        || set.is_some_and(|set| set.endpoints.iter().any(|endpoint| outside(endpoint.address.ip())))
}

/// The lookup family of a proxy.
pub(crate) fn lookup_family(class: &Class) -> DnsLookupFamily {
    match (class.ipv4, class.ipv6) {
        (false, true) => DnsLookupFamily::V6Only,
        _ => DnsLookupFamily::V4Only,
    }
}

/// The host of a service as statistics show it.
pub(crate) fn stat_host(service: &Service) -> String {
    let host: &Host = &service.host;
    match service.source {
        Source::Kubernetes => format!("{}.{}", service.name, service.namespace),
        Source::External => host.to_string(),
    }
}
