//! The answer to Kubernetes' `AdmissionReview` of an Istio object: what `validate` says, before the object is stored.

use serde_json::{Value, json};

use crate::kinds::KINDS;
use crate::object::parse_json;
use crate::validate::{Severity, validate};

/// Answers a review. Objects that are wrong are refused, each error with its path; warnings come along either way.
/// What is no Istio object, and deletions, are none of our business and allowed.
pub fn review(review: &Value) -> Value {
    let request = &review["request"];
    let mut response = judge(&request["object"]);
    response["uid"] = request["uid"].clone();
    json!({
        "apiVersion": review["apiVersion"].as_str().unwrap_or("admission.k8s.io/v1"),
        "kind": "AdmissionReview",
        "response": response,
    })
}

fn judge(object: &Value) -> Value {
    if !KINDS.iter().any(|info| object["kind"] == info.name) {
        return json!({ "allowed": true });
    }
    let (errors, warnings) = match parse_json(object) {
        Err(error) => (error.errors.iter().map(ToString::to_string).collect(), vec![]),
        Ok(object) => {
            let (errors, warnings): (Vec<_>, Vec<_>) =
                validate(&object).into_iter().partition(|problem| problem.severity == Severity::Error);
            let said = |problem: &crate::Problem| match problem.path.as_str() {
                "" => problem.message.clone(),
                path => format!("{path}: {}", problem.message),
            };
            (errors.iter().map(said).collect::<Vec<_>>(), warnings.iter().map(said).collect::<Vec<_>>())
        }
    };
    let mut response = json!({ "allowed": errors.is_empty() });
    if !errors.is_empty() {
        let message = format!("configuration is invalid: {}", errors.join("; "));
        response["status"] = json!({ "code": 400, "reason": "BadRequest", "message": message });
    }
    if !warnings.is_empty() {
        response["warnings"] = json!(warnings);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(object: Value) -> Value {
        review(&json!({ "request": { "uid": "7", "object": object } }))["response"].clone()
    }

    #[test]
    fn a_bad_object_is_refused_with_its_path() {
        let virtual_service = |weight: u32| {
            json!({
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": { "name": "a", "namespace": "default" },
                "spec": { "hosts": ["a"], "http": [{ "route": [
                    { "destination": { "host": "a" }, "weight": weight }, { "destination": { "host": "" } },
                ]}]},
            })
        };
        let refused = ask(virtual_service(100));
        assert_eq!(refused["uid"], "7");
        assert_eq!(refused["allowed"], false);
        let message = refused["status"]["message"].as_str().unwrap();
        assert!(message.starts_with("configuration is invalid: spec.http[0].route[1]"), "{message}");
        let mut unknown = virtual_service(100);
        unknown["spec"] = json!({ "hosts": ["a"], "htpp": [] });
        assert!(ask(unknown)["status"]["message"].as_str().unwrap().contains("did you mean \"http\"?"));
    }

    #[test]
    fn warnings_come_along_and_others_are_let_through() {
        let rule = ask(json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": { "name": "a", "namespace": "default" },
            "spec": { "host": "a", "trafficPolicy": { "outlierDetection": { "consecutiveErrors": 5 } } },
        }));
        assert_eq!(rule["allowed"], true);
        assert!(rule["warnings"][0].as_str().unwrap().contains("deprecated"), "{rule}");
        assert_eq!(ask(json!({ "kind": "Pod" })), json!({ "uid": "7", "allowed": true }));
        assert_eq!(ask(Value::Null)["allowed"], true);
    }
}
