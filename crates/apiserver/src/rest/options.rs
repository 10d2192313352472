//! Options of writes, from query and body.

use http::HeaderMap;
use serde_json::Value;

use super::request::Query;
use crate::api::{DeleteOptions, FieldValidation, Patch, Propagation, WriteOptions};
use crate::protobuf;
use crate::status::Status;

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";

pub(super) fn write(query: &Query) -> Result<WriteOptions, Status> {
    let field_validation = match query.text("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        other => {
            let why = format!("fieldValidation: unsupported value \"{other}\"; want Ignore, Strict or Warn");
            return Err(Status::bad_request(why));
        }
    };
    Ok(WriteOptions { dry_run: dry_run(query)?, field_validation })
}

fn dry_run(query: &Query) -> Result<bool, Status> {
    let mut any = false;
    for value in query.all("dryRun") {
        if value != "All" {
            return Err(Status::bad_request(format!("dryRun: unsupported value \"{value}\"; want All")));
        }
        any = true;
    }
    Ok(any)
}

/// The body overrides the query, as in Kubernetes.
pub(super) fn delete(query: &Query, headers: &HeaderMap, body: &[u8]) -> Result<DeleteOptions, Status> {
    let body = if body.is_empty() { Value::Null } else { object(headers, body)? };
    deletion(query, &body)
}

/// From a decoded `DeleteOptions`.
pub(super) fn deletion(query: &Query, body: &Value) -> Result<DeleteOptions, Status> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let policy =
        text(&body["propagationPolicy"]).unwrap_or_else(|| query.text("propagationPolicy").to_owned());
    if !matches!(policy.as_str(), "" | "Orphan" | "Background" | "Foreground") {
        let why = format!(
            "propagationPolicy: unsupported value \"{policy}\"; want Foreground, Background or Orphan"
        );
        return Err(Status::bad_request(why));
    }
    let grace = match &body["gracePeriodSeconds"] {
        Value::Null => query.number("gracePeriodSeconds")?,
        // A negative number means "as the object says".
        value => value.as_u64(),
    };
    let orphans = body["orphanDependents"] == true
        || query.flag("orphanDependents") && !query.text("orphanDependents").is_empty();
    let body_dry_run = body["dryRun"].as_array().is_some_and(|list| list.iter().any(|v| v == "All"));
    Ok(DeleteOptions {
        grace_period_seconds: grace,
        propagation: match policy.as_str() {
            "Foreground" => Propagation::Foreground,
            "Orphan" => Propagation::Orphan,
            "" if orphans => Propagation::Orphan,
            _ => Propagation::Background,
        },
        uid: text(&body["preconditions"]["uid"]),
        resource_version: text(&body["preconditions"]["resourceVersion"]),
        dry_run: dry_run(query)? || body_dry_run,
    })
}

/// The patch that the content type announces.
pub(super) fn patch(query: &Query, headers: &HeaderMap, body: &[u8]) -> Result<Patch, Status> {
    let content_type = media_type(headers);
    let json = || {
        serde_json::from_slice::<Value>(body)
            .map_err(|e| Status::bad_request(format!("the body is not valid JSON: {e}")))
    };
    match content_type {
        "application/json-patch+json" => Ok(Patch::Json(json()?)),
        "application/merge-patch+json" => Ok(Patch::Merge(json()?)),
        "application/strategic-merge-patch+json" => Ok(Patch::Strategic(json()?)),
        "application/apply-patch+yaml" => {
            Ok(Patch::Apply { intent: yaml(body)?, manager: applier(query)?, force: query.flag("force") })
        }
        other => Err(Status::unsupported_media_type(other, PATCH_TYPES)),
    }
}

fn applier(query: &Query) -> Result<String, Status> {
    match query.text("fieldManager") {
        "" => {
            let why = "is required for apply patch";
            let causes = vec![crate::status::Cause::required("fieldManager", why)];
            Err(Status::invalid("meta.k8s.io", "PatchOptions", "", causes))
        }
        name => Ok(name.to_owned()),
    }
}

/// YAML; JSON, which most clients send, is a part of it.
fn yaml(body: &[u8]) -> Result<Value, Status> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let bad = |why: String| Status::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(body).map_err(|error| bad(error.to_string()))?;
    serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))
}

/// Who is a write's field manager: whom it names, or the program that the client says it is.
pub(super) fn manager(query: &Query, headers: &HeaderMap) -> String {
    let program = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("unknown");
    let name = match query.text("fieldManager") {
        "" => program.split('/').next().unwrap_or_default(),
        name => name,
    };
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// The body of a create or update.
pub(super) fn object(headers: &HeaderMap, body: &[u8]) -> Result<Value, Status> {
    match media_type(headers) {
        "" | "application/json" | "text/json" => {}
        protobuf::MEDIA_TYPE => return protobuf::decode(body),
        other => {
            let known = format!("application/json, {}", protobuf::MEDIA_TYPE);
            return Err(Status::unsupported_media_type(other, &known));
        }
    }
    serde_json::from_slice(body).map_err(|e| Status::bad_request(format!("the body is not valid JSON: {e}")))
}

fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}
