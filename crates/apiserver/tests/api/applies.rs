//! Server-side apply, and who manages which field.

use serde_json::{Value, json};

use crate::rest::{Rest, Server};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";

fn intent(replicas: Value, containers: Value) -> Value {
    let mut intent = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}},
    });
    if !replicas.is_null() {
        intent["spec"]["replicas"] = replicas;
    }
    intent
}

async fn apply(rest: &Rest, manager: &str, force: bool, intent: &Value, code: u16) -> Value {
    let path = format!("{DEPLOYMENT}?fieldManager={manager}&force={force}");
    rest.patch(&path, "apply", intent).await.expect(code)
}

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|one| format!("{} {}", one["manager"].as_str().unwrap(), one["operation"].as_str().unwrap()))
        .collect()
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    &entries.into_iter().find(|one| one["manager"] == manager).unwrap()["fieldsV1"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intents_merge_conflict_and_go() {
    let server = Server::start().await;
    let rest = &server.rest;
    let first = intent(
        json!(2),
        json!([{"name": "c", "image": "x:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]),
    );
    let made = apply(rest, "one", false, &first, 201).await;
    assert_eq!(managers(&made), ["one Apply"]);
    let again = apply(rest, "one", false, &first, 200).await;
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"], "nothing is new");

    let other = intent(Value::Null, json!([{"name": "d", "image": "y:1"}]));
    let both = apply(rest, "two", false, &other, 200).await;
    let names = |object: &Value| -> Vec<String> {
        let all = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&both), ["c", "d"]);
    assert_eq!(both["spec"]["replicas"], 2);

    let mut taken = intent(json!(5), json!([{"name": "d", "image": "y:1"}]));
    let refused = apply(rest, "two", false, &taken, 409).await;
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"one\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\" using apps/v1", "field": ".spec.replicas"}])
    );
    let forced = apply(rest, "two", true, &taken, 200).await;
    assert_eq!(forced["spec"]["replicas"], 5);
    assert!(fields(&forced, "one")["f:spec"]["f:replicas"].is_null());
    assert!(fields(&forced, "two")["f:spec"]["f:replicas"].is_object());

    let second =
        intent(Value::Null, json!([{"name": "c", "image": "x:2", "env": [{"name": "B", "value": "2"}]}]));
    let shrunk = apply(rest, "one", false, &second, 200).await;
    let container = &shrunk["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["env"]),
        (&json!("x:2"), &json!([{"name": "B", "value": "2"}]))
    );
    assert_eq!(shrunk["spec"]["replicas"], 5, "it is the other's by now");

    taken["spec"]["template"]["spec"]["containers"] = json!([{"name": "e", "image": "z"}]);
    let changed = apply(rest, "two", false, &taken, 200).await;
    assert_eq!(names(&changed), ["c", "e"]);
    assert_eq!(
        rest.patch(DEPLOYMENT, "apply", &taken).await.expect(422)["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_writes_take_fields_over() {
    let server = Server::start().await;
    let rest = &server.rest;
    apply(rest, "one", false, &intent(json!(2), json!([{"name": "c", "image": "x:1"}])), 201).await;
    let scaled = json!({"spec": {"replicas": 3}});
    let changed = rest.patch(&format!("{DEPLOYMENT}?fieldManager=hand"), "merge", &scaled).await.expect(200);
    assert_eq!(managers(&changed), ["one Apply", "hand Update"]);
    assert_eq!(fields(&changed, "hand"), &json!({"f:spec": {"f:replicas": {}}}));
    let same = rest.patch(&format!("{DEPLOYMENT}?fieldManager=hand"), "merge", &scaled).await.expect(200);
    assert_eq!(same["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    let refused =
        apply(rest, "one", false, &intent(json!(2), json!([{"name": "c", "image": "x:1"}])), 409).await;
    assert!(
        refused["message"].as_str().unwrap().contains("conflict with \"hand\" using apps/v1: .spec.replicas")
    );
    let kept =
        apply(rest, "one", false, &intent(Value::Null, json!([{"name": "c", "image": "x:1"}])), 200).await;
    assert_eq!(kept["spec"]["replicas"], 3);

    let status = json!({"status": {"replicas": 3}});
    let told =
        rest.patch(&format!("{DEPLOYMENT}/status?fieldManager=ctl"), "merge", &status).await.expect(200);
    let entry = told["metadata"]["managedFields"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&entry["manager"], &entry["subresource"]), (&json!("ctl"), &json!("status")));
    let forgotten = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let reset = rest.patch(DEPLOYMENT, "json", &forgotten).await.expect(200);
    assert!(managers(&reset).is_empty(), "{reset}");
}
