//! Phase: HTTP filters, in the manager's order, each with what the route overrides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Response};
use lateen_route::RouteTable;
use lateen_route::header_edits::AppendAction;
use lateen_route::http_manager::{
    Abort, AbortStatus, Compressor, CorsPolicy, FaultPolicy, FilterOverride, HeaderMetadata, HttpFilterKind,
};
use lateen_route::network::FilterStateValue;
use lateen_route::routes::{Forward, Route, VirtualHost, WeightedCluster};

use super::arriving::Arriving;
use super::body::ResponseBody;
use super::compression::Compression;
use super::exchange::Exchange;
use super::grpc_web::GrpcWeb;
use super::head::Head;
use super::serve::choose;
use super::{edits, ext_authz, on_demand, rate_limit, rbac, reply, tokens};
use crate::failure::Failure;
use crate::flags::Flags;

/// What filters left for later phases.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Headers of the response, by CORS.
    pub response_headers: Option<Box<HeaderMap>>,
    /// Changes to the response's headers, by an authorization service.
    pub response_changes: Vec<(HeaderName, HeaderValue, AppendAction)>,
    /// Application protocols for upstream TLS, by `set_filter_state`.
    pub upstream_protocols: Option<Arc<str>>,
}

/// The route, and what it says about filters.
pub(crate) struct RouteContext<'t> {
    /// The routes.
    pub table: &'t RouteTable,
    /// The virtual host.
    pub virtual_host: &'t VirtualHost,
    /// The route.
    pub route: &'t Route,
    /// Its action, where it forwards.
    pub forward: Option<&'t Forward>,
    /// The weighted cluster.
    pub pick: Option<&'t WeightedCluster>,
    /// The name of the cluster it goes to.
    pub cluster: Arc<str>,
}

impl Outcome {
    /// More headers of the response.
    pub(crate) fn add_response_headers(&mut self, headers: HeaderMap) {
        if !headers.is_empty() {
            self.response_headers.get_or_insert_default().extend(headers);
        }
    }
}

/// Faults under way in the process, for `max_active_faults`.
static ACTIVE_FAULTS: AtomicU32 = AtomicU32::new(0);

/// Runs the filters.
///
/// # Errors
/// The answer of the filter that stopped the request.
pub(crate) async fn run<'t>(
    mut exchange: Box<Exchange>,
    mut route: RouteContext<'t>,
    body: &mut Arriving,
) -> Result<(Box<Exchange>, RouteContext<'t>, Outcome), Box<Response<ResponseBody>>> {
    let manager = exchange.manager.clone();
    let mut outcome = Outcome::default();
    for (filter, figures) in manager.compiled.filters.iter().zip(&manager.figures) {
        let given =
            route.table.filter_override(&filter.name, route.virtual_host, Some(route.route), route.pick);
        match given {
            Some(FilterOverride::Disabled) => continue,
            None if filter.disabled => continue,
            _ => {}
        }
        match &filter.kind {
            HttpFilterKind::Fault(own) => {
                let policy = match given {
                    Some(FilterOverride::Fault(policy)) => policy,
                    _ => own,
                };
                if policy.delay.is_some() || policy.abort.is_some() {
                    exchange = Box::pin(fault(exchange, policy, &route.cluster)).await?;
                }
            }
            HttpFilterKind::Cors => {
                if let Some(FilterOverride::Cors(policy)) = given {
                    exchange = cors(exchange, policy, &mut outcome)?;
                }
            }
            HttpFilterKind::Rbac(own) => {
                let rules = match given {
                    Some(FilterOverride::Rbac(None)) => continue,
                    Some(FilterOverride::Rbac(Some(rules))) => rules,
                    _ => own,
                };
                exchange = rbac::judge(exchange, rules, figures)?;
            }
            HttpFilterKind::Jwt(filter) => {
                let named = match given {
                    Some(FilterOverride::Jwt(name)) => Some(&**name),
                    _ => None,
                };
                let anew;
                (exchange, anew) = tokens::validate(exchange, filter, named)?;
                if anew {
                    route = match choose(&mut exchange, route.table) {
                        Ok(route) => route,
                        Err(unrouted) => return Err(Box::new(unrouted.answer(exchange))),
                    };
                }
            }
            HttpFilterKind::ExtAuthz(own) => {
                let settings = match given {
                    Some(FilterOverride::ExtAuthz(settings)) => Some(&**settings),
                    _ => None,
                };
                let checking = ext_authz::check(exchange, own, settings, figures, body, &mut outcome);
                let anew;
                (exchange, anew) = Box::pin(checking).await?;
                if anew {
                    route = match choose(&mut exchange, route.table) {
                        Ok(route) => route,
                        Err(unrouted) => return Err(Box::new(unrouted.answer(exchange))),
                    };
                }
            }
            HttpFilterKind::LocalRateLimit(own) => {
                let rules = match given {
                    Some(FilterOverride::LocalRateLimit(rules)) => rules,
                    _ => own,
                };
                exchange = rate_limit::limit(exchange, rules, &route, &mut outcome)?;
            }
            HttpFilterKind::OnDemand(own) => {
                let rules = match given {
                    Some(FilterOverride::OnDemand(rules)) => rules,
                    _ => own,
                };
                if let Some(rules) = rules {
                    Box::pin(on_demand::fetch(&mut exchange, *rules, &route.cluster)).await;
                }
            }
            HttpFilterKind::GrpcWeb => {
                exchange.grpc_web = GrpcWeb::request(&mut exchange.head.headers);
            }
            HttpFilterKind::HeaderMetadata(own) => {
                let rules = match given {
                    Some(FilterOverride::HeaderMetadata(rules)) => rules,
                    _ => own,
                };
                header_metadata(&mut exchange.head, rules);
            }
            HttpFilterKind::Compressor(rules) => {
                if rules.enabled.hits(exchange.entropy.draw(0x677a_6970)) {
                    compression(&mut exchange, rules);
                }
            }
            HttpFilterKind::SetFilterState(own) => {
                let values = match given {
                    Some(FilterOverride::SetFilterState(values)) => values,
                    _ => own,
                };
                set_filter_state(&exchange, values, &mut outcome);
            }
            // What they do is either done elsewhere or has no effect on the request's way.
            HttpFilterKind::Router(_)
            | HttpFilterKind::DynamicForwardProxy
            | HttpFilterKind::GrpcStats
            | HttpFilterKind::IstioPeerMetadata(_)
            | HttpFilterKind::IstioAlpn(_)
            | HttpFilterKind::IstioStats(_) => {}
        }
    }
    Ok((exchange, route, outcome))
}

