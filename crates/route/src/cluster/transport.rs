//! How bytes travel to an endpoint.

use std::sync::Arc;

use lateen_proto::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use lateen_proto::value::Kind;
use lateen_proto::{Struct, Value};

use crate::error::{Cx, Result};
use crate::tls::{self, UpstreamTls};

/// How bytes travel to an endpoint.
#[derive(Clone, Debug)]
pub enum Transport {
    /// As they are.
    Plain,
    /// Over TLS.
    Tls(Arc<UpstreamTls>),
    /// After a header of the PROXY protocol, which tells of the client.
    Proxied(ProxyVersion, Box<Transport>),
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// In text.
    One,
    /// In binary.
    Two,
}

impl Transport {
    /// The TLS that is spoken.
    pub fn tls(&self) -> Option<&Arc<UpstreamTls>> {
        match self {
            Self::Plain => None,
            Self::Tls(tls) => Some(tls),
            Self::Proxied(_, inner) => inner.tls(),
        }
    }

    /// The PROXY protocol that is spoken before.
    pub fn proxy_protocol(&self) -> Option<ProxyVersion> {
        match self {
            Self::Plain | Self::Tls(_) => None,
            Self::Proxied(version, _) => Some(*version),
        }
    }

    pub(super) fn compile(cx: &mut Cx<'_>, socket: &core::TransportSocket) -> Result<Self> {
        if let Some(core::transport_socket::ConfigType::TypedConfig(any)) = &socket.config_type
            && any.is::<ProxyProtocolUpstreamTransport>()
        {
            return cx.field("typed_config", |cx| {
                let message = cx.unpack(any)?;
                Self::proxied(cx, &message)
            });
        }
        Ok(tls::compile_upstream(cx, socket)?.map_or(Self::Plain, Self::Tls))
    }

    fn proxied(cx: &mut Cx<'_>, message: &ProxyProtocolUpstreamTransport) -> Result<Self> {
        cx.check(message)?;
        let config = message.config.clone().unwrap_or_default();
        cx.field("config", |cx| cx.check(&config))?;
        let version = match config.version() {
            core::proxy_protocol_config::Version::V1 => ProxyVersion::One,
            core::proxy_protocol_config::Version::V2 => ProxyVersion::Two,
        };
        let socket = cx.required("transport_socket", &message.transport_socket)?;
        match cx.field("transport_socket", |cx| Self::compile(cx, socket))? {
            Self::Proxied(..) => Err(cx.refuse_at("transport_socket", "one PROXY header is enough")),
            inner => Ok(Self::Proxied(version, Box::new(inner))),
        }
    }
}

/// A transport for endpoints with certain metadata.
#[derive(Clone, Debug)]
pub struct TransportMatch {
    /// Its name, as `tlsMode-istio`.
    pub name: Arc<str>,
    /// Which endpoints.
    pub matches: MetadataMatch,
    /// The transport.
    pub transport: Transport,
}

/// Values that an endpoint's `envoy.transport_socket_match` metadata has to have; empty fits all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetadataMatch(Vec<(String, Value)>);

impl MetadataMatch {
    /// Whether metadata has all the values.
    pub fn fits(&self, metadata: Option<&Struct>) -> bool {
        self.0.iter().all(|(key, wanted)| {
            metadata.and_then(|m| m.fields.get(key)).is_some_and(|found| has_value(found, wanted))
        })
    }
}

/// An endpoint's list fits when one of its elements does.
fn has_value(found: &Value, wanted: &Value) -> bool {
    match &found.kind {
        Some(Kind::ListValue(list)) => list.values.iter().any(|element| element == wanted),
        _ => found == wanted,
    }
}

impl TransportMatch {
    /// Whether it is for an endpoint with this metadata.
    pub fn fits(&self, endpoint: Option<&core::Metadata>) -> bool {
        self.matches.fits(endpoint.and_then(|m| m.filter_metadata.get("envoy.transport_socket_match")))
    }

    pub(super) fn compile(cx: &mut Cx<'_>, message: &TransportSocketMatch) -> Result<Self> {
        let transport = match &message.transport_socket {
            None => Transport::Plain,
            Some(socket) => cx.field("transport_socket", |cx| Transport::compile(cx, socket))?,
        };
        let pairs = message.r#match.iter().flat_map(|m| &m.fields);
        Ok(Self {
            name: message.name.as_str().into(),
            matches: MetadataMatch(pairs.map(|(key, value)| (key.clone(), value.clone())).collect()),
            transport,
        })
    }
}
