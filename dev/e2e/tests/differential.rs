//! The differential suite: every scenario on our proxy and on stock Envoy.
//!
//! `LATEEN_SCENARIO=retries` runs only those whose `TOPIC / NAME` contains the text; `LATEEN_LANES=1` runs them one by one.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use e2e::differential::{Verdict, load, run_all};

/// The sections of seed 003 that have manifests.
const SEED_SECTIONS: &[&str] = &[
    "7-2 exportTo 1",
    "7-2 exportTo 2",
    "7-2 exportTo 3",
    "7-3 host 1",
    "7-3 host 2",
    "7-4 connectionPool tcp",
    "7-4 connectionPool http 1",
    "7-4 connectionPool http 2",
    "7-4 h2UpgradePolicy",
    "7-5 consistentHash httpCookie",
    "7-5 consistentHash httpHeaderName",
    "7-5 consistentHash useSourceIp",
    "7-5 consistentHash httpQueryParameterName",
    "7-5 minimumRingSize",
    "7-6 distribute 1",
    "7-6 distribute 2",
    "7-6 failover",
    "7-7 simple LEAST_CONN",
    "7-7 simple ROUND_ROBIN",
    "7-7 simple RANDOM",
    "7-7 simple PASSTHROUGH",
    "7-8 outlierDetection",
    "portLevelSettings connectionPool http",
    "portLevelSettings connectionPool tcp",
    "portLevelSettings consistentHash httpCookie",
    "portLevelSettings consistentHash httpHeaderName",
    "portLevelSettings consistentHash useSourceIp",
    "portLevelSettings consistentHash httpQueryParameterName",
    "portLevelSettings minimumRingSize",
    "portLevelSettings distribute",
    "portLevelSettings failover",
    "portLevelSettings simple LEAST_CONN",
    "portLevelSettings simple ROUND_ROBIN",
    "portLevelSettings simple RANDOM",
    "portLevelSettings simple PASSTHROUGH",
    "portLevelSettings outlierDetection",
    "7-9 tls MUTUAL",
    "7-9 tls DISABLE",
    "7-9 tls ISTIO_MUTUAL",
    "7-9 tls credentialName",
    "7-9 tls subjectAltNames",
    "7-9 tls origination",
    "7-10 subsets",
];

/// How often what differs is run again.
const AGAIN: usize = 2;

#[test]
fn our_proxy_and_stock_envoy_agree() {
    let Some(envoy) = testkit::envoy::Envoy::find() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files = load(&folder).unwrap();
    let only = std::env::var("LATEEN_SCENARIO").unwrap_or_default();
    for (topic, file) in &mut files {
        file.scenarios.retain(|scenario| format!("{topic} / {}", scenario.name).contains(&only));
    }
    let lanes = std::env::var("LATEEN_LANES").ok().and_then(|lanes| lanes.parse().ok()).unwrap_or(4);
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential");
    // A runtime for each: what a run leaves behind ends with it.
    let run = |files, lanes| -> Vec<Verdict> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(3).enable_all().build().unwrap();
        runtime.block_on(run_all(files, lanes, &envoy, &kept)).unwrap()
    };
    let mut verdicts = run(files, lanes);
    verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.took));
    for slow in verdicts.iter().take(5) {
        println!("{:>6} ms  {}", slow.took.as_millis(), slow.scenario);
    }
    let (count, mut wrong) = (verdicts.len(), wrong_ones(&verdicts));
    for _ in 0..AGAIN {
        if wrong.is_empty() {
            break;
        }
        // On a machine with more to do than cores, either proxy may lose a race that it wins otherwise: what is a
        // difference shows itself again, alone and on fresh proxies.
        for (scenario, wrong) in &wrong {
            println!("once more, alone: {scenario}\n{wrong}");
        }
        let mut again = load(&folder).unwrap();
        for (topic, file) in &mut again {
            file.scenarios.retain(|scenario| wrong.contains_key(&format!("{topic} / {}", scenario.name)));
        }
        again.retain(|(_, file)| !file.scenarios.is_empty());
        wrong = wrong_ones(&run(again, 1));
    }
    println!("differential: {} of {count} scenarios agree", count - wrong.len());
    let told: Vec<String> = wrong.iter().map(|(scenario, wrong)| format!("{scenario}\n{wrong}")).collect();
    assert!(told.is_empty(), "{} scenarios do not agree:\n\n{}", told.len(), told.join("\n\n"));
}

/// Scenarios that do not agree, and how.
fn wrong_ones(verdicts: &[Verdict]) -> BTreeMap<String, String> {
    let wrong = verdicts.iter().filter(|verdict| !verdict.wrong.is_empty());
    wrong.map(|verdict| (verdict.scenario.clone(), verdict.wrong.clone())).collect()
}

#[test]
fn scenarios_are_many_and_told_apart() {
    let files = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")).unwrap();
    let mut names: Vec<String> = files
        .iter()
        .flat_map(|(topic, file)| {
            file.scenarios.iter().map(move |scenario| format!("{topic} / {}", scenario.name))
        })
        .collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two scenarios have the same name");
    assert!(count >= 250, "there are {count} scenarios");
    let covers: Vec<&str> =
        files.iter().flat_map(|(_, file)| &file.scenarios).map(|s| s.covers.as_str()).collect();
    for topic in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        let covered = covers.iter().any(|covers| covers.split([',', ';']).any(|part| part.trim() == topic));
        assert!(covered, "no scenario covers topic {topic}");
    }
    // Policies, TLS and attacks: what an outsider tries is told apart by topic, too.
    let of = |topics: &[&str]| covers.iter().filter(|covers| topics.contains(covers)).count();
    assert!(
        of(&["9", "10", "11", "12", "13"]) >= 150,
        "{} scenarios are about security",
        of(&["9", "10", "11", "12", "13"])
    );
    for topic in ["9", "10", "11", "12", "13"] {
        assert!(of(&[topic]) > 0, "no scenario covers topic {topic}");
    }
    for section in SEED_SECTIONS {
        let covered = covers.iter().any(|covers| covers.contains(&format!("seed 003 {section}")));
        assert!(covered, "no scenario covers seed 003, {section}");
    }
}
