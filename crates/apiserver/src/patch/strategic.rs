//! Strategic merge patches with all their directives. Written after
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.

use serde_json::{Map, Value};

use super::table::{List, Rule, rule};
use crate::status::Status;

const PATCH: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Merges a patch into an object of a built-in kind.
pub(super) fn merge(kind: &str, object: &Value, patch: &Value) -> Result<Value, Status> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(Status::bad_request("a strategic merge patch has to be a JSON object"));
    };
    let root = Merge { of: kind, root: true };
    Ok(Value::Object(root.map(object.clone(), patch, "")?.unwrap_or_default()))
}

struct Merge<'a> {
    of: &'a str,
    root: bool,
}

impl Merge<'_> {
    /// `None`: the patch deletes the object.
    fn map(
        &self,
        mut object: Map<String, Value>,
        patch: &Map<String, Value>,
        path: &str,
    ) -> Result<Option<Map<String, Value>>, Status> {
        match directive(patch, path)? {
            Some("delete") => return Ok(None),
            Some("replace") => object = Map::new(),
            _ => {}
        }
        if let Some(kept) = patch.get(RETAIN) {
            let kept =
                kept.as_array().ok_or_else(|| bad(path, "$retainKeys has to be a list of field names"))?;
            object.retain(|key, _| kept.iter().any(|k| k == key));
        }
        for (key, values) in patch {
            if let Some(field) = key.strip_prefix(DELETE_PREFIX) {
                let values = values
                    .as_array()
                    .ok_or_else(|| bad(path, "$deleteFromPrimitiveList has to be a list"))?;
                if let Some(Value::Array(list)) = object.get_mut(field) {
                    list.retain(|item| !values.contains(item));
                }
            }
        }
        for (key, change) in patch.iter().filter(|(key, _)| !is_directive(key)) {
            let order = patch.get(&format!("{ORDER_PREFIX}{key}"));
            self.field(&mut object, key, change, order, path)?;
        }
        for (key, order) in patch {
            if let Some(field) = key.strip_prefix(ORDER_PREFIX)
                && !patch.contains_key(field)
                && let Some(Value::Array(list)) = object.get_mut(field)
            {
                let server = list.clone();
                reorder(list, &server, order, rule(self.of, field, self.root), path)?;
            }
        }
        Ok(Some(object))
    }

    fn field(
        &self,
        object: &mut Map<String, Value>,
        key: &str,
        change: &Value,
        order: Option<&Value>,
        path: &str,
    ) -> Result<(), Status> {
        let rule = rule(self.of, key, self.root);
        let at = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let merged = match (change, object.get(key)) {
            (Value::Null, _) => None,
            (Value::Object(patch), current) => {
                let current = current.and_then(Value::as_object).cloned().unwrap_or_default();
                let child = Merge { of: rule.of, root: false };
                child.map(current, patch, &at)?.map(Value::Object)
            }
            (Value::Array(patch), current) => {
                let current = current.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let mut list = merge_list(current, patch, rule, &at)?;
                if rule.list != List::Atomic {
                    // As in Kubernetes, the patch's own order counts as wanted; new items come first.
                    reorder(&mut list, current, change, rule, &at)?;
                }
                if let Some(order) = order {
                    reorder(&mut list, current, order, rule, &at)?;
                }
                Some(Value::Array(list))
            }
            (value, _) => Some(value.clone()),
        };
        match merged {
            Some(value) => drop(object.insert(key.to_owned(), value)),
            None => drop(object.shift_remove(key)),
        }
        Ok(())
    }
}

fn merge_list(current: &[Value], patch: &[Value], rule: Rule, path: &str) -> Result<Vec<Value>, Status> {
    match rule.list {
        List::Atomic => without_directives(patch, path),
        List::Set => {
            let mut list = current.to_vec();
            for value in patch {
                if !list.contains(value) {
                    list.push(value.clone());
                }
            }
            Ok(list)
        }
        List::ByKey(key) => merge_keyed(current, patch, key, rule.of, path),
    }
}

