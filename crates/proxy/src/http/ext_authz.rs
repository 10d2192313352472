//! Phase: HTTP filters, an authorization service is asked about the request.

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use lateen_route::ext_authz::answer::{self, Changes, Decision, Denial};
use lateen_route::ext_authz::check::{self, Asked, Body};
use lateen_route::ext_authz::{
    BodyRules, ExtAuthz, GrpcService, HTTP_METADATA, HttpService, RouteSettings, Service,
};
use lateen_route::request::HeaderRef;

use super::arriving::Arriving;
use super::body::ResponseBody;
use super::exchange::Exchange;
use super::filters::Outcome;
use super::manager::Figures;
use super::rewrite::{absolute_uri, tell_operation};
use super::{edits, reply};
use crate::ext_authz;
use crate::failure::Failure;
use crate::stats::ExtAuthzStats;
use crate::upstream::call::{self, Question};

const DENIED: &str = "ext_authz_denied";
const ERROR: &str = "ext_authz_error";
/// Marks requests that pass because the service could not be asked.
const FAILURE_ALLOWED: &str = "x-envoy-auth-failure-mode-allowed";

/// Asks about a request; whether the route has to be chosen anew.
///
/// # Errors
/// The answer to a request that may not pass.
pub(crate) async fn check(
    mut exchange: Box<Exchange>,
    filter: &ExtAuthz,
    settings: Option<&RouteSettings>,
    figures: &Figures,
    body: &mut Arriving,
    outcome: &mut Outcome,
) -> Result<(Box<Exchange>, bool), Box<Response<ResponseBody>>> {
    let Figures::ExtAuthz(stats) = figures else { return Err(Box::new(failed(exchange, filter))) };
    if !filter.enabled.admits(exchange.head.metadata.as_deref(), exchange.entropy) {
        stats.disabled.inc();
        return match filter.deny_when_disabled {
            true => Err(Box::new(failed(exchange, filter))),
            false => Ok((exchange, false)),
        };
    }
    tell_operation(&mut exchange);
    let pulse = exchange.pulse.clone();
    let rules = match settings {
        Some(settings) if settings.without_body => None,
        Some(settings) => settings.body.or(filter.body),
        None => filter.body,
    };
    let sent = match rules.filter(|_| body.is_readable()) {
        None => None,
        Some(rules) => match pulse.guard(read(body, rules, &exchange)).await {
            Ok(Ok(sent)) => Some(sent),
            Ok(Err(Unread::TooLarge)) => return Err(Box::new(reply::too_large(exchange))),
            // Nobody reads the answer.
            Ok(Err(Unread::Broken)) => {
                let (status, empty) = (StatusCode::BAD_REQUEST, HeaderMap::new());
                return Err(Box::new(reply::local(exchange, status, empty, bytes::Bytes::new())));
            }
            Err(why) => {
                let failure = Failure::Expired(why, pulse.complete.get());
                return Err(Box::new(reply::failure(exchange, &failure)));
            }
        },
    };
    let no_extensions = BTreeMap::new();
    let extensions = settings.map_or(&no_extensions, |settings| &settings.extensions);
    let asked = async {
        match &filter.service {
            Service::Grpc(service) => by_grpc(&exchange, filter, service, sent, extensions).await,
            Service::Http(service) => by_http(&exchange, filter, service, sent).await,
        }
    };
    // What the client sends meanwhile is kept, as much as may be, unless it waits for a word.
    let most = match exchange.head.headers.contains_key(http::header::EXPECT) || !body.is_readable() {
        true => None,
        false => usize::try_from(exchange.manager.buffer_limit).ok(),
    };
    let reading = async {
        if let Some(most) = most {
            body.read_ahead(most, &pulse).await;
        }
    };
    let decision = match pulse.guard(beside(reading, asked)).await {
        Ok(decision) => decision,
        Err(why) => {
            let failure = Failure::Expired(why, pulse.complete.get());
            return Err(Box::new(reply::failure(exchange, &failure)));
        }
    };
    count(&exchange, &decision, stats);
    match decision {
        Decision::Allow(changes) => {
            let anew = filter.clear_route_cache && changes.touch_request();
            match apply(&mut exchange, *changes, outcome) {
                Ok(()) => Ok((exchange, anew)),
                Err(failure) => Err(Box::new(reply::failure(exchange, &failure))),
            }
        }
        Decision::Deny(denial) => Err(Box::new(denied(exchange, filter, *denial))),
        Decision::Fail(reason) => {
            let cluster = match &filter.service {
                Service::Grpc(service) => &service.cluster,
                Service::Http(service) => &service.cluster,
            };
            tracing::debug!(target: "ext_authz", %cluster, %reason, "cannot be asked");
            if !filter.failure_allows {
                return Err(Box::new(failed(exchange, filter)));
            }
            stats.failure_mode_allowed.inc();
            if let Some(cluster) = &exchange.cluster {
                cluster.stats.checked().failure_mode_allowed.inc();
            }
            if filter.marks_failure {
                exchange.head.headers.append(FAILURE_ALLOWED, HeaderValue::from_static("true"));
            }
            Ok((exchange, false))
        }
    }
}

