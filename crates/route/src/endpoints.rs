//! Endpoints: addresses by priority and locality.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use lateen_base::Locality;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::endpoint::v3 as proto;
use lateen_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;

use crate::error::{CompileError, Compiled, Cx, Result};

/// A compiled `ClusterLoadAssignment`.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// The name under which endpoint discovery has it.
    pub name: Arc<str>,
    /// All endpoints, by priority, then locality. A host's index here is its identity for [`crate::HostView`].
    pub hosts: Vec<Arc<Host>>,
    /// The localities, by priority.
    pub localities: Vec<LocalityGroup>,
    /// Where each priority's localities are.
    pub priorities: Vec<Range<usize>>,
    /// By how much more traffic than its share a priority takes, in percent; 140 unless set.
    pub overprovisioning: u32,
}

/// The endpoints of one locality and priority.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalityGroup {
    /// Which locality.
    pub locality: Arc<Locality>,
    /// Its weight; `None` gets nothing when localities are weighted.
    pub weight: Option<u32>,
    /// Which endpoints of [`Assignment::hosts`].
    pub hosts: Range<usize>,
}

/// An endpoint.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where it is.
    pub address: HostAddress,
    /// Its host name, for automatic host rewrites and server names.
    pub hostname: Option<Arc<str>>,
    /// Its weight, at least 1.
    pub weight: u32,
    /// Its health by the control plane.
    pub health: Health,
    /// Its locality.
    pub locality: Arc<Locality>,
    /// The metadata that decisions look at: `envoy.transport_socket_match` and `envoy.lb`.
    pub metadata: Option<Box<core::Metadata>>,
    /// How it is checked, where that is special.
    pub check: Option<Box<EndpointCheck>>,
}

/// How an endpoint is checked, where that is special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointCheck {
    /// Whether it is not checked at all.
    pub disabled: bool,
    /// Where it is checked, in place of where it serves.
    pub address: Option<SocketAddr>,
    /// The host that it is asked as.
    pub hostname: Option<Arc<str>>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A name to look up, and a port.
    Name(Arc<str>, u16),
    /// A Unix socket's path.
    Pipe(Arc<str>),
}

impl std::fmt::Display for HostAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Pipe(path) => write!(f, "unix://{path}"),
        }
    }
}

/// An endpoint's health by the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may be used.
    Healthy,
    /// It may be used when healthy ones do not suffice.
    Degraded,
    /// It must not be used.
    Unhealthy,
    /// It must not get anything new.
    Draining,
}

/// Compiles a `ClusterLoadAssignment`.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub fn compile_endpoints(
    message: &proto::ClusterLoadAssignment,
) -> Result<Compiled<Assignment>, CompileError> {
    Cx::run(&message.cluster_name, |cx| Assignment::compile(cx, message))
}

/// The highest priority allowed; Envoy's limit.
const MAX_PRIORITY: u32 = 128;

impl Assignment {
    /// Without endpoints.
    pub fn empty(name: &str) -> Self {
        Self {
            name: name.into(),
            hosts: Vec::new(),
            localities: Vec::new(),
            priorities: Vec::new(),
            overprovisioning: 140,
        }
    }

    /// The priority of a host, by its index.
    pub fn priority_of(&self, host: usize) -> usize {
        let locality = self.localities.partition_point(|group| group.hosts.end <= host);
        self.priorities.iter().position(|range| range.contains(&locality)).unwrap_or(0)
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::ClusterLoadAssignment) -> Result<Self> {
        cx.check(message)?;
        let policy = message.policy.clone().unwrap_or_default();
        cx.field("policy", |cx| cx.check(&policy))?;
        let mut groups = cx.each("endpoints", &message.endpoints, |cx, group| {
            cx.check(group)?;
            if group.priority > MAX_PRIORITY {
                return Err(cx.refuse_at("priority", format!("{} is above {MAX_PRIORITY}", group.priority)));
            }
            let locality = Arc::new(locality(&group.locality));
            let hosts =
                cx.each("lb_endpoints", &group.lb_endpoints, |cx, host| Host::compile(cx, host, &locality))?;
            let weight = group.load_balancing_weight;
            Ok((group.priority, locality, weight, hosts))
        })?;
        groups.sort_by_key(|(priority, ..)| *priority);
        let mut out = Self::empty(&message.cluster_name);
        out.overprovisioning = policy.overprovisioning_factor.unwrap_or(140).max(100);
        for (priority, locality, weight, hosts) in groups {
            let priority = priority as usize;
            while out.priorities.len() <= priority {
                let start = out.localities.len();
                out.priorities.push(start..start);
            }
            let start = out.hosts.len();
            out.hosts.extend(hosts.into_iter().map(Arc::new));
            out.localities.push(LocalityGroup { locality, weight, hosts: start..out.hosts.len() });
            out.priorities[priority].end = out.localities.len();
        }
        Ok(out)
    }
}

