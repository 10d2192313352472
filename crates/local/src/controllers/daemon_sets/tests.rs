use super::*;
use crate::api::Part;
use serde_json::{Value, json};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn node(name: &str) -> Arc<Node> {
    object(
        json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": {"unschedulable": name == "b"}}),
    )
}

fn set(image: &str, selector: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "logs", "namespace": "ns", "uid": "d1", "generation": 1},
        "spec": {"selector": {}, "template": {"metadata": {"labels": {"app": "logs"}},
            "spec": {"nodeSelector": selector, "containers": [{"name": "c", "image": image}]}}}})
}

struct World {
    pods: Vec<Value>,
    revisions: Vec<Value>,
    status: Value,
}

impl World {
    /// One round, after which every pod is ready; what it did.
    fn round(&mut self, set: &Value, nodes: &[Arc<Node>]) -> Vec<String> {
        let list = |values: &[Value]| values.to_vec();
        let pods: Vec<Arc<Pod>> = list(&self.pods).into_iter().map(object).collect();
        let revisions: Vec<Arc<ControllerRevision>> = list(&self.revisions).into_iter().map(object).collect();
        let mut done = Vec::new();
        for change in reconcile(&[object(set.clone())], &pods, nodes, &revisions) {
            match change {
                Change::Create(collection, made) if collection.resource == "controllerrevisions" => {
                    self.revisions.push(made);
                }
                Change::Create(_, mut pod) => {
                    let node = pod["spec"]["nodeName"].as_str().unwrap().to_owned();
                    pod["metadata"]["name"] = json!(format!("logs-{node}"));
                    pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
                    self.pods.push(pod);
                    done.push(format!("+{node}"));
                }
                Change::Delete(deletion) => {
                    self.pods.retain(|pod| pod["metadata"]["name"] != *deletion.name);
                    done.push(format!("-{}", deletion.name));
                }
                Change::Replace(_, object, Part::Status) => self.status = object["status"].clone(),
                other => panic!("{other:?}"),
            }
        }
        done
    }
}

#[test]
fn every_node_that_fits_has_one_also_a_cordoned_one() {
    let mut world = World { pods: Vec::new(), revisions: Vec::new(), status: Value::Null };
    let nodes = [node("a"), node("b")];
    let all = set("x", Value::Null);
    assert_eq!(world.round(&all, &nodes), ["+a", "+b"]);
    assert_eq!(world.round(&all, &nodes), [""; 0]);
    assert_eq!(
        (&world.status["desiredNumberScheduled"], &world.status["numberReady"]),
        (&json!(2), &json!(2))
    );
    // A node that has gone, or does not fit any more, loses its pod.
    assert_eq!(world.round(&all, &nodes[1..]), ["-logs-a"]);
    assert_eq!(world.round(&set("x", json!({"zone": "a"})), &nodes), ["+a", "-logs-b"]);
}

#[test]
fn an_update_goes_node_by_node() {
    let mut world = World { pods: Vec::new(), revisions: Vec::new(), status: Value::Null };
    let nodes = [node("a"), node("b")];
    world.round(&set("x", Value::Null), &nodes);
    let next = set("y", Value::Null);
    assert_eq!(world.round(&next, &nodes), ["-logs-a"]);
    assert_eq!(world.round(&next, &nodes), ["+a"]);
    assert_eq!(world.round(&next, &nodes), ["-logs-b"]);
    assert_eq!(world.round(&next, &nodes), ["+b"]);
    world.round(&next, &nodes);
    assert_eq!((&world.status["updatedNumberScheduled"], world.revisions.len()), (&json!(2), 2));
}
