//! StatefulSets make pods of stable names, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

use super::owner::{self, count, is_leaving, phase, pods_of};
use super::replica_sets::is_ready;
use super::revisions::{HASH, Revisions, is_of};
use crate::api::{Change, name_of};

/// What brings pods, revisions and status nearer to the sets.
pub(crate) fn reconcile(
    sets: &[Arc<StatefulSet>],
    pods: &[Arc<Pod>],
    revisions: &[Arc<ControllerRevision>],
) -> Vec<Change> {
    let living = sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none());
    living.filter_map(|set| one(set, pods, revisions)).flatten().flatten().collect()
}

fn one(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: &[Arc<ControllerRevision>],
) -> Option<Vec<Option<Change>>> {
    let spec = set.spec.as_ref()?;
    let mut revisions = Revisions::of(set, &spec.template, revisions)?;
    let own = pods_of(set, pods);
    let state = State::new(set, spec, &own, &revisions.update);
    let mut changes = std::mem::take(&mut revisions.changes);
    changes.extend(state.step(&revisions));
    changes.extend(revisions.clean_up(&own, &state.current, spec.revision_history_limit));
    changes.push(state.status(own.len()));
    Some(changes)
}

/// A set and its pods by their numbers.
struct State<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    pods: BTreeMap<i32, &'a Pod>,
    /// Numbers from here ...
    first: i32,
    /// ... to here, exclusively.
    end: i32,
    /// Pods below keep the former revision.
    partition: i32,
    current: String,
    update: String,
}

impl<'a> State<'a> {
    fn new(set: &'a StatefulSet, spec: &'a StatefulSetSpec, own: &[&'a Pod], update: &str) -> Self {
        let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let rolling = spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let current = set.status.as_ref().and_then(|status| status.current_revision.clone());
        Self {
            set,
            spec,
            pods: own.iter().filter_map(|pod| Some((number(set, pod)?, *pod))).collect(),
            first,
            end: first.saturating_add(spec.replicas.unwrap_or(1).max(0)),
            partition: rolling.and_then(|rolling| rolling.partition).unwrap_or(0).saturating_add(first),
            current: current.filter(|name| !name.is_empty()).unwrap_or_else(|| update.to_owned()),
            update: update.to_owned(),
        }
    }

    /// What is due now: in order, each pod waits for the one before.
    fn step(&self, revisions: &Revisions<'_>) -> Vec<Option<Change>> {
        let ordered = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let mut changes = Vec::new();
        for number in self.first..self.end {
            match self.pods.get(&number) {
                None => changes.push(self.create(number, revisions)),
                Some(pod) if is_leaving(pod) => {}
                Some(pod) if matches!(phase(pod), "Succeeded" | "Failed") => {
                    changes.push(Change::delete(*pod));
                }
                Some(pod) if is_ready(pod) => continue,
                Some(_) => {}
            }
            if ordered {
                return changes;
            }
        }
        let surplus = self.pods.iter().rev().filter(|(number, _)| !(self.first..self.end).contains(number));
        for (_, pod) in surplus {
            if !is_leaving(pod) {
                changes.push(Change::delete(*pod));
            }
            if ordered {
                return changes;
            }
        }
        if changes.is_empty() {
            changes.push(self.update());
        }
        changes
    }

    /// The next pod of another revision goes, the highest number first, once all above it are well.
    fn update(&self) -> Option<Change> {
        if self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref())
            == Some("OnDelete")
        {
            return None;
        }
        for (_, pod) in self.pods.range(self.partition..).rev() {
            if is_leaving(pod) {
                return None;
            }
            if !is_of(pod, &self.update) {
                return Change::delete(*pod);
            }
            if !is_ready(pod) {
                return None;
            }
        }
        None
    }

    fn create(&self, number: i32, revisions: &Revisions<'_>) -> Option<Change> {
        let former = (number < self.partition).then(|| revisions.template(&self.current)).flatten();
        let (template, revision) = match &former {
            Some(template) => (template, &self.current),
            None => (&self.spec.template, &self.update),
        };
        Change::create(&self.pod(number, template, revision))
    }

    fn pod(&self, number: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
        let mut pod = owner::pod(self.set, template);
        let name = format!("{}-{number}", name_of(&self.set.metadata));
        pod.metadata.generate_name = None;
        pod.metadata.name = Some(name.clone());
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH.to_owned(), revision.to_owned());
        labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
        labels.insert("apps.kubernetes.io/pod-index".to_owned(), number.to_string());
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(name.clone());
        spec.subdomain.clone_from(&self.spec.service_name);
        let claims = self.spec.volume_claim_templates.iter().flatten();
        // The node says that it has no such volumes, on the pod that wants one.
        spec.volumes.get_or_insert_default().extend(claims.map(|claim| {
            let claim = name_of(&claim.metadata);
            Volume {
                name: claim.to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: format!("{claim}-{name}"),
                    read_only: None,
                }),
                ..Volume::default()
            }
        }));
        pod
    }

    fn status(&self, existing: usize) -> Option<Change> {
        let wanted = self.end - self.first;
        let living = || self.pods.values().filter(|pod| !is_leaving(pod));
        let ready = count(living().filter(|pod| is_ready(pod)).count());
        let of = |revision: &str| count(living().filter(|pod| is_of(pod, revision)).count());
        let updated = of(&self.update);
        let complete = updated == wanted && ready == wanted && count(existing) == wanted;
        let current = if complete { &self.update } else { &self.current };
        let some = |count: i32| (count != 0).then_some(count);
        let status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(existing),
            ready_replicas: some(ready),
            available_replicas: Some(ready),
            current_replicas: some(of(current)),
            updated_replicas: some(updated),
            current_revision: Some(current.clone()),
            update_revision: Some(self.update.clone()),
            collision_count: Some(0),
            conditions: None,
        };
        if self.set.status.as_ref() == Some(&status) {
            return None;
        }
        Change::status(&StatefulSet { status: Some(status), ..self.set.clone() })
    }
}

/// The number in a pod's name.
fn number(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    name_of(&pod.metadata).strip_prefix(name_of(&set.metadata))?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests;
