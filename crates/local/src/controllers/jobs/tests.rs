use super::*;
use crate::api::Part;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

fn at(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn job(spec: Value, status: Value) -> Value {
    let mut job = json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "sum", "namespace": "ns", "uid": "j1"},
        "spec": {"completions": 1, "parallelism": 1, "backoffLimit": 1, "template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": status});
    for (key, value) in spec.as_object().unwrap() {
        job["spec"][key] = value.clone();
    }
    job
}

fn pod(name: &str, phase: &str, finished: i64) -> Arc<Pod> {
    let ended = Timestamp::from_second(finished).unwrap().to_string();
    let pod = json!({"metadata": {"name": name, "namespace": "ns", "ownerReferences": [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "sum", "uid": "j1", "controller": true}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": i32::from(phase == "Running"), "state": {"terminated": {"exitCode": 1, "finishedAt": ended}}}]}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Pods made and deleted, and the status afterwards.
fn decide(job: &Value, pods: &[Arc<Pod>], now: i64) -> (usize, Vec<String>, Value) {
    let mut out = (0, Vec::new(), job["status"].clone());
    let job: Arc<Job> = Arc::new(serde_json::from_value(job.clone()).unwrap());
    for change in reconcile(&[job], pods, &at(now)) {
        match change {
            Change::Create(..) => out.0 += 1,
            Change::Delete(deletion) => out.1.push(deletion.name),
            Change::Replace(_, object, Part::Status) => out.2 = object["status"].clone(),
            other => panic!("{other:?}"),
        }
    }
    out
}

fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["type"] == kind).unwrap_or(Value::Null)
}

#[test]
fn pods_run_beside_each_other_until_enough_have_succeeded() {
    let four = job(json!({"completions": 4, "parallelism": 2}), json!({}));
    let (made, _, status) = decide(&four, &[], 100);
    assert_eq!((made, &status["startTime"]), (2, &json!("1970-01-01T00:01:40Z")));
    let three = [pod("a", "Succeeded", 0), pod("b", "Succeeded", 0), pod("c", "Succeeded", 0)];
    let (made, _, status) = decide(&four, &three, 100);
    assert_eq!((made, &status["succeeded"]), (1, &json!(3)));
    let (made, gone, status) = decide(&job(json!({}), json!({})), &three[..1], 101);
    assert_eq!((made, gone.len(), &condition(&status, "Complete")["status"]), (0, 0, &json!("True")));
    assert_eq!(status["completionTime"], "1970-01-01T00:01:41Z");
    // It rests from then on.
    assert_eq!(decide(&job(json!({}), status.clone()), &three, 200), (0, Vec::new(), status));
}

#[test]
fn a_failed_pod_is_followed_by_another_after_a_while_until_the_limit() {
    let one = job(json!({}), json!({}));
    let failed = [pod("a", "Failed", 100)];
    assert_eq!(decide(&one, &failed, 105).0, 0);
    assert_eq!(decide(&one, &failed, 110).0, 1);
    let twice = [pod("a", "Failed", 100), pod("b", "Failed", 120), pod("c", "Pending", 0)];
    let (made, gone, status) = decide(&one, &twice, 300);
    assert_eq!((made, gone), (0, vec!["c".to_owned()]));
    assert_eq!(condition(&status, "Failed")["reason"], "BackoffLimitExceeded");
}

#[test]
fn restarts_count_as_failures_where_containers_are_restarted() {
    let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}});
    let (_, gone, status) =
        decide(&job(json!({"template": template}), json!({})), &[pod("a", "Running", 0)], 9);
    assert_eq!((gone, &condition(&status, "Failed")["status"]), (vec!["a".to_owned()], &json!("True")));
}

#[test]
fn deadlines_and_the_time_to_live_are_kept() {
    let started = json!({"startTime": "1970-01-01T00:01:40Z"});
    let deadline = job(json!({"activeDeadlineSeconds": 30}), started);
    assert!(condition(&decide(&deadline, &[], 129).2, "Failed").is_null());
    assert_eq!(condition(&decide(&deadline, &[], 130).2, "Failed")["reason"], "DeadlineExceeded");
    let done = json!({"completionTime": "1970-01-01T00:01:40Z", "conditions": [{"type": "Complete", "status": "True"}]});
    let mortal = job(json!({"ttlSecondsAfterFinished": 10}), done);
    assert_eq!(decide(&mortal, &[], 109).1, [""; 0]);
    assert_eq!(decide(&mortal, &[], 110).1, ["sum"]);
}

#[test]
fn suspended_jobs_have_no_pods_and_indexed_ones_say_why() {
    let paused = job(json!({"suspend": true}), json!({}));
    let (made, gone, status) = decide(&paused, &[pod("a", "Pending", 0)], 1);
    assert_eq!((made, gone, &status["startTime"]), (0, vec!["a".to_owned()], &Value::Null));
    let resumed = decide(&job(json!({}), status), &[], 2);
    assert_eq!((resumed.0, &condition(&resumed.2, "Suspended")["status"]), (1, &json!("False")));
    let (made, _, status) = decide(&job(json!({"completionMode": "Indexed"}), json!({})), &[], 1);
    assert_eq!((made, &condition(&status, "Suspended")["message"]), (0, &json!(INDEXED)));
}
