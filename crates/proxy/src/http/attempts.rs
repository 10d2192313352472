//! The attempts of a request: each picks a host, connects, sends, and waits for the response's head.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Response, Version};
use lateen_route::routes::{ResetHeaders, Route};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::arriving::Arriving;
use super::body::{ClientBody, Replay, RequestBody, UpstreamBody};
use super::exchange::{Active, Exchange, Upstream};
use super::pulse::{Expired, Pulse};
use super::retry::{Retries, Verdict};
use super::router::Plan;
use super::send::{self, SendError};
use super::{destination, rewrite};
use crate::failure::{Failure, Reset};
use crate::flags::Flags;
use crate::upstream::cluster::{Cluster, Picked};
use crate::upstream::outlier;
use crate::upstream::pool::{Http1, Lease};

/// Where the body comes from, for one attempt or several.
#[derive(Debug)]
pub(super) enum Source {
    Empty,
    Once(Option<ClientBody>, Rc<Pulse>),
    Kept(Rc<Replay>),
}

impl Source {
    /// Where the body of an exchange comes from; `again` where it is read more than once.
    pub(super) fn new(exchange: &Exchange, route: &Route, body: Arriving, again: bool) -> Self {
        let http1 = exchange.head.version != Version::HTTP_2;
        let trailers = !http1 || exchange.manager.compiled.http1.trailers;
        let body = ClientBody::new(body, exchange.grpc_web.as_ref(), trailers);
        if body.is_end_stream() {
            return Self::Empty;
        }
        let pulse = exchange.pulse.clone();
        if again {
            let limit = route.buffer_limit.unwrap_or(exchange.manager.buffer_limit.into());
            Self::Kept(Replay::new(body, pulse, usize::try_from(limit).unwrap_or(usize::MAX)))
        } else {
            Self::Once(Some(body), pulse)
        }
    }

    /// The body for a copy; none when it is sent once.
    pub(super) fn copy(&self) -> RequestBody {
        match self {
            Self::Kept(replay) => RequestBody::replay(replay, false),
            Self::Empty | Self::Once(..) => RequestBody::empty(),
        }
    }

    fn take(&mut self) -> RequestBody {
        match self {
            Self::Once(body, pulse) => match body.take() {
                Some(body) => RequestBody::once(body, pulse.clone()),
                None => RequestBody::empty(),
            },
            Self::Kept(replay) => RequestBody::replay(replay, true),
            Self::Empty => RequestBody::empty(),
        }
    }

    fn can_restart(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Once(body, _) => body.is_some(),
            Self::Kept(replay) => replay.can_restart(),
        }
    }
}

/// The attempts of one request.
pub(super) struct Attempts<'p, 't> {
    plan: &'p Plan<'t>,
    source: Source,
    retries: Option<Retries>,
    deadline: Option<Instant>,
    tried: SmallVec<[u64; 4]>,
    /// The priorities of tried hosts since they were looked at last.
    priorities: SmallVec<[usize; 4]>,
    /// The priorities that are left out.
    without: SmallVec<[usize; 4]>,
}

/// How an attempt failed.
enum Failed {
    Reset { reset: Reset, sent: bool },
    TryTimeout,
    TryIdle,
    MaxStream,
    Final(Failure),
}

impl<'p, 't> Attempts<'p, 't> {
    /// The attempts of a planned request.
    pub(super) fn new(
        plan: &'p Plan<'t>,
        source: Source,
        retries: Option<Retries>,
        deadline: Option<Instant>,
    ) -> Self {
        let (tried, priorities, without) = Default::default();
        Self { plan, source, retries, deadline, tried, priorities, without }
    }

    /// Makes attempts until one is good enough, or there may be no more.
    pub(super) async fn run(&mut self, exchange: &mut Exchange) -> Result<Response<UpstreamBody>, Failure> {
        let cluster = &self.plan.cluster;
        loop {
            exchange.attempts += 1;
            let deadline = self.deadline;
            let attempt = self.attempt(exchange);
            let failed = match within(deadline, attempt, cluster).await? {
                Ok(response) => match self.judge_response(exchange, &response) {
                    Verdict::Again(pause, permit) => {
                        let pause = self.asked_pause(&response).unwrap_or(pause);
                        exchange.upstream = None;
                        self.pause(pause).await?;
                        drop(permit);
                        continue;
                    }
                    Verdict::Exhausted => {
                        exchange.flags.add(Flags::RETRIES_EXCEEDED);
                        return Ok(response);
                    }
                    Verdict::Overflow => {
                        exchange.flags.add(Flags::UPSTREAM_OVERFLOW);
                        return Ok(response);
                    }
                    Verdict::Final => return Ok(response),
                },
                Err(failed) => failed,
            };
            exchange.upstream = None;
            exchange.timed_out = matches!(failed, Failed::TryTimeout | Failed::TryIdle);
            let (verdict, failure) = self.judge_failure(exchange, failed);
            match verdict {
                Verdict::Again(pause, permit) if self.source.can_restart() => {
                    self.pause(pause).await?;
                    drop(permit);
                }
                Verdict::Exhausted => {
                    exchange.flags.add(Flags::RETRIES_EXCEEDED);
                    return Err(failure);
                }
                Verdict::Overflow => {
                    exchange.flags.add(Flags::UPSTREAM_OVERFLOW);
                    return Err(failure);
                }
                Verdict::Again(..) | Verdict::Final => return Err(failure),
            }
        }
    }

