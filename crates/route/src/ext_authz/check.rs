//! What a service is asked: the attributes of a request or a connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request, TlsSession};
use lateen_proto::envoy::service::auth::v3::{AttributeContext, CheckRequest};

use super::{BodyRules, HeaderRules, HttpService, Tells};
use crate::format::Format;
use crate::request::{ConnectionView, RequestView};

/// Says whether only a part of the body was sent along.
pub const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// The ends of a connection, as far as [`ConnectionView`] does not know them.
#[derive(Clone, Debug, Default)]
pub struct Ends<'a> {
    /// The name in our own certificate.
    pub local_principal: Option<&'a str>,
    /// The client's certificate, in URL-encoded PEM.
    pub certificate: Option<String>,
}

/// A request that a service is asked about.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The request.
    pub request: &'a RequestView<'a>,
    /// A number of it.
    pub id: String,
    /// When it began.
    pub started: SystemTime,
    /// `HTTP/1.1`
    pub protocol: &'a str,
    /// Bytes of its body that have come.
    pub received: u64,
    /// Its body, as far as it is sent along.
    pub body: Option<Body>,
}

/// The part of a body that is sent along.
#[derive(Clone, Debug)]
pub struct Body {
    /// Its bytes.
    pub bytes: bytes::Bytes,
    /// Whether more of it has come.
    pub partial: bool,
    /// What the filter says about it.
    pub rules: BodyRules,
}

/// What a gRPC service is asked about a connection.
pub fn of_connection(
    connection: &ConnectionView<'_>,
    ends: &Ends<'_>,
    tells: &Tells,
    metadata: Option<&core::Metadata>,
) -> CheckRequest {
    CheckRequest { attributes: Some(context(connection, ends, tells, metadata)) }
}

/// What a gRPC service is asked about a request.
pub fn of_request(
    asked: Asked<'_>,
    ends: &Ends<'_>,
    tells: &Tells,
    headers: &HeaderRules,
    extensions: &BTreeMap<String, String>,
) -> CheckRequest {
    let request = asked.request;
    let mut told = told_headers(request, headers);
    let (mut text, mut raw) = (String::new(), Vec::new());
    if let Some(body) = asked.body {
        told.insert(PARTIAL_BODY.to_owned(), body.partial.to_string());
        match body.rules.as_bytes {
            true => raw = body.bytes.to_vec(),
            false => text = String::from_utf8_lossy(&body.bytes).into_owned(),
        }
    }
    let http = HttpRequest {
        id: asked.id,
        method: request.method.to_owned(),
        headers: told,
        path: request.path.to_owned(),
        host: request.authority.to_owned(),
        scheme: request.scheme.to_owned(),
        size: i64::try_from(asked.received).unwrap_or(i64::MAX),
        protocol: asked.protocol.to_owned(),
        body: text,
        raw_body: raw,
        ..Default::default()
    };
    let mut context = context(request.connection, ends, tells, request.metadata);
    context.request = Some(Request { time: Some(asked.started.into()), http: Some(http) });
    context.source.get_or_insert_default().service =
        header(request.headers, "x-envoy-downstream-service-cluster");
    context.context_extensions = extensions.clone();
    CheckRequest { attributes: Some(context) }
}

/// The head of what an HTTP service is asked: method, host, path, headers. `render` fills formats.
pub fn head(
    request: &RequestView<'_>,
    service: &HttpService,
    rules: &HeaderRules,
    body: Option<&Body>,
    render: impl Fn(&Format) -> Vec<u8>,
) -> (String, HeaderMap) {
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers {
        let told = rules.tell(name.as_str()) && *name != http::header::CONTENT_LENGTH;
        if told && !is_of_connection(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(body) = body {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if body.partial { "true" } else { "false" }));
    }
    let length = body.map_or(0, |body| body.bytes.len());
    headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from(length));
    for (name, format) in &service.add {
        if let Ok(value) = HeaderValue::from_bytes(&render(format)) {
            headers.insert(name.clone(), value);
        }
    }
    (format!("{}{}", service.path_prefix, request.path), headers)
}

/// Headers that hold for one connection only (RFC 9110, 7.6.1), whoever writes them.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "te" | "trailer" | "upgrade"
    )
}

fn told_headers(request: &RequestView<'_>, rules: &HeaderRules) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    let pseudo = [
        (":authority", request.authority),
        (":method", request.method),
        (":path", request.path),
        (":scheme", request.scheme),
    ];
    for (name, value) in pseudo {
        if rules.tell(name) {
            told.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in request.headers {
        if !rules.tell(name.as_str()) || name.as_str() == PARTIAL_BODY {
            continue;
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        match told.get_mut(name.as_str()) {
            Some(before) => {
                before.push(',');
                before.push_str(&text);
            }
            None => drop(told.insert(name.as_str().to_owned(), text.into_owned())),
        }
    }
    told
}

fn context(
    connection: &ConnectionView<'_>,
    ends: &Ends<'_>,
    tells: &Tells,
    metadata: Option<&core::Metadata>,
) -> AttributeContext {
    let principal = connection.peer.map(|peer| {
        let named = peer.uris.first().or(peer.dns_names.first());
        named.map_or(peer.subject, |name| name)
    });
    let known = tells.metadata.iter().filter_map(|name| {
        let found = metadata?.filter_metadata.get(&**name)?;
        Some((name.to_string(), found.clone()))
    });
    AttributeContext {
        source: Some(Peer {
            address: Some(address(connection.source)),
            principal: principal.unwrap_or_default().to_owned(),
            certificate: ends.certificate.clone().unwrap_or_default(),
            ..Default::default()
        }),
        destination: Some(Peer {
            address: Some(address(connection.destination)),
            principal: ends.local_principal.unwrap_or_default().to_owned(),
            ..Default::default()
        }),
        metadata_context: Some(core::Metadata { filter_metadata: known.collect(), ..Default::default() }),
        tls_session: tells
            .tls_session
            .then(|| TlsSession { sni: connection.server_name.unwrap_or_default().to_owned() }),
        ..Default::default()
    }
}

fn address(socket: SocketAddr) -> core::Address {
    let socket = core::SocketAddress {
        address: socket.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(socket.port().into())),
        ..Default::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}
