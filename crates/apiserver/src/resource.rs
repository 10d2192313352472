//! What the server serves: one row per resource and version, built in or from a CustomResourceDefinition.

use std::sync::Arc;

use crate::schema::Schema;

/// A resource of any version, as clients name it: `pods`, `deployments.apps`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName(Arc<str>);

impl ResourceName {
    /// The resource `plural` of `group` (empty for the core group).
    pub fn new(group: &str, plural: &str) -> Self {
        if group.is_empty() { Self(plural.into()) } else { Self(format!("{plural}.{group}").into()) }
    }

    /// `pods` or `deployments.apps`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The API group, empty for the core group.
    pub fn group(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, group)| group)
    }

    /// The plural name.
    pub fn plural(&self) -> &str {
        self.0.split_once('.').map_or(&self.0, |(plural, _)| plural)
    }
}

impl From<&str> for ResourceName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&ResourceName> for ResourceName {
    fn from(name: &ResourceName) -> Self {
        name.clone()
    }
}

impl std::fmt::Display for ResourceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A served resource in one version.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// Name without version; also the key of its objects in the store, which keeps one copy for all versions.
    pub(crate) name: ResourceName,
    /// API group, empty for core.
    pub(crate) group: String,
    /// Version, e.g. `v1`.
    pub(crate) version: String,
    /// Singular name.
    pub(crate) singular: String,
    /// Kind.
    pub(crate) kind: String,
    /// Kind of its lists.
    pub(crate) list_kind: String,
    /// Short names.
    pub(crate) short_names: Vec<String>,
    /// Categories, e.g. `all`.
    pub(crate) categories: Vec<String>,
    /// Lives in a namespace.
    pub(crate) namespaced: bool,
    /// Has the `status` subresource.
    pub(crate) status: bool,
    /// Has the `scale` subresource.
    pub(crate) scale: Option<Scale>,
    /// Whether `metadata.generation` counts the changes of the desired state.
    pub(crate) generation: bool,
    /// Where the row comes from.
    pub(crate) origin: Origin,
}

/// Paths of the `scale` subresource, as field names from the root.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    /// Desired count.
    pub(crate) spec_replicas: Vec<String>,
    /// Observed count.
    pub(crate) status_replicas: Vec<String>,
    /// Label selector in text form.
    pub(crate) selector: Option<Vec<String>>,
}

/// Where a [`Resource`] comes from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// Part of this server.
    BuiltIn,
    /// A CustomResourceDefinition.
    Custom(Arc<CustomVersion>),
}

/// What a CustomResourceDefinition adds to a row.
#[derive(Debug)]
pub(crate) struct CustomVersion {
    /// Structural schema; objects are validated, pruned and defaulted by it.
    pub(crate) schema: Schema,
    /// `additionalPrinterColumns`.
    pub(crate) columns: Vec<PrinterColumn>,
    /// Said to clients that use the version, when it is deprecated.
    pub(crate) deprecation: Option<String>,
}

/// One entry of `additionalPrinterColumns`.
#[derive(Debug, Clone)]
pub(crate) struct PrinterColumn {
    /// Header.
    pub(crate) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: String,
    /// Format, may be empty.
    pub(crate) format: String,
    /// Help text.
    pub(crate) description: String,
    /// 0 is always shown, others with `-o wide`.
    pub(crate) priority: i64,
    /// JSONPath from the object's root.
    pub(crate) json_path: crate::jsonpath::JsonPath,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The plural name.
    pub(crate) fn plural(&self) -> &str {
        self.name.plural()
    }

    /// True when the resource is the core or built-in one of that name (`pods`, `deployments.apps`).
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.as_str() == name
    }

    /// The verbs that discovery lists.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        if self.is_review() {
            &["create"]
        } else {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// True for resources that answer a question and store nothing (TokenReview and the like).
    pub(crate) fn is_review(&self) -> bool {
        matches!(self.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
    }

    /// The custom part of the row.
    pub(crate) fn custom(&self) -> Option<&CustomVersion> {
        match &self.origin {
            Origin::BuiltIn => None,
            Origin::Custom(version) => Some(version),
        }
    }
}
