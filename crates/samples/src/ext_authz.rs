//! ext-authz: lets requests pass that bring `x-ext-authz: allow`, and gRPC checks of callers with a known service account.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use lateen_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use lateen_proto::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use lateen_proto::envoy::service::auth::v3::check_response::HttpResponse;
use lateen_proto::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use lateen_proto::envoy::r#type::v3::HttpStatus;
use lateen_proto::google::rpc;
use lateen_proto::json::{self, Names};
use tokio::net::TcpListener;
use tonic::Status;

use crate::{AppError, Settings, server};

/// What a request has to say, and where.
const CHECK: &str = "x-ext-authz";
const ALLOW: &str = "allow";
/// What was decided.
const RESULT: &str = "x-ext-authz-check-result";
/// What the check was told.
const RECEIVED: &str = "x-ext-authz-check-received";
/// A header that is written in the place of the request's own.
const OVERRIDE: &str = "x-ext-authz-additional-header-override";
const GRPC_OVERRIDE: &str = "grpc-additional-header-override-value";
const DENIED: &str = "denied by ext_authz for not found header `x-ext-authz: allow` in the request";
/// `PERMISSION_DENIED`
const PERMISSION_DENIED: i32 = 7;
/// The most of a body that is looked at.
const BODY: usize = 1 << 20;

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    http: u16,
    grpc: u16,
    account: String,
}

/// Serves HTTP on 8000 and gRPC on 9000, unless `-http PORT` and `-grpc PORT` say otherwise.
pub(crate) async fn serve(settings: &Settings) -> Result<(), AppError> {
    let options = Options::read(&settings.args)?;
    let (http, grpc) = (bind(settings, options.http).await?, bind(settings, options.grpc).await?);
    println!("Starting HTTP server at {}", http.1);
    println!("Starting gRPC server at {}", grpc.1);
    let incoming = futures::stream::unfold(grpc.0, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let service = AuthorizationServer::new(Authorizer { account: options.account.into() });
    let checks = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    tokio::select! {
        ended = server::serve_on(http.0, app()) => ended,
        ended = checks => ended.map_err(|error| AppError::Serve(std::io::Error::other(error))),
    }
}

async fn bind(settings: &Settings, port: u16) -> Result<(TcpListener, SocketAddr), AppError> {
    let address = SocketAddr::new(settings.bind, port);
    let listener = TcpListener::bind(address).await.map_err(|source| AppError::Bind { address, source })?;
    Ok((listener, address))
}

impl Options {
    /// `-http PORT`, `-grpc PORT`, `-allow_service_account NAME`, with one dash or two, with or without `=`.
    fn read(args: &[String]) -> Result<Self, AppError> {
        let mut options = Self { http: 8000, grpc: 9000, account: "a".to_owned() };
        let mut args = args.iter().peekable();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix('-') else { continue };
            let flag = flag.trim_start_matches('-');
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, args.next_if(|next| !next.starts_with('-')).cloned()),
            };
            let missing = || AppError::Setting(format!("{arg}: needs a value"));
            let value = value.ok_or_else(missing)?;
            let port =
                || value.parse().map_err(|_| AppError::Setting(format!("{arg}: {value:?} is no port")));
            match name {
                "http" => options.http = port()?,
                "grpc" => options.grpc = port()?,
                "allow_service_account" => options.account = value,
                _ => {
                    return Err(AppError::Setting(format!(
                        "{arg}: there are -http, -grpc, -allow_service_account"
                    )));
                }
            }
        }
        Ok(options)
    }
}

fn app() -> Router {
    Router::new().fallback(check)
}

