//! Istio's own filters: their settings come as messages or as `TypedStruct`.

use std::sync::Arc;

use lateen_proto::value::Kind;
use lateen_proto::{Any, Struct, Value, udpa, xds};
use prost::Message;

use crate::error::{Cx, Result};

/// An extension's configuration, whatever it came in.
pub(crate) struct Extension {
    /// The message's full name.
    pub(crate) kind: String,
    config: Config,
}

enum Config {
    Bytes(bytes::Bytes),
    Fields(Struct),
}

impl Extension {
    /// Looks through `TypedStruct`.
    pub(crate) fn open(cx: &Cx<'_>, any: &Any) -> Result<Self> {
        let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
        if any.is::<udpa::r#type::v1::TypedStruct>() {
            let inner: udpa::r#type::v1::TypedStruct = cx.unpack(any)?;
            return Ok(Self {
                kind: name(&inner.type_url),
                config: Config::Fields(inner.value.unwrap_or_default()),
            });
        }
        if any.is::<xds::r#type::v3::TypedStruct>() {
            let inner: xds::r#type::v3::TypedStruct = cx.unpack(any)?;
            return Ok(Self {
                kind: name(&inner.type_url),
                config: Config::Fields(inner.value.unwrap_or_default()),
            });
        }
        Ok(Self { kind: name(&any.type_url), config: Config::Bytes(any.value.clone()) })
    }
}

/// Settings of `istio.metadata_exchange` for connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataExchange {
    /// The application protocol that stands for it.
    pub protocol: Arc<str>,
}

/// `envoy.tcp.metadataexchange.config.MetadataExchange`
#[derive(Clone, PartialEq, prost::Message)]
struct ExchangeMessage {
    #[prost(string, tag = "1")]
    protocol: String,
    #[prost(bool, tag = "2")]
    enable_discovery: bool,
}

impl MetadataExchange {
    pub(crate) fn compile(cx: &Cx<'_>, extension: &Extension) -> Result<Self> {
        let protocol = match &extension.config {
            Config::Bytes(bytes) => {
                ExchangeMessage::decode(bytes.clone()).map_err(|error| cx.refuse(error.to_string()))?.protocol
            }
            Config::Fields(fields) => text(fields, &["protocol"]).unwrap_or_default().to_owned(),
        };
        if protocol.is_empty() {
            return Err(cx.refuse_at("protocol", "must not be empty"));
        }
        Ok(Self { protocol: protocol.into() })
    }
}

/// Settings of `istio.alpn`: what is offered to the upstream over TLS, by the HTTP that is spoken to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlpnOverride {
    /// For HTTP/1.0.
    pub http10: Box<[Arc<[u8]>]>,
    /// For HTTP/1.1.
    pub http11: Box<[Arc<[u8]>]>,
    /// For HTTP/2.
    pub http2: Box<[Arc<[u8]>]>,
}

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`
#[derive(Clone, PartialEq, prost::Message)]
struct AlpnMessage {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<AlpnRow>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AlpnRow {
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

impl AlpnOverride {
    pub(crate) fn compile(cx: &Cx<'_>, extension: &Extension) -> Result<Self> {
        let message = match &extension.config {
            Config::Bytes(bytes) => {
                AlpnMessage::decode(bytes.clone()).map_err(|error| cx.refuse(error.to_string()))?
            }
            Config::Fields(fields) => AlpnMessage { alpn_override: rows(cx, fields)? },
        };
        let mut out = Self::default();
        for row in message.alpn_override {
            let names = row.alpn_override.iter().map(|name| Arc::from(name.as_bytes())).collect();
            match row.upstream_protocol {
                0 => out.http10 = names,
                1 => out.http11 = names,
                2 => out.http2 = names,
                other => {
                    return Err(
                        cx.refuse_at("alpn_override", format!("{other} is no upstream protocol: 0 to 2"))
                    );
                }
            }
        }
        Ok(out)
    }
}

fn rows(cx: &Cx<'_>, fields: &Struct) -> Result<Vec<AlpnRow>> {
    let rows =
        list(fields, &["alpnOverride", "alpn_override"]).iter().filter_map(|value| match &value.kind {
            Some(Kind::StructValue(row)) => Some(row),
            _ => None,
        });
    rows.map(|row| {
        let upstream_protocol = match text(row, &["upstreamProtocol", "upstream_protocol"]) {
            None | Some("HTTP10") => 0,
            Some("HTTP11") => 1,
            Some("HTTP2") => 2,
            Some(other) => {
                return Err(
                    cx.refuse_at("upstream_protocol", format!("{other} is none of HTTP10, HTTP11, HTTP2"))
                );
            }
        };
        let names =
            list(row, &["alpnOverride", "alpn_override"]).iter().filter_map(|value| match &value.kind {
                Some(Kind::StringValue(name)) => Some(name.clone()),
                _ => None,
            });
        Ok(AlpnRow { upstream_protocol, alpn_override: names.collect() })
    })
    .collect()
}

fn text<'s>(fields: &'s Struct, names: &[&str]) -> Option<&'s str> {
    match names.iter().find_map(|name| fields.fields.get(*name))?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn list<'s>(fields: &'s Struct, names: &[&str]) -> &'s [Value] {
    match names.iter().find_map(|name| fields.fields.get(*name)).and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => &list.values,
        _ => &[],
    }
}
