//! Deployments make ReplicaSets: one per template, scaled against each other during a rollout.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::owner::{controller, controls};
use super::template_hash::{fnv, name_part};
use crate::api::{Change, name_of};

const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MOST: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What brings the ReplicaSets, and the status, nearer to the deployments.
pub(crate) fn reconcile(
    deployments: &[Arc<Deployment>],
    sets: &[Arc<ReplicaSet>],
    now: &Time,
) -> Vec<Change> {
    deployments.iter().flat_map(|deployment| one(deployment, sets, now)).flatten().collect()
}

fn one(deployment: &Deployment, sets: &[Arc<ReplicaSet>], now: &Time) -> Vec<Option<Change>> {
    let meta = &deployment.metadata;
    let Some(spec) = deployment.spec.as_ref().filter(|_| meta.deletion_timestamp.is_none()) else {
        return Vec::new();
    };
    let own: Vec<&ReplicaSet> = sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|set| controls(meta.uid.as_ref(), &set.metadata) && set.metadata.deletion_timestamp.is_none())
        .collect();
    let current = own.iter().copied().find(|set| is_of(set, &spec.template));
    let mut changes = Vec::new();
    match current {
        None if spec.paused != Some(true) => changes.push(create(deployment, spec, &own)),
        None => {}
        Some(current) => {
            changes.extend(scale(spec, current, &own));
            changes.extend(mark_revision(deployment, spec, current, &own));
            changes.extend(clean_up(spec, current, &own));
        }
    }
    changes.push(status(deployment, spec, current, &own, now));
    changes
}

/// Whether the set was made for this template.
fn is_of(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(mut own) = set.spec.as_ref().and_then(|spec| spec.template.clone()) else { return false };
    if let Some(labels) = own.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(HASH);
    }
    own == *template
}

fn create(deployment: &Deployment, spec: &DeploymentSpec, own: &[&ReplicaSet]) -> Option<Change> {
    let text = serde_json::to_vec(&spec.template).ok()?;
    let meta = &deployment.metadata;
    // A set of that name with another template (a collision) moves the next one on.
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = name_part(fnv(&[text, collisions.to_le_bytes().to_vec()].concat()));
    let labelled = |labels: Option<&BTreeMap<String, String>>| {
        let mut labels = labels.cloned().unwrap_or_default();
        labels.insert(HASH.to_owned(), hash.clone());
        Some(labels)
    };
    let mut template = spec.template.clone();
    let template_meta = template.metadata.get_or_insert_default();
    template_meta.labels = labelled(template_meta.labels.as_ref());
    let mut selector = spec.selector.clone();
    selector.match_labels = labelled(selector.match_labels.as_ref());
    let replicas = match room(spec, own) {
        Some(room) => wanted(spec).min(room.max(0)),
        None => wanted(spec),
    };
    let revision = own.iter().map(|set| revision(&set.metadata)).max().unwrap_or(0) + 1;
    Change::create(&ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name_of(meta))),
            namespace: meta.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            annotations: Some(annotations(deployment, spec, None, revision)),
            owner_references: Some(vec![controller(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            selector,
            template: Some(template),
            min_ready_seconds: spec.min_ready_seconds,
        }),
        status: None,
    })
}

