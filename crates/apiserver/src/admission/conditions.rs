//! `matchConditions`: expressions that say which requests a webhook is asked about.

use serde_json::Value;

use super::Request;
use super::review;
use super::webhooks::Webhook;
use crate::cel::{Budget, Fault, Kind, Program, Tag, Val};
use crate::resource::Resource;
use crate::status::Cause;

/// Conditions of a webhook at most.
const MOST: usize = 64;
/// What the conditions of one webhook may cost for one request.
const COST: u64 = 2_000_000;

/// One condition; what does not compile fails when it is asked.
pub(super) type Condition = Result<Program, String>;

fn program(expression: &Value) -> Condition {
    let any = || Kind::Plain(Tag::Dyn);
    let variables = [("object", any()), ("oldObject", any()), ("request", any())];
    Program::compile(expression.as_str().unwrap_or_default(), &variables, &Kind::Plain(Tag::Bool))
}

pub(super) fn compile(conditions: &Value) -> Vec<Condition> {
    conditions.as_array().into_iter().flatten().map(|one| program(&one["expression"])).collect()
}

/// What is wrong with the conditions of a webhook.
pub(super) fn causes(conditions: &Value, path: &str) -> Vec<Cause> {
    let all = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut causes = Vec::new();
    if all.len() > MOST {
        causes.push(Cause::invalid(path, &all.len().into(), format!("must have at most {MOST} items")));
    }
    for (index, one) in all.iter().enumerate() {
        let at = |field: &str| format!("{path}[{index}].{field}");
        let name = one["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(at("name"), ""));
        } else if all[..index].iter().any(|other| other["name"] == name) {
            let message = format!("Duplicate value: {}", one["name"]);
            causes.push(Cause { reason: "FieldValueDuplicate", message, field: at("name") });
        }
        if one["expression"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(at("expression"), ""));
        } else if let Err(why) = program(&one["expression"]) {
            let why = format!("compilation failed: {why}");
            causes.push(Cause::invalid(at("expression"), &one["expression"], why));
        }
    }
    causes
}

/// Whether all conditions hold. One that does not decides, whatever is wrong with the others.
pub(super) fn hold(webhook: &Webhook, request: &Request<'_>, resource: &Resource) -> Result<bool, String> {
    if webhook.conditions.is_empty() {
        return Ok(true);
    }
    let object = review::shown(request.object, resource);
    let body = review::body(request, resource, &Value::Null, "");
    let variables = [
        ("object", Val::of(&object, None)),
        ("oldObject", Val::of(&body["oldObject"], None)),
        ("request", Val::of(&body, None)),
    ];
    let budget = Budget::new(COST);
    let mut wrong = None;
    for condition in &webhook.conditions {
        let value = match condition {
            Ok(program) => program.run(&variables, &budget),
            Err(why) => Err(Fault::Error(why.clone())),
        };
        match value {
            Ok(Val::Bool(true)) => {}
            Ok(_) => return Ok(false),
            Err(fault) => drop(wrong.get_or_insert(fault.to_string())),
        }
    }
    wrong.map_or(Ok(true), Err)
}
