//! Leaving HTTP: which protocol the client asks for, and the answer that grants it.

use std::future::Future;

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::super::handler::Job;
use super::super::response::Body;
use crate::status::Status;

const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// An upgrade that the client asks for.
pub(super) struct Upgrade {
    on: OnUpgrade,
    kind: Kind,
    /// The protocols that the client would speak inside, its favourite first.
    offers: Vec<String>,
}

enum Kind {
    Spdy,
    /// With the client's key.
    WebSocket(HeaderValue),
}

/// The protocol inside that was agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Spdy,
    /// One channel number before each message; in version 5 a channel can be closed.
    WebSocket {
        version5: bool,
    },
    /// Messages are the bytes of a SPDY connection.
    Tunnel,
}

impl Upgrade {
    /// From a request's headers.
    pub(super) fn of(job: &mut Job<'_>) -> Result<Self, Status> {
        let headers = &job.parts.headers;
        let asked = list(headers, &UPGRADE);
        let kind = if asked.iter().any(|word| word.eq_ignore_ascii_case(SPDY)) {
            Kind::Spdy
        } else if asked.iter().any(|word| word.eq_ignore_ascii_case("websocket")) {
            let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
            Kind::WebSocket(key.ok_or_else(|| Status::bad_request("Sec-WebSocket-Key is missing"))?)
        } else {
            let why = "unable to upgrade: this request needs an upgrade to a WebSocket or to SPDY/3.1";
            return Err(Status::bad_request(why));
        };
        let offers = match &kind {
            Kind::Spdy => list(headers, &STREAM_PROTOCOL),
            Kind::WebSocket(_) => list(headers, &SEC_WEBSOCKET_PROTOCOL),
        };
        let on = job.parts.extensions.remove::<OnUpgrade>();
        let on = on.ok_or_else(|| Status::bad_request("unable to upgrade: use HTTP/1.1"))?;
        Ok(Self { on, kind, offers })
    }

    /// Agrees on a protocol and goes on with `then` once the answer is sent.
    ///
    /// `spdy` and `websocket` are what this server speaks inside of each.
    pub(super) fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        spdy: &[&str],
        websocket: &[(&str, Protocol)],
        then: impl FnOnce(TokioIo<Upgraded>, Protocol) -> F + Send + 'static,
    ) -> Result<Response<Body>, Status> {
        let (name, protocol, key) = self.agree(spdy, websocket)?;
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let value = HeaderValue::from_str(&name).map_err(|e| Status::bad_request(e.to_string()))?;
        match key {
            None => {
                headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
                headers.insert(STREAM_PROTOCOL, value);
            }
            Some(accept) => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
        }
        tokio::spawn(async move {
            match self.on.await {
                Ok(upgraded) => then(TokioIo::new(upgraded), protocol).await,
                Err(error) => tracing::debug!(%error, "an upgrade did not come about"),
            }
        });
        Ok(response)
    }

    fn agree(
        &self,
        spdy: &[&str],
        websocket: &[(&str, Protocol)],
    ) -> Result<(String, Protocol, Option<HeaderValue>), Status> {
        let refused = |known: Vec<&str>| {
            let offers = self.offers.join(" ");
            let why = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{offers}], server accepts [{}]",
                known.join(" ")
            );
            Status::new(403, "Forbidden", why)
        };
        match &self.kind {
            Kind::Spdy => {
                let found = self.offers.iter().find(|offer| spdy.contains(&offer.as_str()));
                let name = found.ok_or_else(|| refused(spdy.to_vec()))?;
                Ok((name.clone(), Protocol::Spdy, None))
            }
            Kind::WebSocket(key) => {
                let known = |offer: &String| {
                    websocket
                        .iter()
                        .find(|(name, _)| name == offer)
                        .map(move |(_, protocol)| (offer.clone(), *protocol))
                };
                let (name, protocol) = self
                    .offers
                    .iter()
                    .find_map(known)
                    .ok_or_else(|| refused(websocket.iter().map(|(name, _)| *name).collect()))?;
                let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
                let accept = HeaderValue::try_from(accept).map_err(|e| Status::bad_request(e.to_string()))?;
                Ok((name, protocol, Some(accept)))
            }
        }
    }
}

/// The words of a header, which may be given several times or as a list.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(|word| word.trim().to_owned()).collect()
}
