//! Ingress objects and their classes.

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, null_default};

/// `networking.k8s.io/v1` Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// Name, annotations and the like.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "null_default")]
    pub spec: IngressSpec,
}

/// What an Ingress wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// The class of the controllers that serve it.
    pub ingress_class_name: Option<String>,
    /// Where requests go that no rule is for.
    pub default_backend: Option<IngressBackend>,
    /// The certificates.
    #[serde(deserialize_with = "null_default")]
    pub tls: Vec<IngressTls>,
    /// The rules, by host.
    #[serde(deserialize_with = "null_default")]
    pub rules: Vec<IngressRule>,
}

/// A certificate of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressTls {
    /// The names it is for; all when empty.
    #[serde(deserialize_with = "null_default")]
    pub hosts: Vec<String>,
    /// The secret that holds it.
    #[serde(deserialize_with = "null_default")]
    pub secret_name: String,
}

/// The paths of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// The host, perhaps with a leading wildcard; all when empty.
    #[serde(deserialize_with = "null_default")]
    pub host: String,
    /// The paths.
    pub http: Option<IngressPaths>,
}

/// A list of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressPaths {
    /// The paths.
    #[serde(deserialize_with = "null_default")]
    pub paths: Vec<IngressPath>,
}

/// A path and where its requests go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressPath {
    /// The path.
    #[serde(deserialize_with = "null_default")]
    pub path: String,
    /// `Exact`, `Prefix` (by segments) or `ImplementationSpecific`.
    #[serde(deserialize_with = "null_default")]
    pub path_type: String,
    /// Where requests go.
    pub backend: IngressBackend,
}

/// Where requests of an Ingress go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressBackend {
    /// A service; the other sort of backend, a resource, is not known here.
    pub service: Option<IngressServiceBackend>,
}

/// A service of the Ingress' namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressServiceBackend {
    /// Its name.
    pub name: String,
    /// Its port.
    #[serde(deserialize_with = "null_default")]
    pub port: IngressServicePort,
}

/// A port of a service, by number or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressServicePort {
    /// The name; empty when there is a number.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// The number; zero when there is a name.
    #[serde(deserialize_with = "null_default")]
    pub number: u16,
}

/// `networking.k8s.io/v1` IngressClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressClass {
    /// Name and the like.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "null_default")]
    pub spec: IngressClassSpec,
}

/// What a class of Ingress objects is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IngressClassSpec {
    /// The controller that serves it, such as `istio.io/ingress-controller`.
    #[serde(deserialize_with = "null_default")]
    pub controller: String,
}
