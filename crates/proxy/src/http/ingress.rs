//! Phase: the request's head is cleaned and completed before anything decides by it, as Envoy's connection manager does.

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use lateen_route::http_manager::{ClientCertMode, EscapedSlashes, HttpManager, Underscores};
use lateen_telemetry::trace_context::{SpanContext, TraceReason, request_id, span_id};

use super::exchange::Exchange;
use super::head::Head;
use super::sieve::Sieve;
use crate::downstream::Downstream;
use crate::failure::Failure;

/// Headers that Envoy and Istio define.
pub(crate) mod names {
    use http::HeaderName;

    macro_rules! names {
        ($( $name:ident = $text:literal ),* $(,)?) => {
            $( #[doc = concat!("`", $text, "`")] pub(crate) const $name: HeaderName = HeaderName::from_static($text); )*
        };
    }

    names! {
        ATTEMPT_COUNT = "x-envoy-attempt-count",
        B3 = "b3",
        B3_PARENT = "x-b3-parentspanid",
        B3_SAMPLED = "x-b3-sampled",
        B3_SPAN = "x-b3-spanid",
        B3_TRACE = "x-b3-traceid",
        CLIENT_CERT = "x-forwarded-client-cert",
        DECORATOR = "x-envoy-decorator-operation",
        EXPECTED_TIMEOUT = "x-envoy-expected-rq-timeout-ms",
        EXTERNAL_ADDRESS = "x-envoy-external-address",
        FORWARDED_FOR = "x-forwarded-for",
        FORWARDED_HOST = "x-forwarded-host",
        CLIENT_TRACE = "x-client-trace-id",
        FORWARDED_PORT = "x-forwarded-port",
        FORWARDED_PROTO = "x-forwarded-proto",
        GRPC_STATUS = "grpc-status",
        GRPC_TIMEOUT = "grpc-timeout",
        HTTP2_SETTINGS = "http2-settings",
        INTERNAL = "x-envoy-internal",
        IS_TIMEOUT_RETRY = "x-envoy-is-timeout-retry",
        KEEP_ALIVE = "keep-alive",
        MAX_RETRIES = "x-envoy-max-retries",
        ORIGINAL_HOST = "x-envoy-original-host",
        ORIGINAL_PATH = "x-envoy-original-path",
        OVERLOADED = "x-envoy-overloaded",
        PROXY_CONNECTION = "proxy-connection",
        RATE_LIMITED = "x-envoy-ratelimited",
        REQUEST_ID = "x-request-id",
        RETRY_GRPC_ON = "x-envoy-retry-grpc-on",
        RETRY_ON = "x-envoy-retry-on",
        TIMEOUT = "x-envoy-upstream-rq-timeout-ms",
        TRACEPARENT = "traceparent",
        TRY_TIMEOUT = "x-envoy-upstream-rq-per-try-timeout-ms",
        UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time",
    }
}

/// What only internal clients may ask for.
static INTERNAL_ONLY: [HeaderName; 14] = [
    names::RETRY_ON,
    names::RETRY_GRPC_ON,
    names::MAX_RETRIES,
    names::TIMEOUT,
    names::TRY_TIMEOUT,
    names::EXPECTED_TIMEOUT,
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
];

/// What proxies of the mesh tell one another, and nobody outside may say where the mesh begins.
static MESH_ONLY: [HeaderName; 5] = [
    names::DECORATOR,
    names::ORIGINAL_HOST,
    names::ORIGINAL_PATH,
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
];

/// What comes of a head that was cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// The request goes on.
    Go,
    /// The client is to ask for the cleaned path.
    Redirect,
}

