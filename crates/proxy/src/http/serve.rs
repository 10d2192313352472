//! A request's way through its phases: head, route, filters, action.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue};
use http::{HeaderMap, Request, Response, Version};
use hyper::body::{Body as _, Incoming};
use lateen_route::RouteTable;
use lateen_route::header_edits::HeaderEdits;
use lateen_route::routes::{Action, Destination, Forward, WeightedCluster};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::arriving::Arriving;
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::filters::{self, RouteContext};
use super::head::Head;
use super::ingress::Prepared;
use super::manager::Manager;
use super::pulse::{Limits, Pulse, Pulses};
use super::upgrade::{self, Upgrade};
use super::{edits, ingress, reply, router};
use crate::downstream::Downstream;
use crate::failure::Failure;
use crate::listener::Chain;
use crate::stream::{HeadClock, Refusals};
use crate::worker::Worker;

/// What all requests of a connection share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The manager.
    pub manager: Arc<Manager>,
    /// The filter chain that took the connection.
    pub chain: Arc<Chain>,
    /// The connection.
    pub down: Rc<Downstream>,
    /// When the last request began or ended.
    pub last_active: Cell<Instant>,
    /// Requests under way.
    pub active: Cell<u32>,
    /// Requests so far.
    pub requests: Cell<u32>,
    /// Whether responses ask the client to go away.
    pub closing: Cell<bool>,
    /// The requests under way.
    pub pulses: Pulses,
    /// The pulse of the request that has just begun, for the task of its stream.
    pub newborn: RefCell<Option<Rc<Pulse>>>,
    /// Since when a request's head is coming, on HTTP/1.
    pub head: Option<Arc<HeadClock>>,
    /// What becomes of heads that the codec refuses, on HTTP/1.
    pub refusals: Arc<Refusals>,
    /// Told when the connection is to end at once.
    pub gone: Notify,
    retired: Notify,
}

impl Context {
    /// A connection without requests yet.
    pub(crate) fn new(
        worker: Rc<Worker>,
        manager: Arc<Manager>,
        chain: Arc<Chain>,
        down: Rc<Downstream>,
        head: Option<Arc<HeadClock>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            refusals: Arc::new(Refusals::new(&manager.compiled.server_name)),
            worker,
            manager,
            chain,
            down,
            last_active: Cell::new(Instant::now()),
            active: Cell::new(0),
            requests: Cell::new(0),
            closing: Cell::new(false),
            pulses: Pulses::default(),
            newborn: RefCell::new(None),
            head,
            gone: Notify::new(),
            retired: Notify::new(),
        })
    }

    /// Waits until the connection should end: replaced, drained, idle or old.
    pub(crate) async fn end(&self) {
        let timeouts = &self.manager.compiled.timeouts;
        let old = async {
            match timeouts.max_connection {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.chain.drain.cancelled() => {}
            () = self.worker.shared.draining.cancelled() => {}
            () = old => self.manager.stats.downstream_cx_max_duration_reached.inc(),
            () = self.idle() => {
                self.manager.stats.downstream_cx_idle_timeout.inc();
                return;
            }
            () = self.retired.notified() => return,
        }
        // Whoever sends a request now is told to come back elsewhere; who is silent is closed after a while.
        self.closing.set(true);
        tokio::time::sleep(self.worker.shared.drain_grace).await;
    }

    async fn idle(&self) {
        let Some(limit) = self.manager.compiled.timeouts.idle else { return std::future::pending().await };
        loop {
            let due = self.last_active.get() + limit;
            if self.active.get() == 0 && Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due.max(Instant::now() + std::time::Duration::from_millis(100))).await;
        }
    }
}

/// A request under way, as its connection knows it.
#[derive(Debug)]
pub(crate) struct Busy {
    context: Rc<Context>,
    pulse: Rc<Pulse>,
}

impl Busy {
    fn new(context: Rc<Context>, complete: bool) -> Self {
        context.active.set(context.active.get() + 1);
        context.requests.set(context.requests.get().saturating_add(1));
        if let Some(head) = &context.head {
            head.reset();
        }
        context.refusals.request_began();
        let pulse = Pulse::new(complete);
        context.pulses.add(pulse.clone());
        context.newborn.replace(Some(pulse.clone()));
        Self { context, pulse }
    }

    /// The request's pulse.
    pub(crate) fn pulse(&self) -> &Rc<Pulse> {
        &self.pulse
    }

    /// Bytes of a body are about to be written.
    pub(crate) fn body_goes(&self) {
        self.context.refusals.body_goes();
    }

    /// What follows on the connection is no HTTP.
    pub(crate) fn leaves_http(&self) {
        self.context.refusals.end();
    }

    /// Has the connection end at once.
    pub(crate) fn hang_up(&self) {
        self.context.gone.notify_one();
    }

