use super::*;
use crate::api::Part;
use crate::instant;
use serde_json::{Value, json};

fn deployment(replicas: i32, image: &str, strategy: Value) -> Arc<Deployment> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": "reviews-v1", "namespace": "default", "uid": "d1", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "reviews"}}, "strategy": strategy,
                "template": {"metadata": {"labels": {"app": "reviews"}},
                    "spec": {"containers": [{"name": "c", "image": image}]}}}
        }))
        .unwrap(),
    )
}

/// Plays the API server and the ReplicaSet controller: sets have the pods they ask for, all ready.
fn settle(deployment: &Arc<Deployment>, sets: &mut Vec<Arc<ReplicaSet>>, ready: bool) -> usize {
    let changes = reconcile(std::slice::from_ref(deployment), sets, &instant::time());
    let mut moved = 0;
    for change in changes {
        match change {
            Change::Create(_, object) => sets.push(Arc::new(serde_json::from_value(object).unwrap())),
            Change::Replace(collection, object, Part::Whole) if collection.resource == "replicasets" => {
                let set: ReplicaSet = serde_json::from_value(object).unwrap();
                let place = sets.iter_mut().find(|old| old.metadata.name == set.metadata.name).unwrap();
                *place = Arc::new(set);
            }
            Change::Delete(deletion) => {
                sets.retain(|set| set.metadata.name.as_deref() != Some(&deletion.name));
            }
            _ => continue,
        }
        moved += 1;
    }
    for set in sets.iter_mut() {
        let mut grown = (**set).clone();
        let count = replicas(&grown);
        grown.status = Some(
            serde_json::from_value(json!({"replicas": count, "readyReplicas": if ready {count} else {0},
                "availableReplicas": if ready { count } else { 0 }}))
            .unwrap(),
        );
        *set = Arc::new(grown);
    }
    moved
}

fn run(deployment: &Arc<Deployment>, sets: &mut Vec<Arc<ReplicaSet>>) {
    for _ in 0..50 {
        if settle(deployment, sets, true) == 0 {
            return;
        }
    }
    panic!("the rollout does not come to an end: {sets:#?}");
}

fn sizes(sets: &[Arc<ReplicaSet>]) -> Vec<i32> {
    sets.iter().map(|set| replicas(set)).collect()
}

#[test]
fn a_deployment_gets_a_set_named_by_its_template() {
    let (deployment, mut sets) = (deployment(2, "a", json!({})), Vec::new());
    run(&deployment, &mut sets);
    let name = sets[0].metadata.name.clone().unwrap();
    let hash = name.strip_prefix("reviews-v1-").unwrap();
    assert!((6..=10).contains(&hash.len()), "{name}");
    let spec = sets[0].spec.as_ref().unwrap();
    let label = spec.template.as_ref().unwrap().metadata.as_ref().unwrap().labels.as_ref().unwrap();
    assert_eq!(label[HASH], hash);
    assert_eq!(spec.selector.match_labels.as_ref().unwrap()[HASH], hash);
    assert_eq!(sizes(&sets), [2]);
}

#[test]
fn a_new_template_rolls_out_and_the_old_set_stays_empty() {
    let mut sets = Vec::new();
    run(&deployment(4, "a", json!({})), &mut sets);
    run(&deployment(4, "b", json!({})), &mut sets);
    assert_eq!(sizes(&sets), [0, 4]);
    assert_eq!(revision(&sets[1].metadata), 2);
    // Back again: the old set grows, as revision 3.
    run(&deployment(4, "a", json!({})), &mut sets);
    assert_eq!(sizes(&sets), [4, 0]);
    assert_eq!(revision(&sets[0].metadata), 3);
}

#[test]
fn nothing_ready_goes_before_something_new_is() {
    let mut sets = Vec::new();
    run(&deployment(1, "a", json!({})), &mut sets);
    let next = deployment(1, "b", json!({}));
    settle(&next, &mut sets, true);
    let mut pending = (*sets[1]).clone();
    pending.status = Some(serde_json::from_value(json!({"replicas": 1})).unwrap());
    sets[1] = Arc::new(pending);
    let changes = reconcile(&[next], &sets, &instant::time());
    let shrinks = changes
        .iter()
        .any(|change| matches!(change, Change::Replace(c, _, Part::Whole) if c.resource == "replicasets"));
    assert!(!shrinks, "{changes:#?}");
    assert_eq!(sizes(&sets), [1, 1]);
}

#[test]
fn recreate_empties_first() {
    let strategy = json!({"type": "Recreate"});
    let mut sets = Vec::new();
    run(&deployment(3, "a", strategy.clone()), &mut sets);
    let next = deployment(3, "b", strategy);
    settle(&next, &mut sets, true);
    assert_eq!(sizes(&sets), [3, 0]);
    run(&next, &mut sets);
    assert_eq!(sizes(&sets), [0, 3]);
}

#[test]
fn scaling_changes_the_current_set_only() {
    let mut sets = Vec::new();
    run(&deployment(1, "a", json!({})), &mut sets);
    run(&deployment(5, "a", json!({})), &mut sets);
    assert_eq!(sizes(&sets), [5]);
    run(&deployment(0, "a", json!({})), &mut sets);
    assert_eq!(sizes(&sets), [0]);
}

#[test]
fn limits_follow_the_strategy() {
    let of = |replicas, rolling: Value| {
        let deployment = deployment(replicas, "a", json!({"rollingUpdate": rolling}));
        limits(deployment.spec.as_ref().unwrap())
    };
    assert_eq!(of(4, json!({})), (1, 1));
    assert_eq!(of(1, json!({})), (1, 0));
    assert_eq!(of(10, json!({"maxSurge": "30%", "maxUnavailable": 0})), (3, 0));
    assert_eq!(of(3, json!({"maxSurge": 0, "maxUnavailable": 0})), (0, 1));
}

#[test]
fn the_status_says_what_is_there_and_then_rests() {
    let mut sets = Vec::new();
    let before = deployment(2, "a", json!({}));
    run(&before, &mut sets);
    let now = instant::time();
    let changes = reconcile(std::slice::from_ref(&before), &sets, &now);
    let after = changes
        .into_iter()
        .find_map(|change| match change {
            Change::Replace(_, object, Part::Status) => Some(object),
            _ => None,
        })
        .unwrap();
    assert_eq!(after["status"]["availableReplicas"], 2);
    assert_eq!(after["status"]["conditions"][0]["status"], "True");
    let mut after: Deployment = serde_json::from_value(after).unwrap();
    after.metadata.annotations = Some(BTreeMap::from([(REVISION.to_owned(), "1".to_owned())]));
    assert_eq!(reconcile(&[Arc::new(after)], &sets, &now), []);
}
