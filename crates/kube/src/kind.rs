//! Kinds of objects, as the API server's paths name them.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind with what is needed to address its objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKind {
    /// The API group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind, such as `Service`.
    pub kind: String,
    /// The path's plural, such as `services`.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl ResourceKind {
    /// The kind of these names.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> Self {
        Self {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced,
        }
    }

    /// A namespaced kind of the core.
    pub fn core(kind: &str, plural: &str) -> Self {
        Self::new("", "v1", kind, plural, true)
    }

    pub(crate) fn api_resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(&self.group, &self.version, &self.kind);
        ApiResource::from_gvk_with_plural(&kind, &self.plural)
    }
}