/// Does `work`, and `aside` as long as that takes.
async fn beside<T>(aside: impl Future<Output = ()>, work: impl Future<Output = T>) -> T {
    let (mut aside, mut work) = (std::pin::pin!(aside), std::pin::pin!(work));
    let mut done = false;
    std::future::poll_fn(|cx| {
        // The work first: what it tells of the body is what had come before.
        let polled = work.as_mut().poll(cx);
        done = done || aside.as_mut().poll(cx).is_ready();
        polled
    })
    .await
}

fn count(exchange: &Exchange, decision: &Decision, stats: &ExtAuthzStats) {
    let of_cluster = exchange.cluster.as_ref().map(|cluster| cluster.stats.checked());
    let (own, of_cluster) = match decision {
        Decision::Allow(_) => (&stats.ok, of_cluster.map(|checked| &checked.ok)),
        Decision::Deny(_) => (&stats.denied, of_cluster.map(|checked| &checked.denied)),
        Decision::Fail(_) => (&stats.error, of_cluster.map(|checked| &checked.error)),
    };
    own.inc();
    if let Some(figure) = of_cluster {
        figure.inc();
    }
}

/// Why a body was not read.
enum Unread {
    /// It is longer than it may be.
    TooLarge,
    /// The client broke off.
    Broken,
}

/// Reads as much of the body as is sent along.
async fn read(body: &mut Arriving, rules: BodyRules, exchange: &Exchange) -> Result<Body, Unread> {
    // A part suffices once it is full; the whole has to be seen to its end.
    let most = if rules.partial { rules.max - 1 } else { rules.max };
    if !body.read_ahead(most, &exchange.pulse).await {
        return Err(Unread::Broken);
    }
    let partial = body.ahead() > rules.max;
    if partial && !rules.partial {
        return Err(Unread::TooLarge);
    }
    Ok(Body { bytes: body.first(rules.max), partial, rules })
}

async fn by_grpc(
    exchange: &Exchange,
    filter: &ExtAuthz,
    service: &GrpcService,
    body: Option<Body>,
    extensions: &BTreeMap<String, String>,
) -> Decision {
    let question = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        let asked = Asked {
            request: &view,
            id: exchange.entropy.0.to_string(),
            started: exchange.started_at,
            protocol: exchange.head.protocol(),
            received: exchange.pulse.bytes.get(),
            body,
        };
        let ends = ext_authz::ends(&exchange.down, &filter.tells);
        check::of_request(asked, &ends, &filter.tells, &filter.headers, extensions)
    });
    let addresses = exchange.caller(None).addresses;
    ext_authz::grpc(&exchange.worker, service, &question, addresses).await
}

