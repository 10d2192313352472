//! The layer rule: a package uses packages of lower layers only; an edge inside a layer only where it is listed here.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;

/// The layers, lowest first. `dev` packages may use anything.
const LAYERS: &[&[&str]] = &[
    &["lateen-sys", "lateen-base", "lateen-proto"],
    &["lateen-api", "lateen-status"],
    &[
        "lateen-registry",
        "lateen-translate",
        "lateen-xds",
        "lateen-route",
        "lateen-inject",
        "lateen-manifests",
    ],
    &["lateen-kube", "lateen-apiserver", "lateen-ca", "lateen-telemetry", "lateen-runtime"],
    &["lateen-local", "lateen-samples", "lateen-control", "lateen-proxy", "lateen-agent"],
    &["lateen"],
];

/// Edges inside a layer, each with a reason: translation reads the registry's snapshots.
const INSIDE: &[(&str, &str)] = &[("lateen-translate", "lateen-registry")];

/// Libraries that open sockets, speak to Kubernetes or start processes: never below layer 3, in product code. The
/// discovery protocol's gRPC adapters stand beside its pure core in one package.
const IMPURE: &[&str] = &["kube", "axum", "hyper", "tokio", "tonic", "redb", "nlink"];
const PURE_BUT: &[(&str, &str)] =
    &[("lateen-xds", "tokio"), ("lateen-xds", "tonic"), ("lateen-xds", "hyper"), ("lateen-proto", "tonic")];

/// A package and what it uses.
#[derive(Debug)]
pub(crate) struct Package {
    name: String,
    dev: bool,
    uses: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Described>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// The packages of the workspace, as cargo tells.
pub(crate) fn workspace() -> Result<Vec<Package>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    Ok(metadata.packages.into_iter().map(Package::from).collect())
}

impl From<Described> for Package {
    fn from(package: Described) -> Self {
        let uses = package.dependencies.into_iter().filter(|used| used.kind.is_none()).map(|used| used.name);
        Self { dev: package.manifest_path.contains("/dev/"), name: package.name, uses: uses.collect() }
    }
}

/// What breaks the rule, one line each.
pub(crate) fn violations(packages: &[Package]) -> Vec<String> {
    let layer: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(at, names)| names.iter().map(move |name| (*name, at))).collect();
    let mut violations = Vec::new();
    for package in packages.iter().filter(|package| !package.dev) {
        let name = package.name.as_str();
        let Some(&own) = layer.get(name) else {
            violations.push(format!("{name}: in no layer; add it to LAYERS"));
            continue;
        };
        for used in &package.uses {
            match layer.get(used.as_str()) {
                Some(&other) if other > own => {
                    violations.push(format!("{name} uses {used}, of a higher layer"))
                }
                Some(&other) if other == own && !INSIDE.contains(&(name, used)) => {
                    violations
                        .push(format!("{name} uses {used}, of its own layer, and INSIDE does not list that"));
                }
                None if own < 3 && IMPURE.contains(&used.as_str()) && !PURE_BUT.contains(&(name, used)) => {
                    violations.push(format!("{name} is of a pure layer and uses {used}"));
                }
                None if packages.iter().any(|other| other.dev && other.name == *used) => {
                    violations.push(format!("{name} uses {used}, a development package"));
                }
                _ => {}
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_in_order() {
        let packages = workspace().unwrap_or_default();
        assert!(packages.len() > 10, "cargo metadata listed {} packages", packages.len());
        assert_eq!(violations(&packages), Vec::<String>::new());
    }

    #[test]
    fn a_wrong_edge_is_found() {
        let package = |name: &str, uses: &[&str]| Package {
            name: name.into(),
            dev: false,
            uses: uses.iter().map(|name| (*name).to_owned()).collect(),
        };
        let found = violations(&[
            package("lateen-base", &["lateen-api"]),
            package("lateen-proxy", &["lateen-agent"]),
            package("lateen-translate", &["lateen-registry", "tokio"]),
            package("lateen-new", &[]),
        ]);
        assert_eq!(found.len(), 4, "{found:?}");
    }

    /// With ring beside aws-lc-rs, rustls cannot tell which provider is meant, and panics.
    #[test]
    fn there_is_one_crypto_provider() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo).args(["tree", "-i", "ring", "-e", "normal"]).output();
        let tree = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        assert_eq!(tree.unwrap_or_else(|error| error.to_string()).trim(), "");
    }
}
