//! The differential suite: every scenario on our proxy and on stock Envoy.
//!
//! `LATEEN_SCENARIO=retries` runs only those whose `TOPIC / NAME` contains the text; `LATEEN_LANES=1` runs them one by one.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use e2e::differential::{load, run_all};

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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_all().build().unwrap();
    let mut verdicts = runtime.block_on(run_all(files, lanes, &envoy, &kept)).unwrap();
    verdicts.sort_by_key(|verdict| std::cmp::Reverse(verdict.took));
    for slow in verdicts.iter().take(5) {
        println!("{:>6} ms  {}", slow.took.as_millis(), slow.scenario);
    }
    let failed: Vec<String> = verdicts
        .iter()
        .filter(|verdict| !verdict.wrong.is_empty())
        .map(|verdict| format!("{}\n{}", verdict.scenario, verdict.wrong))
        .collect();
    println!("differential: {} of {} scenarios agree", verdicts.len() - failed.len(), verdicts.len());
    assert!(failed.is_empty(), "{} scenarios do not agree:\n\n{}", failed.len(), failed.join("\n\n"));
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
}
