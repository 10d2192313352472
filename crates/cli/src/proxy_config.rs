//! What a proxy was given, in tables: one module per part of the configuration, each over the proxy's own dump.

pub(crate) mod authorization;
pub(crate) mod bootstrap;
pub(crate) mod clusters;
pub(crate) mod dump;
pub(crate) mod endpoints;
pub(crate) mod extensions;
pub(crate) mod listeners;
pub(crate) mod routes;
pub(crate) mod secrets;

use serde_json::Value;

/// The text at a JSON pointer, empty when there is none.
fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items at a JSON pointer.
fn items<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// A row of a table.
fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// The Istio object that something was made from, as `NAME.NAMESPACE`, if it is of the kind `kind`.
fn made_from(value: &Value, kind: &str) -> Option<String> {
    let config = value.pointer("/metadata/filterMetadata/istio/config").and_then(Value::as_str)?;
    let parts: Vec<&str> = config.split('/').collect();
    match parts[..] {
        [.., "namespaces", namespace, found, name] if found == kind => Some(format!("{name}.{namespace}")),
        _ => None,
    }
}

/// An address as `HOST:PORT`, or a Unix socket's path.
fn address(value: &Value) -> String {
    let socket = &value["socketAddress"];
    match (text(value, "/pipe/path"), text(socket, "/address")) {
        ("", "") => match text(value, "/envoyInternalAddress/serverListenerName") {
            "" => String::new(),
            name => format!("envoy://{name}/{}", text(value, "/envoyInternalAddress/endpointId")),
        },
        ("", host) => match host.contains(':') {
            true => format!("[{host}]:{}", port(value)),
            false => format!("{host}:{}", port(value)),
        },
        (path, _) => path.to_owned(),
    }
}

/// The port of an address.
fn port(address: &Value) -> u64 {
    address.pointer("/socketAddress/portValue").and_then(Value::as_u64).unwrap_or(0)
}

/// A cluster's name in its parts: `outbound|9080|v1|reviews.default.svc.cluster.local`.
struct ClusterName<'n> {
    direction: &'n str,
    port: u32,
    subset: &'n str,
    host: &'n str,
}

impl<'n> ClusterName<'n> {
    /// Reads a name in either form; the other is `outbound_.9080_.v1_.host`.
    fn of(name: &'n str) -> Option<Self> {
        let (parts, end): (Vec<&str>, &str) = match name.contains('|') {
            true => (name.splitn(4, '|').collect(), ""),
            false => (name.splitn(4, '.').collect(), "_"),
        };
        let [direction, port, subset, host] = parts[..] else { return None };
        let (direction, subset) = (direction.strip_suffix(end)?, subset.strip_suffix(end)?);
        let port = port.strip_suffix(end)?.parse().ok()?;
        Some(Self { direction, port, subset, host })
    }
}

#[cfg(test)]
mod tests {
    use super::dump::Dump;
    use super::*;
    use serde_json::json;

    fn corpora(file: &str) -> Option<String> {
        let Some(folder) = std::env::var_os("LATEEN_CORPORA") else {
            eprintln!("skipped: LATEEN_CORPORA is not set");
            return None;
        };
        let path = std::path::Path::new(&folder).join("istioctl/writer/envoy/configdump").join(file);
        Some(std::fs::read_to_string(path).unwrap())
    }

