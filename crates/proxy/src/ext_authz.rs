//! Asking authorization services that speak gRPC, and what that means for connections.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use lateen_proto::Message as _;
use lateen_proto::envoy::config::core::v3::Metadata;
use lateen_proto::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use lateen_route::ext_authz::answer::{self, Decision};
use lateen_route::ext_authz::check::{self, Ends};
use lateen_route::ext_authz::{GrpcService, NetworkExtAuthz, Tells};

use crate::downstream::Downstream;
use crate::flags::Flags;
use crate::http::ingress::names;
use crate::http::rewrite::absolute_uri;
use crate::stats::NetworkExtAuthzStats;
use crate::upstream::call::{self, Answer, CallError, Question};
use crate::upstream::cluster::Caller;
use crate::worker::Worker;

/// `envoy.service.auth.v3.Authorization/Check`
const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Why a connection may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The detail in logs.
    pub details: &'static str,
    /// The flag in logs.
    pub flag: Flags,
}

/// Whether a connection may go on; asks where the filter says so.
///
/// # Errors
/// When it may not.
pub(crate) async fn connection(
    worker: &Rc<Worker>,
    filter: &NetworkExtAuthz,
    stats: &NetworkExtAuthzStats,
    down: &Downstream,
    metadata: &Metadata,
) -> Result<(), Refused> {
    if !filter.enabled.as_ref().is_none_or(|matcher| matcher.matches(Some(metadata))) {
        stats.disabled.inc();
        return Ok(());
    }
    stats.total.inc();
    stats.active.inc();
    let question = down.with_view(|connection| {
        check::of_connection(connection, &ends(down, &filter.tells), &filter.tells, Some(metadata))
    });
    let decision = grpc(worker, &filter.service, &question, (down.remote, down.local)).await;
    stats.active.dec();
    let details = match decision {
        Decision::Allow(_) => {
            stats.ok.inc();
            return Ok(());
        }
        Decision::Deny(_) => {
            stats.denied.inc();
            "ext_authz_denied"
        }
        Decision::Fail(reason) => {
            stats.error.inc();
            tracing::debug!(target: "ext_authz", cluster = %filter.service.cluster, %reason, "cannot be asked");
            if filter.failure_allows {
                stats.failure_mode_allowed.inc();
                return Ok(());
            }
            "ext_authz_error"
        }
    };
    stats.cx_closed.inc();
    Err(Refused { details, flag: Flags::UNAUTHORIZED })
}

/// What a service is told of a connection's ends.
pub(crate) fn ends<'d>(down: &'d Downstream, tells: &Tells) -> Ends<'d> {
    let tls = down.tls.as_ref();
    Ends {
        local_principal: tls.and_then(|tls| tls.local_uris.first().map(String::as_str)),
        certificate: tls
            .and_then(|tls| tls.peer.as_ref())
            .filter(|_| tells.certificate)
            .map(|peer| peer.url_encoded_pem().to_string()),
    }
}

/// Asks a gRPC service; whatever goes wrong is its failure.
pub(crate) async fn grpc(
    worker: &Rc<Worker>,
    service: &GrpcService,
    question: &CheckRequest,
    addresses: (SocketAddr, SocketAddr),
) -> Decision {
    let Some(cluster) = worker.shared.snapshot.load().cluster(&service.cluster).cloned() else {
        return Decision::Fail(format!("there is no cluster {}", service.cluster));
    };
    let question = Question {
        head: head(service),
        body: framed(question),
        grpc: true,
        caller: Caller { authority: &service.authority, alpn: None, addresses },
    };
    match within(service.timeout, call::ask(worker, &cluster, question)).await {
        Ok(answer) => read(&answer).map_or_else(Decision::Fail, answer::of_grpc),
        Err(reason) => Decision::Fail(reason),
    }
}

/// An answer in time, or why there is none.
pub(crate) async fn within(
    limit: Option<Duration>,
    asking: impl Future<Output = Result<Answer, CallError>>,
) -> Result<Answer, String> {
    let asking = Box::pin(asking);
    let result = match limit {
        None => asking.await,
        Some(limit) => match tokio::time::timeout(limit, asking).await {
            Ok(result) => result,
            Err(_) => return Err(format!("there was no answer within {} ms", limit.as_millis())),
        },
    };
    result.map_err(|error| error.to_string())
}

fn head(service: &GrpcService) -> Request<()> {
    let authority =
        HeaderValue::from_str(&service.authority).unwrap_or(HeaderValue::from_static("ext-authz"));
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = absolute_uri("http", &authority, Some(&PathAndQuery::from_static(PATH)));
    let headers = head.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(limit) = service.timeout
        && let Ok(value) = HeaderValue::try_from(format!("{}m", limit.as_millis().min(99_999_999)))
    {
        headers.insert(names::GRPC_TIMEOUT, value);
    }
    for (name, value) in &service.metadata {
        headers.append(name.clone(), value.clone());
    }
    call::mark(headers, service.timeout);
    call::forward(headers);
    head
}

fn framed(message: &CheckRequest) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(length + 5);
    out.put_u8(0);
    // Heads and bodies are limited far below 4 GiB.
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    out.extend_from_slice(&message.encode_to_vec());
    out.freeze()
}

/// The message of a gRPC answer.
fn read(answer: &Answer) -> Result<CheckResponse, String> {
    if answer.status != 200 {
        return Err(format!("it answered {}", answer.status));
    }
    let status = |headers: &HeaderMap| {
        headers.get("grpc-status").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let status = answer.trailers.as_ref().and_then(status).or_else(|| status(&answer.headers));
    match status.as_deref() {
        Some("0") => {}
        Some(other) => return Err(format!("its gRPC status is {other}")),
        None => return Err("its answer has no gRPC status".to_owned()),
    }
    let (frame, rest) = answer.body.split_at_checked(5).ok_or("its answer has no message")?;
    let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
    let message = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    match (frame[0], message) {
        (0, Some(message)) => CheckResponse::decode(message).map_err(|error| error.to_string()),
        (0, None) => Err("its message is cut short".to_owned()),
        _ => Err("its message is compressed, which was not offered".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: Option<&'static str>, body: &'static [u8]) -> Answer {
        let trailers = status.map(|status| {
            let mut map = HeaderMap::new();
            map.insert("grpc-status", HeaderValue::from_static(status));
            map
        });
        Answer { status: 200, headers: HeaderMap::new(), body: Bytes::from_static(body), trailers }
    }

    #[test]
    fn only_a_whole_answer_counts() {
        assert!(read(&answer(Some("0"), &[0, 0, 0, 0, 0])).is_ok());
        assert!(read(&answer(Some("7"), &[0, 0, 0, 0, 0])).is_err());
        assert!(read(&answer(None, &[0, 0, 0, 0, 0])).is_err());
        assert!(read(&answer(Some("0"), &[0, 0, 0, 0, 9])).is_err());
        assert!(read(&answer(Some("0"), &[1, 0, 0, 0, 0])).is_err());
        assert!(read(&answer(Some("0"), &[])).is_err());
    }
}
