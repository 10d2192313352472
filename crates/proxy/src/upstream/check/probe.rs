//! One check of one host, on a connection of its own.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderName, TE, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lateen_route::cluster::{HealthCheck, HttpProbe, Probe};
use lateen_route::endpoints::EndpointCheck;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Finding;
use crate::stream::Stream;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::connect;
use crate::upstream::host::{Address, Host};

const CHECKED_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
const IMMEDIATE: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// The largest answer of a gRPC health service.
const GRPC_LIMIT: usize = 4096;

/// Asks a host; the caller limits the time.
pub(super) async fn ask(
    cluster: &Cluster,
    host: &Host,
    way: usize,
    special: Option<&EndpointCheck>,
    rules: &HealthCheck,
) -> Finding {
    let own = special.and_then(|check| check.hostname.as_deref());
    let Some(stream) = dial(cluster, host, way, special, own).await else { return Finding::Silent };
    match &rules.probe {
        Probe::Tcp { send, receive } => tcp(stream, send, receive).await.unwrap_or(Finding::Silent),
        Probe::Http(probe) => {
            let authority = own.or(probe.host.as_deref()).unwrap_or(&cluster.compiled.name);
            http(stream, probe, authority).await.unwrap_or(Finding::Silent)
        }
        Probe::Grpc { service, authority, headers } => {
            let authority = own.or(authority.as_deref()).unwrap_or(&cluster.compiled.name);
            grpc(stream, service, authority, headers).await.unwrap_or(Finding::Silent)
        }
    }
}

async fn dial(
    cluster: &Cluster,
    host: &Host,
    way: usize,
    special: Option<&EndpointCheck>,
    authority: Option<&str>,
) -> Option<Stream> {
    let way = cluster.ways.load().get(way)?.clone();
    let tls = cluster.tls_for(&way, authority.unwrap_or_default())?;
    let transport = cluster.transport(tls, &way, None);
    let address = match special.and_then(|check| check.address) {
        Some(address) => Address::Socket(address),
        None => host.address.clone(),
    };
    let result = connect(&address, &transport).await;
    result.ok()
}

async fn tcp(mut stream: Stream, send: &Bytes, receive: &[Bytes]) -> Option<Finding> {
    stream.write_all(send).await.ok()?;
    stream.flush().await.ok()?;
    let mut seen = BytesMut::new();
    while !holds(&seen, receive) {
        // What fills this has not said what it should.
        if seen.len() > 1 << 20 || stream.read_buf(&mut seen).await.ok()? == 0 {
            return None;
        }
    }
    Some(Finding::Good { degraded: false })
}