/// Cleans and completes the head.
///
/// # Errors
/// When the request cannot be served as it is.
pub(crate) fn prepare(exchange: &mut Exchange) -> Result<Prepared, Failure> {
    let manager = exchange.manager.clone();
    let settings = &*manager.compiled;
    let head = &mut exchange.head;
    // The HTTP/1 codec counts itself, and answers.
    if head.headers.len() > settings.max_headers as usize {
        return Err(Failure::TooManyHeaders);
    }
    check_underscores(&mut head.headers, settings.underscores)?;
    let sieve = Sieve::of(&head.headers);
    remove_hop_by_hop(&mut head.headers, head.version, sieve);
    clean_host(head, settings, exchange.down.local.port());
    let prepared = clean_path(head, settings)?;
    (exchange.remote, exchange.internal) = client_address(head, settings, &exchange.down);
    if exchange.internal {
        head.headers.insert(names::INTERNAL, HeaderValue::from_static("true"));
    } else {
        for name in INTERNAL_ONLY.iter().chain([&names::INTERNAL]) {
            sieve.remove(&mut head.headers, name);
        }
        if settings.client_address.use_remote_address {
            for name in &MESH_ONLY {
                sieve.remove(&mut head.headers, name);
            }
        }
    }
    if let Some(scheme) = settings.scheme_overwrite {
        head.scheme = scheme;
    }
    forwarded_proto(head, settings, &exchange.down);
    if settings.append_x_forwarded_port
        && !(settings.client_address.trusted_hops > 0 && head.headers.contains_key(names::FORWARDED_PORT))
    {
        head.headers.insert(names::FORWARDED_PORT, HeaderValue::from(exchange.down.local.port()));
    }
    client_cert(head, settings, &exchange.down);
    if let Some(via) = &manager.via {
        head.headers.append(header::VIA, via.clone());
    }
    let sampled = trace(exchange, sieve);
    identify(exchange, sampled);
    Ok(prepared)
}

/// Headers that hold for one hop only (RFC 9110, 7.6.1); upgrades are taken out before.
fn remove_hop_by_hop(headers: &mut HeaderMap, version: Version, sieve: Sieve) {
    if version != Version::HTTP_2 {
        if let Some(connection) = sieve.remove(headers, &header::CONNECTION) {
            for name in connection.to_str().unwrap_or_default().split(',') {
                let name = name.trim();
                // A client must not have our own headers removed.
                if !name.is_empty() && !name.starts_with("x-forwarded") && !name.starts_with("x-envoy") {
                    headers.remove(name);
                }
            }
        }
        for name in [
            names::KEEP_ALIVE,
            names::PROXY_CONNECTION,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
            names::HTTP2_SETTINGS,
        ] {
            sieve.remove(headers, &name);
        }
    }
    if sieve.get(headers, &header::TE).is_some_and(|te| te.as_bytes() != b"trailers") {
        headers.remove(header::TE);
    }
}

fn clean_host(head: &mut Head, settings: &HttpManager, port: u16) {
    let rules = settings.host;
    if !(rules.strip_any_port || rules.strip_matching_port || rules.strip_trailing_dot) {
        return;
    }
    let old = head.authority().to_owned();
    let (mut host, mut suffix) = match old.rsplit_once(':') {
        Some((host, digits)) if !host.ends_with(':') && digits.bytes().all(|b| b.is_ascii_digit()) => {
            (host, &old[host.len()..])
        }
        _ => (old.as_str(), ""),
    };
    if rules.strip_any_port
        || (rules.strip_matching_port && suffix.strip_prefix(':') == Some(&port.to_string()))
    {
        suffix = "";
    }
    if rules.strip_trailing_dot {
        host = host.strip_suffix('.').unwrap_or(host);
    }
    if host.len() + suffix.len() != old.len() {
        head.set_authority(&format!("{host}{suffix}"));
    }
}

/// Names with underscores, which some applications take for others with dashes.
fn check_underscores(headers: &mut HeaderMap, rule: Underscores) -> Result<(), Failure> {
    if rule == Underscores::Allow {
        return Ok(());
    }
    let found: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().contains('_')).cloned().collect();
    if rule == Underscores::Reject && !found.is_empty() {
        return Err(Failure::Underscore);
    }
    for name in found {
        headers.remove(name);
    }
    Ok(())
}

