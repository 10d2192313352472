//! Resources that answer a question: who somebody is (TokenReview, SelfSubjectReview), and what somebody may do
//! (SubjectAccessReview with its kin, SelfSubjectRulesReview).

use http::Response;
use serde_json::{Value, json};

use super::handler::Job;
use super::options;
use super::response::{self, Body};
use crate::access::{self, Action, User};
use crate::status::Status;
use crate::token;

pub(super) async fn answer(job: &Job<'_>) -> Result<Response<Body>, Status> {
    if job.parts.method != http::Method::POST || !job.place.name.is_empty() {
        return Err(Status::method_not_allowed());
    }
    let mut review = options::object(&job.parts.headers, &job.body)?;
    if !review.is_object() {
        return Err(Status::bad_request(format!("the body is not a {}", job.resource.kind)));
    }
    review["status"] = match job.resource.plural() {
        "tokenreviews" => token_review(job, &review["spec"])?,
        "selfsubjectreviews" => json!({"userInfo": user_info(job.user)}),
        "selfsubjectaccessreviews" => access_review(job, &review["spec"], job.user),
        "selfsubjectrulesreviews" => rules_review(job, &review["spec"]),
        _ => access_review(job, &review["spec"], &subject(&review["spec"])),
    };
    Ok(response::json(201, &review))
}

fn token_review(job: &Job<'_>, spec: &Value) -> Result<Value, Status> {
    let token = spec["token"].as_str().filter(|t| !t.is_empty());
    let token =
        token.ok_or_else(|| Status::bad_request("spec.token: Required value: the token to review"))?;
    let audiences = texts(&spec["audiences"]);
    Ok(match token::verify(job.api, token, &audiences) {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
    })
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    for (key, value) in &user.extra {
        info["extra"][key] = json!([value]);
    }
    info
}

fn subject(spec: &Value) -> User {
    let name = spec["user"].as_str().unwrap_or_default().to_owned();
    User { name, groups: texts(&spec["groups"]), ..User::default() }
}

fn access_review(job: &Job<'_>, spec: &Value, user: &User) -> Value {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let full = [text(resource, "resource"), text(resource, "subresource")].join("/");
    let (group, namespace, name) =
        (text(resource, "group"), text(resource, "namespace"), text(resource, "name"));
    let (verb, url) = if path.is_object() {
        (text(path, "verb"), text(path, "path"))
    } else {
        (text(resource, "verb"), String::new())
    };
    let action = Action {
        verb: &verb,
        group: &group,
        resource: full.trim_end_matches('/'),
        namespace: &namespace,
        name: &name,
        path: &url,
    };
    json!({"allowed": access::allows(job.api, user, action)})
}

fn rules_review(job: &Job<'_>, spec: &Value) -> Value {
    let (resources, paths) =
        access::rules_of(job.api, job.user, spec["namespace"].as_str().unwrap_or("default"));
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
