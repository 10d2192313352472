//! Who the client is: its address, its certificate, the identifier of its request.

use std::net::IpAddr;

use ipnet::IpNet;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

use crate::error::{Cx, Result};

/// How the client's address is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress {
    /// Whether the peer is the client (an edge proxy), rather than what `x-forwarded-for` says.
    pub use_remote_address: bool,
    /// How many proxies in front are trusted.
    pub trusted_hops: u32,
    /// Whether nothing is appended to `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// Ranges that count as internal; unset is none (tried on stock Envoy 1.40).
    pub internal: Option<Box<[IpNet]>>,
}

impl ClientAddress {
    /// Whether an address counts as internal.
    pub fn is_internal(&self, ip: IpAddr) -> bool {
        self.internal.iter().flatten().any(|range| range.contains(&ip))
    }
}

/// How `x-request-id` is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Whether one is made where it is missing.
    pub generate: bool,
    /// Whether a client's own is kept at the edge.
    pub preserve_external: bool,
    /// Whether it is in every response.
    pub in_response: bool,
    /// Whether the trace decision is packed into it.
    pub pack_trace_reason: bool,
}

/// What happens to `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertHeader {
    /// What happens to the one that came.
    pub mode: ClientCertMode,
    /// Whether the certificate itself is written.
    pub cert: bool,
    /// Whether the subject is written.
    pub subject: bool,
    /// Whether the DNS names are written.
    pub dns: bool,
    /// Whether the URI name is written.
    pub uri: bool,
}

/// What happens to an `x-forwarded-client-cert` header that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertMode {
    /// It is removed.
    Sanitize,
    /// It is forwarded if the connection is mutual TLS.
    ForwardOnly,
    /// Ours is appended if the connection is mutual TLS.
    AppendForward,
    /// Ours replaces it if the connection is mutual TLS.
    SanitizeSet,
    /// It is forwarded always.
    AlwaysForwardOnly,
}

impl ClientAddress {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<Self> {
        let internal = match &message.internal_address_config {
            None => None,
            Some(config) => {
                Some(cx.each("internal_address_config.cidr_ranges", &config.cidr_ranges, |cx, range| {
                    cx.cidr(range)
                })?)
            }
        };
        Ok(Self {
            use_remote_address: message.use_remote_address.unwrap_or(false),
            trusted_hops: message.xff_num_trusted_hops,
            skip_xff_append: message.skip_xff_append,
            internal: internal.map(Into::into),
        })
    }
}

impl RequestId {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<Self> {
        use lateen_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
        let mut pack_trace_reason = true;
        if let Some(any) = message.request_id_extension.as_ref().and_then(|e| e.typed_config.as_ref()) {
            let config: UuidRequestIdConfig =
                cx.field("request_id_extension.typed_config", |cx| cx.unpack(any))?;
            pack_trace_reason = config.pack_trace_reason.unwrap_or(true);
        }
        Ok(Self {
            generate: message.generate_request_id.unwrap_or(true),
            preserve_external: message.preserve_external_request_id,
            in_response: message.always_set_request_id_in_response,
            pack_trace_reason,
        })
    }
}

impl ClientCertHeader {
    pub(super) fn compile(cx: &Cx<'_>, message: &hcm::HttpConnectionManager) -> Result<Self> {
        use hcm::http_connection_manager::ForwardClientCertDetails as D;
        let details = message.set_current_client_cert_details.unwrap_or_default();
        if details.chain {
            let reason = "is not supported: use cert, subject, dns or uri";
            return Err(cx.refuse_at("set_current_client_cert_details.chain", reason));
        }
        Ok(Self {
            mode: match message.forward_client_cert_details() {
                D::Sanitize => ClientCertMode::Sanitize,
                D::ForwardOnly => ClientCertMode::ForwardOnly,
                D::AppendForward => ClientCertMode::AppendForward,
                D::SanitizeSet => ClientCertMode::SanitizeSet,
                D::AlwaysForwardOnly => ClientCertMode::AlwaysForwardOnly,
            },
            cert: details.cert,
            subject: details.subject.unwrap_or(false),

            dns: details.dns,
            uri: details.uri,
        })
    }
}
