//! Objects to patches: values become messages, what cannot be followed says why.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::kinds::EnvoyFilter;
use lateen_api::kinds::envoy_filter::{ApplyTo, EnvoyConfigObjectPatch, PatchContext, PatchOperation};
use lateen_api::kinds::selector::PolicyTargetReference;
use lateen_api::{Object, Spec};
use lateen_base::{Labels, Namespace, ObjectRef};
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use lateen_proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_proto::json::{self, Unknown};
use lateen_proto::{Any, Message, Name};
use lateen_registry::created;
use regex::Regex;
use serde_json::Value;

use super::Patch;

/// The EnvoyFilters of the mesh, compiled.
#[derive(Debug, Default)]
pub(crate) struct EnvoyFilters {
    by_namespace: BTreeMap<Namespace, Vec<Arc<Compiled>>>,
}

/// One EnvoyFilter.
#[derive(Debug)]
pub(crate) struct Compiled {
    object: Arc<Object>,
    /// What provenance calls it.
    pub(crate) reference: ObjectRef,
    /// The labels of the workloads that it is for; empty for all.
    pub(crate) selector: Labels,
    /// The objects that it is attached to.
    pub(crate) targets: Vec<PolicyTargetReference>,
    /// Lower comes first.
    pub(crate) priority: i32,
    /// Of one priority, the older comes first.
    pub(crate) created: i64,
    /// Its patches, in order.
    pub(crate) entries: Vec<Entry>,
}

/// One patch of an object.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Which versions of proxies it is for.
    pub(crate) version: Option<Regex>,
    /// The metadata that proxies have to have.
    pub(crate) metadata: BTreeMap<String, String>,
    /// What it is, as the object has it: `CLUSTER MERGE`.
    pub(crate) title: String,
    /// The patch, or why there is none.
    pub(crate) patch: Result<Arc<Patch>, String>,
    /// What of the value was left out.
    pub(crate) warning: Option<String>,
}

impl EnvoyFilters {
    /// Compiles objects, oldest first; those that `previous` has are taken over.
    pub(crate) fn of(objects: &[Arc<Object>], previous: Option<&Self>) -> Self {
        let known = |object: &Arc<Object>| {
            let of_namespace = previous?.by_namespace.get(&object.namespace)?;
            of_namespace.iter().find(|compiled| Arc::ptr_eq(&compiled.object, object)).cloned()
        };
        let mut filters = Self::default();
        for object in objects {
            let Spec::EnvoyFilter(spec) = &object.spec else { continue };
            let compiled = known(object).unwrap_or_else(|| Arc::new(Compiled::new(object, spec)));
            filters.by_namespace.entry(object.namespace.clone()).or_default().push(compiled);
        }
        filters
    }

    /// Those of a namespace, oldest first.
    pub(crate) fn in_namespace(&self, namespace: &Namespace) -> &[Arc<Compiled>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }
}

impl Compiled {
    fn new(object: &Arc<Object>, spec: &EnvoyFilter) -> Self {
        let reference = object.reference();
        let selector = spec.workload_selector.as_ref().map(|selector| selector.labels.clone());
        let entry = |(index, patch)| Entry::new(&reference, index, patch);
        Self {
            entries: spec.config_patches.iter().enumerate().map(entry).collect(),
            selector: selector.unwrap_or_default(),
            targets: spec.target_refs.clone(),
            priority: spec.priority,
            created: created(object),
            object: object.clone(),
            reference,
        }
    }
}

impl Entry {
    fn new(filter: &ObjectRef, index: usize, given: &EnvoyConfigObjectPatch) -> Self {
        let operation = given.patch.as_ref().map(|patch| patch.operation).unwrap_or_default();
        let of_proxy = given.r#match.as_ref().and_then(|condition| condition.proxy.as_ref());
        let expression = of_proxy.map(|proxy| proxy.proxy_version.as_str()).unwrap_or_default();
        let version = match expression {
            "" => Ok(None),
            text => Regex::new(text).map(Some).map_err(|error| format!("match.proxy.proxyVersion: {error}")),
        };
        let made = version.and_then(|version| Ok((version, compile(filter, index, given)?)));
        let (version, patch, warning) = match made {
            Ok((version, (patch, warning))) => (version, Ok(Arc::new(patch)), warning),
            Err(reason) => (None, Err(reason), None),
        };
        Self {
            version,
            metadata: of_proxy.map(|proxy| proxy.metadata.clone()).unwrap_or_default(),
            title: format!("{} {operation}", given.apply_to),
            patch,
            warning,
        }
    }
}

