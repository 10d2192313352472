//! Who may read what is for operators: the debug endpoints, and the levels of the log.
//!
//! As Istio has it since 1.29 (`ENABLE_DEBUG_ENDPOINT_AUTH`): whoever asks from the pod itself (`kubectl port-forward`,
//! `kubectl exec`), and tokens of the control plane's namespace and of those in `DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES`.
//! Tokens of other namespaces read what proxies of their own namespace were given, and nothing else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use crate::callers::Callers;
use crate::serve::PeerAddress;
use crate::settings::Settings;

/// What a namespace may ask of its own proxies.
const OF_PROXIES: &str = "/debug/config_dump";

/// Decides.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) settings: Arc<Settings>,
    pub(crate) authenticator: Arc<Callers>,
}

impl Gate {
    /// Puts the gate before all routes that are there.
    pub(crate) fn before(self, routes: Router) -> Router {
        routes.route_layer(from_fn_with_state(self, pass))
    }

    /// What is answered in the place of the route; none when the request may pass.
    async fn refusal(&self, request: &Parts) -> Option<Response> {
        if !self.settings.debug.authenticated || is_local(request) {
            return None;
        }
        let Some(token) = bearer(request) else { return Some(self.unknown(&request.uri)) };
        match self.authenticator.owner(token).await {
            Ok(owner) if self.may(&owner.namespace, &request.uri) => None,
            Ok(owner) => Some(self.forbidden(&owner.namespace)),
            Err(reason) => {
                tracing::warn!("{} is refused: {reason}", request.uri.path());
                Some(self.unknown(&request.uri))
            }
        }
    }

    fn may(&self, namespace: &str, uri: &Uri) -> bool {
        namespace == self.settings.namespace
            || self.settings.debug.namespaces.iter().any(|allowed| allowed == namespace)
            || (uri.path() == OF_PROXIES && namespace_asked(uri).as_deref() == Some(namespace))
    }

    fn unknown(&self, uri: &Uri) -> Response {
        let text = format!(
            "{} wants a bearer token of a service account for {}, or is asked from the pod itself (kubectl port-forward)\n",
            uri.path(),
            self.settings.token_audiences.join(" or ")
        );
        let challenge = [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
        (StatusCode::UNAUTHORIZED, challenge, text).into_response()
    }

    fn forbidden(&self, namespace: &str) -> Response {
        let text = format!(
            "namespace {namespace} may ask for {OF_PROXIES}?proxyID=POD.{namespace} alone; namespaces with all rights \
             are {} and those in DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES of the control plane\n",
            self.settings.namespace
        );
        (StatusCode::FORBIDDEN, text).into_response()
    }
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match gate.refusal(&head).await {
        None => next.run(Request::from_parts(head, body)).await,
        Some(refusal) => refusal,
    }
}

fn bearer(request: &Parts) -> Option<&str> {
    let value = request.headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty())
}

/// Whether a request comes from the pod itself. Other addresses of 127.0.0.0/8 are those of pods, on a cluster that lives
/// on the loopback.
fn is_local(request: &Parts) -> bool {
    let peer = request.extensions.get::<PeerAddress>().map(|peer| peer.0.ip().to_canonical());
    matches!(peer, Some(IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST)))
}

/// The namespace of the proxy that is asked about: `?proxyID=POD.NAMESPACE`.
fn namespace_asked(uri: &Uri) -> Option<String> {
    let Query(query) = Query::<HashMap<String, String>>::try_from_uri(uri).ok()?;
    query.get("proxyID")?.rsplit_once('.').map(|(_, namespace)| namespace.to_owned())
}
