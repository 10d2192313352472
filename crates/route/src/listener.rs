//! Listeners: where they listen, what they inspect, which filter chain takes a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::listener::v3 as proto;
use lateen_proto::envoy::config::listener::v3::listener::ListenerSpecifier;

use crate::access_log::AccessLog;
use crate::error::{CompileError, Compiled, Cx, Result};
use crate::network::NetworkFilter;
use crate::request::ConnectionView;
use crate::tls::{self, DownstreamTls};
use crate::trail::Trail;

mod chain_match;
mod inspect;

pub use chain_match::ChainMatch;
pub use inspect::{ListenerFilter, ListenerFilterKind};

/// A compiled `Listener`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its resource name.
    pub name: Arc<str>,
    /// Where it listens; the first is the main one.
    pub addresses: Vec<ListenAddress>,
    /// Whether it opens sockets itself; otherwise it only gets connections that another one hands over.
    pub bind_to_port: bool,
    /// Whether it hands connections over to the listener of their original destination.
    pub use_original_dst: bool,
    /// Which way its traffic goes.
    pub direction: Direction,
    /// What looks at a connection's first bytes, in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// How long the listener filters may take; `None` is for ever.
    pub listener_filters_timeout: Option<Duration>,
    /// Whether a connection goes on when the listener filters take too long, rather than being closed.
    pub continue_on_timeout: bool,
    /// Whether sockets get `IP_TRANSPARENT`.
    pub transparent: bool,
    /// Whether sockets get `IP_FREEBIND`.
    pub freebind: bool,
    /// The backlog of the sockets.
    pub backlog: Option<u32>,
    /// The most bytes buffered per connection and direction; 1 MiB unless set.
    pub buffer_limit: u32,
    /// TCP keep-alive of accepted connections.
    pub keepalive: Option<Keepalive>,
    /// Logs of connections that no filter chain took.
    pub access_logs: Vec<AccessLog>,
    /// The chains, in the resource's order; a default filter chain comes last.
    pub chains: Vec<Arc<FilterChain>>,
    default_chain: Option<usize>,
    matcher: chain_match::ChainTable,
    /// The Istio object it was made from (`metadata.filter_metadata.istio.config`).
    pub config: Option<Arc<str>>,
}

/// Which way a listener's traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Not said.
    Unspecified,
    /// To the workload.
    Inbound,
    /// From the workload.
    Outbound,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Pipe(Arc<str>),
}

/// TCP keep-alive; unset is the system's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Probes without answer until the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe, in seconds.
    pub time: Option<u32>,
    /// Time between probes, in seconds.
    pub interval: Option<u32>,
}

/// A compiled `FilterChain`.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// Its name; Istio names all of them.
    pub name: Arc<str>,
    /// Which connections it takes.
    pub matches: ChainMatch,
    /// How TLS is terminated, if it is.
    pub tls: Option<Arc<DownstreamTls>>,
    /// How long the TLS handshake may take; `None` is for ever.
    pub handshake_timeout: Option<Duration>,
    /// The network filters, in order; the last is terminal.
    pub filters: Vec<NetworkFilter>,
    /// The Istio object it was made from.
    pub config: Option<Arc<str>>,
}

/// Compiles a `Listener`.
///
/// # Errors
/// Names the field that is wrong or not supported.
pub fn compile_listener(message: &proto::Listener) -> Result<Compiled<Listener>, CompileError> {
    Cx::run(&message.name, |cx| Listener::compile(cx, message))
}

impl Listener {
    /// The filter chain that takes a connection, by Envoy's precedence; the default filter chain when none matches.
    pub fn filter_chain(
        &self,
        connection: &ConnectionView<'_>,
        trail: &mut impl Trail,
    ) -> Option<&Arc<FilterChain>> {
        let index = self.matcher.find(&self.chains, connection, trail).or_else(|| {
            if self.default_chain.is_some() {
                trail.step(|| "no filter chain matches: the default filter chain takes it".to_owned());
            }
            self.default_chain
        })?;
        self.chains.get(index)
    }

    /// The default filter chain.
    pub fn default_filter_chain(&self) -> Option<&Arc<FilterChain>> {
        self.chains.get(self.default_chain?)
    }

    /// The listener filters that look at a connection to `port` (they may be disabled by port).
    pub fn listener_filters(&self, port: u16) -> impl Iterator<Item = &ListenerFilterKind> {
        self.listener_filters.iter().filter(move |filter| filter.enabled(port)).map(|filter| &filter.kind)
    }

