//! Routes of HTTP traffic.

use std::collections::BTreeMap;
use std::time::Duration;

use super::names;
use super::path::Path;
use super::virtual_service::{destination, gateways, weights};
use super::{Problems, delegation};
use crate::grpc_status;
use crate::kinds::virtual_service::{
    CorsPolicy, FaultAbort, FaultDelay, HeaderOperations, Headers, HttpBody, HttpDirectResponse,
    HttpFaultInjection, HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, StringMatch,
};

/// What a route is part of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// A virtual service with hosts.
    Independent,
    /// A virtual service without.
    Delegate,
}

/// The claims of a JWT as if they were headers.
const CLAIMS: &str = "@request.auth.claims";

pub(super) fn route(route: &HttpRoute, kind: RouteKind, gateway: bool, at: &Path<'_>, out: &mut Problems) {
    if route.delegate.is_some() && kind == RouteKind::Delegate {
        return out.error(&at.field("delegate"), "delegate HTTP route cannot contain delegate");
    }
    delegation::root(route, at, out);
    conflicts(route, at, out);
    for (i, condition) in route.r#match.iter().enumerate() {
        matches(condition, gateway, &at.field("match").item(i), out);
    }
    for (i, to) in route.route.iter().enumerate() {
        let at = &at.field("route");
        let at = &at.item(i);
        destination(&to.destination, &at.field("destination"), out);
        headers(to.headers.as_ref(), &at.field("headers"), out);
    }
    weights(route.route.iter().map(|to| to.weight), &at.field("route"), out);
    headers(route.headers.as_ref(), &at.field("headers"), out);
    mirrors(route, at, out);
    redirect(route.redirect.as_ref(), &at.field("redirect"), out);
    direct_response(route.direct_response.as_ref(), &at.field("directResponse"), out);
    rewrite(route.rewrite.as_ref(), &at.field("rewrite"), out);
    authority(route, at, out);
    names::maybe_duration(route.timeout, &at.field("timeout"), out);
    if let Some(retries) = &route.retries {
        retry(retries, &at.field("retries"), out);
    }
    fault(route.fault.as_ref(), &at.field("fault"), out);
    cors(route.cors_policy.as_ref(), &at.field("corsPolicy"), out);
}

fn conflicts(route: &HttpRoute, at: &Path<'_>, out: &mut Problems) {
    let set = [
        ("route", !route.route.is_empty()),
        ("fault", route.fault.is_some()),
        ("rewrite", route.rewrite.is_some()),
        ("direct_response", route.direct_response.is_some()),
    ];
    let conflicting = |with: &str, fields: &[&str]| {
        let there = set.iter().filter(|(name, there)| *there && fields.contains(name));
        there.map(|(name, _)| format!("HTTP route cannot contain both {name} and {with}")).collect::<Vec<_>>()
    };
    let wrong = if route.redirect.is_some() {
        conflicting("redirect", &["route", "fault", "rewrite", "direct_response"])
    } else if route.direct_response.is_some() {
        conflicting("direct_response", &["route", "rewrite"])
    } else if route.route.is_empty() && route.delegate.is_none() {
        vec!["HTTP route, redirect or direct_response is required".to_owned()]
    } else {
        Vec::new()
    };
    wrong.into_iter().for_each(|message| out.error(at, message));
    let both = route.mirror.is_some() && !route.mirrors.is_empty();
    out.error_if(both, at, "HTTP route cannot contain both mirror and mirrors");
}

fn string_match(condition: &StringMatch, at: &Path<'_>, out: &mut Problems) {
    match condition {
        StringMatch::Prefix(text) if text.is_empty() => {
            out.error(at, "prefix string match should not be empty")
        }
        StringMatch::Regex(text) if text.is_empty() => {
            out.error(at, "regex string match should not be empty")
        }
        StringMatch::Regex(text) => out.check(at, names::regex(text)),
        _ => {}
    }
}