fn wanted(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn existing(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// How many pods the sets may have together beyond what they have; none when the old ones must go first and are gone.
fn room(spec: &DeploymentSpec, own: &[&ReplicaSet]) -> Option<i32> {
    if is_recreate(spec) {
        return own.iter().any(|set| existing(set) > 0 || replicas(set) > 0).then_some(0);
    }
    let (surge, _) = limits(spec);
    Some(wanted(spec) + surge - own.iter().map(|set| replicas(set)).sum::<i32>())
}

/// maxSurge and maxUnavailable in pods. Both nothing would never move: then one may be missing.
fn limits(spec: &DeploymentSpec) -> (i32, i32) {
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".to_owned());
    let share = |value: Option<&IntOrString>, up: bool| share(value.unwrap_or(&quarter), wanted(spec), up);
    let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
    let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A count, or a share of `of` that is rounded up or down.
pub(super) fn share(value: &IntOrString, of: i32, up: bool) -> i32 {
    let text = match value {
        IntOrString::Int(count) => return *count,
        IntOrString::String(text) => text,
    };
    let share = text.trim_end_matches('%').parse::<i32>().unwrap_or(25).clamp(0, 100);
    let product = share.saturating_mul(of);
    if up { product.saturating_add(99) / 100 } else { product / 100 }
}

/// The next step of a rollout: the new set grows by what the surge allows, old ones shrink by what availability allows.
fn scale(spec: &DeploymentSpec, current: &ReplicaSet, own: &[&ReplicaSet]) -> Vec<Option<Change>> {
    let wanted = wanted(spec);
    let old: Vec<&ReplicaSet> = own.iter().copied().filter(|set| !std::ptr::eq(*set, current)).collect();
    let mut changes = Vec::new();
    if replicas(current) > wanted || spec.paused == Some(true) {
        changes.push(resize(current, wanted));
    } else if replicas(current) < wanted {
        let room = room(spec, own).unwrap_or(wanted);
        changes.push(resize(current, wanted.min(replicas(current) + room.max(0))));
    }
    if is_recreate(spec) {
        changes.extend(old.iter().map(|set| resize(set, 0)));
        return changes;
    }
    let least = wanted - limits(spec).1;
    let total: i32 = own.iter().map(|set| replicas(set)).sum();
    // Pods of the new set that are still coming count as missing, so that they are waited for.
    let mut may_go = (total - least - (replicas(current) - available(current))).max(0);
    let mut spare = (own.iter().map(|set| available(set)).sum::<i32>() - least).max(0);
    for set in old.iter().filter(|set| replicas(set) > 0) {
        let broken = (replicas(set) - available(set)).clamp(0, may_go);
        let healthy = (replicas(set) - broken).min(spare).min(may_go - broken).max(0);
        may_go -= broken + healthy;
        spare -= healthy;
        changes.push(resize(set, replicas(set) - broken - healthy));
    }
    changes
}

fn resize(set: &ReplicaSet, to: i32) -> Option<Change> {
    if replicas(set) == to {
        return None;
    }
    let mut set = set.clone();
    set.spec.as_mut()?.replicas = Some(to);
    Change::replace(&set)
}

fn revision(meta: &ObjectMeta) -> u64 {
    meta.annotations.as_ref().and_then(|annotations| annotations.get(REVISION)?.parse().ok()).unwrap_or(0)
}

/// The annotations of a deployment's set: the deployment's own, so that a rollback brings them back, and the counts.
fn annotations(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    set: Option<&ReplicaSet>,
    revision: u64,
) -> BTreeMap<String, String> {
    let mut all = set.and_then(|set| set.metadata.annotations.clone()).unwrap_or_default();
    let own = deployment.metadata.annotations.iter().flatten();
    all.extend(own.filter(|(key, _)| *key != LAST_APPLIED).map(|(key, value)| (key.clone(), value.clone())));
    all.insert(REVISION.to_owned(), revision.to_string());
    all.insert(DESIRED.to_owned(), wanted(spec).to_string());
    all.insert(MOST.to_owned(), (wanted(spec) + limits(spec).0).to_string());
    all
}

/// The current set has the highest revision (a rollback brings an old set to the front), the deployment shows it.
fn mark_revision(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    current: &ReplicaSet,
    own: &[&ReplicaSet],
) -> Vec<Option<Change>> {
    let highest = own
        .iter()
        .filter(|set| !std::ptr::eq(**set, current))
        .map(|set| revision(&set.metadata))
        .max()
        .unwrap_or(0);
    let mark = |meta: &mut ObjectMeta, revision: u64| {
        meta.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision.to_string());
    };
    let due = if revision(&current.metadata) <= highest { highest + 1 } else { revision(&current.metadata) };
    let annotations = annotations(deployment, spec, Some(current), due);
    if current.metadata.annotations.as_ref() != Some(&annotations) {
        let mut set = current.clone();
        set.metadata.annotations = Some(annotations);
        return vec![Change::replace(&set)];
    }
    if revision(&deployment.metadata) == revision(&current.metadata) {
        return Vec::new();
    }
    let mut deployment = deployment.clone();
    mark(&mut deployment.metadata, revision(&current.metadata));
    vec![Change::replace(&deployment)]
}

/// Old, empty sets beyond the history limit go, oldest revision first.
fn clean_up(spec: &DeploymentSpec, current: &ReplicaSet, own: &[&ReplicaSet]) -> Vec<Option<Change>> {
    let keep = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
    let mut empty: Vec<&ReplicaSet> = own
        .iter()
        .copied()
        .filter(|set| !std::ptr::eq(*set, current) && replicas(set) == 0 && existing(set) == 0)
        .collect();
    empty.sort_by_key(|set| std::cmp::Reverse(revision(&set.metadata)));
    empty.into_iter().skip(keep).map(Change::delete).collect()
}

fn status(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    current: Option<&ReplicaSet>,
    own: &[&ReplicaSet],
    now: &Time,
) -> Option<Change> {
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| own.iter().map(|set| of(set)).sum::<i32>();
    let ready = sum(&|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    let available = sum(&available);
    let updated = current.map_or(0, existing);
    let (_, may_miss) = limits(spec);
    let enough = available >= wanted(spec) - may_miss;
    let complete = updated == wanted(spec) && sum(&existing) == updated && available == updated;
    let set = current.map_or("", |set| name_of(&set.metadata));
    let progress = if complete { "has successfully progressed." } else { "is progressing." };
    let former = deployment.status.clone().unwrap_or_default();
    let conditions = vec![
        condition(
            "Available",
            enough,
            if enough { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" },
            format!("Deployment {} minimum availability.", if enough { "has" } else { "does not have" }),
            &former,
            now,
        ),
        condition(
            "Progressing",
            true,
            if complete { "NewReplicaSetAvailable" } else { "ReplicaSetUpdated" },
            format!("ReplicaSet \"{set}\" {progress}"),
            &former,
            now,
        ),
    ];
    let some = |count: i32| (count != 0).then_some(count);
    let status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&existing)),
        updated_replicas: some(updated),
        ready_replicas: some(ready),
        available_replicas: some(available),
        unavailable_replicas: some((wanted(spec) - available).max(0)),
        conditions: Some(conditions),
        collision_count: former.collision_count,
        ..DeploymentStatus::default()
    };
    if deployment.status.as_ref() == Some(&status) {
        return None;
    }
    Change::status(&Deployment { status: Some(status), ..deployment.clone() })
}

fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: String,
    former: &DeploymentStatus,
    now: &Time,
) -> DeploymentCondition {
    let holds = if holds { "True" } else { "False" };
    let before = former.conditions.iter().flatten().find(|one| one.type_ == kind);
    let same = before.filter(|one| one.status == holds);
    let unchanged =
        same.filter(|one| one.reason.as_deref() == Some(reason) && one.message.as_ref() == Some(&message));
    DeploymentCondition {
        type_: kind.to_owned(),
        status: holds.to_owned(),
        reason: Some(reason.to_owned()),
        last_transition_time: same.and_then(|one| one.last_transition_time.clone()).or(Some(now.clone())),
        last_update_time: unchanged.and_then(|one| one.last_update_time.clone()).or(Some(now.clone())),
        message: Some(message),
    }
}

#[cfg(test)]
mod tests;
