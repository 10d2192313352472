//! `k8s.overlays`: users' changes of finished objects.

use lateen_api::install::{K8sObjectOverlay, KubernetesResources, SetPath};
use serde_json::Value;

use crate::{Installation, InstallationError, Part, Rendered};

/// Applies the overlays of every component to the objects of its part.
pub(crate) fn apply(installation: &Installation, parts: &mut [Rendered]) -> Result<(), InstallationError> {
    let components = &installation.spec().components;
    let mut all: Vec<(Part, &Option<KubernetesResources>)> = Vec::new();
    for (part, component) in [
        (Part::Base, &components.base),
        (Part::Pilot, &components.pilot),
        (Part::IstiodRemote, &components.istiod_remote),
    ] {
        all.extend(component.iter().map(|component| (part, &component.k8s)));
    }
    all.extend(components.egress_gateways.iter().map(|gateway| (Part::EgressGateways, &gateway.k8s)));
    all.extend(components.ingress_gateways.iter().map(|gateway| (Part::IngressGateways, &gateway.k8s)));
    for (part, k8s) in all {
        let overlays = k8s.iter().flat_map(|k8s| &k8s.overlays);
        for overlay in overlays {
            let objects = parts.iter_mut().filter(|rendered| rendered.part == part);
            for object in objects.flat_map(|rendered| &mut rendered.objects) {
                if is_meant(overlay, object) {
                    change(overlay, object)?;
                }
            }
        }
    }
    Ok(())
}

fn is_meant(overlay: &K8sObjectOverlay, object: &Value) -> bool {
    object["kind"] == overlay.kind.as_str() && object["metadata"]["name"] == overlay.name.as_str()
}

fn change(overlay: &K8sObjectOverlay, object: &mut Value) -> Result<(), InstallationError> {
    for patch in &overlay.patches {
        SetPath::parse(&patch.path)?.set(object, patch.value.clone())?;
    }
    Ok(())
}
