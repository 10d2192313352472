//! Istio's own validation tables: what it accepts, we accept, and what it refuses, we refuse.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use lateen_api::mesh::{MeshConfig, MeshNetworks, MeshProxyConfig};
use lateen_api::validate::{validate_mesh_config, validate_mesh_networks, validate_proxy_config};
use lateen_api::{Document, Problem, Severity, parse_yaml, validate};
use serde_json::Value;

fn corpora() -> Option<PathBuf> {
    let folder = std::env::var_os("LATEEN_CORPORA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: LATEEN_CORPORA is not set");
    }
    folder
}

fn cases(folder: &std::path::Path, name: &str) -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

/// The errors and warnings of all Istio objects of a file.
fn judge(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for document in parse_yaml("case.yaml", text) {
        match document {
            Err(error) => errors.push(error.to_string()),
            Ok(Document::Other { .. }) => {}
            Ok(Document::Istio(object)) => {
                for Problem { path, message, severity } in validate(&object) {
                    let list = if severity == Severity::Error { &mut errors } else { &mut warnings };
                    list.push(format!("{path}: {message}"));
                }
            }
        }
    }
    (errors, warnings)
}

/// Balanced accuracy over the cases of a table, and what was judged otherwise.
fn score(folder: &std::path::Path, table: &str) -> (f64, Vec<String>) {
    let mut counts = [[0usize; 2]; 2];
    let mut wrong = Vec::new();
    for case in cases(folder, table) {
        if case.get("containsNull") == Some(&Value::Bool(true)) {
            continue;
        }
        let text = fs::read_to_string(folder.join(case["file"].as_str().unwrap())).unwrap();
        let valid = case["valid"].as_bool().unwrap();
        let (errors, warnings) = judge(&text);
        counts[usize::from(valid)][usize::from(errors.is_empty() == valid)] += 1;
        let warned = case.get("warning").and_then(Value::as_bool);
        if errors.is_empty() != valid {
            wrong.push(format!("{}: valid {valid}, got errors {errors:?}", case["id"]));
        } else if valid && warned.is_some_and(|warned| warned == warnings.is_empty()) {
            wrong.push(format!("{}: warning {warned:?}, got {warnings:?}", case["id"]));
        }
    }
    let rate =
        |[bad, good]: [usize; 2]| if bad + good == 0 { 1.0 } else { good as f64 / (bad + good) as f64 };
    ((rate(counts[0]) + rate(counts[1])) / 2.0, wrong)
}

#[test]
fn objects_are_judged_as_istio_judges_them() {
    let Some(corpora) = corpora() else { return };
    let folder = corpora.join("validation");
    for (table, floor) in [("cases.json", 0.97), ("crd_cases.json", 0.97), ("dataset_cases.json", 1.0)] {
        let (rate, wrong) = score(&folder, table);
        println!("{table}: balanced accuracy {rate:.3}; judged otherwise:\n  {}", wrong.join("\n  "));
        assert!(rate >= floor, "{table}: {rate} < {floor}: {wrong:#?}");
    }
}

#[test]
fn mesh_configuration_is_judged_as_istio_judges_it() {
    let Some(corpora) = corpora() else { return };
    let (mut right, mut wrong) = (0, Vec::new());
    for row in cases(&corpora.join("validation"), "raw_meshconfig_tables.json") {
        let (table, case) = (row["table"].as_str().unwrap(), &row["case"]);
        let Some((valid, problems)) = mesh_row(table, case) else { continue };
        let accepted = problems.iter().all(|problem| problem.severity != Severity::Error);
        match accepted == valid {
            true => right += 1,
            false => wrong.push(format!("{table} {}: valid {valid}, got {problems:?}", case["name"])),
        }
    }
    println!("mesh tables: {right} right; judged otherwise:\n  {}", wrong.join("\n  "));
    assert!(right >= 40 && wrong.len() <= 2, "{wrong:#?}");
}

