//! `/stats`: figures as lines, JSON, or as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Query;
use crate::stats::Kind;
use crate::store::Store;

/// A figure under its full name.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    name: String,
    kind: Kind,
    value: u64,
}

/// All figures that a query wants.
pub(super) fn collect(store: &Store, uptime: Duration, query: &Query) -> Vec<Entry> {
    let filter = query.value("filter").and_then(|text| regex::Regex::new(text).ok());
    let used_only = query.has("usedonly");
    let mut out = Vec::new();
    let mut add = |name: &str, kind: Kind, value: u64| {
        let wanted = filter.as_ref().is_none_or(|filter| filter.is_match(name));
        if wanted && (!used_only || value > 0) {
            out.push(Entry { name: name.to_owned(), kind, value });
        }
    };
    store.shared.stats.each(&mut add);
    for entry in store.clusters.values() {
        let cluster = &entry.newest;
        let prefix = format!("cluster.{}", cluster.compiled.stat_name);
        cluster.each_figure(|figure, kind, value| add(&format!("{prefix}.{figure}"), kind, value));
    }
    add("server.uptime", Kind::Gauge, uptime.as_secs());
    add("server.live", Kind::Gauge, 1);
    // 0 is LIVE.
    add("server.state", Kind::Gauge, 0);
    add("server.concurrency", Kind::Gauge, store.workers().len() as u64);
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

/// `name: value`, one a line.
pub(super) fn text(entries: &[Entry]) -> String {
    entries.iter().fold(String::new(), |mut out, entry| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}: {}", entry.name, entry.value);
        out
    })
}

/// As Envoy's JSON.
pub(super) fn json(entries: &[Entry]) -> Value {
    let stats: Vec<Value> = entries.iter().map(|e| json!({"name": e.name, "value": e.value})).collect();
    json!({"stats": stats})
}

/// As Prometheus reads them: names of clusters, prefixes and addresses become labels, as Envoy's tags do.
pub(super) fn prometheus(entries: &[Entry]) -> String {
    let mut families: BTreeMap<String, (Kind, Vec<(String, u64)>)> = BTreeMap::new();
    for entry in entries {
        let (family, labels) = tagged(&entry.name);
        families.entry(family).or_insert_with(|| (entry.kind, Vec::new())).1.push((labels, entry.value));
    }
    let mut out = String::new();
    for (family, (kind, samples)) in families {
        let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
        let _ = writeln!(out, "# TYPE {family} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{family}{{{labels}}} {value}");
        }
    }
    out
}

fn tagged(name: &str) -> (String, String) {
    for (prefix, label) in [
        ("cluster.", "envoy_cluster_name"),
        ("http.", "envoy_http_conn_manager_prefix"),
        ("listener.", "envoy_listener_address"),
        ("tcp.", "envoy_tcp_prefix"),
    ] {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let groups = [".circuit_breakers.", ".outlier_detection.", ".health_check."];
        let split = groups.iter().find_map(|group| rest.find(group)).or_else(|| rest.rfind('.'));
        let Some((value, figure)) = split.map(|at| (&rest[..at], &rest[at + 1..])) else { continue };
        let value = value.trim_end_matches(';').replace('\\', "\\\\").replace('"', "\\\"");
        let mut labels = format!("{label}=\"{value}\"");
        let mut figure = figure.to_owned();
        if let Some((stem, class)) = figure.rsplit_once('_')
            && let Some(digit) = class.strip_suffix("xx").filter(|digit| digit.len() == 1)
        {
            let _ = write!(labels, ",envoy_response_code_class=\"{digit}\"");
            figure = format!("{stem}_xx");
        }
        return (family(prefix.trim_end_matches('.'), &figure), labels);
    }
    (sanitize(&format!("envoy_{name}")), String::new())
}

fn family(group: &str, figure: &str) -> String {
    sanitize(&format!("envoy_{group}_{figure}"))
}

fn sanitize(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == ':' { c } else { '_' }).collect()
}

/// `/memory`, by the kernel's account.
pub(super) fn memory() -> Value {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    json!({
        "allocated": (kb("RssAnon:") * 1024).to_string(),
        "heap_size": (kb("VmData:") * 1024).to_string(),
        "total_physical_bytes": (kb("VmRSS:") * 1024).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        assert_eq!(
            tagged("cluster.outbound|80||a.b.c;.upstream_rq_2xx"),
            (
                "envoy_cluster_upstream_rq_xx".to_owned(),
                "envoy_cluster_name=\"outbound|80||a.b.c\",envoy_response_code_class=\"2\"".to_owned()
            )
        );
        assert_eq!(tagged("server.live"), ("envoy_server_live".to_owned(), String::new()));
    }
}
