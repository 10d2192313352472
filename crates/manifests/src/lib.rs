//! Profiles and settings to the Kubernetes objects of an installation: pure, and the same for any cluster.
//!
//! [`Installation::build`] puts a profile, operator files and `--set` flags together; [`render`] makes the objects, by
//! [`Part`]. Names, labels and settings are those of Istio's charts, so that what knows Istio knows an installation.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod base;
mod chart;
mod control_plane;
mod diff;
mod gateway;
mod installation;
mod object;
mod overlays;
mod profile;
mod rbac;
mod remote;
pub mod samples;
mod scaling;
mod settings;
pub mod tags;
#[cfg(test)]
mod tests;
mod webhook;

use serde_json::Value;

pub use chart::{ChartFile, chart};
pub use diff::{DiffError, diff};
pub use installation::{Installation, InstallationError};
pub use object::{COMPONENT_LABEL, OWNER_LABEL, Part, REVISION_LABEL};
pub use profile::{UnknownProfile, profile, profiles};

/// The objects of a part of an installation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The part.
    pub part: Part,
    /// Its objects, in the order in which they are applied.
    pub objects: Vec<Value>,
}

/// The objects of an installation, by part, in the order in which they are applied. The namespaces are not among them.
///
/// # Errors
/// When an overlay (`k8s.overlays`) cannot be applied.
pub fn render(installation: &Installation) -> Result<Vec<Rendered>, InstallationError> {
    let components = &installation.spec().components;
    let on = |component: &Option<lateen_api::install::ComponentSpec>| {
        component.as_ref().is_some_and(|component| component.enabled == Some(true))
    };
    let (pilot, remote) = (on(&components.pilot), on(&components.istiod_remote));
    let mut parts = Vec::new();
    if on(&components.base) {
        parts.push(Rendered { part: Part::Base, objects: base::objects(installation) });
    }
    if pilot {
        let mut objects = control_plane::objects(installation);
        objects.push(webhook::sidecar_injector(installation));
        objects.extend(webhook::validators(installation));
        objects.extend(remote::objects(installation, true));
        parts.push(Rendered { part: Part::Pilot, objects });
    } else if remote {
        let mut objects = remote::objects(installation, false);
        objects.push(webhook::sidecar_injector(installation));
        parts.push(Rendered { part: Part::IstiodRemote, objects });
    }
    for part in [Part::EgressGateways, Part::IngressGateways] {
        let objects = gateway::objects(installation, part);
        if !objects.is_empty() {
            parts.push(Rendered { part, objects });
        }
    }
    overlays::apply(installation, &mut parts)?;
    Ok(parts)
}

/// The namespaces that the objects live in.
pub fn namespaces(parts: &[Rendered]) -> Vec<String> {
    let mut all: Vec<String> = parts
        .iter()
        .flat_map(|part| &part.objects)
        .filter_map(|object| Some(object["metadata"]["namespace"].as_str()?.to_owned()))
        .collect();
    all.sort();
    all.dedup();
    all
}