/// What Istio says to a row of a table, and the problems that we find.
fn mesh_row(table: &str, case: &Value) -> Option<(bool, Vec<Problem>)> {
    let flag = |name: &str| case.get(name).and_then(Value::as_bool);
    let valid = flag("valid").or(flag("isValid")).or(flag("ok"));
    let valid = valid.unwrap_or(!(flag("err").or(flag("wantErr")).unwrap_or(false)));
    let unreadable =
        || vec![Problem { path: String::new(), message: "unreadable".to_owned(), severity: Severity::Error }];
    let mesh = |value: Value| match MeshConfig::istio_default().overlaid(&value) {
        Ok(mesh) => validate_mesh_config(&mesh),
        Err(_) => unreadable(),
    };
    let provider = |kind: &str| {
        let inner = case.get("config").or(case.get("provider")).cloned().unwrap_or_default();
        mesh(serde_json::json!({"extensionProviders": [{"name": "x", kind: inner}]}))
    };
    let problems = match table {
        "TestValidateMeshConfigProxyConfig" => {
            match lateen_api::field::read::<MeshProxyConfig>(&case["in"]) {
                Ok(config) => validate_proxy_config(&config),
                Err(_) => unreadable(),
            }
        }
        "TestValidateMeshNetworks" => match lateen_api::field::read::<MeshNetworks>(&case["mn"]) {
            Ok(networks) => validate_mesh_networks(&networks),
            Err(_) => unreadable(),
        },
        "TestValidateLocalityLbSetting" => mesh(serde_json::json!({"localityLbSetting": case["in"]})),
        "TestValidateZoneAwareLbSetting" => mesh(serde_json::json!({"zoneAwareLbSetting": case["in"]})),
        "TestServiceSettings" => mesh(serde_json::json!({"serviceSettings": [{"hosts": case["hosts"]}]})),
        "TestValidateConnectTimeout" => mesh(serde_json::json!({"connectTimeout": case["duration"]})),
        "TestValidateMeshConfigDefaultInboundHTTPRetryPolicy" => {
            mesh(serde_json::json!({"defaultInboundHttpRetryPolicy": case["retry"]}))
        }
        "TestValidateMeshConfigDefaultTrafficPolicy" => {
            mesh(serde_json::json!({"defaultTrafficPolicy": case["dtp"]}))
        }
        "TestValidateExtensionProviderTracingZipkin" => provider("zipkin"),
        "TestValidateExtensionProviderTracingLightstep" => provider("lightstep"),
        "TestValidateExtensionProviderTracingDatadog" => provider("datadog"),
        "TestValidateExtensionProviderTracingOpenCensusAgent" => provider("opencensus"),
        "TestValidateExtensionProviderEnvoyOtelAls" => provider("envoyOtelAls"),
        "TestValidateExtensionProviderEnvoyHTTPAls" => provider("envoyHttpAls"),
        "TestValidateExtensionProviderEnvoyTCPAls" => provider("envoyTcpAls"),
        "TestValidateExtensionProviderTracingOpentelemetry" => provider("opentelemetry"),
        _ => return None,
    };
    Some((valid, problems))
}

/// The keywords of a schema by their path, without descriptions.
fn keywords(schema: &Value, path: &str, out: &mut std::collections::BTreeMap<String, Value>) {
    let Some(object) = schema.as_object() else { return };
    for (key, value) in object {
        match key.as_str() {
            "properties" => {
                for (name, inner) in value.as_object().unwrap() {
                    keywords(inner, &format!("{path}.{name}"), out);
                }
            }
            "items" | "additionalProperties" => keywords(value, &format!("{path}[]"), out),
            "description" => {}
            "required" | "enum" => {
                let mut list: Vec<String> =
                    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect();
                list.sort();
                out.insert(format!("{path} {key}"), list.into());
            }
            "x-kubernetes-validations" => {
                let mut list: Vec<String> = value
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|rule| rule["message"].as_str().unwrap().to_owned())
                    .collect();
                list.sort();
                out.insert(format!("{path} {key}"), list.into());
            }
            _ => {
                out.insert(format!("{path} {key}"), value.clone());
            }
        }
    }
}

#[test]
fn definitions_have_every_path_and_rule_of_istio_s() {
    let Some(corpora) = corpora() else { return };
    let text = fs::read_to_string(corpora.join("crds/istio-crd-all.gen.yaml")).unwrap();
    let ours: std::collections::BTreeMap<String, Value> = lateen_api::crds()
        .into_iter()
        .map(|crd| (crd["metadata"]["name"].as_str().unwrap().to_owned(), crd))
        .collect();
    let mut differences = Vec::new();
    for document in parse_yaml("crds.yaml", &text) {
        let Ok(Document::Other { value: theirs, .. }) = document else { continue };
        let name = theirs["metadata"]["name"].as_str().unwrap();
        let ours = &ours[name];
        for field in ["names", "scope", "group"] {
            assert_eq!(ours["spec"][field], theirs["spec"][field], "{name}");
        }
        assert_eq!(ours["metadata"]["labels"], theirs["metadata"]["labels"], "{name}");
        for version in theirs["spec"]["versions"].as_array().unwrap() {
            let own = ours["spec"]["versions"].as_array().unwrap();
            let own = own.iter().find(|own| own["name"] == version["name"]).unwrap();
            for field in ["served", "storage", "subresources"] {
                assert_eq!(own[field], version[field], "{name}");
            }
            let columns = |version: &Value| -> Vec<(Value, Value, Value)> {
                let columns = version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
                columns
                    .iter()
                    .map(|c| (c["name"].clone(), c["type"].clone(), c["jsonPath"].clone()))
                    .collect()
            };
            assert_eq!(columns(own), columns(version), "{name}");
            let (mut have, mut want) = Default::default();
            keywords(&own["schema"]["openAPIV3Schema"], "", &mut have);
            keywords(&version["schema"]["openAPIV3Schema"], "", &mut want);
            for (path, value) in &want {
                if have.get(path) != Some(value) {
                    differences.push(format!("{name}{path}: want {value}, have {:?}", have.get(path)));
                }
            }
            for path in have.keys().filter(|path| !want.contains_key(*path)) {
                differences.push(format!("{name}{path}: theirs has none, have {}", have[path]));
            }
        }
    }
    differences.sort();
    differences.dedup();
    println!("{} differences:\n  {}", differences.len(), differences.join("\n  "));
    assert!(differences.is_empty(), "{differences:#?}");
}
