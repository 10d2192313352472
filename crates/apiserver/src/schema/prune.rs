//! Unknown fields removed, defaults added.

use serde_json::{Map, Value};

use super::{Additional, Schema};

impl Schema {
    /// Removes what the schema does not know and returns the paths. `apiVersion`, `kind` and `metadata` of the root stay.
    pub(crate) fn prune(&self, root: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        self.prune_at(root, "", true, &mut unknown);
        unknown
    }

    fn prune_at(&self, value: &mut Value, path: &str, resource: bool, unknown: &mut Vec<String>) {
        match value {
            Value::Object(map) => self.prune_map(map, path, resource, unknown),
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (index, item) in list.iter_mut().enumerate() {
                        items.prune_at(item, &format!("{path}[{index}]"), items.embedded, unknown);
                    }
                }
            }
            _ => {}
        }
    }

    fn prune_map(&self, map: &mut Map<String, Value>, path: &str, resource: bool, unknown: &mut Vec<String>) {
        map.retain(|key, value| {
            if resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (self.properties.get(key), &self.additional) {
                (Some(known), _) => known.prune_at(value, &at, known.embedded, unknown),
                (None, Additional::Of(schema)) => schema.prune_at(value, &at, schema.embedded, unknown),
                (None, Additional::Any) => {}
                (None, Additional::Unknown) if self.preserve_unknown => {}
                (None, Additional::Unknown) => {
                    unknown.push(at);
                    return false;
                }
            }
            true
        });
    }

    /// Adds the defaults of missing fields; a null where null is not allowed counts as missing.
    pub(crate) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, schema) in &self.properties {
                    let absent = map.get(name).is_none_or(|v| v.is_null() && !schema.nullable);
                    if absent && let Some(default) = &schema.default {
                        map.insert(name.clone(), default.clone());
                    }
                    if let Some(inner) = map.get_mut(name) {
                        schema.fill(inner);
                    }
                }
                if let Additional::Of(schema) = &self.additional {
                    let others = map.iter_mut().filter(|(name, _)| !self.properties.contains_key(*name));
                    others.for_each(|(_, inner)| schema.fill(inner));
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    list.iter_mut().for_each(|item| items.fill(item));
                }
            }
            _ => {}
        }
    }
}
