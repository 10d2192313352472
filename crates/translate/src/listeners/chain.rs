//! Filter chains and listeners, before they become messages.

use std::time::Duration;

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::listener::v3 as listener;
use lateen_proto::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch};

use crate::filters::wire::duration;

/// How long a client may take to finish its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// What a chain matches; empty parts match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChainMatch {
    /// The port that the client meant.
    pub(crate) port: Option<u16>,
    /// The address blocks that the client meant: address and prefix length, ordered.
    pub(crate) destinations: Vec<(String, u8)>,
    /// Server names of the client hello.
    pub(crate) server_names: Vec<String>,
    /// The transport.
    pub(crate) transport: &'static str,
    /// Application protocols.
    pub(crate) alpn: &'static [&'static str],
}

impl ChainMatch {
    /// Whether it matches every connection.
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::default()
    }

    fn into_message(self) -> Option<FilterChainMatch> {
        if self.is_any() {
            return None;
        }
        Some(FilterChainMatch {
            destination_port: self.port.map(Into::into),
            prefix_ranges: self
                .destinations
                .into_iter()
                .map(|(address_prefix, length)| core::CidrRange {
                    address_prefix,
                    prefix_len: Some(length.into()),
                })
                .collect(),
            server_names: self.server_names,
            transport_protocol: self.transport.to_owned(),
            application_protocols: self.alpn.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        })
    }
}

/// A filter chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: String,
    /// What it matches.
    pub(crate) matches: ChainMatch,
    /// How it terminates TLS, if it does.
    pub(crate) tls: Option<core::TransportSocket>,
    /// Its filters.
    pub(crate) filters: Vec<Filter>,
    /// Its provenance.
    pub(crate) metadata: Option<core::Metadata>,
    /// Whether handshakes have a deadline.
    pub(crate) handshake_deadline: bool,
}

impl Chain {
    /// The message.
    pub(crate) fn into_message(self) -> FilterChain {
        FilterChain {
            filter_chain_match: self.matches.into_message(),
            filters: self.filters,
            metadata: self.metadata,
            transport_socket: self.tls,
            transport_socket_connect_timeout: self.handshake_deadline.then(|| duration(HANDSHAKE)),
            name: self.name,
            ..Default::default()
        }
    }
}

/// A block of addresses as text (`10.0.0.0/8`, or a single address) in a chain match's form.
pub(crate) fn block(text: &str) -> Option<(String, u8)> {
    use std::net::IpAddr;
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.parse::<IpAddr>().ok()?, Some(length.parse::<u8>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(whole);
    (length <= whole).then(|| (address.to_string(), length))
}

/// Marks a listener as bound to a real port: connections are then taken one at a time per wake-up, so that workers share
/// them evenly.
pub(crate) fn bind(listener: &mut listener::Listener) {
    listener.max_connections_to_accept_per_socket_event = Some(1);
}
