//! `meta.k8s.io/v1 Table`: what `kubectl get` prints.

mod cells;
mod columns;
mod pods;

use serde_json::{Value, json};

use self::columns::Columns;
use super::handler::partial;
use crate::object::Object;
use crate::resource::{PrinterColumn, Resource};

/// The objects as rows. `include` is the query parameter `includeObject`; `metadata` is a list's.
pub(super) fn table(
    resource: &Resource,
    objects: &[&Object],
    include: &str,
    metadata: Option<Value>,
) -> Value {
    let columns = match resource.custom() {
        Some(custom) => Columns::Custom(&custom.columns),
        None => columns::built_in(resource),
    };
    let mut version = String::new();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let value = crate::convert::to_version(object.value(resource), resource);
            version = object.resource_version.to_string();
            let mut cells = columns.cells(&value);
            if name_is_last(resource) {
                cells.rotate_left(1);
            }
            match include {
                "None" => json!({"cells": cells}),
                "Object" => json!({"cells": cells, "object": value}),
                _ => json!({"cells": cells, "object": partial(value)}),
            }
        })
        .collect();
    let mut definitions = columns.definitions();
    if name_is_last(resource) {
        definitions[0]["priority"] = json!(1);
        definitions.rotate_left(1);
    }
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata.unwrap_or_else(|| json!({"resourceVersion": version})),
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// An event is known by what it is about: its own name comes last, and only to those who ask for wide tables.
fn name_is_last(resource: &Resource) -> bool {
    resource.kind == "Event"
}

/// A bookmark in a watch of tables.
pub(super) fn bookmark(metadata: &Value) -> Value {
    let object = partial(json!({"metadata": metadata}));
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": metadata["resourceVersion"]},
        "columnDefinitions": [], "rows": [{"cells": [], "object": object}],
    })
}

impl Columns<'_> {
    fn definitions(&self) -> Vec<Value> {
        let name = definition("Name", "string", "name", 0, "Name must be unique within a namespace.");
        let mut all = vec![name];
        match self {
            Columns::BuiltIn(columns) => {
                all.extend(columns.iter().map(|c| definition(c.name, c.kind, "", c.priority, c.name)));
            }
            Columns::Custom(columns) => {
                all.extend(
                    columns
                        .iter()
                        .map(|c| definition(&c.name, &c.kind, &c.format, c.priority, &c.description)),
                );
            }
        }
        all
    }

    fn cells(&self, value: &Value) -> Vec<Value> {
        let mut all = vec![value["metadata"]["name"].clone()];
        match self {
            Columns::BuiltIn(columns) => all.extend(columns.iter().map(|c| (c.cell)(value))),
            Columns::Custom(columns) => all.extend(columns.iter().map(|c| custom_cell(c, value))),
        }
        all
    }
}

fn definition(name: &str, kind: &str, format: &str, priority: i64, description: &str) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn custom_cell(column: &PrinterColumn, value: &Value) -> Value {
    let found = column.json_path.find(value);
    let Some(first) = found.first() else { return Value::Null };
    match column.kind.as_str() {
        "integer" => first.as_i64().map_or(Value::Null, |n| json!(n)),
        "number" => first.as_f64().map_or(Value::Null, |n| json!(n)),
        "boolean" => first.as_bool().map_or(Value::Null, |b| json!(b)),
        "date" => first.as_str().map_or(json!("<unknown>"), |at| json!(cells::age(at))),
        _ => json!(found.iter().map(|v| cells::text(v)).collect::<Vec<_>>().join(",")),
    }
}
