//! The kinds of Istio's API, and the one table of them that drives parsing, CRDs, columns and watches.

pub mod authorization_policy;
pub mod destination_rule;
pub mod envoy_filter;
pub mod gateway;
pub mod peer_authentication;
pub mod proxy_config;
pub mod request_authentication;
pub mod rules;
pub mod selector;
pub mod service_entry;
pub mod sidecar;
pub mod telemetry;
pub mod virtual_service;
pub mod wasm_plugin;
pub mod workload;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use envoy_filter::EnvoyFilter;
pub use gateway::Gateway;
pub use peer_authentication::PeerAuthentication;
pub use proxy_config::ProxyConfig;
pub use request_authentication::RequestAuthentication;
pub use service_entry::ServiceEntry;
pub use sidecar::Sidecar;
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;
pub use wasm_plugin::{TrafficExtension, WasmPlugin};
pub use workload::{WorkloadEntry, WorkloadGroup};

use crate::field::{Field, Reader, Schema};

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// `string` or `date`.
    pub kind: &'static str,
    /// Where its value is.
    pub path: &'static str,
    /// What it says.
    pub doc: &'static str,
}

const AGE: Column = Column {
    name: "Age",
    kind: "date",
    path: ".metadata.creationTimestamp",
    doc: "When the object was created.",
};

const fn column(name: &'static str, path: &'static str, doc: &'static str) -> Column {
    Column { name, kind: "string", path, doc }
}

/// What the table knows of a kind.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Its name, such as `VirtualService`.
    pub name: &'static str,
    /// Its plural, in lower case, as in URLs.
    pub plural: &'static str,
    /// Its short names.
    pub short_names: &'static [&'static str],
    /// Its API group.
    pub group: &'static str,
    /// Its versions, all served.
    pub versions: &'static [&'static str],
    /// The version that is stored.
    pub storage: &'static str,
    /// The columns of `kubectl get`, after the name.
    pub columns: &'static [Column],
    /// Whether an object needs a spec.
    pub spec_required: bool,
    /// The schema of its spec.
    pub schema: fn() -> Schema,
    read: fn(&Value, &mut Reader) -> Option<Spec>,
}

impl KindInfo {
    /// Its singular, in lower case.
    pub fn singular(&self) -> String {
        self.name.to_ascii_lowercase()
    }

    /// `istio-io`, and the group's, such as `networking-istio-io`.
    pub fn categories(&self) -> [String; 2] {
        ["istio-io".to_owned(), self.group.replace('.', "-")]
    }

    /// `PLURAL.GROUP`, the name of its CRD.
    pub fn crd_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// `GROUP/VERSION` of the stored version.
    pub fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.storage)
    }

    /// Reads a spec.
    pub fn read_spec(&self, value: &Value, reader: &mut Reader) -> Option<Spec> {
        (self.read)(value, reader)
    }
}

macro_rules! kinds {
    ($(
        $(#[doc = $doc:literal])*
        $kind:ident {
            $plural:literal $short:expr, $group:literal, $versions:expr => $storage:literal,
            columns $columns:expr, spec_required $required:literal
        }
    )*) => {
        /// A kind of Istio's API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $( $(#[doc = $doc])* $kind, )*
        }

        /// The spec of an object.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Spec {
            $( $(#[doc = $doc])* $kind(Arc<$kind>), )*
        }

        /// The table of kinds, in the order of [`Kind`].
        pub const KINDS: &[KindInfo] = &[
            $( KindInfo {
                kind: Kind::$kind,
                name: stringify!($kind),
                plural: $plural,
                short_names: &$short,
                group: $group,
                versions: &$versions,
                storage: $storage,
                columns: &$columns,
                spec_required: $required,
                schema: <$kind as Field>::schema,
                read: |value, reader| $kind::read(value, reader).map(|spec| Spec::$kind(Arc::new(spec))),
            }, )*
        ];

        impl Spec {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $( Self::$kind(_) => Kind::$kind, )* }
            }

            /// Writes it as JSON.
            pub fn write(&self) -> Value {
                match self { $( Self::$kind(spec) => spec.write(), )* }
            }
        }

        $( impl From<$kind> for Spec {
            fn from(spec: $kind) -> Self {
                Self::$kind(Arc::new(spec))
            }
        } )*
    };
}

const NETWORKING: [&str; 3] = ["v1", "v1alpha3", "v1beta1"];
const SECURITY: [&str; 2] = ["v1", "v1beta1"];

