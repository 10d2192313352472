//! `/clusters`: hosts and their state.

use std::sync::atomic::{AtomicU64, Ordering};

use lateen_route::endpoints::{Health, Host as Endpoint};
use serde_json::{Value, json};

use crate::store::Store;
use crate::upstream::cluster::{Cluster, HostSet};
use crate::upstream::host::{Address, Host};

/// As lines, `cluster::host::figure::value`.
pub(super) fn text(store: &Store) -> String {
    let mut out = String::new();
    for (name, entry) in &store.clusters {
        let Some(cluster) = &entry.active else { continue };
        let mut line = |rest: String| {
            out.push_str(name);
            out.push_str("::");
            out.push_str(&rest);
            out.push('\n');
        };
        line(format!("observability_name::{}", cluster.compiled.stat_name));
        for (priority, label) in [(0, "default"), (1, "high")] {
            let limits = &cluster.limits[priority];
            for (figure, limit) in [
                ("max_connections", &limits.connections),
                ("max_pending_requests", &limits.pending),
                ("max_requests", &limits.requests),
                ("max_retries", &limits.retries),
            ] {
                line(format!("{label}_priority::{figure}::{}", limit.max()));
            }
        }
        line(format!("added_via_api::{}", !entry.source.is_static));
        let set = cluster.hosts.load();
        for (index, member) in set.hosts.iter().enumerate() {
            let priority = set.assignment.as_ref().map_or(0, |assignment| assignment.priority_of(index));
            host_lines(&member.host, endpoint(&set, index), priority, &mut |rest| {
                line(format!("{}::{rest}", member.host.text))
            });
        }
    }
    out
}

fn endpoint(set: &HostSet, index: usize) -> Option<&Endpoint> {
    set.assignment.as_ref()?.hosts.get(index).map(|host| &**host)
}

fn value(figure: &AtomicU64) -> u64 {
    figure.load(Ordering::Relaxed)
}

fn host_lines(host: &Host, endpoint: Option<&Endpoint>, priority: usize, line: &mut dyn FnMut(String)) {
    let stats = &host.stats;
    for (name, number) in [
        ("cx_active", value(&stats.cx_active)),
        ("cx_connect_fail", value(&stats.cx_connect_fail)),
        ("cx_total", value(&stats.cx_total)),
        ("rq_active", u64::from(host.active.load(Ordering::Relaxed))),
        ("rq_error", value(&stats.rq_error)),
        ("rq_success", value(&stats.rq_success)),
        ("rq_timeout", value(&stats.rq_timeout)),
        ("rq_total", value(&stats.rq_total)),
    ] {
        line(format!("{name}::{number}"));
    }
    let locality = endpoint.map(|endpoint| (*endpoint.locality).clone()).unwrap_or_default();
    line(format!("hostname::{}", host.hostname));
    line(format!("health_flags::{}", health_flags(host, endpoint)));
    line(format!("weight::{}", endpoint.map_or(1, |endpoint| endpoint.weight)));
    line(format!("region::{}", locality.region));
    line(format!("zone::{}", locality.zone));
    line(format!("sub_zone::{}", locality.subzone));
    line("canary::false".to_owned());
    line(format!("priority::{priority}"));
    let (external, local) = host.conduct.success_rates();
    line(format!("success_rate::{}", external.unwrap_or(-1.0)));
    line(format!("local_origin_success_rate::{}", local.unwrap_or(-1.0)));
}

