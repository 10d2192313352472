//! The simulation corpus: worlds of Istio objects, a proxy, calls, and where each has to go, asked of the binary.
//!
//! `LATEEN_SIMULATION=010` runs only the cases whose identifier begins so.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Fields of an answer that the corpus knows.
const FIELDS: &[&str] = &[
    "listenerMatched",
    "filterChainMatched",
    "routeConfigMatched",
    "virtualHostMatched",
    "routeMatched",
    "clusterMatched",
    "error",
];

/// The case whose mesh configuration is lost in the corpus: REGISTRY_ONLY is the zero of its enumeration.
const REGISTRY_ONLY: &str = "040-";

/// The case of ALLOW_ANY_DYNAMIC_DNS, for which the corpus has what is expected of ALLOW_ANY: in Istio (release notes of
/// 1.31) requests in the clear, which these ports take, go to the host they name.
const DYNAMIC_DNS: (&str, [u64; 3]) = ("044-", [80, 85, 86]);

#[test]
fn calls_go_where_the_reference_sends_them() {
    let Some((folder, cases)) = corpus() else { return };
    let (mut passed, mut failed) = (0, Vec::new());
    for case in &cases {
        for call in case["calls"].as_array().unwrap() {
            match judge(&folder, case, call) {
                Ok(()) => passed += 1,
                Err(difference) => failed.push(format!("{} / {}: {difference}", case["id"], call["name"])),
            }
        }
    }
    println!("simulation: {passed} of {} calls", passed + failed.len());
    assert!(failed.is_empty(), "{passed} calls pass, {} do not:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn stock_envoy_takes_every_world() {
    let Some((folder, cases)) = corpus() else { return };
    let Some(envoy) = testkit::envoy::Envoy::find() else { return };
    let mut failed = Vec::new();
    for case in &cases {
        let output = ask(&folder, case, &["x", "dump-xds"], None);
        let verdict = match serde_json::from_slice(&output.stdout) {
            Ok(dump) => envoy.validate(&dump).map_err(|error| error.to_string()),
            Err(error) => Err(format!("no JSON ({error}): {}", String::from_utf8_lossy(&output.stderr))),
        };
        if let Err(error) = verdict {
            failed.push(format!("{}: {error}", case["id"]));
        }
    }
    assert!(failed.is_empty(), "{} of {} worlds:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// The corpus' folder and its cases.
fn corpus() -> Option<(PathBuf, Vec<Value>)> {
    let folder = testkit::corpora::folder("simulation")?;
    let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let mut cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let only = std::env::var("LATEEN_SIMULATION").unwrap_or_default();
    cases.retain(|case| case["id"].as_str().unwrap().starts_with(&only));
    Some((folder, cases))
}

/// Asks the binary and compares: a strict expectation lists all that is matched, another one only some of it.
fn judge(folder: &Path, case: &Value, call: &Value) -> Result<(), String> {
    let answer = explain(folder, case, call)?;
    let mut expected = call["expect"].clone();
    let (world, ports) = DYNAMIC_DNS;
    let asked = &call["call"];
    if case["id"].as_str().unwrap().starts_with(world)
        && (&asked["protocol"], &asked["tls"]) == (&json!("http"), &json!("plaintext"))
        && ports.contains(&asked["port"].as_u64().unwrap())
    {
        expected["clusterMatched"] = json!("AllowAnyDynamicDNSCluster");
    }
    for field in FIELDS {
        let (wanted, found) = (text(&expected[*field]), text(&answer[*field]));
        if wanted != found && (expected["strict"] == true || !wanted.is_empty()) {
            let why = serde_json::to_string_pretty(&answer["why"]).unwrap();
            return Err(format!("{field} is {found:?}, not {wanted:?}\n{}\n{why}", call["call"]));
        }
    }
    Ok(())
}

/// A name without what goes without saying.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace(".svc.cluster.local", "")
}

/// What the binary answers; a resource that our own proxy would reject is no answer.
fn explain(folder: &Path, case: &Value, call: &Value) -> Result<Value, String> {
    let output = ask(folder, case, &["explain", "-o", "json"], Some(&call["call"]));
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("would reject") {
        return Err(said.into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("no JSON ({error}): {said}"))
}

/// Runs an offline command on a case's world.
fn ask(folder: &Path, case: &Value, command: &[&str], call: Option<&Value>) -> Output {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let path = scratch.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    };
    let mut mesh = case["meshConfig"].clone();
    if case["id"].as_str().unwrap().starts_with(REGISTRY_ONLY) {
        mesh = json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}});
    }
    let mut lateen = Command::new(e2e::lateen());
    lateen.args(command).arg("--proxy").arg(write("proxy.json", &case["proxy"]));
    if let Some(call) = call {
        lateen.arg("--call").arg(write("call.json", call));
    }
    if mesh.is_object() {
        lateen.arg("--mesh-config").arg(write("mesh.json", &mesh));
    }
    for file in ["config", "kube"].iter().filter_map(|key| case[*key].as_str()) {
        lateen.arg("-f").arg(folder.join(file));
    }
    for (name, value) in case["istiodEnv"].as_object().into_iter().flatten() {
        lateen.arg("--env").arg(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    lateen.output().unwrap()
}
