//! The values of the charts: their defaults, which are at the same time what there is to set.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::field::{FieldError, FieldErrors, nearest};

/// The defaults. An empty object or a null stands for anything that users put there.
static DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    // The text is part of the binary, and a test reads it.
    serde_saphyr::from_str(include_str!("values.yaml")).unwrap_or_default()
});

/// Every value with its default.
pub fn default_values() -> Value {
    DEFAULTS.clone()
}

/// The value at a path of dots, where there is one that is not null.
pub fn lookup<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// What is wrong with values: paths that do not exist, types that do not fit.
pub(super) fn check(values: &Map<String, Value>, path: &str) -> Vec<FieldError> {
    let mut errors = FieldErrors(Vec::new());
    if let Some(known) = DEFAULTS.as_object() {
        object(values, known, path, &mut errors);
    }
    errors.0
}

fn object(values: &Map<String, Value>, known: &Map<String, Value>, path: &str, errors: &mut FieldErrors) {
    for (key, value) in values {
        let here = format!("{path}.{key}");
        match known.get(key) {
            Some(default) => self::value(value, default, &here, errors),
            // Gateways have names of the users' choice, and the values of ours.
            None if path.ends_with(".gateways") => {
                if let (Some(gateway), Some(like)) = (value.as_object(), known.get("istio-ingressgateway")) {
                    object(gateway, like.as_object().unwrap_or(known), &here, errors);
                }
            }
            // Resources of any name.
            None if path.ends_with(".limits") || path.ends_with(".requests") => {}
            None => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                let hint = match nearest(key, &names) {
                    Some(name) => format!("; did you mean \"{name}\"?"),
                    None => String::new(),
                };
                let message = format!("unknown value \"{key}\"{hint} (unvalidatedValues takes anything)");
                errors.0.push(FieldError { path: here, message });
            }
        }
    }
}

fn value(value: &Value, default: &Value, path: &str, errors: &mut FieldErrors) {
    let wanted = match (default, value) {
        (_, Value::Null) | (Value::Null, _) => return,
        (Value::Object(known), Value::Object(_)) if known.is_empty() => return,
        (Value::Object(known), Value::Object(values)) => return object(values, known, path, errors),
        (Value::Array(_), Value::Array(_)) => return,
        (Value::String(_), Value::String(_) | Value::Number(_)) => return,
        // Quantities and percentages are text or numbers, and `--set` cannot tell a name `true` from the boolean.
        (Value::Number(_), Value::Number(_)) | (Value::Bool(_), Value::Bool(_)) => return,
        (Value::Number(_), Value::String(text)) if text.parse::<f64>().is_ok() => return,
        (Value::Bool(_), Value::String(text)) if matches!(text.as_str(), "true" | "false") => return,
        (Value::Object(_), _) => "an object",
        (Value::Array(_), _) => "a list",
        (Value::String(_), _) => "text",
        (Value::Number(_), _) => "a number",
        (Value::Bool(_), _) => "true or false",
    };
    errors.0.push(FieldError { path: path.to_owned(), message: format!("expected {wanted}, got {value}") });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(values: Value) -> Vec<String> {
        check(values.as_object().unwrap(), "spec.values").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults_are_their_own_schema() {
        assert!(errors(default_values()).is_empty());
        assert_eq!(lookup(&default_values(), "global.proxy.statusPort"), Some(&json!(15020)));
    }

    #[test]
    fn what_does_not_exist_is_named_with_what_might_be_meant() {
        assert_eq!(
            errors(json!({ "global": { "netwrok": "n1" } })),
            ["spec.values.global.netwrok: unknown value \"netwrok\"; did you mean \"network\"? \
              (unvalidatedValues takes anything)"]
        );
        assert_eq!(
            errors(json!({ "pilot": { "autoscaleMin": [] } })),
            ["spec.values.pilot.autoscaleMin: expected a number, got []"]
        );
        assert!(
            errors(json!({ "gateways": { "istio-eastwestgateway": { "injectionTemplate": "gateway" } } }))
                .is_empty()
        );
        assert!(
            errors(json!({ "gateways": { "istio-eastwestgateway": { "injectTemplate": "x" } } }))[0]
                .contains("injectionTemplate")
        );
    }
}
