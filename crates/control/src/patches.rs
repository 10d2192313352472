//! What the patches of EnvoyFilters did on the connected proxies, told on the objects' statuses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lateen_api::Kind;
use lateen_base::ObjectRef;
use lateen_translate::PatchOutcome;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::engine::Published;
use crate::proxies::{Connected, Proxies};
use crate::refusals::Refusals;

/// The condition on an object's status.
const CONDITION: &str = "lateen.dev/PatchesApplied";
/// Statuses are not written more often than this.
const PAUSE: Duration = Duration::from_millis(200);
/// How many proxies are asked why a patch did nothing there.
const ASKED: usize = 3;
/// A status says no more than this.
const LONGEST: usize = 8 << 10;

/// Keeps the statuses of EnvoyFilters, whenever proxies come, go, or get something else.
pub(crate) async fn report(
    proxies: Proxies,
    published: watch::Receiver<Option<Arc<Published>>>,
    refusals: Refusals,
) {
    let mut any = false;
    loop {
        proxies.news.notified().await;
        tokio::time::sleep(PAUSE).await;
        let Some(now) = published.borrow().clone() else { continue };
        let filters: Vec<ObjectRef> =
            now.snapshot.objects(Kind::EnvoyFilter).iter().map(|object| object.reference()).collect();
        if filters.is_empty() && !any {
            continue;
        }
        any = !filters.is_empty();
        let connected = proxies.list();
        let work = tokio::task::spawn_blocking(move || conditions(&filters, &connected));
        match work.await {
            Ok(conditions) => refusals.set_patches(conditions),
            Err(error) => tracing::error!(target: "status", "patches could not be told of: {error}"),
        }
    }
}

/// What one patch did on all proxies.
#[derive(Default)]
struct Summary {
    title: String,
    proxies: usize,
    changed_on: usize,
    changed: BTreeSet<String>,
    refused: BTreeSet<String>,
    warned: BTreeSet<String>,
    /// Some of the proxies where it did nothing.
    idle: Vec<Arc<Connected>>,
}

fn conditions(filters: &[ObjectRef], proxies: &[Arc<Connected>]) -> BTreeMap<ObjectRef, Value> {
    let mut summaries: BTreeMap<ObjectRef, BTreeMap<usize, Summary>> = BTreeMap::new();
    for connected in proxies {
        for tally in connected.catalog().patched.tallies() {
            let of_filter = summaries.entry(tally.filter).or_default();
            let summary = of_filter.entry(tally.index).or_default();
            summary.title = tally.title;
            summary.proxies += 1;
            summary.changed_on += usize::from(!tally.changed.is_empty());
            if tally.changed.is_empty() && tally.objections.is_empty() && summary.idle.len() < ASKED {
                summary.idle.push(connected.clone());
            }
            summary.changed.extend(tally.changed);
            for objection in tally.objections {
                match objection {
                    PatchOutcome::Warned(text) => summary.warned.insert(text),
                    other => summary.refused.insert(other.to_string()),
                };
            }
        }
    }
    let of = |filter: &ObjectRef| (filter.clone(), condition(filter, summaries.get(filter), proxies.len()));
    filters.iter().map(of).collect()
}

fn condition(filter: &ObjectRef, summaries: Option<&BTreeMap<usize, Summary>>, proxies: usize) -> Value {
    let Some(summaries) = summaries else {
        let (status, reason, message) = match proxies {
            0 => ("Unknown", "NoProxies", "no proxy is connected".to_owned()),
            _ => {
                ("False", "NoneSelected", format!("it is meant for none of the {proxies} connected proxies"))
            }
        };
        return said(status, reason, message);
    };
    let mut lines = Vec::new();
    for (index, summary) in summaries {
        lines.extend(summary.lines(filter, *index));
    }
    let refused = summaries.values().any(|summary| !summary.refused.is_empty());
    let idle = summaries.values().any(|summary| summary.changed_on == 0);
    let (status, reason) = match (refused, idle) {
        (true, _) => ("False", "NotApplied"),
        (false, true) => ("False", "NothingMatched"),
        (false, false) => ("True", "Applied"),
    };
    let mut message = lines.join("\n");
    if let Some((cut, _)) = message.char_indices().find(|(at, _)| *at >= LONGEST) {
        message.truncate(cut);
        message.push_str("...");
    }
    said(status, reason, message)
}

impl Summary {
    fn lines(&self, filter: &ObjectRef, index: usize) -> Vec<String> {
        let head = format!("patch {index} ({})", self.title);
        let mut lines: Vec<String> = self.refused.iter().map(|text| format!("{head}: {text}")).collect();
        lines.extend(self.warned.iter().map(|text| format!("{head}: warning: {text}")));
        if self.changed_on > 0 {
            let named: Vec<&str> = self.changed.iter().take(5).map(String::as_str).collect();
            let named = named.join(", ");
            lines.push(format!("{head}: changed {named} on {} of {} proxies", self.changed_on, self.proxies));
        } else {
            let whys = self.idle.iter().flat_map(|connected| {
                let ours = |report: &lateen_translate::PatchReport| {
                    report.filter == *filter && report.index == index
                };
                let reports = connected.catalog().patches().into_iter().filter(ours);
                reports
                    .map(|report| format!("{head}: {}: {}", connected.proxy.id, report.outcome))
                    .collect::<Vec<_>>()
            });
            lines.extend(whys);
        }
        lines
    }
}

fn said(status: &str, reason: &str, message: String) -> Value {
    json!({ "type": CONDITION, "status": status, "reason": reason, "message": message })
}
