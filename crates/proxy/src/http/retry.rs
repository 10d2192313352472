//! Whether a failed attempt is made again.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use lateen_route::routes::{BackOff, RetryOn, RetryPolicy};

use super::exchange::Exchange;
use super::ingress::names;
use super::sieve::Sieve;
use crate::failure::Reset;
use crate::stats::{Figure, RouteFigures, RouteStats};
use crate::upstream::cluster::Cluster;
use crate::upstream::limits::Permit;

/// The retries of one request.
#[derive(Debug)]
pub(crate) struct Retries {
    policy: Arc<RetryPolicy>,
    left: u32,
    made: u32,
    priority: usize,
    route_stats: Option<Arc<RouteStats>>,
}

/// What may follow a failed attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The failure stands: nothing says that it is tried again.
    Final,
    /// It would be tried again, had it not been too often.
    Exhausted,
    /// It would be tried again, were there not too many retries at once.
    Overflow,
    /// It is tried again, after a pause.
    Again(Duration, Option<Permit>),
}

impl Retries {
    /// The retries of a route's policy, with what an internal client asks for by header. `None` when there are none.
    pub(crate) fn of(
        exchange: &Exchange,
        policy: Option<&Arc<RetryPolicy>>,
        priority: usize,
    ) -> Option<Self> {
        let headers = &exchange.head.headers;
        let sieve = Sieve::of(headers);
        let text = |name| sieve.get(headers, &name).and_then(|value| value.to_str().ok());
        let asked = [text(names::RETRY_ON), text(names::RETRY_GRPC_ON)];
        let mut policy = policy.cloned();
        if asked.iter().any(Option::is_some) {
            let mut own = policy.as_deref().cloned().unwrap_or_else(no_policy);
            for text in asked.into_iter().flatten() {
                own.on = own.on.with(RetryOn::parse_list(text));
            }
            own.attempts =
                text(names::MAX_RETRIES).and_then(|n| n.parse().ok()).unwrap_or(own.attempts.max(1));
            policy = Some(Arc::new(own));
        }
        let policy = policy.filter(|policy| policy.attempts > 0 && !policy.on.is_empty())?;
        if !policy.request_headers.is_empty() {
            let admitted = exchange.down.with_view(|connection| {
                let view = exchange.head.view(connection, exchange.remote);
                policy.request_headers.iter().any(|matcher| matcher.matches(&view))
            });
            if !admitted {
                return None;
            }
        }
        let route_stats = exchange.route_stats.clone();
        Some(Self { left: policy.attempts, policy, made: 0, priority, route_stats })
    }

    /// The policy.
    pub(crate) fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    /// After a reset; `sent` says whether the upstream may have seen the request.
    pub(crate) fn after_reset(&mut self, reset: &Reset, sent: bool, cluster: &Cluster, draw: u64) -> Verdict {
        let on = self.policy.on;
        let any = RetryOn::FIVE_XX.with(RetryOn::GATEWAY_ERROR).with(RetryOn::RESET);
        let hit = match reset {
            Reset::Overflow => false,
            Reset::ConnectFailure(_) | Reset::ConnectTimeout => {
                on.has(any.with(RetryOn::CONNECT_FAILURE).with(RetryOn::RESET_BEFORE_REQUEST))
            }
            Reset::Refused => on.has(any.with(RetryOn::REFUSED_STREAM)),
            Reset::Termination | Reset::Remote | Reset::Protocol => {
                on.has(any) || (!sent && on.has(RetryOn::RESET_BEFORE_REQUEST))
            }
        };
        self.verdict(hit, cluster, draw)
    }

    /// After an attempt that took too long.
    pub(crate) fn after_timeout(&mut self, cluster: &Cluster, draw: u64) -> Verdict {
        let hit = self.policy.on.has(RetryOn::FIVE_XX.with(RetryOn::GATEWAY_ERROR).with(RetryOn::RESET));
        self.verdict(hit, cluster, draw)
    }

    /// After a response's head.
    pub(crate) fn after_response(
        &mut self,
        status: u16,
        headers: &HeaderMap,
        cluster: &Cluster,
        draw: u64,
    ) -> Verdict {
        let on = self.policy.on;
        let grpc = headers.get(names::GRPC_STATUS).and_then(|v| v.to_str().ok()?.parse().ok());
        // What was limited is tried again only where just that is asked for, whatever its status.
        let hit = match headers.contains_key(names::RATE_LIMITED) {
            true => on.has(RetryOn::ENVOY_RATELIMITED),
            false => {
                self.policy.has_status(status)
                    || grpc.is_some_and(|status| on.has_grpc(status))
                    || (on.has(RetryOn::HEADERS) && self.has_response_header(headers))
            }
        };
        self.verdict(hit, cluster, draw)
    }

    fn has_response_header(&self, headers: &HeaderMap) -> bool {
        let connection = lateen_route::ConnectionView::default();
        let view = lateen_route::RequestView {
            method: "",
            scheme: "",
            authority: "",
            path: "",
            headers,
            connection: &connection,
            metadata: None,
            remote: None,
        };
        self.policy.response_headers.iter().any(|matcher| matcher.matches(&view))
    }

    /// Counts by the route.
    fn count(&self, figure: impl Fn(&RouteFigures) -> &Figure) {
        if let Some(stats) = &self.route_stats {
            figure(stats).inc();
        }
    }

    fn verdict(&mut self, hit: bool, cluster: &Cluster, draw: u64) -> Verdict {
        if !hit {
            return Verdict::Final;
        }
        if self.left == 0 {
            cluster.stats.upstream_rq_retry_limit_exceeded.inc();
            self.count(|stats| &stats.upstream_rq_retry_limit_exceeded);
            return Verdict::Exhausted;
        }
        let limits = &cluster.limits[self.priority];
        let permit = match cluster.compiled.circuit_breakers[self.priority].retry_budget {
            Some(budget) => {
                let share = f64::from(limits.requests.used()) * budget.percent / 100.0;
                let allowed = share.max(f64::from(budget.min_concurrency));
                (f64::from(limits.retries.used()) < allowed).then(|| limits.retries.force())
            }
            None => limits.retries.acquire(),
        };
        let Some(permit) = permit else {
            cluster.stats.upstream_rq_retry_overflow.inc();
            self.count(|stats| &stats.upstream_rq_retry_overflow);
            return Verdict::Overflow;
        };
        self.left -= 1;
        self.made += 1;
        cluster.stats.upstream_rq_retry.inc();
        self.count(|stats| &stats.upstream_rq_retry);
        Verdict::Again(self.policy.back_off.pause(self.made, draw), Some(permit))
    }
}

/// The policy of a route without one, for callers that ask for retries by header.
fn no_policy() -> RetryPolicy {
    let base = Duration::from_millis(25);
    RetryPolicy {
        on: RetryOn::default(),
        attempts: 1,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        reset_headers: None,
        avoid_previous_priorities: None,
        status_codes: Box::default(),
        response_headers: Vec::new(),
        request_headers: Vec::new(),
        back_off: BackOff { base, max: base * 10 },
        avoid_previous_hosts: false,
        host_attempts: 1,
    }
}
