//! Subresources of objects: status, scale, finalize, token, binding, eviction; and the ones that are not there.

use http::Response;
use serde_json::{Value, json};

use super::handler::Job;
use super::options;
use super::response::{self, Body};
use crate::api::{Call, Patch};
use crate::object;
use crate::resource::Scale;
use crate::status::Status;
use crate::token::TokenRequest;

pub(super) async fn answer(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let method = job.parts.method.as_str();
    let resource = &job.resource;
    match (method, job.place.subresource.as_str()) {
        ("GET", "status") if resource.status => job.get(),
        ("PUT", "status") if resource.status => update(job).await,
        ("PATCH", "status") if resource.status => patch(job).await,
        ("PUT", "finalize") if resource.is("namespaces") => update(job).await,
        (_, "scale") => match &resource.scale {
            Some(scale) => self::scale(job, scale).await,
            None => Err(Status::no_such_path()),
        },
        ("POST", "token") if resource.is("serviceaccounts") => token(job),
        ("POST", "binding") if resource.is("pods") => bind(job).await,
        ("POST", "eviction") if resource.is("pods") => evict(job).await,
        (_, part @ ("proxy" | "ephemeralcontainers" | "resize"))
            if matches!(resource.name.as_str(), "pods" | "services" | "nodes") =>
        {
            Err(Status::not_supported(&format!("{}/{part}", resource.plural())))
        }
        _ => Err(Status::no_such_path()),
    }
}

async fn update(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let value = options::object(&job.parts.headers, &job.body)?;
    let done = job.api.update(job.call()?, &job.place.name, value).await?;
    job.done(200, &done)
}

async fn patch(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let patch = options::patch(&job.query, &job.parts.headers, &job.body)?;
    let done = job.api.patch(job.call()?, &job.place.name, &patch).await?;
    job.done(200, &done)
}

async fn scale(job: &Job<'_>, paths: &Scale) -> Result<Response<Body>, Status> {
    let object = job.api.get(&job.resource, &job.place.namespace, &job.place.name)?.value(&job.resource);
    let current = scale_of(&object, paths);
    let wanted = match job.parts.method.as_str() {
        "GET" => return Ok(response::json(200, &current)),
        "PUT" => options::object(&job.parts.headers, &job.body)?,
        "PATCH" => match options::patch(&job.query, &job.parts.headers, &job.body)? {
            Patch::Json(operations) => {
                crate::patch::apply(&job.resource, &current, &Patch::Json(operations))?
            }
            Patch::Merge(change) | Patch::Strategic(change) => {
                crate::patch::apply(&job.resource, &current, &Patch::Merge(change))?
            }
            Patch::Apply { .. } => {
                return Err(Status::not_supported("server-side apply to the scale subresource"));
            }
        },
        _ => return Err(Status::method_not_allowed()),
    };
    let replicas = match &wanted["spec"]["replicas"] {
        Value::Null => json!(0),
        number if number.as_u64().is_some() => number.clone(),
        other => {
            let cause =
                crate::status::Cause::invalid("spec.replicas", other, "must be greater than or equal to 0");
            return Err(Status::invalid("autoscaling", "Scale", &job.place.name, vec![cause]));
        }
    };
    let change = paths.spec_replicas.iter().rev().fold(replicas, |inner, step| json!({step.as_str(): inner}));
    let mut change = change;
    if let Some(version) = wanted["metadata"]["resourceVersion"].as_str().filter(|v| !v.is_empty()) {
        change["metadata"] = json!({"resourceVersion": version});
    }
    let call = Call { subresource: None, ..job.call()? };
    let done = job.api.patch(call, &job.place.name, &Patch::Merge(change)).await?;
    Ok(response::json(200, &scale_of(&done.object.value(&job.resource), paths)))
}

fn scale_of(value: &Value, paths: &Scale) -> Value {
    let at = |path: &[String]| path.iter().fold(value, |at, step| &at[step.as_str()]);
    let metadata = object::metadata(value);
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": at(&paths.spec_replicas).as_u64().unwrap_or(0)},
        "status": {"replicas": at(&paths.status_replicas).as_u64().unwrap_or(0)},
    });
    let labels =
        value["spec"]["selector"]["matchLabels"].as_object().or(value["spec"]["selector"].as_object());
    scale["status"]["selector"] = match &paths.selector {
        Some(path) => at(path).clone(),
        None => {
            let words =
                labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
            json!(words.collect::<Vec<_>>().join(","))
        }
    };
    scale
}

fn token(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let mut request = options::object(&job.parts.headers, &job.body)?;
    let spec = &request["spec"];
    let bound = &spec["boundObjectRef"];
    let pod = match bound["kind"].as_str() {
        None => None,
        Some("Pod") => bound["name"].as_str().map(str::to_owned),
        Some(other) => return Err(Status::not_supported(&format!("a token bound to a {other}"))),
    };
    let asked = TokenRequest {
        audiences: spec["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|a| a.as_str().map(str::to_owned))
            .collect(),
        expiration_seconds: spec["expirationSeconds"].as_u64(),
        pod,
    };
    let issued = job.api.issue_token(&job.place.namespace, &job.place.name, asked)?;
    let expires = i64::try_from(issued.expires_at)
        .ok()
        .and_then(|at| time::OffsetDateTime::from_unix_timestamp(at).ok());
    request["status"] =
        json!({"token": issued.token, "expirationTimestamp": expires.map(crate::api::rfc3339)});
    Ok(response::json(201, &request))
}

async fn bind(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let binding = options::object(&job.parts.headers, &job.body)?;
    let node = binding["target"]["name"].as_str().filter(|n| !n.is_empty());
    let node = node.ok_or_else(|| Status::bad_request("target.name: Required value: the node"))?;
    let current = job.api.get(&job.resource, &job.place.namespace, &job.place.name)?;
    let value = current.value(&job.resource);
    if value["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty()) {
        let why = format!("pod {} is already assigned to node {}", job.place.name, value["spec"]["nodeName"]);
        return Err(Status::conflict("pods", &job.place.name, &why));
    }
    let change = json!({"metadata": {"resourceVersion": current.resource_version.to_string()}, "spec": {"nodeName": node}});
    let call = Call { subresource: None, ..job.call()? };
    job.api.patch(call, &job.place.name, &Patch::Merge(change)).await?;
    Ok(success())
}

async fn evict(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let eviction = options::object(&job.parts.headers, &job.body)?;
    let options = options::deletion(&job.query, &eviction["deleteOptions"])?;
    let call = Call { subresource: None, ..job.call()? };
    job.api.delete(call, &job.place.name, options).await?;
    Ok(success())
}

fn success() -> Response<Body> {
    response::json(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    )
}