    /// All pulses of its connection.
    pub(crate) fn pulses(&self) -> &Pulses {
        &self.context.pulses
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let context = &self.context;
        context.active.set(context.active.get() - 1);
        context.last_active.set(Instant::now());
        context.pulses.remove(&self.pulse);
        if let Some(head) = &context.head {
            head.reset();
        }
    }
}

/// Serves a request.
///
/// # Errors
/// Never: what goes wrong becomes a response.
pub(crate) async fn request(
    context: Rc<Context>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let http1 = request.version() != Version::HTTP_2;
    // HTTP/1.0 ends with its response unless the client asks for more.
    let single = request.version() == Version::HTTP_10 && !keeps_alive(request.headers());
    let mut response = phases(&context, request).await;
    let full = context.manager.compiled.max_requests.is_some_and(|max| context.requests.get() >= max);
    // A connection whose request is answered before it has come whole is of no more use.
    let unread = response.body().exchange().is_some_and(|exchange| !exchange.pulse.complete.get());
    if http1 && (full || unread || single || context.closing.get()) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    } else if full {
        context.retired.notify_one();
    }
    Ok(response)
}

fn keeps_alive(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("keep-alive"))
}

async fn phases(context: &Rc<Context>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let upgrade = upgrade::wanted(&mut request);
    let (parts, body) = request.into_parts();
    // What asks for an upgrade goes on with what comes after it.
    let complete = body.is_end_stream() && upgrade.is_none();

    // Phase: head.
    let head = match Head::new(parts, context.down.is_tls(), &context.manager.compiled.http1) {
        Ok(head) => head,
        Err(unusable) => {
            let (failure, head) = *unusable;
            let exchange = begin(context, head, complete);
            return reply::failure(exchange, &failure);
        }
    };
    let mut exchange = begin(context, head, complete);
    if exchange.head.version == Version::HTTP_10 && !context.manager.compiled.http1.accept_http_10 {
        return reply::failure(exchange, &Failure::LowVersion);
    }
    match ingress::prepare(&mut exchange) {
        Ok(Prepared::Go) => {}
        Ok(Prepared::Redirect) => return reply::clean_path(exchange),
        Err(failure) => return reply::failure(exchange, &failure),
    }

    // Phase: route.
    let Some(table) = context.manager.routes.load() else {
        return reply::failure(exchange, &Failure::NoRoute);
    };
    table.internal_only_headers.iter().filter(|_| !exchange.internal).for_each(|name| {
        exchange.head.headers.remove(name);
    });
    let chosen = match choose(&mut exchange, &table) {
        Ok(chosen) => chosen,
        Err(unrouted) => return unrouted.answer(exchange),
    };
    act(context, exchange, chosen, body, upgrade).await
}

/// Why no route takes a request to a cluster.
pub(crate) enum Unrouted {
    Failure(Failure),
    /// The virtual host takes TLS only.
    ToTls,
}

impl Unrouted {
    /// The answer.
    pub(crate) fn answer(self, exchange: Box<Exchange>) -> Response<ResponseBody> {
        match self {
            Self::Failure(failure) => reply::failure(exchange, &failure),
            Self::ToTls => {
                let location = format!("https://{}{}", exchange.head.authority(), exchange.head.path());
                reply::redirect(exchange, 301, &location, HeaderMap::new())
            }
        }
    }
}

/// Chooses the route by all that is known of the request by now.
pub(crate) fn choose<'t>(
    exchange: &mut Exchange,
    table: &'t RouteTable,
) -> Result<RouteContext<'t>, Unrouted> {
    let selected = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        table.route(&view, exchange.internal, exchange.entropy, &mut ())
    });
    let selected = selected.ok_or(Unrouted::Failure(Failure::NoRoute))?;
    if selected.redirect_to_tls {
        return Err(Unrouted::ToTls);
    }
    let route = selected.route.ok_or(Unrouted::Failure(Failure::NoRoute))?;
    exchange.route = Some(route.clone());
    exchange.route_stats = route
        .stat_prefix
        .as_ref()
        .map(|prefix| exchange.worker.shared.stats.route(&selected.virtual_host.name, prefix));
    let (forward, cluster, pick) = match &route.action {
        Action::Forward(forward) => {
            let missing = || Unrouted::Failure(Failure::NoCluster(missing_status(forward)));
            let (name, pick) = destination(exchange, forward).ok_or_else(missing)?;
            (Some(&**forward), name, pick)
        }
        _ => (None, "".into(), None),
    };
    exchange.cluster = match forward {
        Some(_) => exchange.worker.shared.snapshot.load().cluster(&cluster).cloned(),
        None => None,
    };
    Ok(RouteContext { table, virtual_host: selected.virtual_host, route, forward, pick, cluster })
}