    fn printed(rows: &[Vec<String>]) -> String {
        crate::table::columns(rows).lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    #[test]
    fn endpoints_are_printed_as_istioctl_prints_them() {
        let Some(text) = corpora("endpoint/configdump.json") else { return };
        let dump = Dump::parse(&text).unwrap();
        for (port, golden) in [(0, "emptyfilter"), (8080, "portfilter")] {
            let filter = endpoints::Filter { port, ..Default::default() };
            let found = endpoints::select(&dump, &filter).unwrap();
            let wanted = corpora(&format!("endpoint/{golden}_output.txt")).unwrap();
            assert_eq!(printed(&endpoints::table(&found)).trim_end(), wanted.trim_end());
        }
        let filter = endpoints::Filter { port: 8080, ..Default::default() };
        let wanted: Value =
            serde_json::from_str(&corpora("endpoint/portfilter_output.json").unwrap()).unwrap();
        assert_eq!(Value::from(endpoints::select(&dump, &filter).unwrap()), wanted);
    }

    #[test]
    fn bootstraps_and_extensions_are_printed_as_istioctl_prints_them() {
        let Some(text) = corpora("configdump.json") else { return };
        let section = bootstrap::select(&Dump::parse(&text).unwrap()).unwrap();
        let wanted = corpora("versionsummary.txt").unwrap();
        assert_eq!(bootstrap::summary(&section).trim_end(), wanted.trim_end());
        let dump = Dump::parse(&corpora("ecds/configdump.json").unwrap()).unwrap();
        let wanted = lateen_api::yaml_value(&corpora("ecds/output.yaml").unwrap()).unwrap();
        assert_eq!(extensions::select(&dump), wanted);
    }

    fn dump(kind: &str, body: Value) -> Dump {
        let mut section = body;
        section["@type"] = json!(format!("type.googleapis.com/envoy.admin.v3.{kind}"));
        Dump::parse(&json!({"configs": [section]}).to_string()).unwrap()
    }

    #[test]
    fn clusters_have_their_columns_and_filters() {
        let named = |name: &str| {
            json!({"cluster": {"@type": "x", "name": name, "type": "EDS", "metadata":
            {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/shop/destination-rule/r"}}}}})
        };
        let dump = dump(
            "ClustersConfigDump",
            json!({
                "static_clusters": [{"cluster": {"name": "prometheus_stats"}}],
                "dynamic_active_clusters": [named("outbound|9080|v1|reviews.shop.svc"), named("outbound|9080||reviews.shop.svc")],
            }),
        );
        let all = clusters::select(&dump, &clusters::Filter::default()).unwrap();
        assert_eq!(
            printed(&clusters::table(&all)),
            "SERVICE FQDN         PORT     SUBSET     DIRECTION     TYPE       DESTINATION RULE\n\
             prometheus_stats     -        -          -             STATIC\n\
             reviews.shop.svc     9080     -          outbound      EDS        r.shop\n\
             reviews.shop.svc     9080     v1         outbound      EDS        r.shop\n"
        );
        let filter = clusters::Filter { subset: "v1".into(), port: 9080, ..Default::default() };
        assert_eq!(clusters::select(&dump, &filter).unwrap().len(), 1);
    }

    #[test]
    fn listeners_have_a_row_per_chain() {
        let http = |route: &str| {
            json!({"filters": [{"name": "h", "typed_config": {
            "@type": "type.googleapis.com/envoy.x.HttpConnectionManager", "rds": {"route_config_name": route}}}],
            "filter_chain_match": {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}})
        };
        let tcp = json!({"filters": [{"name": "t", "typed_config": {
            "@type": "type.googleapis.com/envoy.x.TcpProxy", "cluster": "PassthroughCluster"}}]});
        let dump = dump(
            "ListenersConfigDump",
            json!({"dynamic_listeners": [{"active_state": {"listener": {
            "name": "0.0.0.0_80", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
            "filter_chains": [http("80")], "default_filter_chain": tcp}}}]}),
        );
        let all = listeners::select(&dump, &listeners::Filter::default()).unwrap();
        assert_eq!(
            printed(&listeners::table(&all)),
            "ADDRESSES     PORT     MATCH                                    DESTINATION\n\
             0.0.0.0       80       Trans: raw_buffer; App: http/1.1,h2c     Route: 80\n\
             0.0.0.0       80       ALL                                      PassthroughCluster\n"
        );
        let filter = listeners::Filter { kind: "HTTP+TCP".into(), ..Default::default() };
        assert_eq!(listeners::select(&dump, &filter).unwrap().len(), 1);
    }

    #[test]
    fn a_dump_without_the_part_says_so() {
        let dump = dump("ListenersConfigDump", json!({}));
        let error = clusters::select(&dump, &clusters::Filter::default()).unwrap_err().to_string();
        assert!(error.contains("config dump has no configuration type"), "{error}");
    }
}