kinds! {
    /// How requests are routed.
    VirtualService {
        "virtualservices" ["vs"], "networking.istio.io", NETWORKING => "v1",
        columns [
            column("Gateways", ".spec.gateways", "The names of gateways and sidecars that should apply these routes"),
            column("Hosts", ".spec.hosts", "The destination hosts to which traffic is being sent"),
            AGE,
        ], spec_required false
    }
    /// What holds for traffic to a host.
    DestinationRule {
        "destinationrules" ["dr"], "networking.istio.io", NETWORKING => "v1",
        columns [column("Host", ".spec.host", "The name of a service from the service registry"), AGE],
        spec_required false
    }
    /// What a proxy at the edge listens to.
    Gateway {
        "gateways" ["gw"], "networking.istio.io", NETWORKING => "v1",
        columns [], spec_required false
    }
    /// A service that is added to the registry.
    ServiceEntry {
        "serviceentries" ["se"], "networking.istio.io", NETWORKING => "v1",
        columns [
            column("Hosts", ".spec.hosts", "The hosts associated with the ServiceEntry"),
            column("Location", ".spec.location", "Whether the service is external to the mesh or part of the mesh (MESH_EXTERNAL or MESH_INTERNAL)"),
            column("Resolution", ".spec.resolution", "Service resolution mode for the hosts (NONE, STATIC, or DNS)"),
            AGE,
        ], spec_required true
    }
    /// What sidecars accept and need to know.
    Sidecar {
        "sidecars" [], "networking.istio.io", NETWORKING => "v1",
        columns [], spec_required false
    }
    /// Patches of what is generated for Envoy.
    EnvoyFilter {
        "envoyfilters" [], "networking.istio.io", ["v1alpha3"] => "v1alpha3",
        columns [], spec_required false
    }
    /// A workload outside of Kubernetes.
    WorkloadEntry {
        "workloadentries" ["we"], "networking.istio.io", NETWORKING => "v1",
        columns [AGE, column("Address", ".spec.address", "Address associated with the network endpoint.")],
        spec_required true
    }
    /// A group of workloads that register themselves.
    WorkloadGroup {
        "workloadgroups" ["wg"], "networking.istio.io", NETWORKING => "v1",
        columns [AGE], spec_required true
    }
    /// Settings of proxies.
    ProxyConfig {
        "proxyconfigs" [], "networking.istio.io", ["v1beta1"] => "v1beta1",
        columns [], spec_required false
    }
    /// What workloads accept: plain text, mTLS, or both.
    PeerAuthentication {
        "peerauthentications" ["pa"], "security.istio.io", SECURITY => "v1",
        columns [column("Mode", ".spec.mtls.mode", "Defines the mTLS mode used for peer authentication."), AGE],
        spec_required false
    }
    /// Which JWTs are accepted.
    RequestAuthentication {
        "requestauthentications" ["ra"], "security.istio.io", SECURITY => "v1",
        columns [], spec_required false
    }
    /// Who may do what.
    AuthorizationPolicy {
        "authorizationpolicies" ["ap"], "security.istio.io", SECURITY => "v1",
        columns [column("Action", ".spec.action", "The operation to take."), AGE], spec_required false
    }
    /// What is traced, measured and logged.
    Telemetry {
        "telemetries" ["telemetry"], "telemetry.istio.io", ["v1", "v1alpha1"] => "v1alpha1",
        columns [AGE], spec_required false
    }
    /// WebAssembly that runs inside the proxy.
    WasmPlugin {
        "wasmplugins" [], "extensions.istio.io", ["v1alpha1"] => "v1alpha1",
        columns [AGE], spec_required true
    }
    /// WebAssembly or Lua that runs inside the proxy.
    TrafficExtension {
        "trafficextensions" [], "extensions.istio.io", ["v1alpha1"] => "v1alpha1",
        columns [AGE], spec_required true
    }
}

impl Kind {
    /// What the table knows of it.
    pub fn info(self) -> &'static KindInfo {
        &KINDS[self as usize]
    }

    /// Its name, such as `VirtualService`.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The kind of this group and name.
    pub fn of(group: &str, name: &str) -> Option<Kind> {
        KINDS.iter().find(|info| info.group == group && info.name == name).map(|info| info.kind)
    }

    /// The kind that a user means by a plural, singular, short name or `PLURAL.GROUP`.
    pub fn by_resource(name: &str) -> Option<Kind> {
        let name = name.to_ascii_lowercase();
        let means = |info: &&KindInfo| {
            name == info.plural
                || name == info.singular()
                || info.short_names.contains(&name.as_str())
                || name == info.crd_name()
        };
        KINDS.iter().find(means).map(|info| info.kind)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|info| info.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, info) in KINDS.iter().enumerate() {
            assert_eq!(info.kind as usize, index);
            assert!(info.versions.contains(&info.storage));
        }
        assert_eq!(Kind::by_resource("vs"), Some(Kind::VirtualService));
        assert_eq!(Kind::by_resource("ServiceEntries"), Some(Kind::ServiceEntry));
    }
}
