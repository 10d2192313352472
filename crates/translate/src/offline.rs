//! A mesh out of manifests in the place of watches: what the offline commands read, and what `bench` runs.

use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_base::{ClusterId, Namespace};
use lateen_registry::manifests::Manifests;
use lateen_registry::{Event, Registry, Settings};

use crate::Snapshot;

/// The cluster whose Istio objects configure the mesh, as Istio calls a single one.
pub const CONFIG_CLUSTER: &str = "Kubernetes";

/// The mesh that the manifests of these clusters make, and a warning for each object that was left out.
pub fn snapshot(
    mesh: MeshConfig,
    networks: MeshNetworks,
    domain: &str,
    clusters: Vec<(ClusterId, Manifests)>,
) -> (Arc<Snapshot>, Vec<String>) {
    let or = |text: &str, otherwise: &str| if text.is_empty() { otherwise } else { text }.to_owned();
    let networks = Arc::new(networks);
    let settings = Settings {
        domain: domain.to_owned(),
        trust_domain: or(&mesh.trust_domain, "cluster.local"),
        root_namespace: Namespace::new(or(&mesh.root_namespace, "istio-system")),
        config_cluster: CONFIG_CLUSTER.into(),
        networks: networks.clone(),
    };
    let mut registry = Registry::new(settings.clone());
    let mut warnings = Vec::new();
    for (cluster, manifests) in clusters {
        let (resources, left_out) = manifests.complete();
        warnings.extend(left_out);
        for resource in resources {
            registry.apply(&cluster, Event::Applied(resource));
        }
    }
    (Snapshot::build(Arc::new(mesh), networks, &settings, registry.view(), None), warnings)
}