/// Items of an atomic list are taken as they are, but a lone `$patch: replace` item is not content.
fn without_directives(patch: &[Value], path: &str) -> Result<Vec<Value>, Status> {
    let mut list = Vec::with_capacity(patch.len());
    for item in patch {
        match item.as_object() {
            Some(map) => match directive(map, path)? {
                Some("delete") => {}
                Some(_) if map.len() == 1 => {}
                _ => list.push(Value::Object(
                    map.iter()
                        .filter(|(k, _)| !is_directive(k))
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect(),
                )),
            },
            None => list.push(item.clone()),
        }
    }
    Ok(list)
}

fn merge_keyed(
    current: &[Value],
    patch: &[Value],
    key: &str,
    of: &str,
    path: &str,
) -> Result<Vec<Value>, Status> {
    let mut replaces = false;
    for item in patch {
        let map = item
            .as_object()
            .ok_or_else(|| bad(path, "the list is merged by key, its items have to be objects"))?;
        replaces |= directive(map, path)? == Some("replace") && !map.contains_key(key);
    }
    let mut list = if replaces { Vec::new() } else { current.to_vec() };
    for item in patch.iter().filter_map(Value::as_object) {
        let wanted = directive(item, path)?;
        let Some(id) = item.get(key) else {
            if wanted == Some("replace") {
                continue;
            }
            return Err(bad(path, &format!("an item does not contain the merge key \"{key}\"")));
        };
        let found = list.iter().position(|old| old.get(key) == Some(id));
        let old = found.and_then(|index| list[index].as_object().cloned()).unwrap_or_default();
        let merged = Merge { of, root: false }.map(old, item, &format!("{path}[{key}={id}]"))?;
        match (found, merged) {
            (Some(index), Some(new)) => list[index] = Value::Object(new),
            (Some(_), None) => list.retain(|old| old.get(key) != Some(id)),
            (None, Some(new)) => list.push(Value::Object(new)),
            (None, None) => {}
        }
    }
    Ok(list)
}

/// Puts the items that `order` names in its order; those it does not name keep their place relative to the server's list.
fn reorder(
    list: &mut Vec<Value>,
    server: &[Value],
    order: &Value,
    rule: Rule,
    path: &str,
) -> Result<(), Status> {
    let order = order.as_array().ok_or_else(|| bad(path, "$setElementOrder has to be a list"))?;
    let id = |item: &Value| match rule.list {
        List::ByKey(key) => item.get(key).cloned().unwrap_or_default(),
        _ => item.clone(),
    };
    let wanted: Vec<Value> = order.iter().map(id).collect();
    let place = |item: &Value| server.iter().position(|s| id(s) == id(item));
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        list.drain(..).partition(|item| wanted.contains(&id(item)));
    named.sort_by_key(|item| wanted.iter().position(|w| *w == id(item)));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(left), Some(right)) = (named.peek(), others.peek()) {
        let right_first = matches!((place(left), place(right)), (Some(l), Some(r)) if r < l);
        list.extend(if right_first { others.next() } else { named.next() });
    }
    list.extend(named);
    list.extend(others);
    Ok(())
}

fn directive<'a>(map: &'a Map<String, Value>, path: &str) -> Result<Option<&'a str>, Status> {
    match map.get(PATCH) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "merge" | "replace" | "delete") => {
            Ok(Some(text))
        }
        Some(other) => {
            Err(bad(path, &format!("unknown $patch directive {other}; want merge, replace or delete")))
        }
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN || key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX)
}

