//! The webhooks of all configurations, read once per change.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::conditions;
use crate::api::Api;
use crate::resource::ResourceName;
use crate::status::Cause;

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

/// One entry of a configuration's `webhooks`.
pub(super) struct Webhook {
    pub(super) name: String,
    pub(super) client: Value,
    pub(super) timeout: Duration,
    /// What it takes, its favourite first: `v1`, `v1beta1`.
    pub(super) review_versions: Vec<String>,
    /// Its failure is ignored (`failurePolicy: Ignore`).
    pub(super) ignored: bool,
    /// It may be asked about a trial (`sideEffects: None`, `NoneOnDryRun`).
    pub(super) harmless: bool,
    /// It wants to see the object again when a later one changes it (`reinvocationPolicy: IfNeeded`).
    pub(super) again: bool,
    /// Its rules hold for the other versions of a resource, too (`matchPolicy: Equivalent`).
    pub(super) equivalent: bool,
    pub(super) rules: Vec<Rule>,
    pub(super) namespace_selector: Value,
    pub(super) object_selector: Value,
    /// `matchConditions`: all have to hold.
    pub(super) conditions: Vec<conditions::Condition>,
}

/// One entry of a webhook's `rules`.
pub(super) struct Rule {
    pub(super) operations: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) versions: Vec<String>,
    /// Each with its subresource, which may be empty.
    pub(super) resources: Vec<(String, String)>,
    /// `Cluster`, `Namespaced` or `*`.
    pub(super) scope: String,
}

/// The webhooks of both kinds.
#[derive(Default)]
pub(crate) struct Webhooks {
    mutating: Cached,
    validating: Cached,
}

/// With the state of the configurations that they were read from.
type Cached = Mutex<Option<(u64, Arc<Vec<Webhook>>)>>;

impl Webhooks {
    pub(super) fn mutating(&self, api: &Api) -> Arc<Vec<Webhook>> {
        current(&self.mutating, api, MUTATING)
    }

    pub(super) fn validating(&self, api: &Api) -> Arc<Vec<Webhook>> {
        current(&self.validating, api, VALIDATING)
    }
}

fn current(cached: &Cached, api: &Api, configurations: &str) -> Arc<Vec<Webhook>> {
    let resource = ResourceName::from(configurations);
    let at = api.store.changed_at(&resource);
    let mut cached = cached.lock();
    if let Some((known, webhooks)) = cached.as_ref()
        && *known == at
    {
        return webhooks.clone();
    }
    // By name, as the store has them: that is the order of the calls.
    let objects = api.store.list(&resource, None).objects;
    let configurations: Vec<Value> = objects.iter().filter_map(|object| object.neutral()).collect();
    let all = configurations.iter().flat_map(|one| one["webhooks"].as_array().into_iter().flatten());
    let fresh = Arc::new(all.map(Webhook::new).collect());
    *cached = Some((at, Arc::clone(&fresh)));
    fresh
}

impl Webhook {
    fn new(value: &Value) -> Self {
        Self {
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            client: value["clientConfig"].clone(),
            timeout: Duration::from_secs(value["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30)),
            review_versions: texts(&value["admissionReviewVersions"]),
            ignored: value["failurePolicy"] == "Ignore",
            harmless: matches!(value["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            again: value["reinvocationPolicy"] == "IfNeeded",
            equivalent: value["matchPolicy"] != "Exact",
            rules: value["rules"].as_array().into_iter().flatten().map(Rule::new).collect(),
            namespace_selector: value["namespaceSelector"].clone(),
            object_selector: value["objectSelector"].clone(),
            conditions: conditions::compile(&value["matchConditions"]),
        }
    }
}

impl Rule {
    fn new(value: &Value) -> Self {
        let split = |text: String| match text.split_once('/') {
            Some((resource, part)) => (resource.to_owned(), part.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: texts(&value["operations"]),
            groups: texts(&value["apiGroups"]),
            versions: texts(&value["apiVersions"]),
            resources: texts(&value["resources"]).into_iter().map(split).collect(),
            scope: value["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// What is wrong with a configuration.
pub(crate) fn causes(configuration: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, webhook) in configuration["webhooks"].as_array().into_iter().flatten().enumerate() {
        let at = |field: &str| format!("webhooks[{index}].{field}");
        let name = webhook["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(at("name"), ""));
        } else if name.split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            causes.push(Cause::invalid(at("name"), &webhook["name"], why));
        }
        let known = |one: &Value| one == "v1" || one == "v1beta1";
        let versions = &webhook["admissionReviewVersions"];
        if versions.as_array().is_none_or(Vec::is_empty) {
            let why = "must specify one of v1, v1beta1";
            causes.push(Cause::required(at("admissionReviewVersions"), why));
        } else if !versions.as_array().into_iter().flatten().any(known) {
            let why = "must include at least one of v1, v1beta1";
            causes.push(Cause::invalid(at("admissionReviewVersions"), versions, why));
        }
        match webhook["sideEffects"].as_str() {
            Some("None" | "NoneOnDryRun") => {}
            None => causes.push(Cause::required(at("sideEffects"), "must specify one of None, NoneOnDryRun")),
            Some(_) => {
                let allowed = ["None", "NoneOnDryRun"].map(str::to_owned);
                causes.push(Cause::not_supported(at("sideEffects"), &webhook["sideEffects"], &allowed));
            }
        }
        let client = &webhook["clientConfig"];
        if client["url"].is_null() == client["service"].is_null() {
            causes.push(Cause::required(at("clientConfig"), "exactly one of url or service is required"));
        }
        causes.extend(conditions::causes(&webhook["matchConditions"], &at("matchConditions")));
        let timeout = &webhook["timeoutSeconds"];
        if !timeout.is_null() && !timeout.as_i64().is_some_and(|seconds| (1..=30).contains(&seconds)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            causes.push(Cause::invalid(at("timeoutSeconds"), timeout, why));
        }
        for (key, allowed) in [
            ("failurePolicy", ["Fail", "Ignore"]),
            ("matchPolicy", ["Equivalent", "Exact"]),
            ("reinvocationPolicy", ["IfNeeded", "Never"]),
        ] {
            if webhook[key].as_str().is_some_and(|said| !allowed.contains(&said)) {
                causes.push(Cause::not_supported(at(key), &webhook[key], &allowed.map(str::to_owned)));
            }
        }
    }
    causes
}
