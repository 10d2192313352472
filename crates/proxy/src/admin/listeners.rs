//! `/listeners`: names and addresses.

use lateen_route::listener::ListenAddress;
use serde_json::{Value, json};

use crate::listener::Bound;
use crate::store::Store;

/// As lines, `name::address`.
pub(super) fn text(store: &Store) -> String {
    let mut out = String::new();
    for (name, entry) in &store.listeners {
        for bound in &entry.bound {
            out.push_str(&format!("{name}::{}\n", address(bound)));
        }
    }
    out
}

fn address(bound: &Bound) -> String {
    match (bound.actual.get(), &bound.address) {
        (Some(address), _) => address.to_string(),
        (None, ListenAddress::Tcp(address)) => address.to_string(),
        (None, ListenAddress::Pipe(path)) => path.to_string(),
    }
}

/// As Envoy's `Listeners` message.
pub(super) fn json(store: &Store) -> Value {
    let statuses: Vec<Value> = store
        .listeners
        .iter()
        .map(|(name, entry)| {
            let addresses: Vec<Value> = entry.bound.iter().map(|bound| address_json(bound)).collect();
            let (first, more) =
                addresses.split_first().map_or((Value::Null, &[][..]), |(a, b)| (a.clone(), b));
            let mut status = json!({"name": &**name, "local_address": first});
            if !more.is_empty() {
                status["additional_local_addresses"] = Value::Array(more.to_vec());
            }
            status
        })
        .collect();
    json!({"listener_statuses": statuses})
}

fn address_json(bound: &Bound) -> Value {
    match (bound.actual.get(), &bound.address) {
        (Some(address), _) | (None, ListenAddress::Tcp(address)) => {
            json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
        }
        (None, ListenAddress::Pipe(path)) => json!({"pipe": {"path": &**path}}),
    }
}
