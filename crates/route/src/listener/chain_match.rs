//! Filter chain matching, with Envoy's precedence: at each criterion the most specific value that any remaining chain
//! has wins, and there is no way back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use lateen_proto::envoy::config::core::v3::CidrRange;
use lateen_proto::envoy::config::listener::v3::FilterChainMatch;
use lateen_proto::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use smallvec::SmallVec;

use super::FilterChain;
use crate::error::{Cx, Result};
use crate::request::ConnectionView;
use crate::trail::Trail;

/// Which connections a filter chain takes; an empty criterion takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// The destination port.
    pub destination_port: Option<u16>,
    /// The destination address.
    pub destination: Vec<IpNet>,
    /// The server name asked for: exact, or `*.suffix`; lower case.
    pub server_names: Vec<Box<str>>,
    /// `tls` or `raw_buffer`; empty takes both.
    pub transport: Box<str>,
    /// Application protocols.
    pub application_protocols: Vec<Box<[u8]>>,
    /// The peer's own address.
    pub direct_source: Vec<IpNet>,
    /// Whether the peer is local.
    pub source_type: SourceType,
    /// The client's address.
    pub source: Vec<IpNet>,
    /// The client's port.
    pub source_ports: Vec<u16>,
}

/// Where a connection may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    /// Anywhere.
    #[default]
    Any,
    /// The destination's own address, or loopback.
    SameIpOrLoopback,
    /// Anywhere else.
    External,
}

impl ChainMatch {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &FilterChainMatch) -> Result<Self> {
        cx.check(message)?;
        let port = |cx: &Cx<'_>, field: &str, port: u32| {
            u16::try_from(port).map_err(|_| cx.refuse_at(field, format!("{port} is no port: 0 to 65535")))
        };
        let destination_port =
            message.destination_port.map(|number| port(cx, "destination_port", number)).transpose()?;
        let server_names = cx.each("server_names", &message.server_names, |cx, name| {
            let rest = name.strip_prefix("*.").unwrap_or(name);
            if rest.contains('*') {
                return Err(cx.refuse(format!("{name:?}: a wildcard may only be the whole first label")));
            }
            Ok(name.to_ascii_lowercase().into())
        })?;
        let mut ranges = |name: &str, ranges: &[CidrRange]| cx.each(name, ranges, |cx, range| cx.cidr(range));
        Ok(Self {
            destination: ranges("prefix_ranges", &message.prefix_ranges)?,
            direct_source: ranges("direct_source_prefix_ranges", &message.direct_source_prefix_ranges)?,
            source: ranges("source_prefix_ranges", &message.source_prefix_ranges)?,
            destination_port,
            server_names,
            transport: message.transport_protocol.as_str().into(),
            application_protocols: message
                .application_protocols
                .iter()
                .map(|name| name.as_bytes().into())
                .collect(),
            source_type: match message.source_type() {
                ConnectionSourceType::Any => SourceType::Any,
                ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
                ConnectionSourceType::External => SourceType::External,
            },
            source_ports: message
                .source_ports
                .iter()
                .map(|number| port(cx, "source_ports", *number))
                .collect::<Result<_>>()?,
        })
    }

    /// Whether some connection could be taken by both with the same specificity in every criterion.
    fn overlaps(&self, other: &Self) -> bool {
        shares(&self.destination, &other.destination)
            && shares(&self.server_names, &other.server_names)
            && self.transport == other.transport
            && shares(&self.application_protocols, &other.application_protocols)
            && shares(&self.direct_source, &other.direct_source)
            && self.source_type == other.source_type
            && shares(&self.source, &other.source)
            && shares(&self.source_ports, &other.source_ports)
    }
}

fn shares<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    (one.is_empty() && other.is_empty()) || one.iter().any(|item| other.contains(item))
}

impl std::fmt::Display for ChainMatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if let Some(port) = self.destination_port {
            parts.push(format!("port {port}"));
        }
        let mut list = |name: &str, items: Vec<String>| {
            if !items.is_empty() {
                parts.push(format!("{name} {}", items.join(", ")));
            }
        };
        list("to", self.destination.iter().map(ToString::to_string).collect());
        list("server name", self.server_names.iter().map(ToString::to_string).collect());
        list("transport", if self.transport.is_empty() { vec![] } else { vec![self.transport.to_string()] });
        list(
            "application protocol",
            self.application_protocols.iter().map(|p| String::from_utf8_lossy(p).into_owned()).collect(),
        );
        list("from", self.source.iter().map(ToString::to_string).collect());
        if parts.is_empty() { f.write_str("anything") } else { f.write_str(&parts.join("; ")) }
    }
}

/// The chains by their destination port.
#[derive(Clone, Debug, Default)]
pub(super) struct ChainTable {
    ports: HashMap<u16, Box<[u32]>>,
    any_port: Box<[u32]>,
}

type Candidates = SmallVec<[u32; 32]>;

