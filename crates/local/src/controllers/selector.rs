//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

type Labels = BTreeMap<String, String>;

/// Whether every pair of the selector is among the labels. An empty selector selects nothing here: a service
/// without one has its endpoints made by somebody else.
pub(super) fn selects(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a workload's selector matches the labels.
pub(super) fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let pairs = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    let expressions = selector.match_expressions.iter().flatten().all(|expression| {
        let among = |value: &String| expression.values.iter().flatten().any(|one| one == value);
        let present = value(&expression.key);
        match expression.operator.as_str() {
            "In" => present.is_some_and(among),
            "NotIn" => !present.is_some_and(among),
            "Exists" => present.is_some(),
            "DoesNotExist" => present.is_none(),
            _ => false,
        }
    });
    pairs && expressions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(value: serde_json::Value) -> Labels {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn selectors_ask_for_all_they_say() {
        let pod = labels(json!({"app": "a", "version": "v1"}));
        assert!(selects(Some(&labels(json!({"app": "a"}))), Some(&pod)));
        assert!(!selects(Some(&labels(json!({"app": "b"}))), Some(&pod)));
        assert!(!selects(Some(&Labels::new()), Some(&pod)));
        let expression = |operator: &str, values: &[&str]| -> LabelSelector {
            let one = json!({"key": "version", "operator": operator, "values": values});
            serde_json::from_value(json!({"matchLabels": {"app": "a"}, "matchExpressions": [one]})).unwrap()
        };
        assert!(matches(&expression("In", &["v1"]), Some(&pod)));
        assert!(!matches(&expression("NotIn", &["v1"]), Some(&pod)));
        assert!(matches(&expression("Exists", &[]), Some(&pod)));
        assert!(!matches(&expression("DoesNotExist", &[]), Some(&pod)));
    }
}
