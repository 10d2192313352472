//! Clusters: where endpoints come from, how they are reached, how they are balanced and limited.

use std::sync::Arc;
use std::time::Duration;

use lateen_proto::envoy::config::cluster::v3 as proto;
use lateen_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, DnsLookupFamily,
};
use lateen_proto::envoy::config::core::v3 as core;

use crate::endpoints::{Assignment, HostAddress};
use crate::error::{CompileError, Compiled, Cx, Result};
use crate::listener::Keepalive;

mod balancing;
mod health;
mod limits;
mod load_report;
mod outlier;
mod policies;
mod protocol;
mod transport;

pub use balancing::{Balancing, LeastRequest, Policy, SlowStart};
pub use health::{Headers, HealthCheck, HttpProbe, Pauses, Probe};
pub use limits::{CircuitBreaker, RetryBudget};
pub use load_report::{ByLoad, LoadReport, fill_in};
pub use outlier::{Detector, OutlierDetection, Rate};
pub use protocol::{HttpProtocol, UpstreamHttp};
pub use transport::{MetadataMatch, ProxyVersion, Transport, TransportMatch};

/// A compiled `Cluster`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Its resource name, as `outbound|9080|v1|reviews.default.svc.cluster.local`.
    pub name: Arc<str>,
    /// Its name in metrics; the resource name unless set.
    pub stat_name: Arc<str>,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// How an endpoint is picked.
    pub balancing: Balancing,
    /// How long connecting may take; five seconds unless set.
    pub connect_timeout: Duration,
    /// HTTP towards its endpoints.
    pub http: UpstreamHttp,
    /// The transport where no match fits; plain text unless set.
    pub transport_default: Transport,
    /// Transports by endpoint metadata; the first that fits is taken.
    pub transport_matches: Vec<TransportMatch>,
    /// Limits for default and high priority.
    pub circuit_breakers: [CircuitBreaker; 2],
    /// Which endpoints are left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// Active checks of endpoints.
    pub health_checks: Vec<HealthCheck>,
    /// The address that connections are made from.
    pub bind: Option<std::net::IpAddr>,
    /// TCP keep-alive of its connections.
    pub keepalive: Option<Keepalive>,
    /// What Istio says about it.
    pub istio: IstioMetadata,
}

/// Where a cluster's endpoints come from.
#[derive(Clone, Debug)]
pub enum Discovery {
    /// The resource itself.
    Static(Arc<Assignment>),
    /// Endpoint discovery, under this name.
    Eds(Arc<str>),
    /// DNS; every address is an endpoint.
    StrictDns(Dns),
    /// DNS; one address at a time, as connections are made.
    LogicalDns(Dns),
    /// The address that the connection was going to.
    OriginalDst {
        /// A header that names the address instead.
        header: Option<http::HeaderName>,
        /// A port instead of the connection's.
        port: Option<u16>,
    },
    /// DNS of the request's host.
    DynamicForwardProxy(Dns),
}

/// How names are looked up.
#[derive(Clone, Debug)]
pub struct Dns {
    /// The endpoints, with host names.
    pub assignment: Arc<Assignment>,
    /// Which addresses are asked for.
    pub family: DnsFamily,
    /// Between lookups, where the answer's lifetime does not say; five seconds unless set.
    pub refresh: Duration,
    /// After a lookup that failed; as `refresh` unless set.
    pub failure_refresh: Duration,
    /// Whether the answer's lifetime decides.
    pub respect_ttl: bool,
    /// The most by which a refresh is put off at random.
    pub jitter: Duration,
    /// Servers to ask instead of the system's.
    pub resolvers: Vec<std::net::SocketAddr>,
}

/// Which addresses are looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6, else IPv4.
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, else IPv6.
    V4Preferred,
    /// Both.
    All,
}

/// The `istio` metadata of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IstioMetadata {
    /// The object it was made from.
    pub config: Option<Arc<str>>,
    /// Its subset.
    pub subset: Option<Arc<str>>,
    /// The services behind it: host, name, namespace.
    pub services: Vec<ServiceName>,
    /// Whether the service is outside the mesh.
    pub external: bool,
    /// Whether `istio.alpn` leaves its connections alone (`alpn_override: "false"`).
    pub no_alpn_override: bool,
}

/// A service in a cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its host.
    pub host: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
}

/// Compiles a `Cluster`.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub fn compile_cluster(message: &proto::Cluster) -> Result<Compiled<Cluster>, CompileError> {
    Cx::run(&message.name, |cx| Cluster::compile(cx, message))
}

impl Cluster {
    /// The transport for an endpoint with this metadata.
    pub fn transport(&self, endpoint: Option<&core::Metadata>) -> &Transport {
        let fits = self.transport_matches.iter().find(|candidate| candidate.fits(endpoint));
        fits.map_or(&self.transport_default, |candidate| &candidate.transport)
    }

