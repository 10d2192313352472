//! Whether an object has the fields of its kind: unknown ones are pruned and, as `fieldValidation` asks, reported; values
//! of the wrong type are refused.

use k8s_openapi::api;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{Call, FieldValidation};
use crate::resource::Resource;
use crate::status::{Cause, Status};

/// Checks and prunes; returns the warnings.
pub(crate) fn check(call: &Call<'_>, value: &mut Value) -> Result<Vec<String>, Status> {
    let resource = call.resource;
    let unknown = match resource.custom() {
        Some(custom) => {
            let unknown = custom.schema.prune(value);
            custom.schema.fill(value);
            let causes: Vec<Cause> = custom.schema.causes(value);
            if !causes.is_empty() {
                let name = crate::object::name(value);
                return Err(Status::invalid(&resource.group, &resource.kind, name, causes));
            }
            unknown
        }
        None => built_in(resource, value)?,
    };
    match call.options.field_validation {
        FieldValidation::Strict if !unknown.is_empty() => {
            let listed: Vec<String> =
                unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            Err(Status::bad_request(format!(
                "{}strict decoding error: {}",
                cannot(resource),
                listed.join(", ")
            )))
        }
        FieldValidation::Warn => {
            Ok(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn cannot(resource: &Resource) -> String {
    let Resource { kind, version, .. } = resource;
    format!("{kind} in version \"{version}\" cannot be handled as a {kind}: ")
}

fn built_in(resource: &Resource, value: &mut Value) -> Result<Vec<String>, Status> {
    let Some(decoder) = decoder(resource).filter(|_| !crate::convert::differs(resource)) else {
        return Ok(Vec::new());
    };
    quantities(value);
    let mut unknown = Vec::new();
    decoder(value, &mut unknown).map_err(|why| Status::bad_request(format!("{}{why}", cannot(resource))))?;
    for path in &unknown {
        remove(value, path);
    }
    Ok(unknown.iter().map(|path| text(path)).collect())
}

/// Kubernetes takes numbers for quantities (`cpu: 1`) and stores text.
fn quantities(value: &mut Value) {
    const MAPS: &[&str] = &["allocatable", "capacity", "hard", "limits", "overhead", "requests"];
    const SINGLE: &[&str] = &["averageValue", "divisor", "sizeLimit"];
    let into_text = |value: &mut Value| {
        if value.is_number() {
            *value = Value::String(value.to_string());
        }
    };
    match value {
        Value::Array(list) => list.iter_mut().for_each(quantities),
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::Object(amounts) if MAPS.contains(&key.as_str()) => {
                        amounts.values_mut().for_each(into_text)
                    }
                    inner if SINGLE.contains(&key.as_str()) => into_text(inner),
                    inner => quantities(inner),
                }
            }
        }
        _ => {}
    }
}

#[derive(Debug, Clone)]
enum Step {
    Field(String),
    Index(usize),
}

type Decoder = fn(&Value, &mut Vec<Vec<Step>>) -> Result<(), String>;

/// Decodes only to see what the type does not take.
fn decode<T: DeserializeOwned>(value: &Value, unknown: &mut Vec<Vec<Step>>) -> Result<(), String> {
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut found = |path: serde_ignored::Path<'_>| {
        let mut steps = Vec::new();
        walk(&path, &mut steps);
        // The server's own additions to every object.
        if !matches!(steps.as_slice(), [Step::Field(root)] if root == "status") {
            unknown.push(steps);
        }
    };
    let decoded: Result<T, _> = serde_ignored::deserialize(deserializer, &mut found);
    decoded.map(drop).map_err(|error| format!("{}: {error}", track.path()))
}

fn walk(path: &serde_ignored::Path<'_>, steps: &mut Vec<Step>) {
    use serde_ignored::Path;
    match path {
        Path::Root => {}
        Path::Seq { parent, index } => {
            walk(parent, steps);
            steps.push(Step::Index(*index));
        }
        Path::Map { parent, key } => {
            walk(parent, steps);
            steps.push(Step::Field(key.clone()));
        }
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            walk(parent, steps)
        }
    }
}

fn text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Field(name) if out.is_empty() => out.push_str(name),
            Step::Field(name) => out.extend([".", name]),
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

fn remove(value: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    let parent = parents.iter().try_fold(value, |at, step| match step {
        Step::Field(name) => at.get_mut(name),
        Step::Index(index) => at.get_mut(index),
    });
    if let (Some(Value::Object(map)), Step::Field(name)) = (parent, last) {
        map.shift_remove(name);
    }
}

macro_rules! decoders {
    ($resource:expr, $($name:literal => $type:ty),* $(,)?) => {
        match $resource { $($name => Some(decode::<$type> as Decoder),)* _ => None }
    };
}

/// The type of a built-in kind in the version that is stored.
fn decoder(resource: &Resource) -> Option<Decoder> {
    use api::{
        admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling,
        batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
        networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
    };
    decoders!(resource.kind.as_str(),
        "Namespace" => core::Namespace,
        "Node" => core::Node,
        "Pod" => core::Pod,
        "Service" => core::Service,
        "Endpoints" => core::Endpoints,
        "ConfigMap" => core::ConfigMap,
        "Secret" => core::Secret,
        "ServiceAccount" => core::ServiceAccount,
        "PersistentVolumeClaim" => core::PersistentVolumeClaim,
        "ReplicationController" => core::ReplicationController,
        "Deployment" => apps::Deployment,
        "ReplicaSet" => apps::ReplicaSet,
        "StatefulSet" => apps::StatefulSet,
        "DaemonSet" => apps::DaemonSet,
        "Job" => batch::Job,
        "CronJob" => batch::CronJob,
        "EndpointSlice" => discovery::EndpointSlice,
        "MutatingWebhookConfiguration" => admission::MutatingWebhookConfiguration,
        "ValidatingWebhookConfiguration" => admission::ValidatingWebhookConfiguration,
        "Role" => rbac::Role,
        "RoleBinding" => rbac::RoleBinding,
        "ClusterRole" => rbac::ClusterRole,
        "ClusterRoleBinding" => rbac::ClusterRoleBinding,
        "Lease" => coordination::Lease,
        "HorizontalPodAutoscaler" => autoscaling::HorizontalPodAutoscaler,
        "PodDisruptionBudget" => policy::PodDisruptionBudget,
        "Ingress" => networking::Ingress,
        "NetworkPolicy" => networking::NetworkPolicy,
        "CustomResourceDefinition" =>
            k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    )
}