fn clean_path(head: &mut Head, settings: &HttpManager) -> Result<Prepared, Failure> {
    let rules = settings.path;
    let path = head.path();
    let suspicious = path.len() > 1
        && ((rules.normalize && (path.contains("/.") || path.contains('\\') || path.contains('%')))
            || (rules.merge_slashes && path.contains("//"))
            || (rules.escaped_slashes != EscapedSlashes::Keep && path.contains('%')));
    if !suspicious {
        return Ok(Prepared::Go);
    }
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut clean = path.to_owned();
    let mut prepared = Prepared::Go;
    if rules.escaped_slashes != EscapedSlashes::Keep {
        let lower = clean.to_ascii_lowercase();
        if lower.contains("%2f") || lower.contains("%5c") {
            if rules.escaped_slashes == EscapedSlashes::Reject {
                return Err(Failure::BadPath);
            }
            if rules.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
                prepared = Prepared::Redirect;
            }
            clean = clean.replace("%2f", "/").replace("%2F", "/").replace("%5c", "\\").replace("%5C", "\\");
        }
    }
    if rules.normalize {
        clean = normalize(&clean).ok_or(Failure::BadPath)?;
    }
    if rules.merge_slashes {
        while clean.contains("//") {
            clean = clean.replace("//", "/");
        }
    }
    let whole = format!("{clean}{query}");
    head.set_path(&whole)?;
    Ok(prepared)
}

/// RFC 3986, 6.2.2: unreserved characters unescaped, dot segments resolved; backslashes are slashes. Parameters do not
/// hide a dot segment: servers that cut them off take `..;x` for `..`, so both are, as in Envoy. `None` for a path with a broken escape or an escaped NUL.
pub(crate) fn normalize(path: &str) -> Option<String> {
    let mut plain = Vec::with_capacity(path.len());
    let bytes = path.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'\\' => plain.push(b'/'),
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at..at + 2)?).ok()?;
                if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return None;
                }
                let value = u8::from_str_radix(digits, 16).ok()?;
                at += 2;
                match value {
                    0 => return None,
                    b'-' | b'.' | b'_' | b'~' => plain.push(value),
                    value if value.is_ascii_alphanumeric() => plain.push(value),
                    _ => plain.extend_from_slice(&[b'%', bytes[at - 2], bytes[at - 1]]),
                }
            }
            other => plain.push(other),
        }
    }
    let plain = String::from_utf8(plain).ok()?;
    let mut out: Vec<&str> = Vec::new();
    let mut segments = plain.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => out.push(""),
            "." => {}
            segment if segment == ".." || segment.starts_with("..;") => {
                out.pop();
                if last {
                    out.push("");
                }
            }
            segment => out.push(segment),
        }
    }
    Some(format!("/{}", out.join("/")))
}