fn matches(condition: &HttpMatchRequest, gateway: bool, at: &Path<'_>, out: &mut Problems) {
    let texts = [
        ("uri", &condition.uri),
        ("scheme", &condition.scheme),
        ("method", &condition.method),
        ("authority", &condition.authority),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            string_match(text, &at.field(field), out);
        }
    }
    for (field, entries) in [("headers", &condition.headers), ("withoutHeaders", &condition.without_headers)]
    {
        for (name, text) in entries {
            let at = &at.field(field);
            let at = &at.entry(name);
            header_match_name(name, gateway, at, out);
            string_match(text, at, out);
        }
    }
    for (name, text) in &condition.query_params {
        string_match(text, &at.field("queryParams").entry(name), out);
    }
    if condition.port != 0 {
        out.check(&at.field("port"), names::port(condition.port.into()));
    }
    names::labels(&condition.source_labels, &at.field("sourceLabels"), out);
    gateways(&condition.gateways, &at.field("gateways"), out);
    if !condition.source_namespace.is_empty() {
        out.check(&at.field("sourceNamespace"), names::dns_label(&condition.source_namespace));
    }
}

fn header_match_name(name: &str, gateway: bool, at: &Path<'_>, out: &mut Problems) {
    if !name.to_ascii_lowercase().starts_with(CLAIMS) {
        return out.check(at, names::header_name(name));
    }
    let message = format!("JWT claim based routing (key: {name}) is only supported for gateway");
    out.error_if(!gateway, at, message);
}