    /// The pause that a response asks for itself.
    fn asked_pause(&self, response: &Response<UpstreamBody>) -> Option<Duration> {
        let rules: &ResetHeaders = self.retries.as_ref()?.policy().reset_headers.as_ref()?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        rules.pause(response.headers(), now)
    }

    async fn pause(&self, pause: Duration) -> Result<(), Failure> {
        if pause.is_zero() {
            return Ok(());
        }
        within(self.deadline, Box::pin(tokio::time::sleep(pause)), &self.plan.cluster).await
    }

    fn judge_response(&mut self, exchange: &Exchange, response: &Response<UpstreamBody>) -> Verdict {
        let Some(retries) = &mut self.retries else { return Verdict::Final };
        if !self.source.can_restart() {
            return Verdict::Final;
        }
        let draw = exchange.worker.random();
        retries.after_response(response.status().as_u16(), response.headers(), &self.plan.cluster, draw)
    }

    fn judge_failure(&mut self, exchange: &Exchange, failed: Failed) -> (Verdict, Failure) {
        let draw = exchange.worker.random();
        let cluster = &self.plan.cluster;
        let retried = exchange.attempts > 1;
        match failed {
            Failed::Final(failure) => (Verdict::Final, failure),
            Failed::TryTimeout => {
                cluster.stats.upstream_rq_per_try_timeout.inc();
                let verdict =
                    self.retries.as_mut().map_or(Verdict::Final, |r| r.after_timeout(cluster, draw));
                (verdict, Failure::PerTryTimeout)
            }
            Failed::TryIdle => {
                cluster.stats.upstream_rq_per_try_idle_timeout.inc();
                let verdict =
                    self.retries.as_mut().map_or(Verdict::Final, |r| r.after_timeout(cluster, draw));
                (verdict, Failure::PerTryIdle)
            }
            Failed::MaxStream => {
                let verdict =
                    self.retries.as_mut().map_or(Verdict::Final, |r| r.after_timeout(cluster, draw));
                (verdict, Failure::Expired(Expired::Upstream, exchange.pulse.complete.get()))
            }
            Failed::Reset { reset, sent } => {
                let verdict = self
                    .retries
                    .as_mut()
                    .map_or(Verdict::Final, |retries| retries.after_reset(&reset, sent, cluster, draw));
                (verdict, Failure::Upstream(reset, retried))
            }
        }
    }

    async fn attempt(&mut self, exchange: &mut Exchange) -> Result<Response<UpstreamBody>, Failed> {
        exchange.upstream_failure = None;
        let picked = self.pick(exchange).await.map_err(Failed::Final)?;
        self.tried.push(picked.host.id);
        exchange.host = Some(picked.host.clone());
        let cluster = &self.plan.cluster;
        let per_try = self.retries.as_ref().and_then(|retries| retries.policy().per_try_timeout);
        let idle = self.retries.as_ref().and_then(|retries| retries.policy().per_try_idle_timeout);
        let pulse = exchange.pulse.clone();
        let max_stream = cluster.compiled.http.max_stream;
        let started = Instant::now();
        let limit = match (per_try, max_stream) {
            (Some(per_try), Some(max)) if max < per_try => Some((max, Failed::MaxStream)),
            (Some(per_try), _) => Some((per_try, Failed::TryTimeout)),
            (None, Some(max)) => Some((max, Failed::MaxStream)),
            (None, None) => None,
        };
        let work = self.exchange_with(exchange, picked);
        let result = match (limit, idle) {
            (None, None) => work.await,
            (Some((limit, late)), None) => {
                tokio::time::timeout(limit, Box::pin(work)).await.unwrap_or(Err(late))
            }
            (limit, Some(idle)) => {
                let silent = pulse.silence(idle);
                let work = async {
                    tokio::select! {
                        result = Box::pin(work) => result,
                        () = silent => Err(Failed::TryIdle),
                    }
                };
                match limit {
                    None => Box::pin(work).await,
                    Some((limit, late)) => {
                        tokio::time::timeout(limit, Box::pin(work)).await.unwrap_or(Err(late))
                    }
                }
            }
        };
        if let (Ok(_), Some(max)) = (&result, max_stream) {
            exchange.respond_by(started + max, Expired::Upstream);
        }
        result
    }