/// Keeps what the client says of compression for its response.
fn compression(exchange: &mut Exchange, rules: &Arc<Compressor>) {
    let headers = &mut exchange.head.headers;
    let taken = Compressor::is_taken(headers.get(header::ACCEPT_ENCODING));
    if rules.remove_accept_encoding {
        headers.remove(header::ACCEPT_ENCODING);
    }
    exchange.compression = Some(Box::new(Compression { rules: rules.clone(), taken }));
}

fn header_metadata(head: &mut Head, rules: &HeaderMetadata) {
    for (namespace, key, value) in rules.apply(&mut head.headers) {
        let metadata = head.metadata.get_or_insert_default();
        let own = metadata.filter_metadata.entry(namespace.to_owned()).or_default();
        own.fields.insert(key.to_owned(), value);
    }
}

/// Values that upstream connections are to see.
fn set_filter_state(exchange: &Exchange, values: &[FilterStateValue], outcome: &mut Outcome) {
    for value in values {
        if let Some(text) = value.protocols(|format| edits::render(exchange, format)) {
            outcome.upstream_protocols = Some(text);
        }
    }
}

/// A fault under way.
struct ActiveFault;

impl ActiveFault {
    fn start(max: Option<u32>) -> Option<Self> {
        let before = ACTIVE_FAULTS.fetch_add(1, Ordering::Relaxed);
        let fault = Self;
        max.is_none_or(|max| before < max).then_some(fault)
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        ACTIVE_FAULTS.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn fault(
    mut exchange: Box<Exchange>,
    policy: &FaultPolicy,
    cluster: &str,
) -> Result<Box<Exchange>, Box<Response<ResponseBody>>> {
    let matches = exchange.down.with_view(|connection| {
        let view = exchange.head.view(connection, exchange.remote);
        policy.headers.iter().all(|matcher| matcher.matches(&view))
    });
    if !matches || policy.upstream_cluster.as_ref().is_some_and(|wanted| **wanted != *cluster) {
        return Ok(exchange);
    }
    let Some(_active) = ActiveFault::start(policy.max_active) else { return Ok(exchange) };
    if let Some(delay) = policy.delay
        && delay.share.hits(exchange.entropy.draw(0x6465_6c61))
        && delay.duration > Duration::ZERO
    {
        exchange.flags.add(Flags::DELAY_INJECTED);
        let pulse = exchange.pulse.clone();
        if let Err(why) = pulse.guard(tokio::time::sleep(delay.duration)).await {
            let failure = Failure::Expired(why, pulse.complete.get());
            return Err(Box::new(reply::failure(exchange, &failure)));
        }
    }
    match &policy.abort {
        Some(Abort { status, share, body }) if share.hits(exchange.entropy.draw(0x6162_6f72)) => {
            Err(Box::new(match *status {
                AbortStatus::Http(code) => {
                    let status =
                        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::SERVICE_UNAVAILABLE);
                    reply::failure(exchange, &Failure::FaultAbort(status, body.clone()))
                }
                AbortStatus::Grpc(code) => reply::grpc_abort(exchange, code),
            }))
        }
        _ => Ok(exchange),
    }
}

fn cors(
    exchange: Box<Exchange>,
    policy: &CorsPolicy,
    outcome: &mut Outcome,
) -> Result<Box<Exchange>, Box<Response<ResponseBody>>> {
    let Some(origin) = exchange.head.headers.get(header::ORIGIN).cloned() else { return Ok(exchange) };
    if !policy.enabled.hits(exchange.entropy.draw(0x636f_7273)) {
        return Ok(exchange);
    }
    let allowed = policy.origins.iter().any(|matcher| matcher.matches(origin.as_bytes()));
    let preflight = exchange.head.method == Method::OPTIONS
        && exchange.head.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !allowed {
        let answer = preflight && !policy.forward_not_matching_preflights;
        return if answer {
            Err(Box::new(reply::preflight(exchange, HeaderMap::new())))
        } else {
            Ok(exchange)
        };
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if policy.allow_credentials {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    let mut set = |name: HeaderName, text: &str| {
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(text)) {
            headers.insert(name, value);
        }
    };
    if preflight {
        set(header::ACCESS_CONTROL_ALLOW_METHODS, &policy.allow_methods);
        set(header::ACCESS_CONTROL_ALLOW_HEADERS, &policy.allow_headers);
        set(header::ACCESS_CONTROL_MAX_AGE, &policy.max_age);
    }
    set(header::ACCESS_CONTROL_EXPOSE_HEADERS, &policy.expose_headers);
    if preflight {
        return Err(Box::new(reply::preflight(exchange, headers)));
    }
    outcome.add_response_headers(headers);
    Ok(exchange)
}
