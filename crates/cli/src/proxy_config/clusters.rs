//! Clusters.

use serde_json::Value;

use super::dump::Dump;
use super::{ClusterName, made_from, row, text};
use crate::commands::CliError;

/// Which clusters are shown; empty fields show all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) fqdn: String,
    pub(crate) port: u32,
    pub(crate) subset: String,
    pub(crate) direction: String,
}

impl Filter {
    fn shows(&self, name: &str) -> bool {
        name.contains(&self.fqdn)
            && name.contains(&self.subset)
            && name.contains(&self.direction)
            && (self.port == 0 || ClusterName::of(name).is_some_and(|parts| parts.port == self.port))
    }
}

/// The clusters, in the order that istioctl shows them.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump, filter: &Filter) -> Result<Vec<Value>, CliError> {
    let lists = ["dynamicActiveClusters", "staticClusters", "dynamicWarmingClusters"];
    let mut clusters = dump.resources("ClustersConfigDump", &lists, "/cluster")?;
    clusters.retain(|cluster| filter.shows(text(cluster, "/name")));
    clusters.sort_by_cached_key(|cluster| {
        let name = text(cluster, "/name");
        match ClusterName::of(name) {
            Some(parts) => {
                (parts.direction.to_owned(), parts.subset.to_owned(), parts.host.to_owned(), parts.port)
            }
            None => (String::new(), String::new(), name.to_owned(), 0),
        }
    });
    Ok(clusters)
}

/// The table of clusters.
pub(crate) fn table(clusters: &[Value]) -> Vec<Vec<String>> {
    let mut rows = vec![row(["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"])];
    for cluster in clusters {
        let name = text(cluster, "/name");
        let rule = made_from(cluster, "destination-rule").unwrap_or_default();
        let kind = kind(cluster);
        rows.push(match ClusterName::of(name) {
            Some(parts) => {
                let subset = if parts.subset.is_empty() { "-" } else { parts.subset };
                row([parts.host, &parts.port.to_string(), subset, parts.direction, kind, &rule])
            }
            None => row([name, "-", "-", "-", kind, &rule]),
        });
    }
    rows
}

fn kind(cluster: &Value) -> &str {
    match (text(cluster, "/type"), text(cluster, "/clusterType/name")) {
        ("", "") => "STATIC",
        ("", custom) => custom,
        (kind, _) => kind,
    }
}

/// The line below the table of a proxy that loads clusters on demand: what is missing in the table may be loaded yet.
pub(crate) fn scoping(dump: &Dump) -> Option<String> {
    let listeners = dump.sections("ListenersConfigDump").ok()?;
    let holds = |section: &&Value| section.to_string().contains("\"envoy.filters.http.on_demand\"");
    let any = listeners.iter().any(holds);
    any.then(|| "automatic scoping: other clusters are loaded when a request wants them\n".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_proxy_that_loads_on_demand_says_so() {
        let dump = |filter: &str| {
            let listener = json!({"name": "x", "http_filters": [{"name": filter}]});
            let text = json!({"configs": [{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
                "dynamic_listeners": [{"active_state": {"listener": listener}}]}]});
            Dump::parse(&text.to_string()).unwrap()
        };
        assert!(scoping(&dump("envoy.filters.http.on_demand")).is_some());
        assert_eq!(scoping(&dump("envoy.filters.http.router")), None);
    }
}