/// Whether all parts are there, in order.
fn holds(seen: &[u8], parts: &[Bytes]) -> bool {
    let mut rest = seen;
    parts.iter().all(|part| match memmem::find(rest, part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

async fn http(stream: Stream, probe: &HttpProbe, authority: &str) -> Option<Finding> {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.method_mut() = probe.method.clone();
    request.headers_mut().insert(USER_AGENT, AGENT);
    for (name, value) in &probe.headers {
        request.headers_mut().append(name, value.clone());
    }
    for name in &probe.without {
        request.headers_mut().remove(name);
    }
    let response = send(stream, request, authority, &probe.path, probe.http2).await?;
    let headers = response.headers();
    let status = response.status().as_u16();
    let bad = Finding::Bad { counts: probe.may_retry(status) };
    if !probe.expects(status) {
        return Some(bad);
    }
    if headers.contains_key(IMMEDIATE) {
        return Some(Finding::Bad { counts: false });
    }
    let cluster = headers.get(CHECKED_CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
    if probe.service.as_ref().is_some_and(|wanted| !wanted.matches(cluster)) {
        return Some(Finding::Bad { counts: false });
    }
    Some(Finding::Good { degraded: headers.contains_key(DEGRADED) })
}

async fn grpc(
    stream: Stream,
    service: &str,
    authority: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Option<Finding> {
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let mut request = Request::new(Full::new(health_request(service)));
    *request.method_mut() = http::Method::POST;
    let fixed = [
        (CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
        (TE, HeaderValue::from_static("trailers")),
        (USER_AGENT, AGENT),
    ];
    for (name, value) in fixed.into_iter().chain(headers.iter().cloned()) {
        request.headers_mut().append(name, value);
    }
    let response = send(stream, request, authority, &path, true).await?;
    let bad = Some(Finding::Bad { counts: false });
    let degraded = response.headers().contains_key(DEGRADED);
    let status = |headers: &http::HeaderMap| headers.get("grpc-status").map(|value| value.as_bytes() == b"0");
    if response.status() != http::StatusCode::OK || status(response.headers()) == Some(false) {
        return bad;
    }
    let body = Limited::new(response.into_body(), GRPC_LIMIT).collect().await.ok()?;
    let ended_well = body.trailers().and_then(status).unwrap_or(true);
    let serving = is_serving(&body.to_bytes());
    if ended_well && serving { Some(Finding::Good { degraded }) } else { bad }
}

/// A framed `HealthCheckRequest`: the service's name is its only field.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        prost::encoding::string::encode(1, &service.to_owned(), &mut message);
    }
    let mut out = BytesMut::with_capacity(message.len() + 5);
    out.put_u8(0);
    // A name as long as u32 does not fit into a configuration.
    out.put_u32(message.len() as u32);
    out.extend_from_slice(&message);
    out.freeze()
}

/// Whether a framed `HealthCheckResponse` says SERVING (its only field, a number, is 1).
fn is_serving(mut body: &[u8]) -> bool {
    use prost::encoding::{DecodeContext, WireType, decode_key, int32, skip_field};
    let Some((head, message)) = body.split_at_checked(5) else { return false };
    if head[0] != 0 {
        return false;
    }
    body = message;
    let mut status = 0;
    while !body.is_empty() {
        let Ok((tag, wire)) = decode_key(&mut body) else { return false };
        let read = if tag == 1 && wire == WireType::Varint {
            int32::merge(wire, &mut status, &mut body, DecodeContext::default())
        } else {
            skip_field(wire, tag, &mut body, DecodeContext::default())
        };
        if read.is_err() {
            return false;
        }
    }
    status == 1
}

/// Sends a request on a new connection; its head comes back, and what is asked of the rest while the connection lives.
async fn send(
    stream: Stream,
    mut request: Request<Full<Bytes>>,
    authority: &str,
    path: &http::uri::PathAndQuery,
    http2: bool,
) -> Option<Response<Incoming>> {
    let io = TokioIo::new(stream);
    if http2 {
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path.clone());
        *request.uri_mut() = uri.build().ok()?;
        *request.version_mut() = Version::HTTP_2;
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, driver) = builder.handshake(io).await.ok()?;
        tokio::spawn(driver);
        return sender.send_request(request).await.ok();
    }
    *request.uri_mut() = Uri::from(path.clone());
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority).ok()?);
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.ok()?;
    tokio::spawn(driver);
    sender.send_request(request).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_a_health_service_are_read() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 0x08, 1]));
        assert!(is_serving(&[0, 0, 0, 0, 5, 0x12, 1, b'x', 0x08, 1]));
        for wrong in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 0x08, 2],
            &[1, 0, 0, 0, 2, 0x08, 1],
            &[0, 0, 0, 0, 1, 0x08],
        ] {
            assert!(!is_serving(wrong), "{wrong:?}");
        }
        assert_eq!(&health_request("a")[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
        assert_eq!(&health_request("")[..], [0, 0, 0, 0, 0]);
    }

    #[test]
    fn parts_have_to_come_in_order() {
        let parts = [Bytes::from_static(b"b"), Bytes::from_static(b"c")];
        assert!(holds(b"abxc", &parts) && !holds(b"cb", &parts) && holds(b"", &[]));
    }
}
