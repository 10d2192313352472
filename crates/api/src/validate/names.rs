//! Names, addresses, ports, headers, durations: what each may look like.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use lateen_base::Host;
use lateen_base::re2::Regex;

use super::Problems;
use super::path::Path;

type Check = Result<(), String>;

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// A DNS-1123 label in lower case, such as a namespace.
pub(super) fn dns_label(text: &str) -> Check {
    if is_label(text) && !text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(format!(
        "invalid value {text:?}: must be a DNS label: lower case letters, digits and '-', at most 63"
    ))
}

/// A label that may have capitals, such as the name of a port or subset.
pub(super) fn label(what: &str, text: &str) -> Check {
    if is_label(text) { Ok(()) } else { Err(format!("{what} {text:?} is invalid: it is no DNS label")) }
}

/// The name of an object.
pub(super) fn dns_subdomain(text: &str) -> Check {
    let good = |part: &str| {
        let bytes = part.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    if text.len() <= 253 && text.split('.').all(good) {
        return Ok(());
    }
    Err(format!("invalid name {text:?}: lower case letters, digits, '-' and '.', at most 253"))
}

fn domain_length(text: &str) -> Check {
    match text.len() {
        0 => Err("empty domain name not allowed".to_owned()),
        1..=255 => Ok(()),
        _ => Err(format!("domain name {text:?} too long (max 255)")),
    }
}

/// A full name; a trailing dot is allowed.
pub(super) fn fqdn(text: &str) -> Check {
    domain_length(text)?;
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels: Vec<&str> = name.split('.').collect();
    for label in &labels {
        if !is_label(label) {
            return Err(format!("domain name {text:?} invalid (label {label:?} invalid)"));
        }
    }
    match labels.last() {
        Some(top) if top.bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("domain name {text:?} invalid (top level domain {top:?} cannot be all-numeric)"))
        }
        _ => Ok(()),
    }
}

/// A full name, or one with a wildcard at its beginning: `*`, `*.foo`, `*-foo.bar`, `*foo.bar`.
pub(super) fn wildcard_domain(text: &str) -> Check {
    domain_length(text)?;
    let (first, rest) = match text.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    let Some(tail) = first.strip_prefix('*') else { return fqdn(text) };
    let tail = tail.strip_prefix('-').unwrap_or(tail);
    if (first != "*" && !is_label(tail)) || rest.is_some_and(|rest| fqdn(rest).is_err()) {
        return Err(format!("wildcard domain name {text:?} invalid (label {first:?} invalid)"));
    }
    Ok(())
}

/// Whether a wildcard stands before a part of a label, such as `*foo.com`.
pub(super) fn is_partial_wildcard(text: &str) -> bool {
    text.starts_with('*') && text.len() > 1 && !text.starts_with("*.")
}

/// A host of a virtual service that gateways apply: with TLS routes also the SNI of a cluster.
pub(super) fn gateway_domain(text: &str, sni: bool) -> Check {
    domain_length(text)?;
    if !(sni && text.starts_with("outbound_")) {
        return wildcard_domain(text).map_err(|_| format!("invalid domain {text:?}"));
    }
    let wrong = format!("domain name {text} invalid, should follow 'outbound_.<PORT>_._.<HOSTNAME>' format");
    let parts: Vec<&str> = text.splitn(4, '.').collect();
    match parts[..] {
        ["outbound_", port, subset, host]
            if port.ends_with('_') && subset.ends_with('_') && !host.is_empty() =>
        {
            wildcard_domain(host).map_err(|_| wrong)
        }
        _ => Err(wrong),
    }
}

/// An address.
pub(super) fn ip(text: &str) -> Check {
    text.parse::<IpAddr>().map(|_| ()).map_err(|_| format!("{text} is not a valid IP"))
}

/// An address, perhaps with a prefix length.
pub(super) fn subnet(text: &str) -> Check {
    if text.contains('/') {
        return text.parse::<IpNet>().map(|_| ()).map_err(|_| format!("invalid CIDR address: {text}"));
    }
    ip(text)
}

