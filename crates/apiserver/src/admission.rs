//! Mutating admission webhooks, called when a pod is created.

mod call;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::call::Target;
use crate::api::{Api, Call};
use crate::object;
use crate::selector::Selector;
use crate::status::Status;

const CONFIGURATIONS: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";

/// Lets every webhook that wants pods change this one.
pub(crate) async fn admit_pod(
    api: &Api,
    call: &Call<'_>,
    pod: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    for configuration in api.store.list(&CONFIGURATIONS.into(), None, None, usize::MAX).objects {
        let configuration = configuration.neutral().unwrap_or_default();
        for webhook in configuration["webhooks"].as_array().into_iter().flatten() {
            if !wants(api, call, webhook, pod) {
                continue;
            }
            let name = webhook["name"].as_str().unwrap_or_default();
            match run(api, call, webhook, pod, warnings).await {
                Ok(changed) => *pod = changed,
                Err(Failure::Denied(status)) => return Err(status),
                Err(Failure::Unreachable(why)) if webhook["failurePolicy"] == "Ignore" => {
                    tracing::warn!(webhook = name, %why, "a webhook failed and is ignored by its failurePolicy");
                }
                Err(Failure::Unreachable(why)) => {
                    return Err(Status::internal(format!("failed calling webhook \"{name}\": {why}")));
                }
            }
        }
    }
    Ok(())
}

enum Failure {
    /// The webhook refused the object.
    Denied(Status),
    /// It could not be asked, or its answer could not be understood.
    Unreachable(String),
}

fn wants(api: &Api, call: &Call<'_>, webhook: &Value, pod: &Value) -> bool {
    let has = |rule: &Value, key: &str, wanted: &[&str]| {
        rule[key]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .any(|v| v == "*" || wanted.contains(&v))
    };
    let rule = |rule: &Value| {
        has(rule, "operations", &["CREATE"])
            && has(rule, "apiGroups", &[""])
            && has(rule, "apiVersions", &["v1"])
            && has(rule, "resources", &["pods", "pods/*", "*/*"])
            && matches!(rule["scope"].as_str(), None | Some("*" | "Namespaced"))
    };
    if !webhook["rules"].as_array().into_iter().flatten().any(rule) {
        return false;
    }
    let namespace =
        api.store.get(&"namespaces".into(), "", call.namespace).and_then(|n| n.neutral()).unwrap_or_default();
    selects(&webhook["namespaceSelector"], &object::metadata(&namespace)["labels"])
        && selects(&webhook["objectSelector"], &object::metadata(pod)["labels"])
}

/// Whether a LabelSelector object selects the labels. A missing selector selects everything.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    let mut text = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        text.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("Exists") => key.to_owned(),
            Some("DoesNotExist") => format!("!{key}"),
            _ => return false,
        });
    }
    Selector::parse(&text.join(","), "").is_ok_and(|selector| selector.matches_labels(labels))
}

async fn run(
    api: &Api,
    call: &Call<'_>,
    webhook: &Value,
    pod: &Value,
    warnings: &mut Vec<String>,
) -> Result<Value, Failure> {
    let name = webhook["name"].as_str().unwrap_or_default();
    let target = Target::of(api, webhook).await.map_err(Failure::Unreachable)?;
    let uid = crate::api::uuid();
    let version =
        match webhook["admissionReviewVersions"].as_array().into_iter().flatten().find_map(Value::as_str) {
            Some("v1beta1") => "v1beta1",
            _ => "v1",
        };
    let review = review(call, pod, &uid, version);
    let answer = target.call(&review).await.map_err(Failure::Unreachable)?;
    let response = &answer["response"];
    if response["uid"] != uid.as_str() {
        return Err(Failure::Unreachable(
            "the response is not an AdmissionReview with the uid of the request".into(),
        ));
    }
    let said = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    warnings.extend(said.map(str::to_owned));
    if response["allowed"] != true {
        return Err(Failure::Denied(denial(name, &response["status"])));
    }
    match response["patch"].as_str().filter(|p| !p.is_empty()) {
        None => Ok(pod.clone()),
        Some(patch) => patched(pod, patch, &response["patchType"]).map_err(Failure::Unreachable),
    }
}

fn review(call: &Call<'_>, pod: &Value, uid: &str, version: &str) -> Value {
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    json!({
        "apiVersion": format!("admission.k8s.io/{version}"),
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": kind,
            "resource": resource,
            "requestKind": kind,
            "requestResource": resource,
            "name": object::metadata(pod)["name"],
            "namespace": call.namespace,
            "operation": "CREATE",
            "userInfo": {"username": call.user.name, "uid": call.user.uid, "groups": call.user.groups},
            "object": pod,
            "oldObject": null,
            "dryRun": call.options.dry_run,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}

fn denial(name: &str, status: &Value) -> Status {
    let why = status["message"].as_str().unwrap_or("no reason given");
    let code = status["code"]
        .as_u64()
        .and_then(|c| u16::try_from(c).ok())
        .filter(|c| (400..600).contains(c))
        .unwrap_or(400);
    let message = format!("admission webhook \"{name}\" denied the request: {why}");
    Status::new(code, if code == 403 { "Forbidden" } else { "BadRequest" }, message)
}

fn patched(pod: &Value, patch: &str, kind: &Value) -> Result<Value, String> {
    if !matches!(kind.as_str(), Some("JSONPatch")) {
        return Err(format!("the response has patchType {kind}, want \"JSONPatch\""));
    }
    let bytes = STANDARD.decode(patch).map_err(|e| format!("the response's patch is not base64: {e}"))?;
    let operations: json_patch::Patch = serde_json::from_slice(&bytes)
        .map_err(|e| format!("the response's patch is not a JSON patch: {e}"))?;
    let mut changed = pod.clone();
    json_patch::patch(&mut changed, &operations)
        .map_err(|e| format!("the response's patch cannot be applied: {e}"))?;
    if !changed.is_object() {
        return Err("the response's patch does not leave an object".into());
    }
    Ok(changed)
}