/// The authority is written once: by the rewrite, or by one header.
fn authority(route: &HttpRoute, at: &Path<'_>, out: &mut Problems) {
    let rewritten =
        route.rewrite.iter().map(|rewrite| &rewrite.authority).filter(|to| !to.is_empty()).count();
    let of = |headers: Option<&Headers>| {
        let operations = headers.and_then(|headers| headers.request.as_ref());
        let names = operations.into_iter().flat_map(|all| all.set.keys().chain(all.add.keys()));
        names.filter(|name| is_authority(name)).count()
    };
    let message = "authority header cannot be set multiple times";
    out.error_if(rewritten + of(route.headers.as_ref()) > 1, &at.field("headers"), message);
    for (i, to) in route.route.iter().enumerate() {
        let several = rewritten + of(to.headers.as_ref()) > 1;
        out.error_if(several, &at.field("route").item(i).field("headers"), message);
    }
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// The name of a header that is changed: no pseudo header but the authority.
fn changed_header(name: &str) -> Result<(), String> {
    if name.starts_with(':') && !is_authority(name) {
        return Err(format!("invalid header {name:?}: header cannot have \":\" prefix"));
    }
    names::header_name(name)
}

fn headers(headers: Option<&Headers>, at: &Path<'_>, out: &mut Problems) {
    let Some(headers) = headers else { return };
    for (field, operations) in [("request", &headers.request), ("response", &headers.response)] {
        if let Some(operations) = operations {
            header_operations(operations, &at.field(field), out);
        }
    }
}

fn header_operations(operations: &HeaderOperations, at: &Path<'_>, out: &mut Problems) {
    for (field, entries) in [("set", &operations.set), ("add", &operations.add)] {
        header_entries(entries, &at.field(field), out);
    }
    for (i, name) in operations.remove.iter().enumerate() {
        out.check(&at.field("remove").item(i), changed_header(name));
    }
}

fn header_entries(entries: &BTreeMap<String, String>, at: &Path<'_>, out: &mut Problems) {
    for (name, value) in entries {
        let at = &at.entry(name);
        out.check(at, changed_header(name));
        out.check(at, names::header_value(value));
    }
}

fn mirrors(route: &HttpRoute, at: &Path<'_>, out: &mut Problems) {
    if let Some(mirror) = &route.mirror {
        destination(mirror, &at.field("mirror"), out);
    }
    for (i, mirror) in route.mirrors.iter().enumerate() {
        let at = &at.field("mirrors");
        let at = &at.item(i);
        destination(&mirror.destination, &at.field("destination"), out);
        if let Some(percent) = &mirror.percentage {
            out.check(&at.field("percentage"), names::percentage(percent.value));
        }
    }
    if let Some(percent) = route.mirror_percent {
        out.check(&at.field("mirrorPercent"), names::percent(percent.into()));
    }
    if let Some(percent) = &route.mirror_percentage {
        out.check(&at.field("mirrorPercentage"), names::percentage(percent.value));
    }
}

fn redirect(redirect: Option<&HttpRedirect>, at: &Path<'_>, out: &mut Problems) {
    let Some(redirect) = redirect else { return };
    let both = !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty();
    out.error_if(both, at, "redirect may only specify one of uri or prefix_rewrite");
    let nothing = redirect.uri.is_empty()
        && redirect.prefix_rewrite.is_empty()
        && redirect.authority.is_empty()
        && redirect.scheme.is_empty()
        && redirect.port.is_none()
        && redirect.derive_port.is_none();
    out.error_if(nothing, at, "redirect must specify URI, authority, scheme, port or prefix_rewrite");
    if let Some(port) = redirect.port {
        out.check(&at.field("port"), names::port(port.into()));
    }
    let code = redirect.redirect_code;
    let message = format!("{code} is not a valid redirect code, must be in 300..399");
    out.error_if(code != 0 && !(300..=399).contains(&code), &at.field("redirectCode"), message);
    let scheme = redirect.scheme.to_ascii_lowercase();
    let known = ["", "http", "https"].contains(&scheme.as_str());
    out.error_if(!known, &at.field("scheme"), "invalid redirect scheme, must be one of http, https");
}

fn direct_response(response: Option<&HttpDirectResponse>, at: &Path<'_>, out: &mut Problems) {
    const WARN: usize = 100 * 1024;
    const MOST: usize = 1024 * 1024;
    let Some(response) = response else { return };
    out.check(&at.field("status"), names::http_status(response.status.into()));
    let size = match &response.body {
        Some(HttpBody::String(text)) => text.len(),
        Some(HttpBody::Bytes(bytes)) => bytes.0.len(),
        _ => 0,
    };
    if size > MOST {
        out.error(&at.field("body"), format!("response body size {size} must not exceed {MOST} bytes (1MB)"));
    } else if size > WARN {
        out.warn(
            &at.field("body"),
            format!("large response body ({size} bytes) may cause performance problems"),
        );
    }
}

fn rewrite(rewrite: Option<&HttpRewrite>, at: &Path<'_>, out: &mut Problems) {
    let Some(rewrite) = rewrite else { return };
    let regex = rewrite.uri_regex_rewrite.is_some();
    let message = "rewrite must specify at least one of URI, UriRegexRewrite, or Authority. Only one of URI or UriRegexRewrite may be specified";
    let nothing = rewrite.uri.is_empty() && rewrite.authority.is_empty() && !regex;
    out.error_if(nothing || (regex && !rewrite.uri.is_empty()), at, message);
    if let Some(by) = &rewrite.uri_regex_rewrite {
        let at = &at.field("uriRegexRewrite");
        let missing = by.r#match.is_empty() || by.rewrite.is_empty();
        out.error_if(missing, at, "uriRegexRewrite requires both Rewrite and Match fields to be specified");
        out.check(&at.field("match"), names::regex(&by.r#match));
    }
}

/// The conditions that retries know beside statuses.
const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// How failed requests are tried again, of a route or of the mesh.
pub(super) fn retry(retry: &HttpRetry, at: &Path<'_>, out: &mut Problems) {
    out.error_if(retry.attempts < 0, &at.field("attempts"), "attempts cannot be negative");
    let more = retry.per_try_timeout.is_some()
        || !retry.retry_on.is_empty()
        || retry.retry_remote_localities.is_some()
        || retry.backoff.is_some()
        || retry.retry_ignore_previous_hosts.is_some();
    let message = "http retry policy configured when attempts are set to 0 (disabled)";
    out.error_if(retry.attempts == 0 && more, at, message);
    let positive = |value: Option<Duration>| value.filter(|value| !value.is_zero());
    names::maybe_duration(positive(retry.per_try_timeout), &at.field("perTryTimeout"), out);
    names::maybe_duration(positive(retry.backoff), &at.field("backoff"), out);
    for policy in retry.retry_on.split(',').map(str::trim).filter(|policy| !policy.is_empty()) {
        let checked = match policy.parse::<i64>() {
            Ok(status) if (100..600).contains(&status) => Ok(()),
            Err(_) if RETRY_ON.contains(&policy) => Ok(()),
            _ => Err(format!("{policy:?} is not a valid retryOn policy")),
        };
        out.check(&at.field("retryOn"), checked);
    }
}

fn fault(fault: Option<&HttpFaultInjection>, at: &Path<'_>, out: &mut Problems) {
    let Some(fault) = fault else { return };
    let nothing = fault.abort.is_none() && fault.delay.is_none();
    out.error_if(nothing, at, "HTTP fault injection must have an abort and/or a delay");
    if let Some(abort) = &fault.abort {
        fault_abort(abort, &at.field("abort"), out);
    }
    if let Some(delay) = &fault.delay {
        fault_delay(delay, &at.field("delay"), out);
    }
}

fn fault_abort(abort: &FaultAbort, at: &Path<'_>, out: &mut Problems) {
    if let Some(percent) = &abort.percentage {
        out.check(&at.field("percentage"), names::percentage(percent.value));
    }
    match (abort.http_status, &abort.grpc_status, &abort.http2_error) {
        (Some(status), _, _) => out.check(&at.field("httpStatus"), names::http_status(status.into())),
        (_, Some(status), _) => {
            let known = grpc_status(status).is_some();
            out.error_if(!known, &at.field("grpcStatus"), format!("gRPC status {status:?} is not supported"));
        }
        (_, _, Some(_)) => {
            out.error(&at.field("http2Error"), "HTTP/2 abort fault injection not supported yet")
        }
        _ => out.error(at, "error type not specified: one of httpStatus, grpcStatus is required"),
    }
}

fn fault_delay(delay: &FaultDelay, at: &Path<'_>, out: &mut Problems) {
    match (delay.fixed_delay, delay.exponential_delay) {
        (Some(fixed), _) => out.check(&at.field("fixedDelay"), names::duration(fixed)),
        (_, Some(_)) => out.error(&at.field("exponentialDelay"), "exponentialDelay not supported yet"),
        _ => out.error(&at.field("fixedDelay"), "is required"),
    }
    match &delay.percentage {
        Some(percent) => out.check(&at.field("percentage"), names::percentage(percent.value)),
        None => out.check(&at.field("percent"), names::percent(delay.percent.into())),
    }
}

/// Methods that a policy of origins may name.
const METHODS: &[&str] =
    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];

fn cors(cors: Option<&CorsPolicy>, at: &Path<'_>, out: &mut Problems) {
    let Some(cors) = cors else { return };
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        let at = &at.field("allowOrigins");
        let at = &at.item(i);
        let empty = matches!(origin, StringMatch::Unset) || *origin == StringMatch::Exact(String::new());
        out.error_if(empty, at, "'' is not a valid match type for CORS allow origins");
        string_match(origin, at, out);
    }
    for (i, method) in cors.allow_methods.iter().enumerate() {
        let known = METHODS.contains(&method.as_str());
        let message = format!("{method:?} is not a supported HTTP method");
        out.error_if(!known, &at.field("allowMethods").item(i), message);
    }
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        for (i, name) in names.iter().enumerate() {
            out.check(&at.field(field).item(i), names::header_name(name));
        }
    }
    if let Some(age) = cors.max_age {
        let at = &at.field("maxAge");
        out.check(at, names::duration(age));
        out.error_if(age.subsec_nanos() != 0, at, "max_age duration is accurate only to seconds precision");
    }
}
