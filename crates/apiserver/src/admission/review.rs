//! One question to a webhook: the AdmissionReview, and what its answer means.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::call::Target;
use super::webhooks::Webhook;
use super::{Failure, Operation, Request};
use crate::api::Api;
use crate::convert;
use crate::object;
use crate::resource::Resource;
use crate::status::Status;

/// Asks. `Some` is the object, in the stored form, as the webhook has changed it.
pub(super) async fn run(
    api: &Api,
    webhook: &Webhook,
    request: Request<'_>,
    resource: &Resource,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, Failure> {
    let target = Target::of(api, webhook).await.map_err(Failure::Unreachable)?;
    let uid = crate::api::uuid();
    let known = webhook.review_versions.iter().find(|v| matches!(v.as_str(), "v1" | "v1beta1"));
    let object = shown(request.object, resource);
    let review = review(&request, resource, &object, &uid, known.map_or("v1", String::as_str));
    let answer = target.call(&review).await.map_err(Failure::Unreachable)?;
    let response = &answer["response"];
    if response["uid"] != uid.as_str() {
        let why = "the response is not an AdmissionReview with the uid of the request";
        return Err(Failure::Unreachable(why.into()));
    }
    let said = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    warnings.extend(said.map(str::to_owned));
    if response["allowed"] != true {
        return Err(Failure::Refused(denial(&webhook.name, &response["status"])));
    }
    match response["patch"].as_str().filter(|patch| !patch.is_empty()) {
        None => Ok(None),
        Some(patch) => {
            let mut changed =
                patched(&object, patch, &response["patchType"]).map_err(Failure::Unreachable)?;
            changed["apiVersion"] = json!(request.call.resource.api_version());
            let stored = convert::to_stored(changed, resource);
            Ok((stored != *request.object).then_some(stored))
        }
    }
}

/// The object as a client of this version of the resource sees it.
pub(super) fn shown(object: &Value, resource: &Resource) -> Value {
    let mut shown = convert::to_version(object.clone(), resource);
    if shown.is_object() && shown["kind"] == resource.kind.as_str() {
        shown["apiVersion"] = json!(resource.api_version());
    }
    shown
}

fn review(request: &Request<'_>, resource: &Resource, object: &Value, uid: &str, version: &str) -> Value {
    let body = body(request, resource, object, uid);
    json!({"apiVersion": format!("admission.k8s.io/{version}"), "kind": "AdmissionReview", "request": body})
}

/// The request that a webhook is asked about.
pub(super) fn body(request: &Request<'_>, resource: &Resource, object: &Value, uid: &str) -> Value {
    let call = request.call;
    let place = |r: &Resource| json!({"group": r.group, "version": r.version, "resource": r.plural()});
    let kind = |r: &Resource| json!({"group": r.group, "version": r.version, "kind": r.kind});
    let (operation, options) = match request.operation {
        Operation::Create => ("CREATE", "CreateOptions"),
        Operation::Update => ("UPDATE", "UpdateOptions"),
        Operation::Delete => ("DELETE", "DeleteOptions"),
        Operation::Connect => ("CONNECT", ""),
    };
    let mut body = json!({
        "uid": uid,
        "kind": kind(resource),
        "resource": place(resource),
        "requestKind": kind(call.resource),
        "requestResource": place(call.resource),
        "name": request.name,
        "operation": operation,
        "userInfo": user(call.user),
        "object": object,
        "oldObject": shown(request.old, resource),
        "dryRun": call.options.dry_run,
        "options": null,
    });
    if call.resource.namespaced {
        body["namespace"] = json!(call.namespace);
    } else if call.resource.is("namespaces") {
        body["namespace"] = json!(request.name);
    }
    if let Some(part) = call.subresource {
        body["subResource"] = json!(part);
        body["requestSubResource"] = json!(part);
    }
    if !options.is_empty() {
        body["options"] = json!({"apiVersion": "meta.k8s.io/v1", "kind": options});
    }
    body
}

fn user(user: &crate::access::User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    for (key, value) in &user.extra {
        info["extra"][key] = json!([value]);
    }
    info
}

/// In Kubernetes' words.
fn denial(name: &str, status: &Value) -> Status {
    let said = |key: &str| status[key].as_str().filter(|text| !text.is_empty());
    let why = match said("message").or(said("reason")) {
        Some(why) => format!(": {why}"),
        None => " without explanation".to_owned(),
    };
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "",
    };
    Status::new(code, reason, format!("admission webhook \"{name}\" denied the request{why}"))
}

fn patched(object: &Value, patch: &str, kind: &Value) -> Result<Value, String> {
    if !matches!(kind.as_str(), Some("JSONPatch")) {
        return Err(format!("the response has patchType {kind}, want \"JSONPatch\""));
    }
    let bytes = STANDARD.decode(patch).map_err(|e| format!("the response's patch is not base64: {e}"))?;
    let operations: json_patch::Patch = serde_json::from_slice(&bytes)
        .map_err(|e| format!("the response's patch is not a JSON patch: {e}"))?;
    let mut changed = object.clone();
    json_patch::patch(&mut changed, &operations)
        .map_err(|e| format!("the response's patch cannot be applied: {e}"))?;
    if object::metadata(&changed)["name"] != object::metadata(object)["name"] {
        return Err("the response's patch changes the object's name".into());
    }
    if changed.is_object() {
        Ok(changed)
    } else {
        Err("the response's patch does not leave an object".into())
    }
}
