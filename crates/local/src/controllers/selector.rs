//! Label selectors.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

type Labels = BTreeMap<String, String>;

/// Whether every pair of the selector is among the labels. An empty selector selects nothing here: a service
/// without one has its endpoints made by somebody else.
pub(crate) fn selects(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// Whether a selector with expressions selects; an empty one selects all, none selects nothing, one with an unknown
/// operator nothing.
pub(crate) fn label_selects(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector else { return false };
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let pairs = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    pairs
        && selector.match_expressions.iter().flatten().all(|one| {
            let found = value(&one.key);
            let among = || found.is_some_and(|found| one.values.iter().flatten().any(|value| value == found));
            match &*one.operator {
                "In" => among(),
                "NotIn" => !among(),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
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
    }

    #[test]
    fn expressions_are_asked_too() {
        let pod = labels(json!({"app": "a"}));
        let selects = |selector: serde_json::Value| {
            label_selects(Some(&serde_json::from_value(selector).unwrap()), Some(&pod))
        };
        let one = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        assert!(selects(json!({})) && selects(one("In", &["a"])) && selects(one("Exists", &[])));
        assert!(!selects(one("NotIn", &["a"])) && !selects(one("DoesNotExist", &[])));
        assert!(!selects(one("Like", &["a"])) && !selects(json!({"matchLabels": {"x": "y"}})));
        assert!(!label_selects(None, Some(&pod)));
    }
}
