//! Destinations of VirtualServices to clusters, with what DestinationRules say about reaching them.

use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::kinds::destination_rule::{
    ClientTlsMode, ClientTlsSettings, ConsistentHashLb, H2UpgradePolicy, HttpSettings, LoadBalancerSettings,
    TcpSettings, TrafficPolicy, TunnelSettings,
};
use lateen_api::kinds::virtual_service::{Destination, HttpRetry};
use lateen_base::{Host, Namespace};
use lateen_proto::envoy::config::route::v3::route_action::HashPolicy;
use lateen_proto::envoy::config::route::v3::route_action::hash_policy as hash;
use lateen_registry::{Port, Protocol, Service};

use super::action::{Target, UpstreamAlpn};
use super::parts::Known;
use crate::Proxy;
use crate::cache::Shared;
use crate::filters::wire::duration;
use crate::names::{self, Direction};
use crate::snapshot::{MergedRule, Scope, Snapshot};

/// What destinations stand for, as one proxy sees them.
pub(crate) struct Destinations<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) proxy: &'a Proxy,
    pub(crate) scope: &'a Scope,
    pub(crate) has_alpn_filter: bool,
}

impl<'a> Destinations<'a> {
    /// The cluster of a destination that an object of `owner` names, for a listener's port.
    pub(crate) fn target(&self, destination: &Destination, owner: &Namespace, port: u16) -> Target {
        let host = self.snapshot.resolve(&destination.host, owner);
        let host = self.snapshot.services.concrete(&host).cloned().unwrap_or(host);
        let service = self.service(&host, owner);
        let port = match &destination.port {
            Some(given) if given.number != 0 => u16::try_from(given.number).unwrap_or(port),
            _ => match service.map(|service| service.ports.as_slice()) {
                Some([only]) => only.number,
                _ => port,
            },
        };
        let protocol = service.and_then(|service| service.port(port)).map(|port| port.protocol);
        self.target_of(&host, port, protocol, &destination.subset)
    }

    /// The cluster of a service's own port.
    pub(crate) fn own_target(&self, service: &Service, port: &Port) -> Target {
        self.target_of(&service.host, port.number, Some(port.protocol), "")
    }

    /// What routes to a destination depend on.
    pub(crate) fn known(&self, host: &str, owner: &Namespace) -> Known {
        let host = self.snapshot.resolve(host, owner);
        let host = self.snapshot.services.concrete(&host).cloned().unwrap_or(host);
        let service = self.service(&host, owner).cloned().map(Shared);
        let rule = self.scope.destination_rule(&host, &self.proxy.labels).cloned().map(Shared);
        (host, service, rule)
    }

    /// The service of a host: of the proxy's scope, else of the object's namespace, else any.
    pub(crate) fn service(&self, host: &Host, owner: &Namespace) -> Option<&'a Arc<Service>> {
        if let Some(service) = self.scope.service(host) {
            return Some(service);
        }
        let namespaces = self.snapshot.services.of_host(host)?;
        namespaces.get(owner).or_else(|| namespaces.values().next())
    }

    fn target_of(&self, host: &Host, port: u16, protocol: Option<Protocol>, subset: &str) -> Target {
        let policy = self.policy(host, port, subset);
        Target {
            cluster: names::cluster(Direction::Outbound, port, subset, host),
            hash: policy
                .balancer
                .and_then(|lb| lb.consistent_hash.as_ref())
                .map(hash_policy)
                .unwrap_or_default(),
            alpn: self.alpn(&policy, protocol),
        }
    }

    fn alpn(&self, policy: &Policy<'_>, protocol: Option<Protocol>) -> UpstreamAlpn {
        let mode = policy.tls.map(|tls| tls.mode);
        if matches!(mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual | ClientTlsMode::Disable)) {
            return UpstreamAlpn::Cluster;
        }
        let upgraded = policy.http.is_some_and(|http| http.h2_upgrade_policy == H2UpgradePolicy::Upgrade);
        match protocol {
            Some(protocol) if protocol.is_http2() || (upgraded && protocol.is_http()) => {
                UpstreamAlpn::MeshHttp2
            }
            _ => UpstreamAlpn::Inherited,
        }
    }

    /// What DestinationRules say about a port of a host.
    pub(crate) fn policy(&self, host: &Host, port: u16, subset: &str) -> Policy<'a> {
        self.scope
            .destination_rule(host, &self.proxy.labels)
            .map(|rule| Policy::of(rule, port, subset))
            .unwrap_or_default()
    }

    /// The addresses by which clients of this proxy reach a service.
    pub(crate) fn addresses(&self, service: &Service) -> Vec<String> {
        let metadata = &self.proxy.metadata;
        let own = service.addresses_in(&metadata.cluster);
        let all: Vec<String> = match own {
            [] if service.is_unaddressed() && metadata.dns_capture && metadata.dns_auto_allocate => {
                service.allocated.iter().map(IpAddr::to_string).collect()
            }
            own => own.to_vec(),
        };
        let fits = |text: &String| {
            let v6 = text.contains(':');
            if v6 { self.proxy.is_ipv6() || !is_single(text) } else { self.proxy.is_ipv4() }
        };
        all.into_iter().filter(fits).collect()
    }

    /// Other hosts that stand for a service.
    pub(crate) fn aliases(&self, service: &Service) -> impl Iterator<Item = &'a Host> {
        self.snapshot.services.aliases(&service.host)
    }

    /// The domain that short names are completed by.
    pub(crate) fn dns_domain(&self) -> &'a str {
        &self.proxy.dns_domain
    }

    /// The mesh's default retry policy.
    pub(crate) fn mesh_retry(&self) -> Option<&'a HttpRetry> {
        self.snapshot.mesh.default_http_retry_policy.as_ref()
    }

    /// Whether the proxy has `istio.alpn`.
    pub(crate) fn has_alpn_filter(&self) -> bool {
        self.has_alpn_filter
    }
}

