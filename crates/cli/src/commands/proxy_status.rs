//! `lateen proxy-status`: how far each proxy follows the control plane, and what it refuses.

use std::process::ExitCode;

use lateen_status::{ProxySync, Scoping, SyncState, TypeSync};

use super::{CliError, Outcome};
use crate::cluster::{block_on, client};
use crate::globals::Globals;
use crate::pods;
use crate::table::columns;

/// The columns of types, in the order in which they are pushed.
const TYPES: &[&str] = &["CDS", "LDS", "EDS", "RDS", "ECDS"];

/// Arguments of `lateen proxy-status`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Only this proxy: POD or POD.NAMESPACE
    pod: Option<String>,
    /// Output format: json, yaml or table
    #[arg(long, short, default_value = "table")]
    output: String,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let mut proxies: Vec<ProxySync> = block_on(async {
            let client = client(globals).await?;
            let answers = pods::debug::<Vec<ProxySync>>(&client, globals, "/debug/syncz").await?;
            Ok(answers.into_iter().flat_map(|(_, proxies)| proxies).collect())
        })?;
        if let Some(pod) = &self.pod {
            let pod = pods::PodName::parse(pod, globals.namespace.as_deref().unwrap_or("default"))?;
            let id = format!("{}.{}", pod.name, pod.namespace);
            proxies.retain(|proxy| proxy.proxy == id);
            if proxies.is_empty() {
                return Err(CliError(format!("{id} is not connected to the control plane")));
            }
        }
        proxies.sort_by(|a, b| a.proxy.cmp(&b.proxy));
        match self.output.as_str() {
            "json" => println!("{}", serde_json::to_string_pretty(&proxies).map_err(CliError::new)?),
            "yaml" => print!("{}", serde_saphyr::to_string(&proxies).map_err(CliError::new)?),
            "table" => print!("{}", text(&proxies)),
            other => return Err(CliError(format!("unknown output format {other:?}: json, yaml or table"))),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The table, and below it what is refused.
fn text(proxies: &[ProxySync]) -> String {
    let mut head = vec!["NAME", "CLUSTER"];
    head.extend(TYPES);
    head.extend(["ISTIOD", "VERSION"]);
    let mut rows = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for proxy in proxies {
        let mut row = vec![proxy.proxy.clone(), proxy.cluster_id.clone()];
        row.extend(TYPES.iter().map(|kind| word(proxy.types.get(*kind)).to_owned()));
        row.extend([proxy.istiod.clone(), proxy.istio_version.clone()]);
        rows.push(row);
    }
    let mut text = columns(&rows);
    for proxy in proxies {
        text += &proxy.scoping.as_ref().map(|of| scoping(&proxy.proxy, of)).unwrap_or_default();
        for (kind, sync) in &proxy.types {
            for rejected in &sync.rejected {
                text += &format!(
                    "{}: {kind}: {} rejected: {}\n",
                    proxy.proxy, rejected.resource, rejected.reason
                );
            }
        }
    }
    text
}

/// The line of a proxy that is to load clusters on demand.
fn scoping(proxy: &str, of: &Scoping) -> String {
    const MOST: usize = 20;
    if !of.obstacle.is_empty() {
        return format!("{proxy}: automatic scoping is asked for, but off: {}\n", of.obstacle);
    }
    let list = |names: &[String]| match names.len().saturating_sub(MOST) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..MOST].join(", ")),
    };
    let mut line = format!(
        "{proxy}: loads clusters on demand: {} of {} from the start, loaded {}",
        of.at_start,
        of.clusters,
        of.loaded.len()
    );
    if !of.loaded.is_empty() {
        line += &format!(": {}", list(&of.loaded));
    }
    if !of.missing.is_empty() {
        line += &format!("; asked for and not there: {}", list(&of.missing));
    }
    line + "\n"
}

fn word(sync: Option<&TypeSync>) -> &'static str {
    match sync {
        Some(sync) if !sync.rejected.is_empty() => SyncState::Error.as_str(),
        Some(sync) => sync.state.as_str(),
        None => SyncState::NotSent.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lateen_status::Rejected;

    use super::*;

    #[test]
    fn a_refused_resource_shows_with_its_reason() {
        let sync =
            |state, rejected| TypeSync { state, sent: "1".into(), acked: "1".into(), resources: 3, rejected };
        let refused = vec![Rejected { resource: "0.0.0.0_80".into(), reason: "lua: not supported".into() }];
        let proxy = ProxySync {
            proxy: "reviews-v1.default".into(),
            proxy_type: "sidecar".into(),
            cluster_id: "Kubernetes".into(),
            istio_version: "1.26.0".into(),
            istiod: "istiod-1".into(),
            dialect: "delta".into(),
            connected_at: String::new(),
            types: BTreeMap::from([
                ("CDS".into(), sync(SyncState::Synced, vec![])),
                ("LDS".into(), sync(SyncState::Synced, refused)),
            ]),
            scoping: Some(Scoping {
                clusters: 1_000,
                at_start: 5,
                loaded: vec!["outbound|80||a".into()],
                missing: vec!["outbound|80||b".into()],
                ..Scoping::default()
            }),
        };
        let text = text(&[proxy]);
        let words: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(words, ["NAME", "CLUSTER", "CDS", "LDS", "EDS", "RDS", "ECDS", "ISTIOD", "VERSION"]);
        let scoping = "loads clusters on demand: 5 of 1000 from the start, loaded 1: outbound|80||a; asked for \
                       and not there: outbound|80||b\n";
        assert!(text.contains(scoping), "{text}");
        assert!(text.contains("ERROR") && text.contains("0.0.0.0_80 rejected: lua: not supported"), "{text}");
    }
}