fn bad(path: &str, why: &str) -> Status {
    let path = if path.is_empty() { "the root" } else { path };
    Status::bad_request(format!("strategic merge patch at {path}: {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(containers: Value) -> Value {
        json!({"metadata": {"name": "p", "finalizers": ["a", "b"]}, "spec": {"containers": containers}})
    }

    fn patched(patch: Value) -> Value {
        let object = pod(
            json!([{"name": "x", "image": "1", "env": [{"name": "A", "value": "1"}]}, {"name": "y", "image": "2"}]),
        );
        merge("Pod", &object, &patch).unwrap()
    }

    #[test]
    fn lists_merge_by_their_key() {
        let new = patched(
            json!({"spec": {"containers": [{"name": "x", "env": [{"name": "B", "value": "2"}]}, {"name": "z"}]}}),
        );
        let expected = json!([
            {"name": "x", "image": "1", "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]},
            {"name": "z"}, {"name": "y", "image": "2"},
        ]);
        assert_eq!(new["spec"]["containers"], expected);
        assert_eq!(
            patched(json!({"metadata": {"finalizers": ["c", "a"]}}))["metadata"]["finalizers"],
            json!(["c", "a", "b"])
        );
    }

    #[test]
    fn directives() {
        for (patch, containers) in [
            (json!([{"name": "x", "$patch": "delete"}]), json!([{"name": "y", "image": "2"}])),
            (json!([{"$patch": "replace"}, {"name": "w"}]), json!([{"name": "w"}])),
            (
                json!([{"name": "x", "$patch": "replace", "image": "9"}]),
                json!([{"name": "x", "image": "9"}, {"name": "y", "image": "2"}]),
            ),
            (
                json!([{"name": "x", "$retainKeys": ["name", "image"], "image": "3"}, {"name": "y", "image": null}]),
                json!([{"name": "x", "image": "3"}, {"name": "y"}]),
            ),
        ] {
            assert_eq!(patched(json!({"spec": {"containers": patch}}))["spec"]["containers"], containers);
        }
        let new = patched(json!({"spec": {
            "$setElementOrder/containers": [{"name": "z"}, {"name": "y"}, {"name": "x"}], "containers": [{"name": "z"}],
        }}));
        let names: Vec<&Value> =
            new["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["z", "y", "x"]);
        let new = patched(
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}}),
        );
        assert_eq!(new["metadata"]["finalizers"], json!(["c", "b"]));
        assert_eq!(patched(json!({"$patch": "replace", "spec": {}})), json!({"spec": {}}));
        assert_eq!(patched(json!({"spec": {"containers": null}}))["spec"], json!({}));
    }

    #[test]
    fn bad_patches_are_refused() {
        let object = pod(json!([]));
        for bad in [
            json!([]),
            json!({"spec": {"containers": [{"image": "x"}]}}),
            json!({"spec": {"$patch": "mend"}}),
            json!({"spec": {"containers": ["x"]}}),
        ] {
            assert_eq!(merge("Pod", &object, &bad).unwrap_err().code, 400, "{bad}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from)
        ];
        let key = prop_oneof![
            "[a-c]",
            Just("name".to_owned()),
            Just("$patch".to_owned()),
            Just("$setElementOrder/containers".to_owned()),
            Just("spec".to_owned()),
            Just("containers".to_owned())
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_patch_is_applied_or_refused(object in any_json(), patch in any_json()) {
            let _ = merge("Pod", &object, &patch);
        }

        #[test]
        fn merging_is_idempotent_without_directives(names in proptest::collection::btree_set("[a-d]", 0..4), extra in "[a-d]") {
            let items: Vec<Value> = names.iter().map(|n| json!({"name": n, "image": "1"})).collect();
            let object = pod(json!(items));
            let patch = json!({"spec": {"containers": [{"name": extra, "image": "2"}]}});
            let once = merge("Pod", &object, &patch).unwrap();
            prop_assert_eq!(&once, &merge("Pod", &once, &patch).unwrap());
            let merged = once["spec"]["containers"].as_array().unwrap();
            prop_assert_eq!(merged.len(), names.len() + usize::from(!names.contains(&extra)));
        }
    }
}