fn is_single(address: &str) -> bool {
    !address.contains('/')
}

/// The settings of a DestinationRule that hold for one port and subset, the narrower over the wider.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Policy<'a> {
    /// Balancing.
    pub(crate) balancer: Option<&'a LoadBalancerSettings>,
    /// Upstream TLS.
    pub(crate) tls: Option<&'a ClientTlsSettings>,
    /// Limits of HTTP.
    pub(crate) http: Option<&'a HttpSettings>,
    /// Limits of TCP.
    pub(crate) tcp: Option<&'a TcpSettings>,
    /// A tunnel.
    pub(crate) tunnel: Option<&'a TunnelSettings>,
}

impl<'a> Policy<'a> {
    fn of(rule: &'a MergedRule, port: u16, subset: &str) -> Self {
        let mut policy = Self::default();
        let subsets = rule.spec.subsets.iter().filter(|known| !subset.is_empty() && known.name == subset);
        let narrow = subsets.filter_map(|subset| subset.traffic_policy.as_ref());
        for given in narrow.chain(rule.spec.traffic_policy.as_ref()) {
            policy.fill(given, port);
        }
        policy
    }

    fn fill(&mut self, given: &'a TrafficPolicy, port: u16) {
        let at_port = given.port_level_settings.iter().find(|settings| {
            settings.port.as_ref().is_some_and(|selected| selected.number == u32::from(port))
        });
        if let Some(settings) = at_port {
            let pool = settings.connection_pool.as_ref();
            self.balancer = self.balancer.or(settings.load_balancer.as_ref());
            self.tls = self.tls.or(settings.tls.as_ref());
            self.http = self.http.or(pool.and_then(|pool| pool.http.as_ref()));
            self.tcp = self.tcp.or(pool.and_then(|pool| pool.tcp.as_ref()));
        }
        let pool = given.connection_pool.as_ref();
        self.balancer = self.balancer.or(given.load_balancer.as_ref());
        self.tls = self.tls.or(given.tls.as_ref());
        self.http = self.http.or(pool.and_then(|pool| pool.http.as_ref()));
        self.tcp = self.tcp.or(pool.and_then(|pool| pool.tcp.as_ref()));
        self.tunnel = self.tunnel.or(given.tunnel.as_ref());
    }
}

fn hash_policy(lb: &ConsistentHashLb) -> Vec<HashPolicy> {
    use hash::PolicySpecifier;
    let specifier = if let Some(name) = &lb.http_header_name {
        PolicySpecifier::Header(hash::Header { header_name: name.clone(), ..Default::default() })
    } else if let Some(cookie) = &lb.http_cookie {
        PolicySpecifier::Cookie(hash::Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|a| hash::CookieAttribute { name: a.name.clone(), value: a.value.clone() })
                .collect(),
        })
    } else if lb.use_source_ip == Some(true) {
        PolicySpecifier::ConnectionProperties(hash::ConnectionProperties { source_ip: true })
    } else if let Some(name) = &lb.http_query_parameter_name {
        PolicySpecifier::QueryParameter(hash::QueryParameter { name: name.clone() })
    } else {
        return Vec::new();
    };
    vec![HashPolicy { terminal: false, policy_specifier: Some(specifier) }]
}
