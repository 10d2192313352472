//! What `demo --check` looks at.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lateen_kube::LogOptions;
use lateen_local::Progress;
use serde_json::{Value, json};

use super::page::{self, Stars};
use super::{LOOK, apply_text};
use crate::cluster::Cluster;
use crate::commands::CliError;

/// Pages that are looked at to see all versions: all three miss one of them once in ten million rounds.
const VISITS: usize = 40;

/// Everybody sees version 1 of all services.
const ALL_V1: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: lateen-demo-check
  namespace: default
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
";

/// One thing that was looked at.
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
}

impl Check {
    fn of(name: &'static str, outcome: Result<String, String>) -> Self {
        match outcome {
            Ok(detail) => Self { name, ok: true, detail },
            Err(detail) => Self { name, ok: false, detail },
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({"name": self.name, "ok": self.ok, "detail": self.detail})
    }
}

/// Looks at everything.
pub(super) async fn run(cluster: &Cluster, url: &str, patience: Duration, progress: &Progress) -> Vec<Check> {
    progress.say("Checking");
    let checks = vec![
        Check::of("every pod has a sidecar", sidecars(cluster).await),
        Check::of("the page has its title", title(url).await),
        Check::of("reviews change on reload", versions(url).await),
        Check::of("the gateway logs requests", access_log(cluster, patience).await),
        Check::of("a VirtualService is obeyed", routed(cluster, url, patience).await),
    ];
    for check in &checks {
        progress.say(format!(
            "{} {}: {}",
            if check.ok { "ok    " } else { "FAILED" },
            check.name,
            check.detail
        ));
    }
    checks
}

async fn sidecars(cluster: &Cluster) -> Result<String, String> {
    let kind = cluster.kind("pods").map_err(|error| error.to_string())?;
    let pods =
        cluster.client.list(kind, Some(&cluster.namespace), None).await.map_err(|error| error.to_string())?;
    let without: Vec<&str> = pods
        .iter()
        .filter(|pod| {
            let of = |list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
            let mut all = of("containers").into_iter().chain(of("initContainers"));
            !all.any(|container| container["name"] == "istio-proxy")
        })
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    match without[..] {
        [] => Ok(format!("{} pods", pods.len())),
        _ => Err(format!("without one: {}", without.join(", "))),
    }
}

async fn title(url: &str) -> Result<String, String> {
    let (status, body) = page::get(url).await.map_err(|error| error.to_string())?;
    let title = "<title>Simple Bookstore App</title>";
    if status.is_success() && body.contains(title) {
        Ok(format!("{status}, {title}"))
    } else {
        Err(status.to_string())
    }
}

async fn versions(url: &str) -> Result<String, String> {
    let mut seen = BTreeSet::new();
    for _ in 0..VISITS {
        let (_, body) = page::get(url).await.map_err(|error| error.to_string())?;
        seen.insert(page::stars(&body));
        if seen.len() == 3 && !seen.contains(&None) {
            return Ok("no stars, black stars and red stars were seen".to_owned());
        }
    }
    Err(format!("in {VISITS} visits only these were seen: {seen:?}"))
}

async fn access_log(cluster: &Cluster, patience: Duration) -> Result<String, String> {
    use futures::AsyncReadExt as _;
    let kind = cluster.kind("pods").map_err(|error| error.to_string())?;
    let label = Some("istio=ingressgateway");
    let pods =
        cluster.client.list(kind, Some("istio-system"), label).await.map_err(|error| error.to_string())?;
    let name =
        pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).ok_or("there is no gateway pod")?;
    let deadline = Instant::now() + patience;
    loop {
        let options = LogOptions { tail: Some(50), ..LogOptions::default() };
        let log =
            cluster.client.logs("istio-system", name, &options).await.map_err(|error| error.to_string())?;
        let mut text = Vec::new();
        std::pin::pin!(log).read_to_end(&mut text).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if text.lines().any(|line| line.contains("\"GET /productpage HTTP/1.1\" 200")) {
            return Ok("\"GET /productpage HTTP/1.1\" 200 ...".to_owned());
        }
        if Instant::now() >= deadline {
            return Err(format!("no line of /productpage in the log of {name}"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// All to v1: no stars any more; back as it was: stars again.
async fn routed(cluster: &Cluster, url: &str, patience: Duration) -> Result<String, String> {
    let kind = cluster.kind("virtualservices").map_err(|error| error.to_string())?;
    let begun = Instant::now();
    apply_text(cluster, ALL_V1).await.map_err(|error| error.to_string())?;
    let obeyed = settled(url, patience, |seen| *seen == Some(Stars::None)).await;
    let took = begun.elapsed();
    let removed = cluster.client.delete(kind, "default", "lateen-demo-check").await;
    removed.map_err(|error| error.to_string())?;
    obeyed?;
    settled(url, patience, |seen| seen.is_some_and(|seen| seen != Stars::None)).await?;
    Ok(format!("all to v1 after {} ms, and back", took.as_millis()))
}

/// Waits until ten pages in a row (one, to see stars again) are as wanted.
async fn settled(
    url: &str,
    patience: Duration,
    wanted: impl Fn(&Option<Stars>) -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + patience;
    let mut row = 0;
    let needed = if wanted(&Some(Stars::None)) { 10 } else { 1 };
    while row < needed {
        let seen = page::get(url)
            .await
            .map(|(_, body)| page::stars(&body))
            .map_err(|error: CliError| error.to_string());
        row = match &seen {
            Ok(seen) if wanted(seen) => row + 1,
            _ => 0,
        };
        if Instant::now() >= deadline {
            return Err(format!(
                "the route is not obeyed after {} s; last seen: {seen:?}",
                patience.as_secs()
            ));
        }
    }
    Ok(())
}
