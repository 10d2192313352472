//! Upgrades: WebSocket and the like, and CONNECT, ended here or passed on.

use http::header::{CONNECTION, DATE, SERVER, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::arriving::Arriving;
use super::body::{RequestBody, ResponseBody};
use super::destination::Avoid;
use super::exchange::{Active, Exchange, Upstream};
use super::ingress::names;
use super::pulse::Expired;
use super::router::{self, Plan};
use super::send::{self, SendError};
use super::{destination, reply, rewrite};
use crate::failure::{Failure, Reset};
use crate::tcp::{self, Counts};
use crate::upstream::connect::connect;
use crate::upstream::pool::{Lease, Protocol};

/// A protocol that the client wants to change to.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// Its name in lower case; `connect` for the method.
    name: String,
    /// The `upgrade` header as it came.
    header: Option<HeaderValue>,
    client: OnUpgrade,
}

/// The upgrade that a request asks for.
pub(crate) fn wanted(request: &mut Request<Incoming>) -> Option<Upgrade> {
    if request.method() == Method::CONNECT {
        return Some(Upgrade { name: "connect".into(), header: None, client: hyper::upgrade::on(request) });
    }
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let header = request.headers().get(UPGRADE)?.clone();
    let asked = request.headers().get_all(CONNECTION).iter().any(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"))
    });
    let name = header.to_str().ok()?.to_ascii_lowercase();
    // A cleartext HTTP/2 upgrade is an offer, not a demand: it is passed over.
    (asked && name != "h2c").then(|| Upgrade {
        name,
        header: Some(header),
        client: hyper::upgrade::on(request),
    })
}

/// Serves an upgrade.
pub(crate) async fn run(
    exchange: Box<Exchange>,
    plan: Plan<'_>,
    body: Arriving,
    upgrade: Upgrade,
) -> Response<ResponseBody> {
    let by_route = plan.forward.upgrade(&upgrade.name);
    let allowed = match by_route {
        Some(rule) => rule.enabled,
        None => exchange.manager.compiled.upgrade(&upgrade.name).unwrap_or(false),
    };
    if !allowed {
        exchange.manager.stats.downstream_rq_ws_on_non_ws_route.inc();
        return reply::failure(exchange, &Failure::UpgradeRefused);
    }
    if upgrade.name == "connect" && by_route.is_some_and(|rule| rule.terminate_connect) {
        return tunnel(exchange, plan, upgrade).await;
    }
    pass_on(exchange, plan, body, upgrade).await
}

/// CONNECT ends here: its bytes go to the host as they are.
async fn tunnel(mut exchange: Box<Exchange>, plan: Plan<'_>, upgrade: Upgrade) -> Response<ResponseBody> {
    exchange.attempts = 1;
    destination::hash(&mut exchange, &plan);
    let picked = match destination::host(&exchange, &plan, Avoid::default()).await {
        Ok(picked) => picked,
        Err(failure) => return reply::failure(exchange, &failure),
    };
    exchange.host = Some(picked.host.clone());
    let limits = &plan.cluster.limits[plan.priority()];
    let Some(permit) = limits.connections.acquire() else {
        return reply::failure(exchange, &Failure::Upstream(Reset::Overflow, false));
    };
    let Some(tls) = plan.cluster.tls_for(&picked.way, exchange.head.authority()) else {
        return reply::failure(exchange, &Failure::NoHealthyUpstream);
    };
    let upstream = match connect(
        &picked.host.address,
        &plan.cluster.transport(tls, &picked.way, Some(exchange.caller(None).addresses)),
    )
    .await
    {
        Ok(stream) => stream,
        Err(reset) => {
            exchange.upstream_failure = reset.transport_failure().cloned();
            return reply::failure(exchange, &Failure::Upstream(reset, false));
        }
    };
    let active = Active::connection(picked.host.clone(), plan.cluster.clone(), permit);
    let (date, server) = (exchange.worker.http_date(), exchange.manager.server.clone());
    let (mut tail, mut response) = established(exchange, StatusCode::OK);
    response.headers_mut().insert(DATE, date);
    response.headers_mut().insert(SERVER, server);
    tokio::task::spawn_local(async move {
        let _active = active;
        if let Ok(client) = upgrade.client.await {
            tail.copy(TokioIo::new(client), upstream).await;
        }
        tail.end();
    });
    response
}

/// The exchange after the answer that began an upgrade: it ends with the bytes.
struct Tail(Option<Box<Exchange>>);

