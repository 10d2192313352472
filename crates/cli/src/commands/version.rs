//! `lateen version`: of this binary, of the control planes, of the proxies that are connected to them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use lateen_status::{ProxySync, Version};
use serde_json::{Value, json};

use super::{CliError, Outcome};
use crate::cluster::{block_on, client};
use crate::globals::Globals;
use crate::pods;

/// The version of Istio whose API this build speaks.
const ISTIO_API: &str = "1.26";

/// Arguments of `lateen version`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Only the numbers
    #[arg(long, short, num_args = 0..=1, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    short: bool,
    /// Ask the control plane, too; `--remote=false` tells the client's version alone
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    remote: bool,
    /// Output format: json or yaml
    #[arg(long, short, value_parser = ["json", "yaml"])]
    output: Option<String>,
}

/// What the mesh says.
#[derive(Debug, Default)]
struct Mesh {
    control_planes: Vec<Version>,
    proxies: Vec<ProxySync>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let asked = if self.remote { Some(block_on(Mesh::ask(globals))) } else { None };
        let mesh = match asked {
            None => Mesh::default(),
            Some(Ok(mesh)) => mesh,
            // The client's version is an answer, also where there is no mesh.
            Some(Err(error)) => {
                let first = error.0.lines().next().unwrap_or_default().to_owned();
                eprintln!("Warning: no control plane answers: {first}");
                Mesh::default()
            }
        };
        match self.output.as_deref() {
            Some("json") => println!("{:#}", mesh.json()),
            Some(_) => print!("{}", serde_saphyr::to_string(&mesh.json()).map_err(CliError::new)?),
            None => print!("{}", mesh.text(self.short)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Mesh {
    async fn ask(globals: &Globals) -> Result<Self, CliError> {
        let client = client(globals).await?;
        let versions = pods::debug::<Version>(&client, globals, "/version").await?;
        let proxies = pods::debug::<Vec<ProxySync>>(&client, globals, "/debug/syncz").await?;
        Ok(Self {
            control_planes: versions.into_iter().map(|(_, version)| version).collect(),
            proxies: proxies.into_iter().flat_map(|(_, proxies)| proxies).collect(),
        })
    }

    fn text(&self, short: bool) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut text = match short {
            true => format!("client version: {version}\n"),
            false => format!("client version: {version} (Istio API {ISTIO_API})\n"),
        };
        for (version, _) in counted(self.control_planes.iter().map(|plane| plane.version.as_str())) {
            text += &format!("control plane version: {version}\n");
        }
        let proxies = counted(self.proxies.iter().map(|proxy| proxy.istio_version.as_str()));
        let proxies: Vec<String> = proxies
            .into_iter()
            .map(|(version, count)| {
                format!("{version} ({count} {})", if count == 1 { "proxy" } else { "proxies" })
            })
            .collect();
        if !proxies.is_empty() {
            text += &format!("data plane version: {}\n", proxies.join(", "));
        }
        text
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "clientVersion": {"version": env!("CARGO_PKG_VERSION"), "istio_api": ISTIO_API},
        });
        if !self.control_planes.is_empty() {
            let plane = |plane: &Version| json!({"Component": "pilot", "Revision": plane.revision, "Info": {"version": plane.version}});
            let proxy = |proxy: &ProxySync| json!({"ID": proxy.proxy, "IstioVersion": proxy.istio_version});
            value["meshVersion"] = self.control_planes.iter().map(plane).collect();
            value["dataPlaneVersion"] = self.proxies.iter().map(proxy).collect();
        }
        value
    }
}

/// Each version with how often it occurs.
fn counted<'v>(versions: impl Iterator<Item = &'v str>) -> BTreeMap<&'v str, usize> {
    let mut counts = BTreeMap::new();
    for version in versions {
        *counts.entry(version).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_and_proxies_are_counted_by_version() {
        let plane =
            |pod: &str| Version { version: "0.1.0".into(), revision: "default".into(), pod: pod.into() };
        let proxy = |id: &str, version: &str| ProxySync {
            proxy: id.into(),
            proxy_type: "sidecar".into(),
            cluster_id: "Kubernetes".into(),
            istio_version: version.into(),
            istiod: "istiod-1".into(),
            dialect: "delta".into(),
            connected_at: String::new(),
            types: BTreeMap::new(),
            scoping: None,
        };
        let mesh = Mesh {
            control_planes: vec![plane("a"), plane("b")],
            proxies: vec![proxy("a.x", "1.26.0"), proxy("b.x", "1.25.0"), proxy("c.x", "1.26.0")],
        };
        let text = mesh.text(true);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            ["control plane version: 0.1.0", "data plane version: 1.25.0 (1 proxy), 1.26.0 (2 proxies)"]
        );
        assert_eq!(mesh.json()["dataPlaneVersion"][1]["IstioVersion"], "1.25.0");
        assert!(Mesh::default().json().get("meshVersion").is_none());
    }
}