    /// A host that was not tried, at best.
    async fn pick(&mut self, exchange: &Exchange) -> Result<Picked, Failure> {
        let policy = self.retries.as_ref().map(Retries::policy);
        let (tries, avoid) = match policy {
            Some(policy) if policy.avoid_previous_hosts => (policy.host_attempts, &self.tried[..]),
            _ => (0, &[][..]),
        };
        if let Some(frequency) = policy.and_then(|policy| policy.avoid_previous_priorities)
            && !self.priorities.is_empty()
            && self.priorities.len().is_multiple_of(frequency as usize)
        {
            self.without.clone_from(&self.priorities);
        }
        let avoid = destination::Avoid { hosts: avoid, tries, priorities: &self.without };
        let picked = destination::host(exchange, self.plan, avoid).await?;
        self.priorities.push(picked.priority);
        Ok(picked)
    }

    /// Connects, sends, and waits for the response's head.
    async fn exchange_with(
        &mut self,
        exchange: &mut Exchange,
        picked: Picked,
    ) -> Result<Response<UpstreamBody>, Failed> {
        let cluster = &self.plan.cluster;
        let protocol = cluster.protocol(exchange.head.version, &picked.way);
        let caller = exchange.caller(self.plan.outcome.upstream_protocols.as_ref());
        let pool = cluster.pool(&exchange.worker, &picked, protocol, self.plan.priority(), caller);
        let Some(pool) = pool else {
            let text = "TLS_error: the secrets of the cluster have not come";
            return Err(Failed::Reset { reset: Reset::ConnectFailure(text.into()), sent: false });
        };
        let mut reused_broken = 0;
        loop {
            let lease = match pool.ready() {
                Some(lease) => lease,
                None => Box::pin(pool.lease())
                    .await
                    .inspect(|_| cluster.judge(&picked.host, outlier::Result::Connected))
                    .map_err(|reset| {
                        if reset != Reset::Overflow {
                            cluster.judge(&picked.host, outlier::Result::Local);
                        }
                        exchange.upstream_failure = reset.transport_failure().cloned();
                        Failed::Reset { reset, sent: false }
                    })?,
            };
            // What waits for a connection is no request yet.
            let Some(permit) = cluster.limits[self.plan.priority()].requests.acquire() else {
                cluster.stats.upstream_rq_active_overflow.inc();
                if let Lease::Http1(connection) = lease {
                    pool.give_back_unused(connection);
                }
                return Err(Failed::Reset { reset: Reset::Overflow, sent: false });
            };
            let active = Active::new(picked.host.clone(), cluster.clone(), permit);
            if let Some(stats) = &exchange.route_stats {
                stats.upstream_rq_total.inc();
            }
            exchange.link = Some(lease.link().clone());
            let mut lease = lease;
            let result = match &mut lease {
                Lease::Http1(Http1 { connection, .. }) => {
                    rewrite::begin_http1(exchange, self.plan, &picked, connection, self.source.take());
                    connection.response().await.map(|response| response.map(UpstreamBody::Http1))
                }
                Lease::Http2(_) => {
                    let head = rewrite::upstream_head(exchange, self.plan, &picked, true, false);
                    // Boxed: it would make the future of every request larger, which codecs move about.
                    Box::pin(send::send(&mut lease, head.map(|()| self.source.take()))).await
                }
            };
            // The upstream is not to blame for a client that breaks off.
            if let (Err(_), Some(broken)) = (&result, exchange.pulse.broken.get()) {
                return Err(Failed::Final(Failure::Broken(broken)));
            }
            match result {
                Ok(response) => {
                    cluster.judge_response(&picked.host, response.status(), response.headers());
                    cluster.take_report(&picked.host, response.headers());
                    exchange.upstream = Some(Upstream { lease, pool, active });
                    return Ok(response);
                }
                // A connection that was closed while idle has not seen the request: that is nobody's failure.
                Err(SendError::Unsent(_)) if reused_broken < 3 && self.source.can_restart() => {
                    reused_broken += 1
                }
                Err(SendError::Unsent(reset)) => return Err(Failed::Reset { reset, sent: false }),
                Err(SendError::Sent(reset)) => {
                    picked.host.stats.rq_error.fetch_add(1, Ordering::Relaxed);
                    cluster.judge(&picked.host, outlier::Result::Status(503));
                    return Err(Failed::Reset { reset, sent: true });
                }
            }
        }
    }
}

async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
    cluster: &Cluster,
) -> Result<T, Failure> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.map_err(|_| {
            cluster.stats.upstream_rq_timeout.inc();
            Failure::Timeout
        }),
    }
}
