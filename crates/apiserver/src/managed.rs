//! Who has set which field: `metadata.managedFields`, and server-side apply, which rests on it
//! (<https://kubernetes.io/docs/reference/using-api/server-side-apply/>).
//!
//! Every write by a named client is tracked. What the cluster's own controllers write is tracked only on objects that such
//! a client has written before: their own objects would carry twice their size.

mod apply;
mod leaves;
mod paths;
mod shape;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::leaves::leaves;
use self::paths::{Path, from_fields, to_fields};
use self::shape::Shape;
use crate::api::Call;
use crate::object;

pub(crate) use self::apply::{apply, intent};

/// A client's set of fields.
#[derive(Debug, Clone)]
struct Manager {
    name: String,
    /// By apply; otherwise by any other write.
    applies: bool,
    api_version: String,
    subresource: String,
    time: Value,
    fields: BTreeSet<Path>,
}

impl Manager {
    fn new(call: &Call<'_>, name: &str, applies: bool) -> Self {
        Self {
            name: name.to_owned(),
            applies,
            api_version: call.resource.api_version(),
            subresource: call.subresource.unwrap_or_default().to_owned(),
            time: json!(crate::api::now()),
            fields: BTreeSet::new(),
        }
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Some(Self {
            name: value["manager"].as_str()?.to_owned(),
            applies: value["operation"] == "Apply",
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: value["time"].clone(),
            fields: from_fields(&value["fieldsV1"]),
        })
    }

    fn write(&self) -> Value {
        let mut value = json!({
            "manager": self.name, "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version, "time": self.time, "fieldsType": "FieldsV1",
            "fieldsV1": to_fields(&self.fields),
        });
        if !self.subresource.is_empty() {
            value["subresource"] = json!(self.subresource);
        }
        value
    }

    fn is(&self, other: &Self) -> bool {
        (&self.name, self.applies, &self.api_version, &self.subresource)
            == (&other.name, other.applies, &other.api_version, &other.subresource)
    }
}

fn read(object: &Value) -> Vec<Manager> {
    object::metadata(object)["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Manager::read)
        .collect()
}

fn write(object: &mut Value, managers: &[Manager]) {
    let listed: Vec<Value> = managers.iter().filter(|m| !m.fields.is_empty()).map(Manager::write).collect();
    let metadata = object::metadata_mut(object);
    if listed.is_empty() {
        metadata.shift_remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), listed.into());
    }
}

/// Makes the writer of `new` the manager of what it has changed; `old` is null for a creation. An object that says who
/// manages it is believed, as in Kubernetes: that is how fields are given away.
pub(crate) fn track(call: &Call<'_>, old: &Value, new: &mut Value) {
    let silent = object::metadata(new)["managedFields"].as_array().is_none_or(Vec::is_empty);
    let mut managers = read(if silent { old } else { new });
    let name = match (call.manager, managers.is_empty()) {
        (Some(name), _) => name,
        (None, false) => "lateen",
        (None, true) => return write(new, &[]),
    };
    let shape = Shape::of(call.resource);
    let (before, after) = (leaves(old, shape), leaves(new, shape));
    let changed: BTreeSet<Path> = after
        .iter()
        .filter(|(path, value)| before.get(*path) != Some(value))
        .map(|(path, _)| path.clone())
        .collect();
    let own = Manager::new(call, name, false);
    if !changed.is_empty() && !managers.iter().any(|one| one.is(&own)) {
        managers.push(own.clone());
    }
    for manager in &mut managers {
        let had = manager.fields.len();
        manager.fields.retain(|path| after.contains_key(path));
        if manager.is(&own) {
            manager.fields.extend(changed.iter().cloned());
            if !changed.is_empty() || manager.fields.len() != had {
                manager.time = own.time.clone();
            }
        } else {
            manager.fields.retain(|path| !changed.contains(path));
        }
    }
    drop((before, after));
    write(new, &managers);
}
