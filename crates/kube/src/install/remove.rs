//! Objects off the server: what is no longer wanted, or a whole installation.

use std::collections::BTreeSet;
use std::time::Duration;

use lateen_manifests::{COMPONENT_LABEL, Installation, OWNER_LABEL, Part, REVISION_LABEL, Rendered, tags};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{InstallError, Installer, Step, key, kind_of, kinds, owner};
use crate::{KubeError, ResourceKind};

/// What is to be uninstalled.
#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    /// Everything of every installation, the definitions and what control planes have made included.
    Everything,
    /// The control plane of a revision, and the gateways that were installed with it.
    Revision(String),
    /// The objects of an installation, but for what the cluster has once.
    Installation(Box<Installation>),
}

/// The label of the ConfigMaps that a control plane keeps in every namespace.
const ROOT_MAPS: &str = "istio.io/config=true";
/// The type of the secret in which a control plane keeps a root that it has made itself.
const OWN_ROOT: &str = "istio.io/ca-root";
/// How long a control plane has to end.
const PATIENCE: Duration = Duration::from_secs(60);

impl Installer {
    /// Removes what the installation's owner has and these parts do not: other gateways, objects of former versions.
    pub(super) async fn prune(
        &self,
        installation: &Installation,
        parts: &[Rendered],
        tell: &(dyn Fn(Step) + Sync),
    ) -> Result<(), InstallError> {
        let wanted: BTreeSet<String> = parts.iter().flat_map(|part| &part.objects).map(key).collect();
        let selector = format!("{OWNER_LABEL}={}", installation.owner());
        // Definitions stay: with one all objects of its kind would go.
        let found = self.labelled(&selector, |kind| kind.kind != "CustomResourceDefinition").await?;
        let surplus: Vec<_> =
            found.into_iter().filter(|(_, object)| !wanted.contains(&key(object))).collect();
        if !surplus.is_empty() {
            tell(Step::Pruning);
        }
        self.remove(surplus, tell).await
    }

    /// What an uninstallation would remove.
    ///
    /// # Errors
    /// When the server refuses a list, or the installation cannot be rendered.
    pub async fn removable(&self, removal: &Removal) -> Result<Vec<(ResourceKind, Value)>, InstallError> {
        match removal {
            Removal::Everything => {
                let mut found = self.labelled(OWNER_LABEL, |_| true).await?;
                found.extend(
                    self.labelled(tags::TAG_LABEL, |kind| kind.kind.ends_with("Configuration")).await?,
                );
                found.extend(self.made().await?);
                let mut seen = BTreeSet::new();
                found.retain(|(_, object)| seen.insert(key(object)));
                Ok(found)
            }
            Removal::Revision(revision) => {
                let selector = format!("{REVISION_LABEL}={revision},{OWNER_LABEL}");
                let mut found = self.labelled(&selector, |_| true).await?;
                found.retain(|(_, object)| !is_shared(object));
                Ok(found)
            }
            Removal::Installation(installation) => {
                let parts = lateen_manifests::render(installation)?;
                let objects = parts.into_iter().filter(|part| part.part != Part::Base);
                let mut found = Vec::new();
                for object in objects.flat_map(|part| part.objects) {
                    let Some(kind) = object["kind"].as_str().and_then(kind_of) else { continue };
                    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    let there = || self.client.get(&kind, namespace, name);
                    match self.retried("reading", &key(&object), there).await {
                        Ok(there) if owner(&there).is_some() => found.push((kind, object)),
                        Ok(_) => {}
                        Err(error) if error.is_not_found() => {}
                        Err(source) => {
                            let object = key(&object);
                            return Err(InstallError::Refused { action: "reading", object, source });
                        }
                    }
                }
                let position = |kind: &ResourceKind| kinds::all().position(|known| known == *kind);
                found.sort_by_key(|(kind, _)| position(kind));
                Ok(found)
            }
        }
    }