/// A check over HTTP is the request's own head.
async fn check(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let header = |name: &str| {
        let value = head.headers.get(name);
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = head.uri.host().map_or_else(|| header("host"), str::to_owned);
    let body = String::from_utf8_lossy(&body);
    let received =
        format!("{} {host}{path}, headers: {}, body: [{body}]", head.method, listed(&head.headers));
    let allowed = header(CHECK) == ALLOW;
    println!("[HTTP][{}]: {received}", word(allowed));
    let headers =
        [(RESULT, word(allowed).to_owned()), (OVERRIDE, header(OVERRIDE)), (RECEIVED, sendable(&received))];
    match allowed {
        true => (headers, "").into_response(),
        false => (StatusCode::FORBIDDEN, headers, DENIED).into_response(),
    }
}

fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

/// Headers as `map[Accept:[*/*] Host:[httpbin]]`.
fn listed(headers: &HeaderMap) -> String {
    let mut names: Vec<&http::HeaderName> = headers.keys().collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    let one = |name: &&http::HeaderName| {
        let values = headers.get_all(*name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        format!("{}:[{}]", crate::httpbin::title(name.as_str()), values.collect::<Vec<_>>().join(" "))
    };
    format!("map[{}]", names.iter().map(one).collect::<Vec<_>>().join(" "))
}

/// A text that can be a header's value.
fn sendable(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { ' ' }).collect()
}

struct Authorizer {
    account: Arc<str>,
}

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let received = received(&attributes);
        let allowed = self.allows(&attributes);
        println!("[gRPCv3][{}]: {received}", word(allowed));
        let headers = [(RESULT, word(allowed)), (OVERRIDE, GRPC_OVERRIDE), (RECEIVED, &received)];
        let headers = headers.map(|(key, value)| HeaderValueOption {
            header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
            ..Default::default()
        });
        let (code, response) = match allowed {
            true => (
                0,
                HttpResponse::OkResponse(OkHttpResponse { headers: headers.into(), ..Default::default() }),
            ),
            false => {
                let denied = DeniedHttpResponse {
                    status: Some(HttpStatus { code: 403 }),
                    headers: headers.into(),
                    body: DENIED.to_owned(),
                };
                (PERMISSION_DENIED, HttpResponse::DeniedResponse(denied))
            }
        };
        let status = rpc::Status { code, ..Default::default() };
        Ok(tonic::Response::new(CheckResponse {
            status: Some(status),
            http_response: Some(response),
            ..Default::default()
        }))
    }
}

impl Authorizer {
    /// By the request's header, or by the caller's service account.
    fn allows(&self, attributes: &AttributeContext) -> bool {
        let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
        let asked = http.and_then(|http| http.headers.get(CHECK)).is_some_and(|value| value == ALLOW);
        let principal = attributes.source.as_ref().map_or("", |source| source.principal.as_str());
        asked || principal.rsplit_once("/sa/").is_some_and(|(_, account)| *account == *self.account)
    }
}

/// What a check was told, in one line of JSON.
fn received(attributes: &AttributeContext) -> String {
    match json::to_value(attributes, Names::Proto) {
        Ok(value) => sendable(&value.to_string()),
        Err(error) => sendable(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use lateen_proto::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request as Asked};
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(value: Option<&str>) -> (StatusCode, HeaderMap) {
        let mut request = http::Request::get("/headers?a=1").header("host", "httpbin.foo:8000");
        if let Some(value) = value {
            request = request.header(CHECK, value);
        }
        let response = app().oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
        (response.status(), response.headers().clone())
    }

    #[tokio::test]
    async fn a_request_passes_with_the_header_alone() {
        let (status, headers) = ask(Some("allow")).await;
        assert_eq!((status, headers[RESULT].as_bytes()), (StatusCode::OK, &b"allowed"[..]));
        let received = headers[RECEIVED].to_str().unwrap();
        assert!(received.starts_with("GET httpbin.foo:8000/headers?a=1, headers: map[Host:["), "{received}");
        for value in [None, Some("deny"), Some("Allow")] {
            let (status, headers) = ask(value).await;
            assert_eq!(
                (status, headers[RESULT].as_bytes()),
                (StatusCode::FORBIDDEN, &b"denied"[..]),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_caller_passes_by_header_or_account() {
        let authorizer = Authorizer { account: "a".into() };
        let attributes = |header: &str, principal: &str| AttributeContext {
            source: Some(Peer { principal: principal.into(), ..Default::default() }),
            request: Some(Asked {
                http: Some(HttpRequest {
                    headers: [(CHECK.to_owned(), header.to_owned())].into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(authorizer.allows(&attributes("allow", "")));
        assert!(authorizer.allows(&attributes("", "spiffe://cluster.local/ns/x/sa/a")));
        assert!(!authorizer.allows(&attributes("no", "spiffe://cluster.local/ns/x/sa/ab")));
        assert!(!authorizer.allows(&AttributeContext::default()));
    }

    #[test]
    fn flags_are_read_as_the_image_reads_them() {
        let read =
            |text: &str| Options::read(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = read("/ext-authz -http 81 --grpc=91 -allow_service_account b").unwrap();
        assert_eq!(options, Options { http: 81, grpc: 91, account: "b".into() });
        assert!(read("-http x").is_err() && read("-grpc").is_err() && read("-other 1").is_err());
    }
}
