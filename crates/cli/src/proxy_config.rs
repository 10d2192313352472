//! What a proxy was given, in tables: one module per part of the configuration, each over the proxy's own dump.

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