async fn by_http(
    exchange: &Exchange,
    filter: &ExtAuthz,
    service: &HttpService,
    body: Option<Body>,
) -> Decision {
    let Some(cluster) = exchange.worker.shared.snapshot.load().cluster(&service.cluster).cloned() else {
        return Decision::Fail(format!("there is no cluster {}", service.cluster));
    };
    let (path, mut headers) = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        let render = |format: &_| edits::render(exchange, format);
        check::head(&view, service, &filter.headers, body.as_ref(), render)
    });
    let Ok(path) = PathAndQuery::try_from(path) else {
        return Decision::Fail("the request's path cannot be sent".to_owned());
    };
    call::mark(&mut headers, service.timeout);
    let mut head = Request::new(());
    *head.method_mut() = match exchange.head.method {
        // A check is no tunnel.
        Method::CONNECT => Method::GET,
        ref method => method.clone(),
    };
    *head.version_mut() = Version::HTTP_2;
    *head.uri_mut() = absolute_uri(exchange.head.scheme, exchange.head.authority_value(), Some(&path));
    *head.headers_mut() = headers;
    let question = Question {
        head,
        body: body.map(|body| body.bytes).unwrap_or_default(),
        grpc: false,
        caller: exchange.caller(None),
    };
    match ext_authz::within(service.timeout, call::ask(&exchange.worker, &cluster, question)).await {
        Ok(answer) => answer::of_http(answer.status, &answer.headers, answer.body, &service.answer),
        Err(reason) => Decision::Fail(reason),
    }
}

fn apply(exchange: &mut Exchange, changes: Changes, outcome: &mut Outcome) -> Result<(), Failure> {
    let path = changes.path(exchange.head.path());
    let head = &mut exchange.head;
    let mut fresh: Vec<http::HeaderName> = Vec::new();
    for (name, value) in changes.set {
        match name {
            // Several of one name are all meant.
            HeaderRef::Named(name) if fresh.contains(&name) => drop(head.headers.append(name, value)),
            HeaderRef::Named(name) => {
                head.headers.insert(name.clone(), value);
                fresh.push(name);
            }
            HeaderRef::Authority => {
                head.set_authority(std::str::from_utf8(value.as_bytes()).map_err(|_| Failure::MissingHost)?);
            }
            HeaderRef::Path => {
                head.set_path(std::str::from_utf8(value.as_bytes()).map_err(|_| Failure::BadPath)?)?;
            }
            HeaderRef::Method => {
                head.method = Method::from_bytes(value.as_bytes()).map_err(|_| Failure::BadPath)?;
            }
            HeaderRef::Scheme => {}
        }
    }
    for (name, value) in changes.append {
        let Some(old) = head.headers.get(&name) else { continue };
        let joined = [old.as_bytes(), b",", value.as_bytes()].concat();
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            head.headers.insert(name, joined);
        }
    }
    for name in &changes.remove {
        head.headers.remove(name);
    }
    if let Some(path) = path {
        head.set_path(&path)?;
    }
    if let Some(metadata) = changes.metadata {
        head.keep(HTTP_METADATA, metadata.fields);
    }
    outcome.response_changes.extend(changes.response);
    Ok(())
}

fn denied(mut exchange: Box<Exchange>, filter: &ExtAuthz, denial: Denial) -> Response<ResponseBody> {
    if let (Some(cluster), true) = (&exchange.cluster, filter.charges_cluster) {
        cluster.stats.count_status(denial.status);
    }
    if let Some(metadata) = denial.metadata {
        exchange.head.keep(HTTP_METADATA, metadata.fields);
    }
    let status = StatusCode::from_u16(denial.status).unwrap_or(StatusCode::FORBIDDEN);
    reply::unauthorized(exchange, status, denial.headers, denial.body, DENIED)
}

fn failed(exchange: Box<Exchange>, filter: &ExtAuthz) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(filter.status_on_error).unwrap_or(StatusCode::FORBIDDEN);
    reply::unauthorized(exchange, status, HeaderMap::new(), bytes::Bytes::new(), ERROR)
}