fn begin(context: &Rc<Context>, head: Head, complete: bool) -> Box<Exchange> {
    let busy = Busy::new(context.clone(), complete);
    Exchange::begin(context.worker.clone(), context.manager.clone(), context.down.clone(), head, busy)
}

async fn act(
    context: &Rc<Context>,
    mut exchange: Box<Exchange>,
    mut chosen: RouteContext<'_>,
    body: Incoming,
    upgrade: Option<Upgrade>,
) -> Response<ResponseBody> {
    exchange.limit(limits(&exchange, chosen.forward));
    let mut body = Arriving::new(body, upgrade.is_some());

    // Phase: filters.
    let outcome;
    let (table, virtual_host, route, pick) = (chosen.table, chosen.virtual_host, chosen.route, chosen.pick);
    (exchange, chosen, outcome) = match filters::run(exchange, chosen, &mut body).await {
        Ok(passed) => passed,
        Err(answer) => return edited(*answer, table.response_edits(virtual_host, route, pick)),
    };
    let RouteContext { table, virtual_host, route, forward, pick, .. } = chosen;

    // Phase: action.
    let response_edits = |exchange: &Exchange| {
        let mut headers = HeaderMap::new();
        edits::response(exchange, &mut headers, table.response_edits(virtual_host, route, pick));
        headers
    };
    let forward = match (&route.action, forward) {
        (_, Some(forward)) => forward,
        (Action::Redirect(redirect), _) => {
            let location = context
                .down
                .with_view(|connection| redirect.location(&exchange.head.view(connection, exchange.remote)));
            let headers = response_edits(&exchange);
            return reply::redirect(exchange, redirect.status, &location, headers);
        }
        (Action::Direct(direct), _) => {
            let headers = response_edits(&exchange);
            let body = match &direct.format {
                None => direct.body.clone(),
                Some(format) => edits::render(&exchange, format).into(),
            };
            return reply::direct(exchange, direct.status, headers, body);
        }
        (Action::NonForwarding | Action::Forward(_), _) => {
            return reply::failure(exchange, &Failure::NoRoute);
        }
    };
    let Some(cluster) = exchange.cluster.clone() else {
        return reply::failure(exchange, &Failure::NoCluster(missing_status(forward)));
    };
    let plan = router::Plan { table, virtual_host, route, forward, pick, cluster, outcome };
    match upgrade {
        Some(upgrade) => Box::pin(upgrade::run(exchange, plan, body, upgrade)).await,
        None => {
            let response = router::forward(exchange, plan, body).await;
            match response.body().is_local() {
                true => edited(response, table.response_edits(virtual_host, route, pick)),
                false => response,
            }
        }
    }
}

/// An answer of our own in a route's place, with the route's edits.
fn edited<'e>(
    mut response: Response<ResponseBody>,
    levels: impl Iterator<Item = &'e HeaderEdits>,
) -> Response<ResponseBody> {
    let mut headers = std::mem::take(response.headers_mut());
    if let Some(exchange) = response.body().exchange() {
        edits::response(exchange, &mut headers, levels);
    }
    *response.headers_mut() = headers;
    response
}

/// The manager's limits, or those of the route.
fn limits(exchange: &Exchange, forward: Option<&Forward>) -> Limits {
    let timeouts = &exchange.manager.compiled.timeouts;
    let idle = forward.and_then(|forward| forward.idle_timeout);
    let max_stream = forward.and_then(|forward| forward.max_stream);
    Limits {
        idle: idle.map_or(timeouts.stream_idle, |idle| Some(idle).filter(|idle| !idle.is_zero())),
        request: timeouts.request,
        duration: match max_stream {
            Some(rules) => rules.limit(exchange.head.grpc_timeout(), timeouts.max_stream),
            None => timeouts.max_stream,
        },
    }
}

fn missing_status(forward: &Forward) -> http::StatusCode {
    http::StatusCode::from_u16(forward.missing_cluster_status)
        .unwrap_or(http::StatusCode::SERVICE_UNAVAILABLE)
}

/// The cluster's name, and what holds for it alone among weighted ones.
fn destination<'t>(
    exchange: &Exchange,
    forward: &'t Forward,
) -> Option<(Arc<str>, Option<&'t WeightedCluster>)> {
    if let Destination::Cluster(name) = &forward.destination {
        return Some((name.clone(), None));
    }
    exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        let picked = forward.destination.pick(&view, exchange.entropy)?;
        // The pick borrows from the request as well as from the route: find it again in the route alone.
        let weighted = match (&forward.destination, picked.weighted) {
            (Destination::Weighted { clusters, .. }, Some(one)) => {
                clusters.iter().find(|candidate| std::ptr::eq(*candidate, one))
            }
            _ => None,
        };
        let name = weighted.map_or_else(|| picked.name.into(), |one| one.name.clone());
        Some((name, weighted))
    })
}
