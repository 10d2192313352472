//! HorizontalPodAutoscalers keep their targets between the bounds. There are no metrics in a local cluster, which the
//! status says.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{Change, Kind, name_of};

/// What autoscalers can scale.
pub(crate) struct Targets {
    pub(crate) deployments: Vec<Arc<Deployment>>,
    pub(crate) replica_sets: Vec<Arc<ReplicaSet>>,
    pub(crate) stateful_sets: Vec<Arc<StatefulSet>>,
}

/// Targets that are out of bounds, and the autoscalers' status.
pub(crate) fn reconcile(
    autoscalers: &[Arc<HorizontalPodAutoscaler>],
    targets: &Targets,
    now: &Time,
) -> Vec<Change> {
    let living = autoscalers.iter().filter(|one| one.metadata.deletion_timestamp.is_none());
    living.flat_map(|autoscaler| one(autoscaler, targets, now)).flatten().collect()
}

fn one(autoscaler: &HorizontalPodAutoscaler, targets: &Targets, now: &Time) -> Vec<Option<Change>> {
    let Some(spec) = &autoscaler.spec else { return Vec::new() };
    let namespace = autoscaler.metadata.namespace.as_ref();
    let target = targets.find(namespace, spec);
    let former = autoscaler.status.clone().unwrap_or_default();
    let wanted = target.as_ref().map_or(0, |target| bounded(spec, target.wanted));
    let scaled = target.as_ref().filter(|target| target.wanted != wanted);
    let status = HorizontalPodAutoscalerStatus {
        conditions: Some(conditions(spec, target.as_ref(), wanted, &former, now)),
        current_replicas: Some(target.as_ref().map_or(0, |target| target.existing)),
        desired_replicas: wanted,
        last_scale_time: scaled.map(|_| now.clone()).or_else(|| former.last_scale_time.clone()),
        observed_generation: autoscaler.metadata.generation,
        ..former.clone()
    };
    let told = (autoscaler.status.as_ref() != Some(&status))
        .then(|| Change::status(&HorizontalPodAutoscaler { status: Some(status), ..autoscaler.clone() }));
    vec![scaled.and_then(|target| (target.resize)(wanted)), told.flatten()]
}

/// Nothing is scaled that was scaled to nothing by hand.
fn bounded(spec: &HorizontalPodAutoscalerSpec, wanted: i32) -> i32 {
    let most = spec.max_replicas.max(1);
    if wanted == 0 { 0 } else { wanted.clamp(spec.min_replicas.unwrap_or(1).min(most), most) }
}

/// Something that can be scaled.
struct Target<'a> {
    wanted: i32,
    existing: i32,
    resize: Box<dyn Fn(i32) -> Option<Change> + 'a>,
}

impl Targets {
    fn find(&self, namespace: Option<&String>, spec: &HorizontalPodAutoscalerSpec) -> Option<Target<'_>> {
        let name = &*spec.scale_target_ref.name;
        match &*spec.scale_target_ref.kind {
            "Deployment" => target(
                named(&self.deployments, namespace, name)?,
                |one| one.spec.as_mut().map(|spec| &mut spec.replicas),
                |one| one.status.as_ref()?.replicas,
            ),
            "ReplicaSet" => target(
                named(&self.replica_sets, namespace, name)?,
                |one| one.spec.as_mut().map(|spec| &mut spec.replicas),
                |one| Some(one.status.as_ref()?.replicas),
            ),
            "StatefulSet" => target(
                named(&self.stateful_sets, namespace, name)?,
                |one| one.spec.as_mut().map(|spec| &mut spec.replicas),
                |one| Some(one.status.as_ref()?.replicas),
            ),
            _ => None,
        }
    }
}

fn named<'a, T: Kind>(all: &'a [Arc<T>], namespace: Option<&String>, name: &str) -> Option<&'a T> {
    let found = all.iter().find(|one| {
        let meta = one.metadata();
        meta.namespace.as_ref() == namespace && name_of(meta) == name && meta.deletion_timestamp.is_none()
    });
    found.map(AsRef::as_ref)
}

fn target<'a, T: Kind + Clone>(
    object: &'a T,
    replicas: fn(&mut T) -> Option<&mut Option<i32>>,
    existing: fn(&T) -> Option<i32>,
) -> Option<Target<'a>> {
    let wanted = replicas(&mut object.clone())?.unwrap_or(1);
    let resize = move |to| {
        let mut next = object.clone();
        *replicas(&mut next)? = Some(to);
        Change::replace(&next)
    };
    Some(Target { wanted, existing: existing(object).unwrap_or(0), resize: Box::new(resize) })
}

fn conditions(
    spec: &HorizontalPodAutoscalerSpec,
    target: Option<&Target<'_>>,
    wanted: i32,
    former: &HorizontalPodAutoscalerStatus,
    now: &Time,
) -> Vec<HorizontalPodAutoscalerCondition> {
    let condition = |kind: &str, holds: bool, reason: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let same = former.conditions.iter().flatten().find(|one| one.type_ == kind && one.status == status);
        HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: same
                .and_then(|one| one.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        }
    };
    let able = "AbleToScale";
    let Some(target) = target else {
        let reference = &spec.scale_target_ref;
        let message = format!(
            "the HPA controller was unable to get the target's current scale: there is no {} {} that can be scaled",
            reference.kind, reference.name
        );
        return vec![condition(able, false, "FailedGetScale", message)];
    };
    if target.wanted == 0 {
        let message = "scaling is disabled since the replica count of the target is zero".to_owned();
        return vec![
            condition(able, true, "SucceededGetScale", GOT.to_owned()),
            condition("ScalingActive", false, "ScalingDisabled", message),
        ];
    }
    let (reason, metric) = metric(spec.metrics.iter().flatten().next());
    let message = format!(
        "the HPA was unable to compute the replica count: unable to get metrics for {metric}: no metrics in the local cluster"
    );
    let to = |to: i32| format!("the HPA controller was able to update the target scale to {to}");
    vec![
        match target.wanted == wanted {
            true => condition(able, true, "SucceededGetScale", GOT.to_owned()),
            false => condition(able, true, "SucceededRescale", to(wanted)),
        },
        condition("ScalingActive", false, reason, message),
    ]
}

const GOT: &str = "the HPA controller was able to get the target's current scale";

/// The reason for a missing metric, and the metric in words.
fn metric(spec: Option<&MetricSpec>) -> (&'static str, String) {
    let Some(spec) = spec else { return ("FailedGetResourceMetric", "resource cpu".to_owned()) };
    let of_resource = || spec.resource.as_ref().map(|resource| &resource.name);
    let of_container = || spec.container_resource.as_ref().map(|resource| &resource.name);
    match &*spec.type_ {
        "Pods" => ("FailedGetPodsMetric", "pods".to_owned()),
        "Object" => ("FailedGetObjectMetric", "an object".to_owned()),
        "External" => ("FailedGetExternalMetric", "an external metric".to_owned()),
        "ContainerResource" => (
            "FailedGetContainerResourceMetric",
            format!("resource {}", of_container().map_or("cpu", |name| name)),
        ),
        _ => ("FailedGetResourceMetric", format!("resource {}", of_resource().map_or("cpu", |name| name))),
    }
}

#[cfg(test)]
mod tests;
