//! Pods over pods: Kubernetes' strategic merge, for the lists that a pod has.

use serde_json::{Map, Value};

/// The field by which items of a list are the same.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets" => {
            "name"
        }
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "ports" => "containerPort",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// Lays a pod, or a part of one, over another.
pub(crate) fn overlay(base: &mut Value, over: &Value) {
    match (&mut *base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match (merge_key(key), base.get_mut(key), value) {
                    (_, _, Value::Null) => {
                        base.shift_remove(key);
                    }
                    (Some(by), Some(Value::Array(items)), Value::Array(new)) => {
                        let merged = merged(std::mem::take(items), new, by);
                        *items = merged;
                    }
                    // A volume is of one kind: another one replaces it.
                    (_, Some(there), value) => overlay(there, value),
                    (_, None, value) => {
                        base.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// New items come first, in their order; those that were there keep theirs among each other.
fn merged(base: Vec<Value>, over: &[Value], by: &str) -> Vec<Value> {
    let position = |item: &Value| base.iter().position(|known| known[by] == item[by] && !item[by].is_null());
    let mut only: Vec<(usize, Value)> = Vec::new();
    for (at, item) in base.iter().enumerate() {
        if !over.iter().any(|new| new[by] == item[by] && !new[by].is_null()) {
            only.push((at, item.clone()));
        }
    }
    let mut only = only.into_iter().peekable();
    let mut result = Vec::with_capacity(base.len() + over.len());
    for item in over {
        let mut item = item.clone();
        if let Some(at) = position(&item) {
            while let Some((_, earlier)) = only.next_if(|(before, _)| *before < at) {
                result.push(earlier);
            }
            let mut known = base[at].clone();
            if by == "name" && is_volume(&known) && is_volume(&item) {
                known = Value::Object(Map::from_iter([("name".to_owned(), known["name"].take())]));
            }
            overlay(&mut known, &item);
            item = known;
        }
        result.push(item);
    }
    result.extend(only.map(|(_, item)| item));
    result
}

/// Whether it has a source, as volumes have and containers and variables have not.
fn is_volume(item: &Value) -> bool {
    const SOURCES: &[&str] = &[
        "emptyDir",
        "configMap",
        "secret",
        "downwardAPI",
        "projected",
        "hostPath",
        "csi",
        "nfs",
        "ephemeral",
        "persistentVolumeClaim",
    ];
    item.as_object().is_some_and(|item| SOURCES.iter().any(|source| item.contains_key(*source)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_merge_by_their_keys() {
        let mut base = json!({
            "containers": [{ "name": "app", "image": "a" }, { "name": "p", "args": ["x"], "env": [{ "name": "A", "value": "1" }] }],
            "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "s", "emptyDir": {} }],
        });
        overlay(
            &mut base,
            &json!({
                "containers": [{ "name": "p", "args": ["y"], "env": [{ "name": "B", "value": "2" }, { "name": "A", "value": "3" }] }],
                "volumes": [{ "name": "new" }, { "name": "s", "csi": { "driver": "d" } }],
            }),
        );
        assert_eq!(
            base,
            json!({
                "containers": [
                    { "name": "app", "image": "a" },
                    { "name": "p", "args": ["y"], "env": [{ "name": "B", "value": "2" }, { "name": "A", "value": "3" }] },
                ],
                "volumes": [{ "name": "new" }, { "name": "data", "emptyDir": {} }, { "name": "s", "csi": { "driver": "d" } }],
            })
        );
    }
}