fn compile(
    filter: &ObjectRef,
    index: usize,
    given: &EnvoyConfigObjectPatch,
) -> Result<(Patch, Option<String>), String> {
    let patch = given.patch.as_ref().ok_or("patch: is required")?;
    let condition = given.r#match.clone().unwrap_or_default();
    if condition.context == PatchContext::Waypoint {
        return Err("match.context: there are no waypoints in this mesh".into());
    }
    let operation = possible(given.apply_to, patch.operation)?;
    let (value, warning) = match (operation, &patch.value) {
        (PatchOperation::Remove, _) => (Any::default(), None),
        (_, None) => return Err(format!("patch.value: {operation} needs one")),
        (_, Some(value)) => packed(given.apply_to, &Value::Object(value.clone()))?,
    };
    let apply_to = given.apply_to;
    let class = patch.filter_class;
    Ok((Patch { filter: filter.clone(), index, apply_to, operation, class, condition, value }, warning))
}

/// The operation that is meant: inserting into what has no order is adding.
fn possible(apply_to: ApplyTo, operation: PatchOperation) -> Result<PatchOperation, String> {
    use ApplyTo::*;
    use PatchOperation::{Add, InsertAfter, InsertBefore, InsertFirst, Remove, Replace};
    let no = |only: &str| Err(format!("patch.operation: {operation} is not possible for {apply_to}; {only}"));
    match (apply_to, operation) {
        (ApplyTo::Invalid, _) => Err("applyTo: is required".into()),
        (_, PatchOperation::Invalid) => Err("patch.operation: is required".into()),
        (Bootstrap, PatchOperation::Merge) => Ok(operation),
        (Bootstrap, _) => no("use MERGE: an agent merges it into the bootstrap that it writes"),
        (RouteConfiguration, Add | Remove | Replace | InsertBefore | InsertAfter | InsertFirst) => {
            no("use MERGE")
        }
        (ExtensionConfig, Add | InsertBefore | InsertAfter | InsertFirst) => Ok(Add),
        (ExtensionConfig, _) => no("use ADD"),
        (Listener | FilterChain | Cluster | HttpRoute, Replace) => no("use REMOVE and ADD, or MERGE"),
        (Listener | FilterChain | Cluster | VirtualHost, InsertBefore | InsertAfter | InsertFirst) => Ok(Add),
        _ => Ok(operation),
    }
}

/// A value as the message that it stands for. Fields that the type does not have are left out, and said.
fn packed(apply_to: ApplyTo, value: &Value) -> Result<(Any, Option<String>), String> {
    match apply_to {
        ApplyTo::Listener => read::<Listener>(value),
        ApplyTo::ListenerFilter => read::<ListenerFilter>(value),
        ApplyTo::FilterChain => read::<FilterChain>(value),
        ApplyTo::NetworkFilter => read::<Filter>(value),
        ApplyTo::HttpFilter => read::<HttpFilter>(value),
        ApplyTo::RouteConfiguration => read::<RouteConfiguration>(value),
        ApplyTo::VirtualHost => read::<VirtualHost>(value),
        ApplyTo::HttpRoute => read::<Route>(value),
        ApplyTo::Cluster => read::<Cluster>(value),
        ApplyTo::ExtensionConfig => read::<TypedExtensionConfig>(value),
        ApplyTo::Bootstrap => read::<lateen_proto::envoy::config::bootstrap::v3::Bootstrap>(value),
        ApplyTo::Invalid => Err("applyTo: has no value".into()),
    }
}

fn read<M: Message + Name + Default>(value: &Value) -> Result<(Any, Option<String>), String> {
    match json::read::<M>(value, Unknown::Refused) {
        Ok(message) => Ok((Any::pack(&message), None)),
        Err(strict) => {
            let message =
                json::read::<M>(value, Unknown::LeftOut).map_err(|error| format!("patch.value: {error}"))?;
            Ok((Any::pack(&message), Some(format!("patch.value: left out what is unknown: {strict}"))))
        }
    }
}
