//! The objects that Istio's own installer makes of operator files, and ours.
#![allow(clippy::unwrap_used)]

mod differences;

use std::fs;
use std::path::PathBuf;

use lateen_manifests::{Installation, render};
use serde_json::{Map, Value};

use self::differences::differences;

/// Labels that say by which chart an object came, and null fields, are no part of the comparison.
const BOOKKEEPING: &[&str] = &[
    "helm.sh/chart",
    "chart",
    "heritage",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "install.operator.istio.io/owning-resource",
];

fn normal(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut kept: Map<String, Value> = map
                .iter()
                .filter(|(key, value)| !BOOKKEEPING.contains(&key.as_str()) && !value.is_null())
                .map(|(key, value)| (key.clone(), normal(value)))
                .filter(|(key, value)| {
                    !(value.as_object().is_some_and(Map::is_empty) && key.ends_with("ffinity"))
                })
                .collect();
            kept.sort_keys();
            Value::Object(kept)
        }
        Value::Array(items) => items.iter().map(normal).collect(),
        other => other.clone(),
    }
}

fn read(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple::<Value>(&text).unwrap().into_iter().filter(Value::is_object).collect()
}

fn key(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{}:{}:{}", word(&object["kind"]), word(&metadata["namespace"]), word(&metadata["name"]))
}

#[test]
fn operator_files_make_istios_objects() {
    let Some(folder) = std::env::var_os("LATEEN_CORPORA").map(PathBuf::from) else {
        eprintln!("skipped: LATEEN_CORPORA is not set");
        return;
    };
    let folder = folder.join("file_goldens");
    let cases = fs::read_to_string(folder.join("operator_manifest_cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let name = case["desc"].as_str().unwrap();
        // The plug-in of nodes and ambient mode are refused, with a word.
        if matches!(name, "istio-cni_tolerations" | "ztunnel") {
            continue;
        }
        let at = folder.join("operator/manifest-generate");
        let files = match case["noInput"].as_bool() {
            Some(true) => vec![],
            _ => read(at.join(format!("input/{name}.yaml"))),
        };
        let mut sets = Vec::new();
        if files.iter().all(|file| file["spec"]["hub"].is_null()) {
            sets.extend(["hub=registry.istio.io/testing".to_owned(), "tag=latest".to_owned()]);
        }
        let flags = case["flags"].as_str().unwrap_or_default();
        sets.extend(flags.split_whitespace().filter(|word| *word != "--set").map(str::to_owned));
        let installation = Installation::build(&files, &sets).unwrap();
        let got: Vec<Value> =
            render(&installation).unwrap().into_iter().flat_map(|part| part.objects).collect();
        for want in read(at.join(format!("output/{name}.golden.yaml"))) {
            let key = key(&want);
            match got.iter().find(|object| self::key(object) == key) {
                None => wrong.push(format!("{name}: {key} is missing")),
                Some(got) => differences(&format!("{name}: {key}"), &normal(&want), &normal(got), &mut wrong),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