impl Tail {
    /// Copies until both sides have ended, or the stream's time is over. The connection's timer does not reach here:
    /// its bytes are handed over.
    async fn copy<C, U>(&mut self, client: C, upstream: U)
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(exchange) = &mut self.0 else { return };
        let counts = Counts::default();
        let (idle, over_at) = (exchange.pulse.idle(), exchange.pulse.over_at());
        let over = async {
            match over_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let expired = tokio::select! {
            ended = tcp::bridge(client, upstream, idle, &counts) => (!ended).then_some(Expired::Idle),
            () = over => Some(Expired::Duration),
        };
        exchange.pulse.bytes.set(counts.0.get());
        exchange.sent = counts.1.get();
        match expired {
            Some(why) => exchange.expire(why),
            None if counts.client_ended_first() => exchange.abandon(),
            None => {}
        }
    }

    fn end(mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.finish();
        }
    }
}

/// The answer that begins the upgrade; the exchange goes on without it.
fn established(mut exchange: Box<Exchange>, status: StatusCode) -> (Tail, Response<ResponseBody>) {
    exchange.leaves_http();
    exchange.details = "via_upstream".into();
    exchange.take_response(status.as_u16(), &http::HeaderMap::new());
    let mut response = Response::new(ResponseBody::detached());
    *response.status_mut() = status;
    (Tail(Some(exchange)), response)
}

/// The upgrade goes to the upstream, and its answer back.
async fn pass_on(
    mut exchange: Box<Exchange>,
    plan: Plan<'_>,
    body: Arriving,
    upgrade: Upgrade,
) -> Response<ResponseBody> {
    if let Err(failure) = rewrite::rewrite(&mut exchange, &plan) {
        return reply::failure(exchange, &failure);
    }
    exchange.attempts = 1;
    destination::hash(&mut exchange, &plan);
    let picked = match destination::host(&exchange, &plan, Avoid::default()).await {
        Ok(picked) => picked,
        Err(failure) => return reply::failure(exchange, &failure),
    };
    exchange.host = Some(picked.host.clone());
    let limits = &plan.cluster.limits[plan.priority()];
    let Some(permit) = limits.requests.acquire() else {
        return reply::failure(exchange, &Failure::Upstream(Reset::Overflow, false));
    };
    let active = Active::new(picked.host.clone(), plan.cluster.clone(), permit);
    // HTTP/1.1 always: extended CONNECT is not spoken.
    let caller = exchange.caller(None);
    let pool = plan.cluster.pool(&exchange.worker, &picked, Protocol::Http1, plan.priority(), caller);
    let Some(pool) = pool else { return reply::failure(exchange, &Failure::NoHealthyUpstream) };
    let mut lease = match pool.lease().await {
        Ok(lease) => lease,
        Err(reset) => {
            exchange.upstream_failure = reset.transport_failure().cloned();
            return reply::failure(exchange, &Failure::Upstream(reset, false));
        }
    };
    exchange.link = Some(lease.link().clone());
    let mut head = rewrite::upstream_head(&exchange, &plan, &picked, false, false);
    if let Some(header) = &upgrade.header {
        head.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers_mut().insert(UPGRADE, header.clone());
    }
    drop(body);
    let response = match send::send(&mut lease, head.map(|()| RequestBody::empty())).await {
        Ok(response) => response,
        Err(SendError::Sent(reset) | SendError::Unsent(reset)) => {
            return reply::failure(exchange, &Failure::Upstream(reset, false));
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        exchange.upstream = Some(Upstream { lease, pool, active });
        return router::respond(exchange, &plan, None, response);
    }
    let Lease::Http1(upstream) = &lease else {
        return reply::failure(exchange, &Failure::Upstream(Reset::Protocol, false));
    };
    let upstream = upstream.connection.bytes();
    let (mut parts, _) = response.into_parts();
    router::finish_head(&exchange, &plan, &mut parts.headers);
    // The request goes on with the bytes.
    parts.headers.remove(names::UPSTREAM_SERVICE_TIME);
    if let Some(header) = upgrade.header {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, header);
    }
    exchange.count_response(&plan.cluster, 101);
    let (mut tail, mut answer) = established(exchange, StatusCode::SWITCHING_PROTOCOLS);
    *answer.headers_mut() = parts.headers;
    tokio::task::spawn_local(async move {
        let _held: (Lease, Active) = (lease, active);
        if let Ok(client) = upgrade.client.await {
            tail.copy(TokioIo::new(client), upstream).await;
        }
        tail.end();
    });
    answer
}
