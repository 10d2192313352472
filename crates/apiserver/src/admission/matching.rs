//! Which requests a webhook is asked about.

use std::sync::Arc;

use serde_json::Value;

use super::webhooks::{Rule, Webhook};
use super::{Operation, Request};
use crate::api::Api;
use crate::object;
use crate::resource::Resource;
use crate::selector::Selector;

/// A configuration cannot lock itself in, and questions are answered without being judged.
pub(super) fn may_be_judged(resource: &Resource) -> bool {
    !(resource.group == "admissionregistration.k8s.io" || resource.is_review())
}

/// Whether the webhook wants the request.
pub(super) fn wants(api: &Api, webhook: &Webhook, request: Request<'_>) -> bool {
    matched(api, webhook, request).is_some()
}

/// The resource in the version in which the webhook wants the request, if it does.
pub(super) fn matched(api: &Api, webhook: &Webhook, request: Request<'_>) -> Option<Arc<Resource>> {
    let resource = request.call.resource;
    let any = |resource: &Resource| webhook.rules.iter().any(|rule| rule.takes(resource, &request));
    let found = if any(resource) {
        resource.clone()
    } else if webhook.equivalent {
        let catalog = api.catalog();
        catalog.versions(&resource.name).iter().find(|other| any(other)).cloned()?
    } else {
        return None;
    };
    let labels = |object: &Value| object::metadata(object)["labels"].clone();
    let namespace = match resource {
        r if r.is("namespaces") => {
            Some(if request.object.is_null() { labels(request.old) } else { labels(request.object) })
        }
        r if r.namespaced => {
            let namespace = api.store.get(&"namespaces".into(), "", request.call.namespace);
            Some(labels(&namespace.and_then(|n| n.neutral()).unwrap_or_default()))
        }
        _ => None,
    };
    if namespace.is_some_and(|labels| !selects(&webhook.namespace_selector, &labels)) {
        return None;
    }
    let chosen = [request.object, request.old]
        .into_iter()
        .filter(|object| !object.is_null())
        .any(|object| selects(&webhook.object_selector, &labels(object)));
    chosen.then_some(found)
}

impl Rule {
    fn takes(&self, resource: &Resource, request: &Request<'_>) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|entry| entry == "*" || entry == word);
        let part = request.call.subresource.unwrap_or_default();
        let operation = match request.operation {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        };
        has(&self.operations, operation)
            && has(&self.groups, &resource.group)
            && has(&self.versions, &resource.version)
            && self
                .resources
                .iter()
                .any(|(name, sub)| (name == "*" || name == resource.plural()) && (sub == "*" || sub == part))
            && match self.scope.as_str() {
                "Cluster" => !resource.namespaced,
                "Namespaced" => resource.namespaced,
                _ => true,
            }
    }
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
