//! The proxy's discovery stream, passed on to the control plane with the workload's token.
//!
//! Requests are forwarded as HTTP/2 bodies, undecoded: whatever form of the protocol the proxy speaks passes.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::settings::Settings;
use crate::upstream::{self, Learned};

/// What is forwarded; everything else is refused.
const DISCOVERY: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/";
const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

/// gRPC's status codes that the forwarder itself gives.
#[derive(Clone, Copy)]
enum Code {
    Unimplemented = 12,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Forwards to one control plane.
#[derive(Clone)]
pub(crate) struct Forwarder {
    settings: Arc<Settings>,
    channel: Channel,
}

impl Forwarder {
    /// A forwarder to the discovery address; it connects when the proxy does.
    ///
    /// # Errors
    /// When the address is malformed.
    pub(crate) fn new(
        settings: Arc<Settings>,
        learned: Learned,
    ) -> Result<Self, lateen_xds::transport::TransportError> {
        let target = upstream::target(&settings, &settings.config.discovery_address, learned);
        Ok(Self { channel: target.lazy_channel()?, settings })
    }

    /// Forwards one request and the stream of its answer.
    pub(crate) async fn forward(&self, request: Request<Incoming>) -> Response<Body> {
        if !request.uri().path().starts_with(DISCOVERY) {
            return refuse(Code::Unimplemented, "only aggregated discovery is forwarded");
        }
        let token = match upstream::token_or_certificate(&self.settings) {
            Ok(token) => token,
            Err(reason) => {
                tracing::warn!(target: "xdsproxy", "{reason}");
                return refuse(Code::Unauthenticated, &reason);
            }
        };
        let mut request = request.map(Body::new);
        if let Some(token) = token {
            let Ok(authorization) = HeaderValue::from_str(&format!("Bearer {token}")) else {
                return refuse(Code::Unauthenticated, "the token is not usable in a header");
            };
            request.headers_mut().insert(header::AUTHORIZATION, authorization);
        }
        let address = &self.settings.config.discovery_address;
        match self.send(request).await {
            Ok(response) => {
                tracing::info!(target: "xdsproxy", "connected to upstream XDS server: {address}");
                response
            }
            Err(error) => {
                let reason = innermost(&error);
                tracing::warn!(target: "xdsproxy", "failed to connect to upstream {address}: {reason}");
                refuse(Code::Unavailable, &format!("{address}: {reason}"))
            }
        }
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, tonic::transport::Error> {
        let mut channel = self.channel.clone();
        channel.ready().await?.call(request).await
    }
}

/// An answer of gRPC without messages.
fn refuse(code: Code, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    let printable: String =
        message.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if let Ok(value) = HeaderValue::from_str(&printable.replace('%', "%25")) {
        headers.insert(GRPC_MESSAGE, value);
    }
    response
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