    /// Removes objects, in their order; what control planes have made when they have ended, for they would make it
    /// again.
    ///
    /// # Errors
    /// The first that is refused; those before it are gone.
    pub async fn remove(
        &self,
        objects: Vec<(ResourceKind, Value)>,
        tell: &(dyn Fn(Step) + Sync),
    ) -> Result<(), InstallError> {
        let (owned, made): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|(_, object)| is_labelled(object));
        self.remove_now(owned, tell).await?;
        if !made.is_empty() {
            self.control_planes_ended().await;
        }
        self.remove_now(made, tell).await
    }

    /// Waits a while until no control plane runs; one that cannot end does not hold the removal up for ever.
    async fn control_planes_ended(&self) {
        let deadline = Instant::now() + PATIENCE;
        let pod = kinds::pod();
        while Instant::now() < deadline {
            let pods = self.client.list(&pod, None, Some("app=istiod"));
            match tokio::time::timeout(self.answer_within, pods).await {
                Ok(Ok(pods)) if pods.is_empty() => return,
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn remove_now(
        &self,
        objects: Vec<(ResourceKind, Value)>,
        tell: &(dyn Fn(Step) + Sync),
    ) -> Result<(), InstallError> {
        for (kind, object) in objects {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let delete = || self.client.delete(&kind, namespace, name);
            match self.retried("deleting", &key(&object), delete).await {
                Ok(()) => tell(Step::Removed(key(&object))),
                Err(error) if error.is_not_found() => {}
                Err(source) => {
                    let object = key(&object);
                    return Err(InstallError::Refused { action: "deleting", object, source });
                }
            }
        }
        Ok(())
    }

    /// The objects of all kinds of an installation with these labels, in the order of removal.
    async fn labelled(
        &self,
        selector: &str,
        which: impl Fn(&ResourceKind) -> bool,
    ) -> Result<Vec<(ResourceKind, Value)>, InstallError> {
        let mut found = Vec::new();
        for kind in kinds::all().filter(which) {
            found.extend(self.listed(&kind, Some(selector)).await?.into_iter().filter(is_installed));
        }
        Ok(found)
    }

    async fn listed(
        &self,
        kind: &ResourceKind,
        selector: Option<&str>,
    ) -> Result<Vec<(ResourceKind, Value)>, InstallError> {
        let listed = self.retried("listing", &kind.plural, || self.client.list(kind, None, selector)).await;
        match listed {
            Ok(objects) => Ok(objects
                .into_iter()
                .map(|mut object| {
                    // Items of a list do not say their kind.
                    object["kind"] = Value::String(kind.kind.clone());
                    (kind.clone(), object)
                })
                .collect()),
            Err(KubeError::Status { code: 404, .. }) => Ok(Vec::new()),
            Err(source) => {
                Err(InstallError::Refused { action: "listing", object: kind.plural.clone(), source })
            }
        }
    }

    /// What control planes have made: root certificates in every namespace, roots of their own, leases.
    async fn made(&self) -> Result<Vec<(ResourceKind, Value)>, InstallError> {
        let configs = ResourceKind::core("ConfigMap", "configmaps");
        let secrets = ResourceKind::core("Secret", "secrets");
        let leases = ResourceKind::new("coordination.k8s.io", "v1", "Lease", "leases", true);
        let mut found = self.listed(&configs, Some(ROOT_MAPS)).await?;
        let roots = self.listed(&secrets, None).await?;
        found.extend(roots.into_iter().filter(|(_, secret)| secret["type"] == OWN_ROOT));
        let named = |object: &Value| {
            object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("istio-"))
        };
        found.extend(self.listed(&leases, None).await?.into_iter().filter(|(_, lease)| named(lease)));
        Ok(found)
    }
}

/// Whether it is of our making: endpoints of a service with a selector are Kubernetes', with the service's labels.
fn is_installed((kind, object): &(ResourceKind, Value)) -> bool {
    kind.kind != "Endpoints" || object["metadata"]["labels"][COMPONENT_LABEL] == Part::IstiodRemote.label()
}

/// Whether an installer or `tag set` made it.
fn is_labelled(object: &Value) -> bool {
    owner(object).is_some() || object["metadata"]["labels"][tags::TAG_LABEL].is_string()
}

/// Whether the cluster has it once, for all installations.
fn is_shared(object: &Value) -> bool {
    object["metadata"]["labels"][COMPONENT_LABEL] == Part::Base.label()
        || object["kind"] == "CustomResourceDefinition"
}
