//! `pods/log`.

use std::time::{Duration, SystemTime};

use http::Response;
use serde_json::Value;

use super::handler::Job;
use super::response::{self, Body};
use crate::providers::LogRequest;
use crate::status::Status;

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub(super) async fn answer(job: &Job<'_>) -> Result<Response<Body>, Status> {
    let pod = job.api.get(&job.resource, &job.place.namespace, &job.place.name)?.value(&job.resource);
    let query = &job.query;
    let request = LogRequest {
        namespace: job.place.namespace.clone(),
        pod: job.place.name.clone(),
        container: container(&pod, query.text("container"))?,
        follow: is_true(query.text("follow")),
        previous: is_true(query.text("previous")),
        tail_lines: query.number("tailLines")?,
        limit_bytes: query.number("limitBytes")?,
        since: since(query)?,
        timestamps: is_true(query.text("timestamps")),
    };
    let stream = job.api.providers.logs()?.open(request).await?;
    Ok(response::stream("text/plain", stream))
}

fn is_true(text: &str) -> bool {
    matches!(text, "true" | "1")
}

fn since(query: &super::request::Query) -> Result<Option<SystemTime>, Status> {
    let text = query.text("sinceTime");
    if text.is_empty() {
        let seconds = query.number("sinceSeconds")?;
        return Ok(seconds.and_then(|seconds| SystemTime::now().checked_sub(Duration::from_secs(seconds))));
    }
    let at = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map_err(|_| Status::bad_request(format!("sinceTime: \"{text}\" is not a time in RFC 3339")))?;
    Ok(Some(at.into()))
}

/// The asked container, the one the pod names as default, or the only one.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = crate::object::name(pod);
    let names: Vec<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|key| pod["spec"][key].as_array().into_iter().flatten())
        .filter_map(|c| c["name"].as_str())
        .collect();
    if !asked.is_empty() {
        if names.contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    let main: Vec<&str> = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    let default = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    match (main.as_slice(), default) {
        ([only], _) => Ok((*only).to_owned()),
        (many, Some(default)) if many.contains(&default) => Ok(default.to_owned()),
        _ => {
            let why = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            );
            Err(Status::bad_request(why))
        }
    }
}
