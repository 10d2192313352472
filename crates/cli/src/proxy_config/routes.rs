//! Routes.

use serde_json::Value;

use super::dump::Dump;
use super::{items, made_from, row, text};
use crate::commands::CliError;

/// The route configurations, all or the one of a name.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump, name: &str) -> Result<Vec<Value>, CliError> {
    let lists = ["dynamicRouteConfigs", "staticRouteConfigs"];
    let mut routes = dump.resources("RoutesConfigDump", &lists, "/routeConfig")?;
    routes.retain(|route| name.is_empty() || text(route, "/name") == name);
    routes.sort_by_cached_key(|route| {
        let name = text(route, "/name").to_owned();
        (name.parse::<u64>().unwrap_or(0), name)
    });
    Ok(routes)
}

/// The table of routes.
pub(crate) fn table(configs: &[Value]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"])];
    for config in configs {
        let name = text(config, "/name");
        for host in items(config, "/virtualHosts") {
            let vhost = text(host, "/name");
            let domains = domains(host);
            let mut any = false;
            for route in items(host, "/routes") {
                any = true;
                if text(route, "/route/cluster") != "PassthroughCluster" {
                    let service = made_from(route, "virtual-service").unwrap_or_default();
                    rows.push(row([name, vhost, &domains, &condition(&route["match"]), &service]));
                }
            }
            if !any {
                rows.push(row([name, vhost, &domains, "/*", "404"]));
            }
        }
    }
    rows
}

/// The domains, without ports and without the long forms of names that are there in a short one.
fn domains(host: &Value) -> String {
    let all: Vec<&str> = items(host, "/domains").filter_map(Value::as_str).collect();
    if let [one] = all[..] {
        return one.to_owned();
    }
    // Of an HTTP proxy's domains, hosts have a port each; it is the virtual host's own.
    let portless: Vec<&str> = all.iter().filter_map(|domain| Some(domain.rsplit_once(':')?.0)).collect();
    let all = if all.iter().all(|domain| has_port(domain)) { portless } else { all };
    let absolute = |domain: &str| domain.strip_suffix('.').is_some_and(|plain| all.contains(&plain));
    let plain: Vec<&str> =
        all.iter().filter(|domain| !has_port(domain) && !absolute(domain)).copied().collect();
    let longer =
        |domain: &str, end: &str| domain.strip_suffix(end).is_some_and(|short| plain.contains(&short));
    let shown: Vec<&str> =
        plain.iter().filter(|d| !longer(d, ".svc.cluster.local") && !longer(d, ".svc")).copied().collect();
    match shown.len() {
        0..=2 => shown.join(", "),
        count => format!("{} + {} more...", shown[..2].join(", "), count - 2),
    }
}

fn has_port(domain: &str) -> bool {
    match domain.strip_prefix('[') {
        Some(rest) => rest.contains("]:"),
        None => domain.contains(':'),
    }
}

/// What a route matches, in short.
pub(super) fn condition(condition: &Value) -> String {
    let prefixed = |pointer: &str, before: &str, after: &str| match text(condition, pointer) {
        "" => None,
        found => Some(format!("{before}{found}{after}")),
    };
    prefixed("/prefix", "", "*")
        .or_else(|| prefixed("/pathSeparatedPrefix", "PathPrefix:", ""))
        .or_else(|| prefixed("/path", "", ""))
        .or_else(|| prefixed("/safeRegex/regex", "regex ", ""))
        .unwrap_or_else(|| {
            if condition.get("connectMatcher").is_some() { "CONNECT".to_owned() } else { String::new() }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn domains_are_shortened() {
        let host = json!({"domains": ["reviews.shop.svc.cluster.local", "reviews", "reviews.shop.svc", "reviews.shop",
            "10.0.0.1", "reviews:9080", "reviews.shop.svc.cluster.local."]});
        assert_eq!(domains(&host), "reviews, reviews.shop + 1 more...");
        assert_eq!(domains(&json!({"domains": ["*"]})), "*");
        let proxied =
            json!({"domains": ["reviews.shop.svc.cluster.local:9080", "reviews.shop:9080", "[::1]:9080"]});
        assert_eq!(domains(&proxied), "reviews.shop, [::1]");
    }
}