    fn compile(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Self> {
        cx.check(message)?;
        if message.name.is_empty() {
            return Err(cx.refuse_at("name", "must not be empty"));
        }
        let name: Arc<str> = message.name.as_str().into();
        let stat_name = match message.alt_stat_name.as_str() {
            "" => name.clone(),
            other => other.into(),
        };
        cx.each("filters", &message.filters, upstream_filter)?;
        let connection = message.upstream_connection_options.as_ref();
        let http = UpstreamHttp::compile(cx, message)?;
        let health_checks = cx.each("health_checks", &message.health_checks, |cx, check| {
            let check = HealthCheck::compile(cx, check)?;
            match check.probe {
                Probe::Grpc { .. } if http.protocol != HttpProtocol::Http2 => {
                    Err(cx.refuse_at("grpc_health_check", "needs a cluster that speaks HTTP/2"))
                }
                _ => Ok(check),
            }
        })?;
        Ok(Self {
            stat_name,
            discovery: discovery(cx, message)?,
            balancing: Balancing::compile(cx, message)?,
            connect_timeout: cx
                .duration("connect_timeout", &message.connect_timeout)?
                .unwrap_or(Duration::from_secs(5)),
            http,
            transport_default: match &message.transport_socket {
                None => Transport::Plain,
                Some(socket) => cx.field("transport_socket", |cx| Transport::compile(cx, socket))?,
            },
            transport_matches: cx.each(
                "transport_socket_matches",
                &message.transport_socket_matches,
                TransportMatch::compile,
            )?,
            circuit_breakers: limits::circuit_breakers(cx, &message.circuit_breakers)?,
            outlier_detection: match &message.outlier_detection {
                None => None,
                Some(outlier) => {
                    Some(cx.field("outlier_detection", |cx| OutlierDetection::compile(cx, outlier))?)
                }
            },
            health_checks,
            bind: bind(cx, message)?,
            keepalive: connection.and_then(|c| c.tcp_keepalive.as_ref()).map(Keepalive::of),
            istio: IstioMetadata::of(&message.metadata),
            name,
        })
    }
}

/// Of network filters towards endpoints only Istio's exchange of metadata is known. Its preamble is never spoken, since
/// its application protocol is never offered.
fn upstream_filter(cx: &mut Cx<'_>, filter: &proto::Filter) -> Result<()> {
    let any = cx.required("typed_config", &filter.typed_config)?;
    match crate::istio::Extension::open(cx, any)?.kind.as_str() {
        "envoy.tcp.metadataexchange.config.MetadataExchange" => {
            cx.note_at("typed_config", "metadata are not exchanged with endpoints");
            Ok(())
        }
        other => Err(cx.refuse_at("typed_config", format!("network filter {other} is not supported"))),
    }
}

fn discovery(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Discovery> {
    let kind = match &message.cluster_discovery_type {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(*kind)
            .map_err(|_| cx.refuse_at("type", format!("{kind} is no discovery type")))?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => return custom_discovery(cx, message, custom),
    };
    Ok(match kind {
        DiscoveryType::Static => {
            let assignment = assignment(cx, message)?;
            if assignment.hosts.iter().any(|host| matches!(host.address, HostAddress::Name(..))) {
                return Err(cx.refuse_at("load_assignment", "a STATIC cluster needs IP addresses"));
            }
            Discovery::Static(assignment)
        }
        DiscoveryType::Eds => {
            let config = cx.required("eds_cluster_config", &message.eds_cluster_config)?;
            let service = if config.service_name.is_empty() { &message.name } else { &config.service_name };
            Discovery::Eds(service.as_str().into())
        }
        DiscoveryType::StrictDns => Discovery::StrictDns(dns(cx, message)?),
        DiscoveryType::LogicalDns => {
            let dns = dns(cx, message)?;
            if dns.assignment.hosts.len() != 1 {
                return Err(
                    cx.refuse_at("load_assignment", "a LOGICAL_DNS cluster needs exactly one endpoint")
                );
            }
            Discovery::LogicalDns(dns)
        }
        DiscoveryType::OriginalDst => original_dst(cx, message)?,
    })
}

fn custom_discovery(
    cx: &mut Cx<'_>,
    message: &proto::Cluster,
    custom: &proto::cluster::CustomClusterType,
) -> Result<Discovery> {
    use lateen_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
    let any = cx.required("cluster_type.typed_config", &custom.typed_config)?;
    if !any.is::<ClusterConfig>() {
        return Err(cx.refuse_at("cluster_type", format!("{} is not supported", any.type_url)));
    }
    Ok(Discovery::DynamicForwardProxy(dns(cx, message)?))
}

fn original_dst(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Discovery> {
    use proto::cluster::LbConfig;
    let config = match &message.lb_config {
        Some(LbConfig::OriginalDstLbConfig(config)) => config.clone(),
        _ => proto::cluster::OriginalDstLbConfig::default(),
    };
    cx.field("original_dst_lb_config", |cx| cx.check(&config))?;
    let header = match (config.use_http_header, config.http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(http::HeaderName::from_static("x-envoy-original-dst-host")),
        (true, name) => Some(cx.header_name("original_dst_lb_config.http_header_name", name)?),
    };
    let port = config
        .upstream_port_override
        .map(|port| u16::try_from(port).map_err(|_| cx.refuse_at("upstream_port_override", "is no port")))
        .transpose()?;
    Ok(Discovery::OriginalDst { header, port })
}

fn assignment(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Arc<Assignment>> {
    match &message.load_assignment {
        None => Ok(Arc::new(Assignment::empty(&message.name))),
        Some(load) => Ok(Arc::new(cx.field("load_assignment", |cx| Assignment::compile(cx, load))?)),
    }
}

fn dns(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Dns> {
    use lateen_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
    let mut resolvers = Vec::new();
    if let Some(config) = message.typed_dns_resolver_config.as_ref().and_then(|c| c.typed_config.as_ref())
        && config.is::<CaresDnsResolverConfig>()
    {
        let config: CaresDnsResolverConfig = cx.unpack(config)?;
        resolvers =
            cx.each("typed_dns_resolver_config.resolvers", &config.resolvers, |cx, address| match &address
                .address
            {
                Some(core::address::Address::SocketAddress(address)) => {
                    crate::listener::socket_address(cx, address)
                }
                _ => Err(cx.refuse("needs socket_address")),
            })?;
    }
    let refresh =
        cx.duration("dns_refresh_rate", &message.dns_refresh_rate)?.unwrap_or(Duration::from_secs(5));
    let failure = match &message.dns_failure_refresh_rate {
        None => None,
        Some(rate) => cx.duration("dns_failure_refresh_rate.base_interval", &rate.base_interval)?,
    };
    if refresh < Duration::from_millis(1) {
        return Err(cx.refuse_at("dns_refresh_rate", "has to be at least 1ms"));
    }
    Ok(Dns {
        assignment: assignment(cx, message)?,
        family: match message.dns_lookup_family() {
            DnsLookupFamily::Auto => DnsFamily::Auto,
            DnsLookupFamily::V4Only => DnsFamily::V4Only,
            DnsLookupFamily::V6Only => DnsFamily::V6Only,
            DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
            DnsLookupFamily::All => DnsFamily::All,
        },
        refresh,
        failure_refresh: failure.unwrap_or(refresh),
        respect_ttl: message.respect_dns_ttl,
        jitter: cx.duration("dns_jitter", &message.dns_jitter)?.unwrap_or_default(),
        resolvers,
    })
}

fn bind(cx: &mut Cx<'_>, message: &proto::Cluster) -> Result<Option<std::net::IpAddr>> {
    let Some(bind) = &message.upstream_bind_config else { return Ok(None) };
    cx.field("upstream_bind_config", |cx| {
        cx.check(bind)?;
        match &bind.source_address {
            None => Ok(None),
            Some(address) => Ok(Some(cx.ip("source_address.address", &address.address)?)),
        }
    })
}

impl IstioMetadata {
    fn of(metadata: &Option<core::Metadata>) -> Self {
        use lateen_proto::value::Kind;
        let Some(istio) = metadata.as_ref().and_then(|m| m.filter_metadata.get("istio")) else {
            return Self::default();
        };
        let text = |fields: &std::collections::BTreeMap<String, lateen_proto::Value>, key: &str| match fields
            .get(key)
            .and_then(|value| value.kind.as_ref())
        {
            Some(Kind::StringValue(text)) => Some(Arc::from(text.as_str())),
            _ => None,
        };
        let services = match istio.fields.get("services").and_then(|value| value.kind.as_ref()) {
            Some(Kind::ListValue(list)) => &list.values[..],
            _ => &[],
        };
        Self {
            config: text(&istio.fields, "config"),
            subset: text(&istio.fields, "subset"),
            services: services
                .iter()
                .filter_map(|value| match &value.kind {
                    Some(Kind::StructValue(service)) => Some(ServiceName {
                        host: text(&service.fields, "host")?,
                        name: text(&service.fields, "name")?,
                        namespace: text(&service.fields, "namespace")?,
                    }),
                    _ => None,
                })
                .collect(),
            external: matches!(
                istio.fields.get("external").and_then(|v| v.kind.as_ref()),
                Some(Kind::BoolValue(true))
            ),
            no_alpn_override: text(&istio.fields, "alpn_override").as_deref() == Some("false"),
        }
    }
}
