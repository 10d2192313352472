//! Server-side apply: a client's whole intent merged into what there is.

use std::collections::BTreeSet;

use serde_json::Value;

use super::leaves::leaves;
use super::paths::{Path, Step, text};
use super::shape::{Merge, Shape, key_of};
use super::{Manager, read, write};
use crate::api::Call;
use crate::object;
use crate::status::{Cause, Status};

/// The object after `manager` has applied `intent` to `live`, which is null for a creation: what it applied before and
/// leaves out now is gone unless somebody else manages it, too.
///
/// # Errors
/// 409: somebody else manages a field that would change, and it is not forced.
pub(crate) fn apply(
    call: &Call<'_>,
    manager: &str,
    live: &Value,
    intent: &Value,
    force: bool,
) -> Result<Value, Status> {
    let shape = Shape::of(call.resource);
    let mut own = Manager::new(call, manager, true);
    own.fields = leaves(intent, shape).into_keys().collect();
    let mut managers = read(live);
    let before = managers.iter().position(|one| one.is(&own)).map(|at| managers.remove(at));
    let mut merged = merge(live, intent, shape, &Merge::Fields);
    if let Some(before) = &before {
        let mut gone: BTreeSet<Path> = before.fields.difference(&own.fields).cloned().collect();
        gone.retain(|path| !managers.iter().any(|other| other.fields.contains(path)));
        let kept = |path: &[Step]| {
            own.fields
                .iter()
                .chain(managers.iter().flat_map(|other| &other.fields))
                .any(|one| one.starts_with(path))
        };
        remove(&mut merged, &gone, &kept, shape);
    }
    let changed: BTreeSet<Path> = {
        let (old, new) = (leaves(live, shape), leaves(&merged, shape));
        own.fields.iter().filter(|path| old.get(*path) != new.get(*path)).cloned().collect()
    };
    if !live.is_null() && !force {
        conflicts(&managers, &changed)?;
    }
    for other in &mut managers {
        other.fields.retain(|path| !changed.contains(path));
    }
    let present = leaves(&merged, shape);
    let fields: BTreeSet<Path> =
        own.fields.iter().filter(|path| present.contains_key(*path)).cloned().collect();
    drop(present);
    own.fields = fields;
    if let Some(before) = before.filter(|before| before.fields == own.fields && changed.is_empty()) {
        own.time = before.time;
    }
    managers.push(own);
    write(&mut merged, &managers);
    Ok(merged)
}

fn conflicts(managers: &[Manager], changed: &BTreeSet<Path>) -> Result<(), Status> {
    let mut causes = Vec::new();
    let mut texts = Vec::new();
    for other in managers {
        let fields: Vec<String> = other.fields.intersection(changed).map(|path| text(path)).collect();
        if fields.is_empty() {
            continue;
        }
        let part = match other.subresource.as_str() {
            "" => String::new(),
            part => format!(" with subresource \"{part}\""),
        };
        let with = format!("with \"{}\"{part} using {}", other.name, other.api_version);
        texts.push(match fields.as_slice() {
            [one] => format!("conflict {with}: {one}"),
            many => format!("conflicts {with}:\n- {}", many.join("\n- ")),
        });
        causes.extend(fields.into_iter().map(|field| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict {with}"),
            field,
        }));
    }
    if causes.is_empty() {
        return Ok(());
    }
    let word = if causes.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {word}: {}", causes.len(), texts.join("\n"));
    let mut status = Status::new(409, "Conflict", message);
    status.details = Some(Box::new(crate::status::Details { causes, ..Default::default() }));
    Err(status)
}

fn merge(live: &Value, intent: &Value, shape: Shape<'_>, how: &Merge) -> Value {
    match (how, live, intent) {
        (Merge::Fields, Value::Object(live), Value::Object(intent)) => {
            let mut merged = live.clone();
            for (name, value) in intent {
                let (inner, how) = shape.field(name, value);
                let next = merge(live.get(name).unwrap_or(&Value::Null), value, inner, &how);
                merged.insert(name.clone(), next);
            }
            Value::Object(merged)
        }
        (Merge::Items(keys), Value::Array(live), Value::Array(intent)) => {
            let mut merged = live.clone();
            for item in intent {
                let key = key_of(item, keys);
                match merged.iter_mut().find(|one| key_of(one, keys) == key) {
                    Some(one) => *one = merge(one, item, shape.item(), &Merge::Fields),
                    None => merged.push(item.clone()),
                }
            }
            Value::Array(merged)
        }
        (Merge::Set, Value::Array(live), Value::Array(intent)) => {
            let mut merged = live.clone();
            merged.extend(intent.iter().filter(|item| !live.contains(item)).cloned());
            Value::Array(merged)
        }
        _ => intent.clone(),
    }
}

/// Removes what is in `gone`. An item of a list stays, with its keys, while anybody has `kept` a part of it.
fn remove(value: &mut Value, gone: &BTreeSet<Path>, kept: &dyn Fn(&[Step]) -> bool, shape: Shape<'_>) {
    remove_below(value, &mut Vec::new(), gone, kept, shape, &Merge::Fields);
}

fn remove_below(
    value: &mut Value,
    at: &mut Path,
    gone: &BTreeSet<Path>,
    kept: &dyn Fn(&[Step]) -> bool,
    shape: Shape<'_>,
    how: &Merge,
) {
    match (how, value) {
        (Merge::Fields, Value::Object(map)) => map.retain(|name, value| {
            at.push(Step::Field(name.clone()));
            let (inner, how) = shape.field(name, value);
            let leaf = gone.contains(at);
            if !leaf {
                remove_below(value, at, gone, kept, inner, &how);
            }
            // A map or list that has lost its last part goes as well.
            let emptied = !leaf && is_empty(value) && gone.iter().any(|path| path.starts_with(at));
            at.pop();
            !(leaf || emptied)
        }),
        (Merge::Items(keys), Value::Array(list)) => list.retain_mut(|item| {
            at.push(key_of(item, keys));
            let goes = gone.contains(at) && !kept(at);
            if !goes {
                let identity: Vec<(String, Value)> =
                    keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
                remove_below(item, at, gone, kept, shape.item(), &Merge::Fields);
                if let Some(map) = item.as_object_mut() {
                    map.extend(identity);
                }
            }
            at.pop();
            !goes
        }),
        (Merge::Set, Value::Array(list)) => list.retain(|item| {
            at.push(Step::Item(item.to_string()));
            let goes = gone.contains(at);
            at.pop();
            !goes
        }),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// An intent without what is nobody's: identity and, for the main resource, nothing of the status.
pub(crate) fn intent(call: &Call<'_>, mut value: Value) -> Value {
    object::metadata_mut(&mut value).shift_remove("managedFields");
    if let Some(map) = value.as_object_mut() {
        match call.subresource {
            Some("status") => {
                map.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
            }
            _ if call.resource.status => drop(map.shift_remove("status")),
            _ => {}
        }
    }
    value
}
