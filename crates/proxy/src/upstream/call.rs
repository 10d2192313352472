//! Requests of the proxy's own: one question to a cluster, one whole answer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Version};
use http_body_util::{BodyExt as _, Limited};

use super::cluster::{Caller, Choice, Cluster};
use super::pool::Lease;
use crate::failure::Reset;
use crate::http::body::RequestBody;
use crate::http::exchange::Active;
use crate::http::ingress::names;
use crate::http::rewrite;
use crate::http::send::{self, SendError};
use crate::worker::{Worker, millis_since};

/// The longest body of an answer.
const ANSWER: usize = 1 << 20;
/// How often a connection may turn out to be closed.
const STALE: u32 = 3;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No host can be asked.
    #[error("cluster {0} has no host that can be asked")]
    NoHost(Arc<str>),
    /// The secrets of its TLS have not come.
    #[error("the secrets of cluster {0} have not come")]
    NoSecrets(Arc<str>),
    /// A circuit breaker is open.
    #[error("cluster {0} has as many requests as it may have")]
    Overflow(Arc<str>),
    /// The connection was not made, or broke.
    #[error("{}", .0.transport_failure().map_or("the connection broke", |text| text))]
    Reset(Reset),
    /// gRPC needs HTTP/2, which the cluster does not speak.
    #[error("cluster {0} does not speak HTTP/2")]
    NotHttp2(Arc<str>),
    /// The answer broke off, or is too long.
    #[error("the answer broke off, or is longer than 1 MiB")]
    Answer,
}

/// A question.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// Its head, as for HTTP/2.
    pub head: Request<()>,
    /// Its body.
    pub body: Bytes,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// For whom it is asked.
    pub caller: Caller<'a>,
}

/// Asks a host of a cluster; the caller limits the time. Dropping it gives up.
pub(crate) async fn ask(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    question: Question<'_>,
) -> Result<Answer, CallError> {
    let name = || cluster.compiled.name.clone();
    let choice = Choice { entropy: worker.entropy(), turn: worker.turn(cluster), ..Choice::default() };
    let picked = cluster.pick(choice).ok_or_else(|| {
        cluster.stats.upstream_cx_none_healthy.inc();
        CallError::NoHost(name())
    })?;
    let spoken = if question.grpc { Version::HTTP_2 } else { Version::HTTP_11 };
    let protocol = cluster.protocol(spoken, &picked.way);
    let pool = cluster.pool(worker, &picked, protocol, 0, question.caller);
    let pool = pool.ok_or_else(|| CallError::NoSecrets(name()))?;
    let permit = cluster.limits[0].requests.acquire().ok_or_else(|| {
        cluster.stats.upstream_rq_active_overflow.inc();
        CallError::Overflow(name())
    })?;
    let _active = Active::new(picked.host.clone(), cluster.clone(), permit);
    let mut stale = 0;
    loop {
        let mut lease = pool.lease().await.map_err(CallError::Reset)?;
        let mut head = copy(&question.head);
        match &lease {
            Lease::Http1(_) if question.grpc => return Err(CallError::NotHttp2(name())),
            Lease::Http1(_) => rewrite::as_http1(&mut head),
            Lease::Http2(_) => {}
        }
        let body = RequestBody::whole(question.body.clone());
        let sent = Instant::now();
        let response = match send::send(&mut lease, head.map(|()| body)).await {
            Ok(response) => response,
            Err(SendError::Unsent(_)) if stale < STALE => {
                stale += 1;
                continue;
            }
            Err(SendError::Unsent(reset) | SendError::Sent(reset)) => return Err(CallError::Reset(reset)),
        };
        let (mut parts, body) = response.into_parts();
        // As any response of an upstream.
        parts.headers.insert(names::UPSTREAM_SERVICE_TIME, HeaderValue::from(millis_since(sent)));
        cluster.stats.count_status(parts.status.as_u16());
        let collected = Limited::new(body, ANSWER).collect().await.map_err(|_| CallError::Answer)?;
        let trailers = collected.trailers().cloned();
        if let Lease::Http1(connection) = lease {
            pool.give_back(connection);
        }
        return Ok(Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: collected.to_bytes(),
            trailers,
        });
    }
}

/// What Envoy writes into requests of its own: that they are internal, and how long it waits.
pub(crate) fn mark(headers: &mut HeaderMap, limit: Option<std::time::Duration>) {
    headers.insert(names::INTERNAL, HeaderValue::from_static("true"));
    if let Some(millis) = limit.and_then(|limit| u64::try_from(limit.as_millis()).ok()) {
        headers.insert(names::EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
}

/// Adds the machine's own address to `x-forwarded-for`, as Envoy does in calls of its own by gRPC.
pub(crate) fn forward(headers: &mut HeaderMap) {
    let own = crate::downstream::host_address().to_string();
    let forwarded = match headers.get(names::FORWARDED_FOR).and_then(|value| value.to_str().ok()) {
        Some(old) => format!("{old},{own}"),
        None => own,
    };
    if let Ok(value) = HeaderValue::try_from(forwarded) {
        headers.insert(names::FORWARDED_FOR, value);
    }
}

fn copy(head: &Request<()>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = head.method().clone();
    *copy.uri_mut() = head.uri().clone();
    *copy.version_mut() = head.version();
    *copy.headers_mut() = head.headers().clone();
    copy
}
