//! A proxy's dump of its configuration.

use serde_json::{Map, Value};

use crate::commands::CliError;

/// The configuration of a proxy, with all names in camelCase.
pub(crate) struct Dump {
    configs: Vec<Value>,
}

impl Dump {
    /// Reads what `/config_dump` answers, be its names in snake_case (as Envoy writes them) or camelCase.
    ///
    /// # Errors
    /// When the text is no JSON, or no dump.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| CliError(format!("the config dump is no JSON: {error}")))?;
        let Some(configs) = value.get("configs").and_then(Value::as_array) else {
            return Err(CliError::new(
                "config dump has no configuration type: a JSON object with \"configs\" is wanted",
            ));
        };
        Ok(Self { configs: configs.iter().map(camel).collect() })
    }

    /// The sections of a type, such as `ClustersConfigDump`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn sections(&self, kind: &str) -> Result<Vec<&Value>, CliError> {
        let named = |section: &&Value| {
            section
                .get("@type")
                .and_then(Value::as_str)
                .is_some_and(|name| name.ends_with(&format!(".{kind}")))
        };
        let sections: Vec<&Value> = self.configs.iter().filter(named).collect();
        if sections.is_empty() {
            return Err(CliError(format!(
                "config dump has no configuration type type.googleapis.com/envoy.admin.v3.{kind}"
            )));
        }
        Ok(sections)
    }

    /// The resources of a type: what `pointer` finds in each item of the lists `lists`, without its type URL.
    ///
    /// # Errors
    /// When the dump has no section of the type.
    pub(crate) fn resources(
        &self,
        kind: &str,
        lists: &[&str],
        pointer: &str,
    ) -> Result<Vec<Value>, CliError> {
        let sections = self.sections(kind)?;
        let mut found = Vec::new();
        for list in lists {
            for section in &sections {
                let items = section.get(*list).and_then(Value::as_array).into_iter().flatten();
                found.extend(items.filter_map(|item| item.pointer(pointer)).map(without_type));
            }
        }
        Ok(found)
    }
}

/// A message without the type URL that it has inside an `Any`.
pub(crate) fn without_type(value: &Value) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .filter(|(key, _)| *key != "@type")
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// Fields that hold JSON of the user's: their content keeps its names.
const FREE: &[&str] = &["filterMetadata", "staticLayer", "jsonFormat"];

/// Fields that are maps: their keys stay, what they lead to is renamed.
const MAPS: &[&str] = &[
    "typedPerFilterConfig",
    "typedExtensionProtocolOptions",
    "typedFilterMetadata",
    "keyValues",
    "typedDnsResolverConfig",
    "resourceMonitors",
    "attributes",
    "policies",
];

/// The same with its fields in camelCase, as protobuf's JSON is written by default.
pub(crate) fn camel(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(camel).collect(),
        Value::Object(object) => {
            let free =
                object.get("@type").and_then(Value::as_str).is_some_and(|t| t.ends_with("protobuf.Struct"));
            object
                .iter()
                .map(|(key, value)| if free { (key.clone(), value.clone()) } else { field(key, value) })
                .collect::<Map<_, _>>()
                .into()
        }
        other => other.clone(),
    }
}

fn field(key: &str, value: &Value) -> (String, Value) {
    let name = lateen_api::field::json_name(key);
    let map = MAPS.contains(&name.as_str());
    let value = match value {
        Value::Object(_) if FREE.contains(&name.as_str()) => value.clone(),
        Value::Object(object) if name == "metadata" && !is_metadata(object) => value.clone(),
        Value::Object(object) if map => {
            object.iter().map(|(k, v)| (k.clone(), camel(v))).collect::<Map<_, _>>().into()
        }
        other => camel(other),
    };
    (name, value)
}

/// Whether this is Envoy's `Metadata`, and not the free metadata of a node or build.
fn is_metadata(object: &Map<String, Value>) -> bool {
    ["filter_metadata", "filterMetadata", "typed_filter_metadata", "typedFilterMetadata"]
        .iter()
        .any(|key| object.contains_key(*key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_become_camel_case_but_for_what_users_wrote() {
        let dump = json!({"lb_endpoints": [{"metadata": {"filter_metadata": {"a_b": {"c_d": 1}}}}],
            "node": {"metadata": {"ISTIO_VERSION": "1", "x_y": 2}},
            "typed_per_filter_config": {"envoy.filters.http_x": {"some_field": true}}});
        let wanted = json!({"lbEndpoints": [{"metadata": {"filterMetadata": {"a_b": {"c_d": 1}}}}],
            "node": {"metadata": {"ISTIO_VERSION": "1", "x_y": 2}},
            "typedPerFilterConfig": {"envoy.filters.http_x": {"someField": true}}});
        assert_eq!(camel(&dump), wanted);
    }
}
