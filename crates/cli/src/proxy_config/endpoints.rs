//! Endpoints: as configured (from a dump), or as the proxy finds them (from `/clusters`).

use serde_json::Value;

use super::dump::{Dump, camel};
use super::{ClusterName, address, items, port, row, text};
use crate::commands::CliError;

/// Which endpoints are shown; empty fields show all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) address: String,
    pub(crate) port: u32,
    pub(crate) cluster: String,
    pub(crate) status: String,
}

impl Filter {
    fn shows(&self, at: &Value, status: &str) -> bool {
        (self.address.is_empty() || text(at, "/socketAddress/address").eq_ignore_ascii_case(&self.address))
            && (self.port == 0 || port(at) == u64::from(self.port))
            && (self.status.is_empty() || status.eq_ignore_ascii_case(&self.status))
    }
}

/// The load assignments of a dump, with only the endpoints that the filter shows.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump, filter: &Filter) -> Result<Vec<Value>, CliError> {
    let lists = ["staticEndpointConfigs", "dynamicEndpointConfigs"];
    let mut all = dump.resources("EndpointsConfigDump", &lists, "/endpointConfig")?;
    all.retain(|one| filter.cluster.is_empty() || text(one, "/clusterName") == filter.cluster);
    for assignment in &mut all {
        let localities = assignment.get_mut("endpoints").and_then(Value::as_array_mut);
        for locality in localities.into_iter().flatten() {
            if let Some(endpoints) = locality.get_mut("lbEndpoints").and_then(Value::as_array_mut) {
                endpoints.retain(|one| filter.shows(&one["endpoint"]["address"], status(one)));
            }
        }
    }
    all.retain(|assignment| endpoints(assignment).next().is_some());
    all.sort_by_cached_key(|assignment| order(text(assignment, "/clusterName")));
    Ok(all)
}

fn order(name: &str) -> (String, u32, String) {
    match ClusterName::of(name) {
        Some(parts) => (parts.host.to_owned(), parts.port, parts.subset.to_owned()),
        None => (name.to_owned(), 0, String::new()),
    }
}

fn endpoints(assignment: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    items(assignment, "/endpoints")
        .flat_map(|locality| items(locality, "/lbEndpoints").map(move |one| (locality, one)))
}

fn status(endpoint: &Value) -> &str {
    match text(endpoint, "/healthStatus") {
        "" | "UNKNOWN" => "HEALTHY",
        status => status,
    }
}

/// The table of a dump's endpoints.
pub(crate) fn table(assignments: &[Value]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["NAME", "STATUS", "LOCALITY", "CLUSTER"])];
    for assignment in assignments {
        for (locality, endpoint) in endpoints(assignment) {
            let parts = ["/region", "/zone", "/subZone"].map(|part| text(&locality["locality"], part));
            let locality =
                parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
            let at = address(&endpoint["endpoint"]["address"]);
            rows.push(row([&at, status(endpoint), &locality, text(assignment, "/clusterName")]));
        }
    }
    rows
}

/// The clusters that `/clusters?format=json` tells of, with only the endpoints that the filter shows.
///
/// # Errors
/// When it is no such answer.
pub(crate) fn select_live(clusters: &Value, filter: &Filter) -> Result<Vec<Value>, CliError> {
    let Value::Array(mut all) = camel(&clusters["cluster_statuses"]) else {
        return Err(CliError::new("the proxy's answer about its clusters has no \"cluster_statuses\""));
    };
    all.retain(|one| filter.cluster.is_empty() || text(one, "/name") == filter.cluster);
    for cluster in &mut all {
        if let Some(hosts) = cluster.get_mut("hostStatuses").and_then(Value::as_array_mut) {
            hosts.retain(|host| filter.shows(&host["address"], live_status(host)));
        }
    }
    all.retain(|cluster| items(cluster, "/hostStatuses").next().is_some());
    Ok(all)
}

fn live_status(host: &Value) -> &str {
    match text(host, "/healthStatus/edsHealthStatus") {
        "" => "HEALTHY",
        status => status,
    }
}

/// The table of the endpoints that a proxy finds.
pub(crate) fn live_table(clusters: &[Value]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for cluster in clusters {
        for host in items(cluster, "/hostStatuses") {
            let ejected = host.pointer("/healthStatus/failedOutlierCheck") == Some(&Value::Bool(true));
            let outlier = if ejected { "FAILED" } else { "OK" };
            rows.push(row([&address(&host["address"]), live_status(host), outlier, text(cluster, "/name")]));
        }
    }
    rows.sort();
    rows.insert(0, row(["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"]));
    rows
}
