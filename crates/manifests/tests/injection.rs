//! The pods that Istio's own injector makes, and ours, by the settings of an installation.
#![allow(clippy::unwrap_used)]

mod differences;
#[path = "differences/left_out.rs"]
mod left_out;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use lateen_inject::{Settings, inject_object, review};
use lateen_manifests::Installation;
use serde_json::{Map, Value, json};

use self::differences::differences;
use self::left_out::LEFT_OUT;

/// What the API server fills in, and what is the same by an empty value.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut kept: Map<String, Value> = map
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "creationTimestamp" | "status"))
                .map(|(key, value)| {
                    let parsed = key == "sidecar.istio.io/status" || key == "proxy.istio.io/overrides";
                    let text = value.as_str().filter(|_| parsed);
                    let value =
                        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(value.clone());
                    (key.clone(), normal(&value))
                })
                .filter(|(_, value)| !(value.is_null() || *value == json!({}) || *value == json!([])))
                .collect();
            kept.sort_keys();
            Value::Object(kept)
        }
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple::<Value>(&text).unwrap().into_iter().filter(Value::is_object).collect()
}

fn settings(folder: &Path, case: &Value) -> Settings {
    let mut sets = vec!["hub=registry.istio.io/testing".to_owned(), "tag=latest".to_owned()];
    sets.extend(case["setFlags"].as_array().unwrap().iter().map(|set| set.as_str().unwrap().to_owned()));
    for (name, value) in case["env"].as_object().into_iter().flatten() {
        sets.push(format!("values.pilot.env.{name}={}", value.as_str().unwrap()));
    }
    let files = case["iop"].as_str().map(|file| read(&folder.join(file))).unwrap_or_default();
    let installation = Installation::build(&files, &sets).unwrap();
    let mesh = match &case["meshConfig"] {
        Value::Null => Value::Object(installation.mesh_config()),
        mesh => mesh.clone(),
    };
    Settings::build(&installation.injector_values(), &installation.injector_config(), &mesh).unwrap()
}

fn corpora() -> Option<(PathBuf, Vec<Value>)> {
    let Some(folder) = std::env::var_os("LATEEN_CORPORA").map(PathBuf::from) else {
        eprintln!("skipped: LATEEN_CORPORA is not set");
        return None;
    };
    let folder = folder.join("injection");
    let mut cases: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(folder.join("cases.json")).unwrap()).unwrap();
    let is_left_out = |case: &Value| LEFT_OUT.iter().any(|(id, _)| case["id"] == *id);
    let found = cases.iter().filter(|case| is_left_out(case)).count();
    assert_eq!(found, LEFT_OUT.len(), "every case that is left out exists: {LEFT_OUT:?}");
    cases.retain(|case| !is_left_out(case));
    Some((folder.join("files"), cases))
}

#[test]
fn manifests_are_injected_as_istio_does() {
    let Some((folder, cases)) = corpora() else { return };
    let mut wrong = Vec::new();
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let settings = settings(&folder, &case);
        let objects = read(&folder.join(case["in"].as_str().unwrap()));
        let got: Result<Vec<Value>, _> =
            objects.iter().map(|object| inject_object(object, "default", &settings)).collect();
        match (case["expectedError"].as_str(), got) {
            (Some(word), Err(error)) if error.to_string().to_lowercase().contains(word) => {}
            (None, Ok(got)) => {
                let want = read(&folder.join(case["want"].as_str().unwrap()));
                for (want, got) in want.iter().zip(&got) {
                    differences(id, &normal(want), &normal(got), &mut wrong);
                }
            }
            (word, got) => wrong.push(format!("{id}: want error {word:?}, got {got:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_webhook_makes_the_same_pods() {
    let Some((folder, cases)) = corpora() else { return };
    let mut judged = 0;
    for case in cases.iter().filter(|case| case["expectedError"].is_null()) {
        let settings = settings(&folder, case);
        let objects = read(&folder.join(case["in"].as_str().unwrap()));
        let Some(object) = objects.first().filter(|object| object["kind"] == "Pod") else { continue };
        let asked = json!({ "request": { "uid": "1", "namespace": "default", "object": object } });
        let answer = review(&asked, &settings);
        assert_eq!(answer["response"]["allowed"], true, "{}", case["id"]);
        let patch = answer["response"]["patch"].as_str().unwrap();
        let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &patch).unwrap();
        let mut wrong = Vec::new();
        let want = read(&folder.join(case["want"].as_str().unwrap())).remove(0);
        differences(case["id"].as_str().unwrap(), &normal(&want), &normal(&patched), &mut wrong);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        judged += 1;
    }
    assert!(judged > 3);
}
