use super::*;
use crate::api::Part;
use serde_json::{Value, json};

/// A set with its pods and revisions, as an API server would keep them.
struct World {
    set: Value,
    pods: Vec<Value>,
    revisions: Vec<Value>,
}

fn parsed<T: serde::de::DeserializeOwned>(values: &[Value]) -> Vec<Arc<T>> {
    values.iter().map(|value| Arc::new(serde_json::from_value(value.clone()).unwrap())).collect()
}

impl World {
    fn new(spec: Value) -> Self {
        let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}});
        let mut set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "namespace": "ns", "uid": "s1", "generation": 1},
            "spec": {"serviceName": "db", "selector": {}, "template": template}});
        for (key, value) in spec.as_object().unwrap() {
            set["spec"][key] = value.clone();
        }
        Self { set, pods: Vec::new(), revisions: Vec::new() }
    }

    /// One round; what it did, in words.
    fn round(&mut self) -> Vec<String> {
        let sets: Vec<Arc<StatefulSet>> = parsed(std::slice::from_ref(&self.set));
        let changes = reconcile(&sets, &parsed(&self.pods), &parsed(&self.revisions));
        changes.into_iter().filter_map(|change| self.carry_out(change)).collect()
    }

    fn carry_out(&mut self, change: Change) -> Option<String> {
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap().to_owned();
        match change {
            Change::Create(collection, object) if collection.resource == "controllerrevisions" => {
                self.revisions.push(object);
                None
            }
            Change::Create(_, object) => {
                let said = format!("+{}", name(&object));
                self.pods.push(object);
                Some(said)
            }
            Change::Delete(deletion) => {
                self.pods.retain(|pod| pod["metadata"]["name"] != *deletion.name);
                Some(format!("-{}", deletion.name))
            }
            Change::Replace(collection, object, Part::Whole)
                if collection.resource == "controllerrevisions" =>
            {
                let known = self.revisions.iter_mut().find(|one| name(one) == name(&object));
                *known.unwrap() = object;
                None
            }
            Change::Replace(_, object, Part::Status) => {
                self.set["status"] = object["status"].clone();
                None
            }
            other => panic!("{other:?}"),
        }
    }

    fn ready(&mut self, name: &str) {
        let pod = self.pods.iter_mut().find(|pod| pod["metadata"]["name"] == name).unwrap();
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    }

    /// Rounds until nothing is done any more, every pod ready at once.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..50 {
            let before = (self.set.clone(), self.pods.clone(), self.revisions.clone());
            all.extend(self.round());
            let names: Vec<String> =
                self.pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect();
            names.iter().for_each(|name| self.ready(name));
            if before == (self.set.clone(), self.pods.clone(), self.revisions.clone()) {
                return all;
            }
        }
        panic!("never settles: {all:?}");
    }

    fn images(&self) -> Vec<String> {
        let mut pods = self.pods.clone();
        pods.sort_by_key(|pod| pod["metadata"]["name"].to_string());
        pods.iter().map(|pod| pod["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()).collect()
    }

    fn set_image(&mut self, image: &str) {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    }
}

#[test]
fn each_pod_waits_for_the_one_before() {
    let mut world = World::new(json!({"replicas": 2}));
    assert_eq!(world.round(), ["+db-0"]);
    assert_eq!(world.round(), [""; 0]);
    world.ready("db-0");
    assert_eq!(world.round(), ["+db-1"]);
    let pod = &world.pods[1];
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("db-1"), &json!("db")));
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "1");
    assert!(pod["metadata"].get("generateName").is_none());
    world.settle();
    assert_eq!(world.set["status"]["readyReplicas"], 2);
    world.set["spec"]["replicas"] = json!(0);
    assert_eq!(world.settle(), ["-db-1", "-db-0"]);
}

#[test]
fn parallel_sets_do_not_wait() {
    let mut world =
        World::new(json!({"replicas": 3, "podManagementPolicy": "Parallel", "ordinals": {"start": 5}}));
    assert_eq!(world.round(), ["+db-5", "+db-6", "+db-7"]);
    world.set["spec"]["replicas"] = json!(1);
    assert_eq!(world.round(), ["-db-7", "-db-6"]);
}

#[test]
fn an_update_goes_from_the_highest_number_down_and_can_be_undone() {
    let mut world = World::new(json!({"replicas": 2}));
    world.settle();
    let first = world.set["status"]["currentRevision"].clone();
    world.set_image("b");
    assert_eq!(world.round(), ["-db-1"]);
    assert_eq!(world.set["status"]["currentRevision"], first, "the update is not complete");
    assert_ne!(world.set["status"]["updateRevision"], first);
    assert_eq!(world.settle(), ["+db-1", "-db-0", "+db-0"]);
    assert_eq!(world.images(), ["b", "b"]);
    assert_eq!(world.set["status"]["currentRevision"], world.set["status"]["updateRevision"]);
    // What `kubectl rollout undo` sends is the data of a revision.
    assert_eq!(world.revisions[0]["data"]["spec"]["template"]["$patch"], "replace");
    world.set_image("a");
    world.settle();
    assert_eq!((world.images(), world.revisions.len()), (vec!["a".to_owned(), "a".to_owned()], 2));
    assert_eq!(world.revisions[0]["revision"], 3);
    assert_eq!(world.set["status"]["updateRevision"], first);
}

#[test]
fn a_partition_keeps_the_former_revision() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let mut world = World::new(json!({"replicas": 2, "updateStrategy": strategy}));
    world.settle();
    world.set_image("b");
    assert_eq!(world.settle(), ["-db-1", "+db-1"]);
    world.pods.retain(|pod| pod["metadata"]["name"] != "db-0");
    world.settle();
    assert_eq!(world.images(), ["a", "b"]);
    assert_eq!(world.set["status"]["updatedReplicas"], 1);
}

#[test]
fn what_ended_is_made_again_and_a_claim_is_named_after_the_pod() {
    let claim = json!([{"metadata": {"name": "data"}}]);
    let mut world = World::new(json!({"replicas": 1, "volumeClaimTemplates": claim}));
    world.settle();
    assert_eq!(world.pods[0]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-0");
    world.pods[0]["status"]["phase"] = json!("Failed");
    assert_eq!(world.settle(), ["-db-0", "+db-0"]);
}
