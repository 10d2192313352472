//! Admission webhooks: mutating ones change an object, validating ones refuse it, both by their configurations
//! (<https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>).

mod call;
mod conditions;
mod matching;
mod review;
pub(crate) mod service_account;
mod webhooks;

use futures::future::join_all;
use serde_json::{Value, json};

pub(crate) use self::matching::selects;
use self::webhooks::Webhook;
pub(crate) use self::webhooks::{Webhooks, causes};
use crate::api::{Api, Call};
use crate::status::Status;

/// What is done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// A request as webhooks see it. Objects are in the stored form.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) operation: Operation,
    /// Name of the object; may be empty at creation.
    pub(crate) name: &'a str,
    /// The object as it would be; null for a deletion.
    pub(crate) object: &'a Value,
    /// The object as it is; null for a creation.
    pub(crate) old: &'a Value,
}

/// Why a webhook did not let an object pass.
enum Failure {
    /// It refused the object, or cannot be asked for a trial.
    Refused(Status),
    /// It could not be asked, or its answer could not be understood.
    Unreachable(String),
}

/// Lets the mutating webhooks change the object. `Some` when one of them has.
pub(crate) async fn mutate(
    api: &Api,
    request: Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, Status> {
    let webhooks = api.webhooks.mutating(api);
    if webhooks.is_empty() || !matching::may_be_judged(request.call.resource) {
        return Ok(None);
    }
    let mut object = request.object.clone();
    // Which webhooks want to see it again, and what they have left behind.
    let mut seen: Vec<(&Webhook, Value)> = Vec::new();
    for webhook in webhooks.iter() {
        if let Some(changed) = ask(api, webhook, Request { object: &object, ..request }, warnings).await? {
            object = changed;
        } else if !matching::wants(api, webhook, Request { object: &object, ..request }) {
            continue;
        }
        if webhook.again {
            seen.push((webhook, object.clone()));
        }
    }
    for (webhook, left) in seen {
        if left != object
            && let Some(changed) = ask(api, webhook, Request { object: &object, ..request }, warnings).await?
        {
            object = changed;
        }
    }
    Ok((object != *request.object).then_some(object))
}

/// Asks all validating webhooks at once; the first refusal in their order counts.
pub(crate) async fn validate(
    api: &Api,
    request: Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Status> {
    let webhooks = api.webhooks.validating(api);
    if webhooks.is_empty() || !matching::may_be_judged(request.call.resource) {
        return Ok(());
    }
    let asked = webhooks.iter().map(|webhook| async move {
        let mut warnings = Vec::new();
        let done = ask(api, webhook, request, &mut warnings).await;
        (done, warnings)
    });
    let mut refusal = None;
    for (done, said) in join_all(asked).await {
        warnings.extend(said);
        if let Err(status) = done {
            refusal.get_or_insert(status);
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// One webhook, when it wants the request. `Some` is the object that it has changed.
async fn ask(
    api: &Api,
    webhook: &Webhook,
    request: Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, Status> {
    let Some(resource) = matching::matched(api, webhook, request) else { return Ok(None) };
    let name = &webhook.name;
    match conditions::hold(webhook, &request, &resource) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(why) if webhook.ignored => {
            tracing::warn!(webhook = name, %why, "match conditions failed and are ignored by the failurePolicy");
            return Ok(None);
        }
        Err(why) => {
            let why = format!("admission webhook \"{name}\" failed to evaluate match conditions: {why}");
            return Err(Status::forbidden(request.call.resource.name.as_str(), request.name, &why));
        }
    }
    let asked = async {
        if request.call.options.dry_run && !webhook.harmless {
            let why = format!("admission webhook \"{name}\" does not support dry run");
            return Err(Failure::Refused(Status::bad_request(why)));
        }
        review::run(api, webhook, request, &resource, warnings).await
    };
    match asked.await {
        Ok(changed) => Ok(changed),
        Err(Failure::Refused(status)) => Err(status),
        Err(Failure::Unreachable(why)) if webhook.ignored => {
            tracing::warn!(webhook = name, %why, "a webhook failed and is ignored by its failurePolicy");
            Ok(None)
        }
        Err(Failure::Unreachable(why)) => {
            Err(Status::internal(format!("failed calling webhook \"{name}\": failed to call webhook: {why}")))
        }
    }
}

/// The request of a client that wants to connect to the object, which takes no change.
pub(crate) async fn connect(api: &Api, call: &Call<'_>, name: &str, options: &Value) -> Result<(), Status> {
    let request = Request { call, operation: Operation::Connect, name, object: options, old: &Value::Null };
    let mut warnings = Vec::new();
    mutate(api, request, &mut warnings).await?;
    validate(api, request, &mut warnings).await
}

/// The deletion of an object.
pub(crate) async fn delete(api: &Api, call: &Call<'_>, name: &str, old: &Value) -> Result<(), Status> {
    let null = json!(null);
    let request = Request { call, operation: Operation::Delete, name, object: &null, old };
    let mut warnings = Vec::new();
    mutate(api, request, &mut warnings).await?;
    validate(api, request, &mut warnings).await
}