impl ChainTable {
    pub(super) fn build(cx: &mut Cx<'_>, chains: &[Arc<FilterChain>]) -> Result<Self> {
        let mut ports: HashMap<u16, Vec<u32>> = HashMap::new();
        let mut any_port = Vec::new();
        let no_name = [Box::<str>::default()];
        let mut first_names: HashMap<(Option<u16>, &str, &str), Vec<usize>> = HashMap::new();
        for (index, chain) in chains.iter().enumerate() {
            let matches = &chain.matches;
            let names = if matches.server_names.is_empty() { &no_name[..] } else { &matches.server_names };
            for name in names {
                let key = (matches.destination_port, &**name, &*matches.transport);
                let rivals = first_names.entry(key).or_default();
                if let Some(rival) = rivals.iter().find(|rival| chains[**rival].matches.overlaps(matches)) {
                    return Err(cx.refuse(format!(
                        "{:?} and {:?} have overlapping matching rules ({matches}): a connection must match one",
                        chains[*rival].name, chain.name
                    )));
                }
                rivals.push(index);
            }
            // A listener of more chains than u32 does not fit into memory.
            let index = index as u32;
            match matches.destination_port {
                Some(port) => ports.entry(port).or_default().push(index),
                None => any_port.push(index),
            }
        }
        Ok(Self {
            ports: ports.into_iter().map(|(port, chains)| (port, chains.into())).collect(),
            any_port: any_port.into(),
        })
    }

    pub(super) fn find(
        &self,
        chains: &[Arc<FilterChain>],
        connection: &ConnectionView<'_>,
        trail: &mut impl Trail,
    ) -> Option<usize> {
        let port = connection.destination.port();
        let start = match self.ports.get(&port) {
            Some(own) => {
                trail.step(|| format!("{} filter chains are for destination port {port}", own.len()));
                own
            }
            None => &self.any_port,
        };
        let mut left: Candidates = SmallVec::from_slice(start);
        let mut narrow = |what: &str, rank: &dyn Fn(&ChainMatch) -> Option<u32>| {
            let best = left.iter().filter_map(|i| rank(&chains[*i as usize].matches)).max();
            let before = left.len();
            match best {
                Some(best) => left.retain(|i| rank(&chains[*i as usize].matches) == Some(best)),
                None => left.clear(),
            }
            if left.len() < before {
                trail.step(|| narrowed(what, chains, &left, before));
            }
        };
        let destination = connection.destination.ip();
        let source = connection.source.ip();
        narrow("destination address", &|m| prefix_rank(&m.destination, destination));
        narrow("server name", &|m| name_rank(&m.server_names, connection.server_name));
        narrow("transport protocol", &|m| text_rank(&m.transport, connection.transport.name()));
        narrow("application protocol", &|m| {
            protocol_rank(&m.application_protocols, connection.application_protocols)
        });
        narrow("direct source address", &|m| prefix_rank(&m.direct_source, connection.direct_source.ip()));
        let local = source.is_loopback() || source == destination;
        narrow("source type", &|m| source_type_rank(m.source_type, local));
        narrow("source address", &|m| prefix_rank(&m.source, source));
        narrow("source port", &|m| match m.source_ports.as_slice() {
            [] => Some(0),
            ports => ports.contains(&connection.source.port()).then_some(1),
        });
        left.first().map(|index| *index as usize)
    }
}

fn narrowed(what: &str, chains: &[Arc<FilterChain>], left: &[u32], before: usize) -> String {
    let names: Vec<&str> = left.iter().take(4).map(|i| &*chains[*i as usize].name).collect();
    match left.len() {
        0 => format!("by {what}, none of {before} filter chains remains"),
        n if n > names.len() => format!("by {what}, {n} of {before} filter chains remain"),
        n => format!("by {what}, {n} of {before} filter chains remain: {}", names.join(", ")),
    }
}

/// Longest matching prefix; no prefix at all is as wide as /0.
fn prefix_rank(ranges: &[IpNet], ip: IpAddr) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges.iter().filter(|range| range.contains(&ip)).map(|range| u32::from(range.prefix_len())).max()
}

/// Exact before the longest wildcard before any.
fn name_rank(names: &[Box<str>], asked: Option<&str>) -> Option<u32> {
    if names.is_empty() {
        return Some(0);
    }
    let asked = asked?;
    let rank = |name: &str| match name.strip_prefix('*') {
        Some(suffix) => {
            (asked.len() > suffix.len() && asked.ends_with(suffix)).then_some(suffix.len() as u32)
        }
        None => (asked == name).then_some(u32::MAX),
    };
    names.iter().filter_map(|name| rank(name)).max()
}

fn text_rank(wanted: &str, found: &str) -> Option<u32> {
    match wanted {
        "" => Some(0),
        _ => (wanted == found).then_some(1),
    }
}

/// The client's order decides among protocols.
fn protocol_rank(wanted: &[Box<[u8]>], offered: &[&[u8]]) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let position = offered.iter().position(|offer| wanted.iter().any(|name| **name == **offer))?;
    Some(u32::MAX - position as u32)
}

fn source_type_rank(wanted: SourceType, local: bool) -> Option<u32> {
    match wanted {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => local.then_some(1),
        SourceType::External => (!local).then_some(1),
    }
}
