//! Listeners.

use serde_json::Value;

use super::dump::Dump;
use super::{address, items, port, routes, row, text};
use crate::commands::CliError;

/// Which listeners are shown; empty fields show all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) address: String,
    pub(crate) port: u32,
    /// HTTP, TCP, or HTTP+TCP.
    pub(crate) kind: String,
}

impl Filter {
    fn shows(&self, listener: &Value) -> bool {
        let at = &listener["address"];
        (self.address.is_empty() || text(at, "/socketAddress/address").eq_ignore_ascii_case(&self.address))
            && (self.port == 0 || port(at) == u64::from(self.port))
            && (self.kind.is_empty() || self.kind.eq_ignore_ascii_case(kind(listener)))
    }
}

/// The listeners, by port and address.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump, filter: &Filter) -> Result<Vec<Value>, CliError> {
    let mut listeners =
        dump.resources("ListenersConfigDump", &["dynamicListeners"], "/activeState/listener")?;
    listeners.extend(dump.resources("ListenersConfigDump", &["staticListeners"], "/listener")?);
    listeners.retain(|listener| filter.shows(listener));
    listeners.sort_by_cached_key(|listener| (port(&listener["address"]), addresses(listener)));
    Ok(listeners)
}

/// HTTP, TCP, both or unknown, by the filters of all chains.
fn kind(listener: &Value) -> &'static str {
    let all = chains(listener).map(destination).collect::<Vec<_>>();
    let http = all.iter().any(|to| to.starts_with("Route: ") || to.starts_with("Inline Route: "));
    let http = http || chains(listener).any(|chain| filter(chain, "HttpConnectionManager").is_some());
    let tcp = chains(listener).any(|chain| filter(chain, "TcpProxy").is_some());
    match (http, tcp) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    items(listener, "/filterChains").chain(listener.get("defaultFilterChain"))
}

fn addresses(listener: &Value) -> String {
    let host = |at: &Value| match text(at, "/socketAddress/address") {
        "" => address(at),
        host => host.to_owned(),
    };
    let mut all = vec![host(&listener["address"])];
    all.extend(items(listener, "/additionalAddresses").map(|more| host(&more["address"])));
    all.join(",")
}

/// The table of listeners, a row per filter chain.
pub(crate) fn table(listeners: &[Value]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["ADDRESSES", "PORT", "MATCH", "DESTINATION"])];
    for listener in listeners {
        let mut found: Vec<(String, String)> =
            chains(listener).map(|chain| (condition(listener, chain), destination(chain))).collect();
        found.sort_by(|a, b| b.1.cmp(&a.1));
        let (addresses, port) = (addresses(listener), port(&listener["address"]).to_string());
        rows.extend(found.iter().map(|(condition, to)| row([&addresses, &port, condition, to])));
    }
    rows
}

/// The table without filter chains: one row per listener.
pub(crate) fn brief_table(listeners: &[Value]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["ADDRESSES", "PORT", "TYPE"])];
    let line = |one: &Value| row([&addresses(one), &port(&one["address"]).to_string(), kind(one)]);
    rows.extend(listeners.iter().map(line));
    rows
}

/// What a chain matches, in short.
fn condition(listener: &Value, chain: &Value) -> String {
    let matches = &chain["filterChainMatch"];
    let list = |pointer: &str| items(matches, pointer).filter_map(Value::as_str).collect::<Vec<_>>();
    let mut parts = Vec::new();
    let names = list("/serverNames");
    if !names.is_empty() {
        parts.push(format!("SNI: {}", names.join(",")));
    }
    let transport = text(matches, "/transportProtocol");
    if !transport.is_empty() {
        parts.push(format!("Trans: {transport}"));
    }
    let protocols = list("/applicationProtocols");
    if !protocols.is_empty() {
        parts.push(format!("App: {}", protocols.join(",")));
    }
    let ranges: Vec<String> = items(matches, "/prefixRanges").map(range).collect();
    let number = matches.get("destinationPort").and_then(Value::as_u64);
    match (ranges.is_empty(), number) {
        (true, Some(number)) => parts.push(format!("Addr: *:{number}")),
        (false, Some(number)) => parts.push(format!("Addr: {}:{number}", ranges.join(","))),
        (false, None) => parts.push(format!("Addr: {}", ranges.join(","))),
        (true, None) => {}
    }
    let default = listener.get("defaultFilterChain").is_some_and(|last| std::ptr::eq(last, chain));
    if parts.is_empty() || default { "ALL".to_owned() } else { parts.join("; ") }
}

fn range(range: &Value) -> String {
    let prefix = text(range, "/addressPrefix");
    let len = range.get("prefixLen").and_then(Value::as_u64).unwrap_or(0);
    let whole = if prefix.contains(':') { 128 } else { 32 };
    if len == whole { prefix.to_owned() } else { format!("{prefix}/{len}") }
}

fn filter<'v>(chain: &'v Value, kind: &str) -> Option<&'v Value> {
    let typed = |filter: &'v Value| filter.get("typedConfig");
    items(chain, "/filters").filter_map(typed).find(|config| text(config, "/@type").ends_with(kind))
}

/// Where a chain leads, in short.
fn destination(chain: &Value) -> String {
    if let Some(http) = filter(chain, "HttpConnectionManager") {
        let name = text(http, "/rds/routeConfigName");
        return if name.is_empty() { inline_route(&http["routeConfig"]) } else { format!("Route: {name}") };
    }
    match filter(chain, "TcpProxy") {
        Some(tcp) if text(tcp, "/cluster") != "BlackHoleCluster" => tcp_destination(tcp),
        _ => "Non-HTTP/Non-TCP".to_owned(),
    }
}

fn tcp_destination(tcp: &Value) -> String {
    let shares: Vec<String> = items(tcp, "/weightedClusters/clusters")
        .map(|share| format!("{}[{}]", text(share, "/name"), share.get("weight").unwrap_or(&Value::Null)))
        .collect();
    if shares.is_empty() {
        to_cluster(text(tcp, "/cluster"))
    } else {
        format!("Cluster: {}", shares.join(" "))
    }
}

fn to_cluster(name: &str) -> String {
    if name.contains("Cluster") { name.to_owned() } else { format!("Cluster: {name}") }
}

/// A route configuration inside a listener: the cluster, if it takes everything, else the routes.
fn inline_route(config: &Value) -> String {
    let hosts: Vec<&Value> = items(config, "/virtualHosts").collect();
    if let [host] = hosts[..]
        && let [route] = items(host, "/routes").collect::<Vec<_>>()[..]
        && text(route, "/match/prefix") == "/"
        && items(host, "/domains").eq([&Value::from("*")])
        && !text(route, "/route/cluster").is_empty()
    {
        return to_cluster(text(route, "/route/cluster"));
    }
    let of_host = |host: &Value| {
        let domains: Vec<&str> = items(host, "/domains").filter_map(Value::as_str).collect();
        let routes =
            items(host, "/routes").map(|route| routes::condition(&route["match"])).collect::<Vec<_>>();
        let domain = if domains == ["*"] { "" } else { domains.first().copied().unwrap_or_default() };
        format!("{domain}{}", routes.join(", "))
    };
    format!("Inline Route: {}", hosts.into_iter().map(of_host).collect::<Vec<_>>().join("; "))
}
