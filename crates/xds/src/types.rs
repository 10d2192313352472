//! Type URLs and the order in which the types are pushed.

/// Clusters.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// Endpoints of clusters.
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// Listeners.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Route configurations.
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Secrets: certificates and trust anchors.
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// Configurations of extensions.
pub const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// What an agent merges into the bootstrap that it writes.
pub const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
/// The table of names that an agent's DNS server answers.
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";

/// The order of a push: what is referred to comes before what refers to it, as make-before-break needs.
pub const ORDER: &[&str] = &[CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, EXTENSION, NAME_TABLE];

/// The place of a type in a push; unknown types come last.
pub fn rank(type_url: &str) -> usize {
    ORDER.iter().position(|known| *known == type_url).unwrap_or(ORDER.len())
}

/// Whether a first request without names asks for everything. Types that are always asked for by name get
/// nothing instead.
pub fn empty_means_all(type_url: &str) -> bool {
    !matches!(type_url, ENDPOINT | ROUTE | SECRET | EXTENSION | BOOTSTRAP)
}

/// The short name that operators know: CDS, EDS, LDS, RDS, SDS, ECDS, NDS; else the message's name.
pub fn short_name(type_url: &str) -> &str {
    match type_url {
        CLUSTER => "CDS",
        ENDPOINT => "EDS",
        LISTENER => "LDS",
        ROUTE => "RDS",
        SECRET => "SDS",
        EXTENSION => "ECDS",
        NAME_TABLE => "NDS",
        other => other.rsplit(['/', '.']).next().unwrap_or(other),
    }
}
