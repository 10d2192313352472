//! Label selectors.

use std::collections::BTreeMap;

type Labels = BTreeMap<String, String>;

/// Whether every pair of the selector is among the labels. An empty selector selects nothing here: a service
/// without one has its endpoints made by somebody else.
pub(crate) fn selects(selector: Option<&Labels>, labels: Option<&Labels>) -> bool {
    let Some(selector) = selector.filter(|selector| !selector.is_empty()) else { return false };
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
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
}