/// A Unix domain socket without its `unix://`.
pub(super) fn unix_address(path: &str) -> Check {
    if path.is_empty() {
        return Err("unix address must not be empty".to_owned());
    }
    if path.starts_with('@') {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err(format!("{path} is not an absolute path"));
    }
    if path.ends_with('/') {
        return Err(format!("{path} is not a file"));
    }
    Ok(())
}

/// A port number.
pub(super) fn port(number: i64) -> Check {
    if (1..=65535).contains(&number) {
        return Ok(());
    }
    Err(format!("port number {number} must be in the range 1..65535"))
}

/// The name of a port.
pub(super) fn port_name(name: &str) -> Check {
    if is_label(name) { Ok(()) } else { Err(format!("invalid port name: {name}")) }
}

/// Protocols by their names, in any case.
pub(super) const PROTOCOLS: &[&str] = &[
    "HTTP",
    "HTTP_PROXY",
    "HTTP2",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "TCP",
    "TLS",
    "UDP",
    "MONGO",
    "REDIS",
    "MYSQL",
    "HBONE",
    "DOUBLEHBONE",
];

/// A protocol of a port; unset where `optional`.
pub(super) fn protocol(text: &str, optional: bool) -> Check {
    let upper = text.to_ascii_uppercase();
    if PROTOCOLS.contains(&upper.as_str()) || (optional && text.is_empty()) {
        return Ok(());
    }
    Err(format!(
        "invalid protocol {text:?}, supported protocols are HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, MONGO, REDIS, MYSQL, TCP, TLS"
    ))
}

/// Whether a protocol is HTTP in some form, and not inside TLS.
pub(super) fn is_http(protocol: &str) -> bool {
    let upper = protocol.to_ascii_uppercase();
    ["HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB"].contains(&upper.as_str())
}

/// Whether a protocol is inside TLS.
pub(super) fn is_tls(protocol: &str) -> bool {
    let upper = protocol.to_ascii_uppercase();
    ["HTTPS", "TLS"].contains(&upper.as_str())
}

/// A header's name; pseudo headers such as `:authority` may begin with a colon.
pub(super) fn header_name(name: &str) -> Check {
    if name.is_empty() {
        return Err("header name cannot be empty".to_owned());
    }
    let plain = name.strip_prefix(':').unwrap_or(name);
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !plain.is_empty() && plain.bytes().all(token) {
        return Ok(());
    }
    Err(format!("header name {name} is not a valid header name"))
}

/// A header's name of letters, digits, `-` and `_` alone.
pub(super) fn strict_header_name(name: &str) -> Check {
    if name.is_empty() {
        return Err("header name cannot be empty".to_owned());
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Ok(());
    }
    Err(format!("header name {name} is not a valid header name"))
}

/// A header's value, in which `%` begins a command of Envoy's or another `%`.
pub(super) fn header_value(value: &str) -> Check {
    let wrong = || format!("header value configuration {value:?} is invalid: a single '%' (write '%%'?)");
    let mut rest = value;
    while let Some(start) = rest.find('%') {
        let tail = &rest[start + 1..];
        if let Some(escaped) = tail.strip_prefix('%') {
            rest = escaped;
            continue;
        }
        let name =
            tail.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_').count();
        let mut after = &tail[name..];
        if name == 0 {
            return Err(wrong());
        }
        if after.starts_with('(') {
            after = after.split_once(')').ok_or_else(wrong)?.1;
        }
        if let Some(length) = after.strip_prefix(':') {
            after = length.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        rest = after.strip_prefix('%').ok_or_else(wrong)?;
    }
    Ok(())
}

/// A status.
pub(super) fn http_status(status: i64) -> Check {
    if (200..=600).contains(&status) {
        return Ok(());
    }
    Err(format!("HTTP status {status} is not in range 200-600"))
}

/// A duration of whole milliseconds, and one at least.
pub(super) fn duration(value: Duration) -> Check {
    if value < Duration::from_millis(1) {
        return Err("duration must be greater than 1ms".to_owned());
    }
    if !value.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("only durations to ms precision are supported".to_owned());
    }
    Ok(())
}

