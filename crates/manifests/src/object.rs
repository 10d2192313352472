//! What every object of an installation has: a name, a place, and labels by which it is found again.

use serde_json::{Value, json};

use crate::Installation;

/// The label that names what installed an object; pruning and uninstalling go by it.
pub const OWNER_LABEL: &str = "install.operator.istio.io/owning-resource";
/// The label of the part that an object belongs to.
pub const COMPONENT_LABEL: &str = "operator.istio.io/component";
/// The label of the revision.
pub const REVISION_LABEL: &str = "istio.io/rev";

/// A part of an installation, in the order in which parts are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The definitions of the kinds, and the identity by which other clusters read this one.
    Base,
    /// The control plane.
    Pilot,
    /// The way to a control plane elsewhere.
    IstiodRemote,
    /// The gateways out.
    EgressGateways,
    /// The gateways in.
    IngressGateways,
}

impl Part {
    /// The value of the component label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Base => "Base",
            Self::Pilot => "Pilot",
            Self::IstiodRemote => "IstiodRemote",
            Self::EgressGateways => "EgressGateways",
            Self::IngressGateways => "IngressGateways",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Base => "Istio core",
            Self::Pilot => "Istiod",
            Self::IstiodRemote => "Istiod remote",
            Self::EgressGateways => "Egress gateways",
            Self::IngressGateways => "Ingress gateways",
        }
    }

    /// The sign behind its name when it is installed.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Base => "⛵️",
            Self::Pilot | Self::IstiodRemote => "🧠",
            Self::EgressGateways => "🛫",
            Self::IngressGateways => "🛬",
        }
    }
}

/// Objects of one part that are one thing: labelled `app`, of one component.
#[derive(Clone, Copy)]
pub(crate) struct Maker<'a> {
    pub(crate) installation: &'a Installation,
    pub(crate) part: Part,
    pub(crate) app: &'a str,
}

impl Maker<'_> {
    /// An object of a namespace.
    pub(crate) fn namespaced(&self, api_version: &str, kind: &str, name: &str, namespace: &str) -> Value {
        let mut object = self.object(api_version, kind, name);
        object["metadata"]["namespace"] = json!(namespace);
        object
    }

    /// An object of the cluster.
    pub(crate) fn object(&self, api_version: &str, kind: &str, name: &str) -> Value {
        let metadata = json!({ "name": name, "labels": self.labels() });
        json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata })
    }

    /// The labels.
    pub(crate) fn labels(&self) -> Value {
        let Self { installation, part, app } = self;
        json!({
            "app": app,
            "app.kubernetes.io/instance": "istio",
            "app.kubernetes.io/managed-by": "lateen",
            "app.kubernetes.io/name": app,
            "app.kubernetes.io/part-of": "istio",
            "app.kubernetes.io/version": installation.tag(),
            OWNER_LABEL: installation.owner(),
            REVISION_LABEL: installation.revision_name(),
            COMPONENT_LABEL: part.label(),
            "release": "istio",
        })
    }
}

/// Puts the fields of `more` into the object at `at`.
pub(crate) fn extend(at: &mut Value, more: &Value) {
    lateen_api::install::layer::overlay(at, more);
}