impl Host {
    fn compile(cx: &mut Cx<'_>, message: &proto::LbEndpoint, locality: &Arc<Locality>) -> Result<Self> {
        cx.check(message)?;
        let endpoint = match cx.required("endpoint", &message.host_identifier)? {
            HostIdentifier::Endpoint(endpoint) => endpoint,
            HostIdentifier::EndpointName(_) => return Err(cx.refuse_at("endpoint_name", "is not supported")),
        };
        let (address, check) = cx.field("endpoint", |cx| {
            cx.check(endpoint)?;
            let address = cx.required("address", &endpoint.address)?;
            let address = cx.field("address", |cx| HostAddress::compile(cx, address))?;
            let check = match &endpoint.health_check_config {
                None => None,
                Some(config) => Some(cx.field("health_check_config", |cx| {
                    Ok(Box::new(EndpointCheck::compile(cx, config, &address)?))
                })?),
            };
            Ok((address, check))
        })?;
        let hostname = match (&endpoint.hostname, &address) {
            (name, HostAddress::Name(host, _)) if name.is_empty() => Some(host.clone()),
            (name, _) if name.is_empty() => None,
            (name, _) => Some(name.as_str().into()),
        };
        Ok(Self {
            address,
            hostname,
            weight: message.load_balancing_weight.unwrap_or(1).max(1),
            health: match message.health_status() {
                core::HealthStatus::Unknown | core::HealthStatus::Healthy => Health::Healthy,
                core::HealthStatus::Degraded => Health::Degraded,
                core::HealthStatus::Draining => Health::Draining,
                core::HealthStatus::Unhealthy | core::HealthStatus::Timeout => Health::Unhealthy,
            },
            locality: locality.clone(),
            metadata: message.metadata.as_ref().and_then(decisive),
            check,
        })
    }
}

impl EndpointCheck {
    fn compile(
        cx: &mut Cx<'_>,
        message: &proto::endpoint::HealthCheckConfig,
        address: &HostAddress,
    ) -> Result<Self> {
        let port = u16::try_from(message.port_value);
        let port = port.map_err(|_| cx.refuse_at("port_value", "is no port"))?;
        let own = match &message.address {
            None => None,
            Some(address) => match cx.field("address", |cx| HostAddress::compile(cx, address))? {
                HostAddress::Tcp(address) => Some(address),
                _ => return Err(cx.refuse_at("address", "has to be an IP address")),
            },
        };
        let of_port = match address {
            HostAddress::Tcp(address) if port > 0 => Some(SocketAddr::new(address.ip(), port)),
            _ => None,
        };
        Ok(Self {
            disabled: message.disable_active_health_check,
            address: own.or(of_port),
            hostname: (!message.hostname.is_empty()).then(|| message.hostname.as_str().into()),
        })
    }
}

impl HostAddress {
    fn compile(cx: &mut Cx<'_>, message: &core::Address) -> Result<Self> {
        match &message.address {
            Some(core::address::Address::SocketAddress(address)) => cx.field("socket_address", |cx| {
                cx.check(address)?;
                let port = crate::listener::port(cx, address)?;
                if address.address.is_empty() {
                    return Err(cx.refuse_at("address", "must not be empty"));
                }
                Ok(match address.address.parse() {
                    Ok(ip) => Self::Tcp(SocketAddr::new(ip, port)),
                    Err(_) => Self::Name(address.address.as_str().into(), port),
                })
            }),
            Some(core::address::Address::Pipe(pipe)) => Ok(Self::Pipe(pipe.path.as_str().into())),
            Some(core::address::Address::EnvoyInternalAddress(_)) => {
                Err(cx.refuse_at("envoy_internal_address", "is not supported"))
            }
            None => Err(cx.refuse("needs socket_address or pipe")),
        }
    }
}

/// What of an endpoint's metadata decides anything: of the rest there is one copy per endpoint of the mesh.
fn decisive(metadata: &core::Metadata) -> Option<Box<core::Metadata>> {
    let mut kept = core::Metadata::default();
    for name in ["envoy.transport_socket_match", "envoy.lb"] {
        if let Some(fields) = metadata.filter_metadata.get(name) {
            kept.filter_metadata.insert(name.to_owned(), fields.clone());
        }
    }
    (!kept.filter_metadata.is_empty()).then(|| Box::new(kept))
}

fn locality(message: &Option<core::Locality>) -> Locality {
    let message = message.clone().unwrap_or_default();
    Locality { region: message.region, zone: message.zone, subzone: message.sub_zone }
}