/// The client's address and whether it is internal; completes `x-forwarded-for`.
fn client_address(head: &mut Head, settings: &HttpManager, down: &Downstream) -> (Option<IpAddr>, bool) {
    let rules = &settings.client_address;
    let forwarded = head.headers.get(names::FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let hops = rules.trusted_hops as usize;
    let nth_last = |n: usize| -> Option<IpAddr> { forwarded?.rsplit(',').nth(n)?.trim().parse().ok() };
    let single = forwarded.is_none_or(|text| !text.contains(','));
    if !rules.use_remote_address {
        let address = nth_last(hops);
        let client = address.unwrap_or_else(|| down.remote.ip());
        let internal = forwarded.is_some() && single && rules.is_internal(client);
        return (address, internal);
    }
    let peer = down.remote.ip();
    let client = if hops > 0 { nth_last(hops - 1).unwrap_or(peer) } else { peer };
    let internal = forwarded.is_none() && rules.is_internal(client);
    if !rules.skip_xff_append {
        // A peer on this machine is known elsewhere by the machine's address.
        let local = matches!(peer, IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
            || peer == std::net::Ipv6Addr::LOCALHOST;
        let peer = if local { crate::downstream::host_address() } else { peer };
        let text = forwarded.map_or_else(|| peer.to_string(), |old| format!("{old},{peer}"));
        if let Ok(value) = HeaderValue::from_str(&text) {
            head.headers.insert(names::FORWARDED_FOR, value);
        }
    }
    if hops == 0 {
        // Only proxies that are trusted may say how the client came.
        head.headers.remove(names::FORWARDED_PROTO);
    }
    if !internal {
        head.headers.remove(names::DECORATOR);
        head.headers.remove(names::ORIGINAL_PATH);
        if let Ok(value) = HeaderValue::from_str(&client.to_string()) {
            head.headers.insert(names::EXTERNAL_ADDRESS, value);
        }
    }
    (Some(client), internal)
}

fn forwarded_proto(head: &mut Head, settings: &HttpManager, down: &Downstream) {
    let ours = settings.scheme_overwrite.unwrap_or(if down.is_tls() { "https" } else { "http" });
    match head.headers.get(names::FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") if settings.scheme_overwrite.is_none() => head.scheme = "https",
        Some(b"http") if settings.scheme_overwrite.is_none() => head.scheme = "http",
        Some(_) => {}
        None => {
            head.headers.insert(names::FORWARDED_PROTO, HeaderValue::from_static(ours));
        }
    }
}

fn client_cert(head: &mut Head, settings: &HttpManager, down: &Downstream) {
    let mutual = down.tls.as_ref().is_some_and(|tls| tls.peer.is_some());
    match (settings.client_cert.mode, mutual) {
        (ClientCertMode::AlwaysForwardOnly, _) | (ClientCertMode::ForwardOnly, true) => {}
        (ClientCertMode::AppendForward | ClientCertMode::SanitizeSet, true) => {
            let Some(ours) = down.client_cert.get_or_init(|| element(settings, down)) else { return };
            let old = head.headers.get(names::CLIENT_CERT);
            let value = match old {
                Some(old) if settings.client_cert.mode == ClientCertMode::AppendForward => {
                    let mut text = old.as_bytes().to_vec();
                    text.push(b',');
                    text.extend_from_slice(ours.as_bytes());
                    HeaderValue::from_bytes(&text).unwrap_or_else(|_| ours.clone())
                }
                _ => ours.clone(),
            };
            head.headers.insert(names::CLIENT_CERT, value);
        }
        _ => drop(head.headers.remove(names::CLIENT_CERT)),
    }
}

/// This connection's part of `x-forwarded-client-cert`.
fn element(settings: &HttpManager, down: &Downstream) -> Option<HeaderValue> {
    let tls = down.tls.as_ref()?;
    let peer = tls.peer.as_ref()?;
    let rules = settings.client_cert;
    let mut parts: Vec<String> = tls.local_uris.iter().map(|uri| format!("By={uri}")).collect();
    parts.push(format!("Hash={}", peer.sha256));
    if rules.cert {
        parts.push(format!("Cert=\"{}\"", peer.url_encoded_pem()));
    }
    if rules.subject {
        parts.push(format!("Subject=\"{}\"", peer.subject));
    }
    if rules.uri {
        parts.push(format!("URI={}", peer.uris.join(",")));
    }
    if rules.dns {
        parts.extend(peer.dns_names.iter().map(|name| format!("DNS={name}")));
    }
    HeaderValue::from_str(&parts.join(";")).ok()
}

/// Makes or continues the trace where tracing is on; whether it is recorded.
fn trace(exchange: &mut Exchange, sieve: Sieve) -> bool {
    let Some(tracing) = &exchange.manager.compiled.tracing else { return false };
    let headers = &mut exchange.head.headers;
    if exchange.manager.inbound {
        // It named the span for this proxy, and is nothing to the application.
        exchange.named = sieve.remove(headers, &names::DECORATOR).is_some();
    }
    let text = |name: &HeaderName| sieve.get(headers, name).and_then(|value| value.to_str().ok());
    let b3 = text(&names::B3_TRACE).zip(text(&names::B3_SPAN)).and_then(|(trace, span)| {
        SpanContext::from_b3(trace, span, text(&names::B3_PARENT), text(&names::B3_SAMPLED))
    });
    let single = text(&names::B3).and_then(SpanContext::from_b3_single);
    let w3c = text(&names::TRACEPARENT).and_then(SpanContext::from_traceparent);
    let worker = &exchange.worker;
    let (context, by_w3c) = match (b3.or(single), w3c) {
        (Some(context), _) => (context.child(worker.random()), false),
        (None, Some(context)) => (context.child(worker.random()), true),
        (None, None) => {
            let asked = sieve.get(headers, &names::CLIENT_TRACE).is_some()
                && tracing.client_sampling.hits(exchange.entropy.draw(0x636c_6965));
            let sampled = (asked || tracing.random_sampling.hits(exchange.entropy.draw(0x7472_6163)))
                && tracing.overall_sampling.hits(exchange.entropy.draw(0x616c));
            let high = if tracing.long_ids { u128::from(worker.random() | 1) << 64 } else { 0 };
            (SpanContext::new(high | u128::from(worker.random()), worker.random(), sampled), false)
        }
    };
    let mut set = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    if by_w3c {
        set(names::TRACEPARENT, context.traceparent());
        return context.sampled;
    }
    set(names::B3_TRACE, context.b3_trace());
    set(names::B3_SPAN, span_id(context.span));
    if let Some(parent) = context.parent {
        set(names::B3_PARENT, span_id(parent));
    }
    set(names::B3_SAMPLED, if context.sampled { "1" } else { "0" }.to_owned());
    context.sampled
}

/// Gives the request an identifier.
fn identify(exchange: &mut Exchange, sampled: bool) {
    let rules = exchange.manager.compiled.request_id;
    let edge = exchange.manager.compiled.client_address.use_remote_address && !exchange.internal;
    let headers = &mut exchange.head.headers;
    if edge && !rules.preserve_external {
        headers.remove(names::REQUEST_ID);
    }
    if !rules.generate || headers.contains_key(names::REQUEST_ID) {
        return;
    }
    let random = (u128::from(exchange.worker.random()) << 64) | u128::from(exchange.worker.random());
    let reason =
        if sampled && rules.pack_trace_reason { TraceReason::Sampled } else { TraceReason::NotTraced };
    if let Ok(value) = HeaderValue::try_from(request_id(random, reason)) {
        headers.insert(names::REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalized() {
        for (path, want) in [
            ("/a/./b/../c", Some("/a/c")),
            ("/a/%2e%2E/b", Some("/b")),
            ("/../../etc", Some("/etc")),
            ("/a/b/..", Some("/a/")),
            ("/a\\b", Some("/a/b")),
            ("/%41%2f", Some("/A%2f")),
            ("/a%", None),
            ("/a%zz", None),
            ("/a%00", None),
            ("/a//b", Some("/a//b")),
            ("/a/..;/b", Some("/b")),
            ("/a/..;x=y/b", Some("/b")),
            ("/a/%2e%2e;/b", Some("/b")),
            ("/a/b..;/..c", Some("/a/b..;/..c")),
        ] {
            assert_eq!(normalize(path).as_deref(), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(path in "/[a-z./;%0-9\\\\]{0,40}") {
            if let Some(once) = normalize(&path) {
                prop_assert!(!once.split('/').any(|segment| segment == ".." || segment == "." || segment.starts_with("..;")));
                // %25 stays escaped, so nothing new can be unescaped.
                prop_assert_eq!(normalize(&once), Some(once.clone()));
            }
        }
    }
}