    fn compile(cx: &mut Cx<'_>, message: &proto::Listener) -> Result<Self> {
        cx.check(message)?;
        if let Some(ListenerSpecifier::InternalListener(_)) = &message.listener_specifier {
            return Err(cx.refuse_at("internal_listener", "is not supported"));
        }
        let main = cx.required("address", &message.address)?;
        let mut addresses = vec![cx.field("address", |cx| ListenAddress::compile(cx, main))?];
        addresses.extend(cx.each("additional_addresses", &message.additional_addresses, |cx, more| {
            cx.check(more)?;
            let address = cx.required("address", &more.address)?;
            cx.field("address", |cx| ListenAddress::compile(cx, address))
        })?);
        let mut chains = cx.each("filter_chains", &message.filter_chains, |cx, chain| {
            FilterChain::compile(cx, chain, true).map(Arc::new)
        })?;
        let matcher = cx.field("filter_chains", |cx| chain_match::ChainTable::build(cx, &chains))?;
        let mut default_chain = None;
        if let Some(chain) = &message.default_filter_chain {
            let chain = cx.field("default_filter_chain", |cx| FilterChain::compile(cx, chain, false))?;
            default_chain = Some(chains.len());
            chains.push(Arc::new(chain));
        }
        if chains.is_empty() {
            return Err(cx.refuse_at("filter_chains", "needs at least one filter chain"));
        }
        let timeout = cx.duration("listener_filters_timeout", &message.listener_filters_timeout)?;
        Ok(Self {
            name: message.name.as_str().into(),
            addresses,
            bind_to_port: message.bind_to_port.unwrap_or(true)
                && message.deprecated_v1.as_ref().and_then(|v1| v1.bind_to_port).unwrap_or(true),
            use_original_dst: message.use_original_dst.unwrap_or(false),
            direction: match message.traffic_direction() {
                core::TrafficDirection::Unspecified => Direction::Unspecified,
                core::TrafficDirection::Inbound => Direction::Inbound,
                core::TrafficDirection::Outbound => Direction::Outbound,
            },
            listener_filters: cx.each(
                "listener_filters",
                &message.listener_filters,
                ListenerFilter::compile,
            )?,
            listener_filters_timeout: match timeout {
                None => Some(Duration::from_secs(15)),
                Some(Duration::ZERO) => None,
                Some(timeout) => Some(timeout),
            },
            continue_on_timeout: message.continue_on_listener_filters_timeout,
            transparent: message.transparent.unwrap_or(false),
            freebind: message.freebind.unwrap_or(false),
            backlog: message.tcp_backlog_size,
            buffer_limit: message.per_connection_buffer_limit_bytes.unwrap_or(1 << 20),
            keepalive: message.tcp_keepalive.as_ref().map(Keepalive::of),
            access_logs: cx.each("access_log", &message.access_log, AccessLog::compile)?,
            chains,
            default_chain,
            matcher,
            config: config_of(&message.metadata),
        })
    }
}

impl FilterChain {
    fn compile(cx: &mut Cx<'_>, message: &proto::FilterChain, matched: bool) -> Result<Self> {
        cx.check(message)?;
        let matches = match &message.filter_chain_match {
            Some(rules) if matched => cx.field("filter_chain_match", |cx| ChainMatch::compile(cx, rules))?,
            _ => ChainMatch::default(),
        };
        let tls = match &message.transport_socket {
            None => None,
            Some(socket) => cx.field("transport_socket", |cx| tls::compile_downstream(cx, socket))?,
        };
        let filters = cx.each("filters", &message.filters, NetworkFilter::compile)?;
        if let Some((last, others)) = filters.split_last() {
            if let Some(index) = others.iter().position(NetworkFilter::is_terminal) {
                let reason = "is terminal, so it has to be the last filter of its chain";
                return Err(cx.refuse_at(&format!("filters[{index}]"), reason));
            }
            if !last.is_terminal() {
                return Err(cx.refuse_at(
                    "filters",
                    "the last one has to be terminal: http_connection_manager, tcp_proxy or direct_response",
                ));
            }
        }
        Ok(Self {
            name: message.name.as_str().into(),
            matches,
            tls,
            handshake_timeout: cx
                .duration("transport_socket_connect_timeout", &message.transport_socket_connect_timeout)?
                .filter(|timeout| !timeout.is_zero()),
            filters,
            config: config_of(&message.metadata),
        })
    }
}

impl ListenAddress {
    fn compile(cx: &mut Cx<'_>, message: &core::Address) -> Result<Self> {
        match &message.address {
            Some(core::address::Address::SocketAddress(address)) => {
                cx.field("socket_address", |cx| Ok(Self::Tcp(socket_address(cx, address)?)))
            }
            Some(core::address::Address::Pipe(pipe)) => Ok(Self::Pipe(pipe.path.as_str().into())),
            Some(core::address::Address::EnvoyInternalAddress(_)) => {
                Err(cx.refuse_at("envoy_internal_address", "is not supported"))
            }
            None => Err(cx.refuse("needs socket_address or pipe")),
        }
    }
}

impl Keepalive {
    pub(crate) fn of(message: &core::TcpKeepalive) -> Self {
        Self {
            probes: message.keepalive_probes,
            time: message.keepalive_time,
            interval: message.keepalive_interval,
        }
    }
}

/// A numeric TCP address.
pub(crate) fn socket_address(cx: &mut Cx<'_>, message: &core::SocketAddress) -> Result<SocketAddr> {
    cx.check(message)?;
    if message.protocol() != core::socket_address::Protocol::Tcp {
        return Err(cx.refuse_at("protocol", "only TCP is supported"));
    }
    let ip = cx.ip("address", &message.address)?;
    Ok(SocketAddr::new(ip, port(cx, message)?))
}

/// A socket address's port.
pub(crate) fn port(cx: &Cx<'_>, message: &core::SocketAddress) -> Result<u16> {
    match &message.port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| cx.refuse_at("port_value", format!("{port} is no port: 0 to 65535"))),
        Some(core::socket_address::PortSpecifier::NamedPort(_)) => {
            Err(cx.refuse_at("named_port", "is not supported: give a number"))
        }
        None => Err(cx.refuse_at("port_value", "is required")),
    }
}

/// The Istio object that a piece of configuration was made from.
pub(crate) fn config_of(metadata: &Option<core::Metadata>) -> Option<Arc<str>> {
    let istio = metadata.as_ref()?.filter_metadata.get("istio")?;
    match istio.fields.get("config")?.kind.as_ref()? {
        lateen_proto::value::Kind::StringValue(text) => Some(text.as_str().into()),
        _ => None,
    }
}
