//! `pods/proxy`: a request to a port of a pod, by way of the API server, so that whoever may reach only this server
//! can still ask a pod.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::handler::Job;
use super::response::Body;
use crate::status::Status;

/// How long the pod may take to accept, and then to answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// What ends at this hop, and what was meant for this server alone.
const NOT_FORWARDED: &[HeaderName] =
    &[AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE];

/// Answers `pods/[SCHEME:]NAME[:PORT]/proxy/PATH`. Only the pod's own address is ever asked, in plain HTTP.
pub(super) async fn answer(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let (name, port) = target(&job.place.name)?;
    let pod = job.api.get(&job.resource, &job.place.namespace, name)?.value(&job.resource);
    let port = port.or_else(|| first_port(&pod)).unwrap_or(80);
    let address: IpAddr = pod["status"]["podIP"]
        .as_str()
        .and_then(|ip| ip.parse().ok())
        .ok_or_else(|| Status::new(503, "ServiceUnavailable", format!("pod {name} has no address yet")))?;
    let address = SocketAddr::new(address, port);
    tokio::time::timeout(ANSWER_WITHIN, exchange(job, address))
        .await
        .map_err(|_| unreachable(address, "no answer within 60 s"))?
}

/// The pod's name and the port behind it.
fn target(name: &str) -> Result<(&str, Option<u16>), Status> {
    let bad = || {
        Status::bad_request(format!("invalid pod request {name:?}: write NAME, NAME:PORT or http:NAME:PORT"))
    };
    let parts: Vec<&str> = name.split(':').collect();
    let (name, port) = match parts[..] {
        [name] => (name, ""),
        [name, port] | ["http" | "", name, port] => (name, port),
        ["https", ..] => return Err(Status::not_supported("pods/proxy over https")),
        _ => return Err(bad()),
    };
    match port {
        "" => Ok((name, None)),
        port => port.parse().map(|port| (name, Some(port))).map_err(|_| bad()),
    }
}

fn first_port(pod: &serde_json::Value) -> Option<u16> {
    let port = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64()?;
    u16::try_from(port).ok()
}

async fn exchange(job: &Job<'_>, address: SocketAddr) -> Result<Response<Body>, Status> {
    let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable(address, "no connection within 5 s"))?
        .map_err(|error| unreachable(address, error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unreachable(address, error))?;
    // It ends with the exchange, and its end shows there.
    tokio::spawn(connection);
    let response =
        sender.send_request(request(job, address)?).await.map_err(|error| unreachable(address, error))?;
    let (mut parts, body) = response.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, body.map_err(std::io::Error::other).boxed_unsync()))
}

fn request(job: &Job<'_>, address: SocketAddr) -> Result<Request<Full<Bytes>>, Status> {
    let bad = |error: http::Error| Status::bad_request(format!("proxy path: {error}"));
    let uri = Uri::try_from(path(job.parts.uri.path_and_query().map_or("", |path| path.as_str())))
        .map_err(|error| bad(error.into()))?;
    let mut request = Request::builder()
        .method(job.parts.method.clone())
        .uri(uri)
        .body(Full::new(job.body.clone()))
        .map_err(bad)?;
    for (name, value) in job.parts.headers.iter().filter(|(name, _)| !NOT_FORWARDED.contains(name)) {
        request.headers_mut().append(name, value.clone());
    }
    let host = HeaderValue::from_str(&address.to_string()).map_err(|error| bad(error.into()))?;
    request.headers_mut().insert(HOST, host);
    Ok(request)
}

/// What stands behind `/proxy`, untouched, with the query.
fn path(whole: &str) -> &str {
    let behind_pod = whole.split_once("/pods/").map_or("", |(_, rest)| rest);
    match behind_pod.split_once("/proxy") {
        Some((_, rest)) if rest.starts_with('/') => rest,
        _ => "/",
    }
}

fn unreachable(address: SocketAddr, why: impl std::fmt::Display) -> Status {
    Status::new(503, "ServiceUnavailable", format!("error trying to reach {address}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_their_port() {
        assert_eq!(target("istiod-1").unwrap(), ("istiod-1", None));
        assert_eq!(target("istiod-1:15014").unwrap(), ("istiod-1", Some(15014)));
        assert_eq!(target("http:istiod-1:15014").unwrap(), ("istiod-1", Some(15014)));
        for bad in ["https:a:1", "a:b", "a:1:2:3", "a:99999"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_path_keeps_its_form_and_query() {
        assert_eq!(path("/api/v1/namespaces/a/pods/b:1/proxy/debug/syncz?x=%20"), "/debug/syncz?x=%20");
        assert_eq!(path("/api/v1/namespaces/a/pods/b/proxy"), "/");
        assert_eq!(path("/api/v1/namespaces/proxy/pods/proxy-1/proxy/x"), "/x");
    }
}
