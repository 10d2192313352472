//! A scripted authorization service over gRPC: it decides as the checked request's header `x-check` asks, and remembers what
//! it was asked.

// `append` is deprecated in favour of actions, and what services still say.
#![allow(deprecated)]

use std::net::IpAddr;
use std::time::Duration;

use lateen_proto::envoy::config::core::v3::address::Address;
use lateen_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use lateen_proto::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use lateen_proto::envoy::service::auth::v3::check_response::HttpResponse;
use lateen_proto::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use lateen_proto::envoy::r#type::v3::HttpStatus;
use lateen_proto::google::rpc;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

use super::workload::{Seen, Server};

/// `PERMISSION_DENIED`
const PERMISSION_DENIED: i32 = 7;
/// Clients whose connections are denied.
const DENIED: u8 = 66;
/// Clients about whose connections nothing is said but an error.
const FAILING: u8 = 67;

/// Serves until the listener is gone.
pub(super) async fn serve(server: Server, listener: TcpListener) {
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let service = AuthorizationServer::new(Authorizer(server));
    let router = tonic::transport::Server::builder().add_service(service);
    // The port lives as long as the lane.
    let _ = router.serve_with_incoming(incoming).await;
}

struct Authorizer(Server);

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let peer = request.remote_addr().map(|address| address.ip());
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let http = attributes.request.as_ref().and_then(|request| request.http.clone());
        let Some(http) = http else { return of_connection(&attributes) };
        let header = |name: &str| http.headers.get(name).cloned().unwrap_or_default();
        let wishes = header("x-check");
        let mut headers: Vec<(String, String)> = http.headers.into_iter().collect();
        headers.extend(facts(&attributes, http.size, &http.scheme));
        let seen = Seen {
            pod: self.0.pod().to_owned(),
            method: http.method.clone(),
            path: http.path.clone(),
            host: http.host.clone(),
            protocol: http.protocol.clone(),
            headers: headers.clone(),
            body: match http.raw_body.is_empty() {
                true => http.body.clone(),
                false => format!("raw {}", String::from_utf8_lossy(&http.raw_body)),
            },
            tls: String::new(),
        };
        let step = headers.iter().find(|(name, _)| name == "x-step").map(|(_, step)| step.clone());
        if let (Some(peer), Some(step)) = (peer, step) {
            self.0.note(peer, step, seen);
        }
        answer(&wishes).await
    }
}

/// What is told of the connection, and of the request beside its headers.
fn facts(attributes: &AttributeContext, size: i64, scheme: &str) -> Vec<(String, String)> {
    let principal = |peer: &Option<_>| match peer {
        Some(lateen_proto::envoy::service::auth::v3::attribute_context::Peer { principal, .. }) => {
            principal.clone()
        }
        None => String::new(),
    };
    let extensions: Vec<String> =
        attributes.context_extensions.iter().map(|(key, value)| format!("{key}={value}")).collect();
    [
        ("check.source", principal(&attributes.source)),
        ("check.destination", principal(&attributes.destination)),
        ("check.address", source(attributes).map_or(String::new(), |ip| ip.to_string())),
        ("check.size", size.to_string()),
        ("check.scheme", scheme.to_owned()),
        ("check.extensions", extensions.join(",")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn source(attributes: &AttributeContext) -> Option<IpAddr> {
    match &attributes.source.as_ref()?.address.as_ref()?.address {
        Some(Address::SocketAddress(socket)) => socket.address.parse().ok(),
        _ => None,
    }
}

/// A connection is denied, or brings an error, by the last part of its client's address.
fn of_connection(attributes: &AttributeContext) -> Result<Response<CheckResponse>, Status> {
    let last = match source(attributes) {
        Some(IpAddr::V4(ip)) => ip.octets()[3],
        _ => 0,
    };
    match last {
        FAILING => Err(Status::unavailable("the scenario wants an error")),
        DENIED => {
            Ok(Response::new(CheckResponse { status: Some(status(PERMISSION_DENIED)), ..Default::default() }))
        }
        _ => Ok(Response::new(CheckResponse { status: Some(status(0)), ..Default::default() })),
    }
}

fn status(code: i32) -> rpc::Status {
    rpc::Status { code, ..Default::default() }
}

/// Wishes such as `allow;h=x-user:jane` or `deny=401;body=no`. Without any the request is denied as it is.
async fn answer(wishes: &str) -> Result<Response<CheckResponse>, Status> {
    let (mut ok, mut denied) = (OkHttpResponse::default(), DeniedHttpResponse::default());
    let (mut allows, mut answers) = (false, false);
    for wish in wishes.split(';').filter(|wish| !wish.is_empty()) {
        let (key, value) = wish.split_once('=').unwrap_or((wish, ""));
        match key {
            "allow" => allows = true,
            "deny" => {
                denied.status = Some(HttpStatus { code: value.parse().unwrap_or(403) });
                answers = true;
            }
            "h" => {
                ok.headers.push(option(value, None));
                denied.headers.push(option(value, None));
            }
            "append" => ok.headers.push(option(value, Some(true))),
            "remove" => ok.headers_to_remove.push(value.to_owned()),
            "rh" => ok.response_headers_to_add.push(option(value, None)),
            "body" => denied.body = value.to_owned(),
            "fail" => return Err(Status::unavailable("the scenario wants an error")),
            "hang" => tokio::time::sleep(Duration::from_secs(30)).await,
            _ => return Err(Status::invalid_argument(format!("x-check: unknown wish {wish:?}"))),
        }
    }
    let (code, response) = match (allows, answers) {
        (true, _) => (0, Some(HttpResponse::OkResponse(ok))),
        (false, true) => (PERMISSION_DENIED, Some(HttpResponse::DeniedResponse(denied))),
        (false, false) => (PERMISSION_DENIED, None),
    };
    Ok(Response::new(CheckResponse {
        status: Some(status(code)),
        http_response: response,
        ..Default::default()
    }))
}

fn option(pair: &str, append: Option<bool>) -> HeaderValueOption {
    let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
    let header = HeaderValue { key: key.to_owned(), value: value.to_owned(), ..Default::default() };
    HeaderValueOption { header: Some(header), append, ..Default::default() }
}