fn health_flags(host: &Host, endpoint: Option<&Endpoint>) -> String {
    let mut flags = String::new();
    if host.checked.failed.load(Ordering::Relaxed) {
        flags.push_str("/failed_active_hc");
    }
    if host.conduct.ejected.load(Ordering::Relaxed) {
        flags.push_str("/failed_outlier_check");
    }
    if host.checked.degraded.load(Ordering::Relaxed) {
        flags.push_str("/degraded_active_hc");
    }
    match endpoint.map(|endpoint| endpoint.health) {
        Some(Health::Unhealthy) => flags.push_str("/failed_eds_health"),
        Some(Health::Degraded) => flags.push_str("/degraded_eds_health"),
        Some(Health::Draining) => flags.push_str("/eds_status_draining"),
        Some(Health::Healthy) | None => {}
    }
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// As Envoy's `Clusters` message.
pub(super) fn json(store: &Store) -> Value {
    let statuses: Vec<Value> = store
        .clusters
        .iter()
        .filter_map(|(name, entry)| Some(cluster_json(name, !entry.source.is_static, entry.active.as_ref()?)))
        .collect();
    json!({"cluster_statuses": statuses})
}

fn cluster_json(name: &str, added_via_api: bool, cluster: &Cluster) -> Value {
    let set = cluster.hosts.load();
    let hosts: Vec<Value> = set
        .hosts
        .iter()
        .enumerate()
        .map(|(index, member)| {
            let priority = set.assignment.as_ref().map_or(0, |assignment| assignment.priority_of(index));
            host_json(&member.host, endpoint(&set, index), priority)
        })
        .collect();
    let thresholds: Vec<Value> = [(0, "DEFAULT"), (1, "HIGH")]
        .iter()
        .map(|(priority, label)| {
            let limits = &cluster.limits[*priority];
            json!({
                "priority": label,
                "max_connections": limits.connections.max(),
                "max_pending_requests": limits.pending.max(),
                "max_requests": limits.requests.max(),
                "max_retries": limits.retries.max(),
            })
        })
        .collect();
    json!({
        "name": name,
        "observability_name": &*cluster.compiled.stat_name,
        "added_via_api": added_via_api,
        "host_statuses": hosts,
        "circuit_breakers": {"thresholds": thresholds},
    })
}

fn host_json(host: &Host, endpoint: Option<&Endpoint>, priority: usize) -> Value {
    let address = match &host.address {
        Address::Socket(socket) => {
            json!({"socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}})
        }
        Address::Pipe(path) => json!({"pipe": {"path": &**path}}),
    };
    let stats = &host.stats;
    let counter = |name: &str, number: u64| json!({"name": name, "value": number.to_string()});
    let gauge = |name: &str, number: u64| json!({"type": "GAUGE", "name": name, "value": number.to_string()});
    let health = match endpoint.map(|endpoint| endpoint.health) {
        Some(Health::Unhealthy) => "UNHEALTHY",
        Some(Health::Degraded) => "DEGRADED",
        Some(Health::Draining) => "DRAINING",
        Some(Health::Healthy) | None => "HEALTHY",
    };
    let mut status = json!({"eds_health_status": health});
    if host.conduct.ejected.load(Ordering::Relaxed) {
        status["failed_outlier_check"] = Value::Bool(true);
    }
    if host.checked.failed.load(Ordering::Relaxed) {
        status["failed_active_health_check"] = Value::Bool(true);
    }
    if host.checked.degraded.load(Ordering::Relaxed) {
        status["failed_active_degraded_check"] = Value::Bool(true);
    }
    let locality = endpoint.map(|endpoint| (*endpoint.locality).clone()).unwrap_or_default();
    json!({
        "priority": priority,
        "address": address,
        "stats": [
            counter("cx_connect_fail", value(&stats.cx_connect_fail)),
            counter("cx_total", value(&stats.cx_total)),
            counter("rq_error", value(&stats.rq_error)),
            counter("rq_success", value(&stats.rq_success)),
            counter("rq_timeout", value(&stats.rq_timeout)),
            counter("rq_total", value(&stats.rq_total)),
            gauge("cx_active", value(&stats.cx_active)),
            gauge("rq_active", u64::from(host.active.load(Ordering::Relaxed))),
        ],
        "health_status": status,
        "weight": endpoint.map_or(1, |endpoint| endpoint.weight),
        "hostname": &*host.hostname,
        "locality": {"region": locality.region, "zone": locality.zone, "sub_zone": locality.subzone},
    })
}