/// Checks a duration, if it is there.
pub(super) fn maybe_duration(value: Option<Duration>, at: &Path<'_>, out: &mut Problems) {
    if let Some(value) = value {
        out.check(at, duration(value));
    }
}

/// Part of a hundred.
pub(super) fn percentage(value: f64) -> Check {
    if !(0.0..=100.0).contains(&value) || (value > 0.0 && value < 0.0001) {
        return Err(format!("percentage {value} is not in range 0.0001..100 (or 0)"));
    }
    Ok(())
}

/// A whole part of a hundred.
pub(super) fn percent(value: i64) -> Check {
    if (0..=100).contains(&value) {
        Ok(())
    } else {
        Err(format!("percentage {value} is not in range 0..100"))
    }
}

/// A regular expression, as RE2 has them.
pub(super) fn regex(text: &str) -> Check {
    Regex::whole(text).map(drop).map_err(|error| {
        let reason = error.to_string();
        format!("invalid regular expression {text:?}: {}", reason.lines().last().unwrap_or_default())
    })
}

/// Labels of workloads.
pub(super) fn labels(labels: &BTreeMap<String, String>, at: &Path<'_>, out: &mut Problems) {
    for (key, value) in labels {
        let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
        out.error_if(!is_label_word(name), &at.entry(key), format!("invalid label key: {key:?}"));
        let good = value.is_empty() || is_label_word(value);
        out.error_if(!good, &at.entry(key), format!("invalid label value: {value:?}"));
    }
}

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// The namespaces that an object is visible to.
pub(super) fn export_to(namespaces: &[String], service: bool, at: &Path<'_>, out: &mut Problems) {
    for (i, namespace) in namespaces.iter().enumerate() {
        let at = &at.item(i);
        match namespace.as_str() {
            "*" | "." => {}
            "~" if service => {}
            "~" => out.error(at, "export_to: '~' (none) is only for services"),
            name => out.check(at, dns_label(name)),
        }
        let twice = namespaces[..i].contains(namespace);
        out.error_if(twice, at, format!("duplicate entries in exportTo: {namespace}"));
    }
    let has = |one: &str| namespaces.iter().any(|namespace| namespace == one);
    out.error_if(
        has("*") && namespaces.len() > 1,
        at,
        "cannot have both public and private visibility: '*' stands alone",
    );
    out.error_if(
        has("~") && namespaces.len() > 1,
        at,
        "cannot export service entry to no one (~) and someone",
    );
}

/// Whether two hosts stand for a name in common.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    Host::new(a).matches(&Host::new(b))
}

/// The last part of host and port.
pub(super) fn host_port(text: &str) -> Check {
    let (host, number) =
        text.rsplit_once(':').ok_or_else(|| format!("unable to parse {text:?}: missing port"))?;
    let number: i64 = number.parse().map_err(|_| format!("invalid port in {text:?}"))?;
    port(number)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if ip(host).is_ok() || fqdn(host).is_ok() { Ok(()) } else { Err(format!("invalid host in {text:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        for good in ["*", "*.foo.com", "*-foo.bar.com", "*foo.bar", "a.b.", "reviews"] {
            assert!(wildcard_domain(good).is_ok(), "{good}");
        }
        for bad in ["", "foo*.bar", "foo.*.com", "1.1.1.1", "a..b", "-a", "b@d", "*.*"] {
            assert!(wildcard_domain(bad).is_err(), "{bad}");
        }
        assert!(gateway_domain("outbound_.80_._.e2e.foo.mesh", true).is_ok());
        assert!(gateway_domain("outbound_.80_._", true).is_err());
    }

    #[test]
    fn header_values_are_envoy_formats() {
        for good in ["a", "%HOSTNAME%", "100%% sure", "p %REQ(X-Y?Z):10% s", ""] {
            assert!(header_value(good).is_ok(), "{good}");
        }
        for bad in ["abc%123", "%HOSTNAME", "%", "% %"] {
            assert!(header_value(bad).is_err(), "{bad}");
        }
    }
}
