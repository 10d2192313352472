//! The names by which a virtual host of a service answers.

use std::net::IpAddr;

/// The names of a service as a proxy's application may write them: the host, the host with a trailing dot, and, when host
/// and proxy share a DNS suffix, shorter forms; then the service's addresses. A headless service also has
/// the names of its pods, hence `wildcards`.
pub(crate) fn of_service(host: &str, dns_domain: &str, addresses: &[String], wildcards: bool) -> Vec<String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return vec![bracketed(address)];
    }
    let mut names = vec![host.to_owned(), format!("{host}.")];
    names.extend(short_names(host, dns_domain));
    if wildcards && !host.starts_with('*') {
        let below: Vec<_> = names.iter().map(|name| format!("*.{name}")).collect();
        names.extend(below);
    }
    for address in addresses {
        if let Ok(address) = address.parse::<IpAddr>() {
            names.push(bracketed(address));
        }
    }
    names
}

/// The same names for a listener that many ports share: with the port, and bare where it is HTTP's own.
pub(crate) fn with_port(names: Vec<String>, port: u16) -> Vec<String> {
    let bare = if port == 80 { names.clone() } else { Vec::new() };
    let ported = names.into_iter().map(|name| format!("{name}:{port}"));
    bare.into_iter().chain(ported).collect()
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

fn short_names(host: &str, dns_domain: &str) -> Vec<String> {
    if host.starts_with('*') {
        return Vec::new();
    }
    match dns_domain.split_once(".svc.") {
        Some((namespace, domain)) => kubernetes_names(host, namespace, domain),
        None => shared_suffix_names(host, dns_domain),
    }
}

/// `name.namespace.svc.domain` seen from a namespace of the same domain.
fn kubernetes_names(host: &str, own_namespace: &str, domain: &str) -> Vec<String> {
    let Some(service) = host.strip_suffix(domain).and_then(|head| head.strip_suffix(".svc.")) else {
        return Vec::new();
    };
    let Some((name, namespace)) = service.split_once('.') else { return Vec::new() };
    let qualified = [service.to_owned(), format!("{service}.svc")];
    match namespace == own_namespace {
        true => [name.to_owned()].into_iter().chain(qualified).collect(),
        false => qualified.into(),
    }
}

/// What precedes the suffix that host and proxy share, label by label.
fn shared_suffix_names(host: &str, dns_domain: &str) -> Vec<String> {
    if dns_domain.is_empty() {
        return Vec::new();
    }
    let host_labels: Vec<&str> = host.split('.').collect();
    let domain_labels: Vec<&str> = dns_domain.split('.').collect();
    let shared = host_labels.iter().rev().zip(domain_labels.iter().rev()).take_while(|(a, b)| a == b).count();
    let unique = &host_labels[..host_labels.len() - shared];
    if shared == 0 || unique.is_empty() {
        return Vec::new();
    }
    let mut names = vec![unique.join(".")];
    if unique.len() == 2 {
        names.push(format!("{}.{}", unique.join("."), domain_labels[domain_labels.len() - shared]));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(mut names: Vec<String>) -> Vec<String> {
        names.sort();
        names
    }

    #[test]
    fn kubernetes_services_have_short_names() {
        let names = |domain| sorted(of_service("echo.default.svc.cluster.local", domain, &[], false));
        assert_eq!(
            names("default.svc.cluster.local"),
            [
                "echo",
                "echo.default",
                "echo.default.svc",
                "echo.default.svc.cluster.local",
                "echo.default.svc.cluster.local."
            ]
        );
        assert_eq!(
            names("mesh.svc.cluster.local"),
            [
                "echo.default",
                "echo.default.svc",
                "echo.default.svc.cluster.local",
                "echo.default.svc.cluster.local."
            ]
        );
    }

    #[test]
    fn other_hosts_have_few_names() {
        assert_eq!(
            of_service("foo.default.svc.bar.baz", "default.svc.cluster.local", &[], false),
            ["foo.default.svc.bar.baz", "foo.default.svc.bar.baz."]
        );
        assert_eq!(
            of_service("foo.local.campus.net", "local.campus.net", &[], false),
            ["foo.local.campus.net", "foo.local.campus.net.", "foo"]
        );
        assert_eq!(
            of_service("2406:3003:2064:35b8:864:a648:4b96:e37d", "example.com", &[], false),
            ["[2406:3003:2064:35b8:864:a648:4b96:e37d]"]
        );
    }

    #[test]
    fn addresses_are_names_too() {
        let addresses = ["9.9.9.9".to_owned(), "10.0.0.0/8".to_owned(), "::1".to_owned()];
        assert_eq!(of_service("a.com", "", &addresses, false), ["a.com", "a.com.", "9.9.9.9", "[::1]"]);
        assert_eq!(with_port(vec!["a.com".into()], 80), ["a.com", "a.com:80"],);
        assert_eq!(with_port(vec!["a.com".into()], 81), ["a.com:81"]);
    }
}
