//! Kubernetes' label selectors, as `neverInjectSelector` and `alwaysInjectSelector` have them.

use serde_json::Value;

/// A label selector; all its conditions have to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    labels: Vec<(String, String)>,
    expressions: Vec<(String, Operator)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads a selector's JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(value: &Value) -> Result<Self, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = value["matchLabels"].as_object().into_iter().flatten();
        let mut expressions = Vec::new();
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            let key = text(&expression["key"]);
            let values = expression["values"].as_array().into_iter().flatten().map(text).collect();
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("operator {other:?}: write In, NotIn, Exists or DoesNotExist")),
            };
            expressions.push((key, operator));
        }
        let labels: Vec<_> = labels.map(|(key, value)| (key.clone(), text(value))).collect();
        if labels.is_empty() && expressions.is_empty() {
            return Err("it selects nothing: matchLabels and matchExpressions are empty".to_owned());
        }
        Ok(Self { labels, expressions })
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &Value) -> bool {
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        let holds = |(key, operator): &(String, Operator)| match operator {
            Operator::In(values) => label(key).is_some_and(|value| values.iter().any(|v| v == value)),
            Operator::NotIn(values) => label(key).is_none_or(|value| values.iter().all(|v| v != value)),
            Operator::Exists => label(key).is_some(),
            Operator::DoesNotExist => label(key).is_none(),
        };
        self.labels.iter().all(|(key, value)| label(key) == Some(value)) && self.expressions.iter().all(holds)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_conditions_have_to_hold() {
        let selector = Selector::read(&json!({
            "matchLabels": { "app": "a" },
            "matchExpressions": [
                { "key": "tier", "operator": "In", "values": ["x", "y"] },
                { "key": "off", "operator": "DoesNotExist" },
            ],
        }))
        .unwrap();
        assert!(selector.matches(&json!({ "app": "a", "tier": "y" })));
        assert!(!selector.matches(&json!({ "app": "a" })));
        assert!(!selector.matches(&json!({ "app": "a", "tier": "y", "off": "" })));
        assert!(Selector::read(&json!({ "matchExpressions": [{ "key": "a", "operator": "Is" }] })).is_err());
        assert!(Selector::read(&json!({})).is_err());
    }
}
