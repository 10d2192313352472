//! DaemonSets make one pod for each node.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::deployments::share;
use super::owner::{self, count, is_active, is_leaving, phase, pods_of};
use super::replica_sets::is_ready;
use super::revisions::{HASH, Revisions, is_of};
use super::schedule::selects;
use crate::api::{Change, name_of};

/// What brings pods, revisions and status nearer to the sets.
pub(crate) fn reconcile(
    sets: &[Arc<DaemonSet>],
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    revisions: &[Arc<ControllerRevision>],
) -> Vec<Change> {
    let living = sets.iter().filter(|set| set.metadata.deletion_timestamp.is_none());
    living.filter_map(|set| one(set, pods, nodes, revisions)).flatten().flatten().collect()
}

fn one(
    set: &DaemonSet,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    revisions: &[Arc<ControllerRevision>],
) -> Option<Vec<Option<Change>>> {
    let spec = set.spec.as_ref()?;
    let mut revisions = Revisions::of(set, &spec.template, revisions)?;
    let own = pods_of(set, pods);
    // Cordoned nodes, too, get theirs: a daemon belongs to the node.
    let fitting: Vec<&str> = nodes
        .iter()
        .filter(|node| selects(spec.template.spec.as_ref(), node))
        .map(|node| name_of(&node.metadata))
        .collect();
    let mut changes = std::mem::take(&mut revisions.changes);
    for node in &fitting {
        changes.extend(on_node(set, spec, node, &own, &revisions.update));
    }
    let misplaced = own.iter().filter(|pod| !is_leaving(pod) && !fitting.contains(&node_of(pod)));
    changes.extend(misplaced.map(|pod| Change::delete(*pod)));
    changes.extend(roll(spec, &fitting, &own, &revisions.update));
    changes.extend(revisions.clean_up(&own, "", spec.revision_history_limit));
    changes.push(status(set, &fitting, &own, &revisions.update));
    Some(changes)
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// One living pod: the oldest stays, those that have ended go and are made again.
fn on_node(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    node: &str,
    own: &[&Pod],
    revision: &str,
) -> Vec<Option<Change>> {
    let here: Vec<&Pod> = own.iter().copied().filter(|pod| node_of(pod) == node).collect();
    let mut living: Vec<&Pod> = here.iter().copied().filter(|pod| is_active(pod)).collect();
    living.sort_by_key(|pod| pod.metadata.creation_timestamp.clone());
    let ended = here.iter().filter(|pod| !is_leaving(pod) && matches!(phase(pod), "Succeeded" | "Failed"));
    let mut changes: Vec<Option<Change>> = ended.map(|pod| Change::delete(*pod)).collect();
    changes.extend(living.iter().skip(1).map(|pod| Change::delete(*pod)));
    if here.is_empty() {
        let mut pod = owner::pod(set, &spec.template);
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(HASH.to_owned(), Revisions::hash(revision).to_owned());
        labels.insert("pod-template-generation".to_owned(), set.metadata.generation.unwrap_or(1).to_string());
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        changes.push(Change::create(&pod));
    }
    changes
}

/// Pods of other revisions go while enough nodes have one that is ready. (A surge is not made: it would need a second
/// pod on a node.)
fn roll(spec: &DaemonSetSpec, nodes: &[&str], own: &[&Pod], revision: &str) -> Vec<Option<Change>> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
        return Vec::new();
    }
    let limit = strategy.and_then(|strategy| strategy.rolling_update.as_ref()?.max_unavailable.as_ref());
    let may_miss = limit.map_or(1, |limit| share(limit, count(nodes.len()), true)).max(1);
    let ready = own.iter().filter(|pod| is_active(pod) && is_ready(pod)).count();
    let missing = count(nodes.len()) - count(ready);
    let is_old = |pod: &&Pod| is_active(pod) && nodes.contains(&node_of(pod)) && !is_of(pod, revision);
    let old = || own.iter().copied().filter(is_old);
    let broken = old().filter(|pod| !is_ready(pod));
    let serving = old().filter(|pod| is_ready(pod)).take(usize::try_from(may_miss - missing).unwrap_or(0));
    broken.chain(serving).map(Change::delete).collect()
}

fn status(set: &DaemonSet, nodes: &[&str], own: &[&Pod], revision: &str) -> Option<Change> {
    let here = || own.iter().filter(|pod| is_active(pod) && nodes.contains(&node_of(pod)));
    let misplaced = own.iter().filter(|pod| is_active(pod) && !nodes.contains(&node_of(pod))).count();
    let ready = count(here().filter(|pod| is_ready(pod)).count());
    let desired = count(nodes.len());
    let some = |count: i32| (count != 0).then_some(count);
    let status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: count(here().count()),
        number_misscheduled: count(misplaced),
        number_ready: ready,
        number_available: some(ready),
        number_unavailable: some(desired - ready),
        updated_number_scheduled: some(count(here().filter(|pod| is_of(pod, revision)).count())),
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    if set.status.as_ref() == Some(&status) {
        return None;
    }
    Change::status(&DaemonSet { status: Some(status), ..set.clone() })
}

#[cfg(test)]
mod tests;
