//! First inputs of the fuzz targets, made from the samples: random bytes alone would hardly ever be a listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_registry::manifests::Manifests;
use lateen_translate::{Proxy, Resource, generate, offline};
use serde_json::{Value, json};

/// Writes the seeds of a target into a folder; a target without any has none.
///
/// # Errors
/// Names the file, or the proxy that cannot be made.
pub(super) fn write(root: &Path, target: &str, folder: &Path) -> Result<(), String> {
    let samples = samples(&root.join("samples"))?;
    let seeds: Vec<Vec<u8>> = match target {
        // The first byte chooses the type, in the order of `crates/route/fuzz`.
        "xds_resource" => resources(&samples)?,
        // The first byte chooses mesh configuration or manifest, as in `crates/api/fuzz`.
        "manifest" => samples.iter().map(|(_, text)| [&[1], text.as_bytes()].concat()).collect(),
        _ => Vec::new(),
    };
    for (index, seed) in seeds.iter().enumerate() {
        let path = folder.join(format!("seed-{index:04}"));
        std::fs::write(&path, seed).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Every YAML file below a folder, with its text.
fn samples(folder: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text =
                    std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                found.push((path, text));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a sidecar with interception, one in loopback isolation and a gateway get in a mesh of each sample over Bookinfo.
fn resources(samples: &[(PathBuf, String)]) -> Result<Vec<Vec<u8>>, String> {
    let bookinfo = |path: &Path| path.ends_with("platform/kube/bookinfo.yaml");
    let base: Vec<&(PathBuf, String)> = samples.iter().filter(|(path, _)| bookinfo(path)).collect();
    let mut seeds = std::collections::BTreeSet::new();
    for sample in samples {
        let mut manifests = Manifests::default();
        manifests.read("pod", POD);
        for (path, text) in base.iter().copied().chain([sample]) {
            manifests.read(&path.display().to_string(), text);
        }
        let clusters = vec![(offline::CONFIG_CLUSTER.into(), manifests)];
        let mesh = MeshConfig::istio_default();
        let (snapshot, _) = offline::snapshot(mesh, MeshNetworks::default(), "cluster.local", clusters);
        for proxy in proxies() {
            let proxy = Proxy::from_json(&proxy).map_err(|error| error.to_string())?;
            let made = generate(&snapshot, &proxy);
            let kinds = [(0, &made.listeners), (1, &made.routes), (2, &made.clusters), (3, &made.endpoints)];
            for (kind, list) in kinds {
                seeds.extend(list.iter().map(|resource: &Arc<Resource>| {
                    let mut seed = vec![kind];
                    seed.extend_from_slice(&resource.any.value);
                    seed
                }));
            }
        }
    }
    Ok(seeds.into_iter().collect())
}

const POD: &str = "apiVersion: v1\nkind: Pod\n\
    metadata: {name: productpage, namespace: default, labels: {app: productpage, version: v1}}\n\
    spec: {serviceAccountName: productpage}\nstatus: {phase: Running, podIP: 10.0.0.1}\n";

fn proxies() -> [Value; 3] {
    let proxy = |kind: &str, labels: Value, metadata: Value| {
        json!({"type": kind, "id": "productpage.default", "ipAddresses": ["10.0.0.1"], "configNamespace": "default",
            "dnsDomain": "default.svc.cluster.local", "labels": labels, "metadata": metadata})
    };
    let labels = || json!({"app": "productpage", "version": "v1"});
    [
        proxy("sidecar", labels(), json!({"NAMESPACE": "default"})),
        proxy(
            "sidecar",
            labels(),
            json!({"NAMESPACE": "default", "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007",
                "LATEEN_APP_ADDRESS": "127.110.0.2"}),
        ),
        proxy("router", json!({"istio": "ingressgateway"}), json!({"NAMESPACE": "istio-system"})),
    ]
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_are_seeds_of_every_kind() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        let samples = super::samples(&root.join("samples")).unwrap();
        let seeds = super::resources(&samples).unwrap();
        for kind in 0..4 {
            assert!(seeds.iter().any(|seed| seed[0] == kind), "{kind}");
        }
    }
}
