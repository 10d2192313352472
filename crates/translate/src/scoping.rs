//! Automatic scoping: a proxy has few clusters from the start, and loads the others when a request wants them.
//!
//! Routes keep all virtual hosts. Envoy's filter `envoy.filters.http.on_demand` holds a request whose cluster is not there, asks
//! for it by name over delta ADS (ODCDS), and goes on when it is warm. For what else names a cluster Envoy does not wait:
//! chains of bytes, mirrors, servers that filters, logs and traces call. Those a proxy has from the start.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::route::Action;
use lateen_proto::envoy::config::route::v3::route_action::{ClusterSpecifier, RequestMirrorPolicy};
use lateen_proto::envoy::extensions::filters::http::on_demand::v3::{OnDemand, OnDemandCds};
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

use crate::filters::wire::{ads, http_filter};
use crate::{Proxy, Snapshot};

/// The annotation of a pod that turns it on (`automatic`) or off (`off`).
pub const ANNOTATION: &str = "lateen.dev/scoping";
/// The same in `proxyMetadata`: of the mesh's `defaultConfig`, or of a pod's `proxy.istio.io/config`.
pub const VARIABLE: &str = "LATEEN_SCOPING";
/// The filter that a proxy has to have.
pub(crate) const FILTER: &str = "envoy.filters.http.on_demand";
/// How the names of clusters begin that can be loaded on demand: those of services.
const OUTBOUND: &str = "outbound|";

/// Whether a proxy loads clusters on demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scoping {
    /// Nobody asked for it: the proxy has all that it may see.
    #[default]
    Off,
    /// It does.
    Automatic,
    /// It should, but cannot; why. The proxy has all that it may see.
    Unavailable(String),
}

impl Scoping {
    /// What holds for a proxy: its annotation decides, then its own configuration, then the mesh's.
    pub fn of(snapshot: &Snapshot, proxy: &Proxy) -> Self {
        let Some((wanted, place)) = wanted(snapshot, proxy) else { return Self::Off };
        match wanted {
            "" | "off" => return Self::Off,
            "automatic" => {}
            other => {
                return Self::Unavailable(format!("{place} is {other:?}: it can be `automatic` or `off`"));
            }
        }
        let lacks_filter = !proxy.extensions.is_empty() && !proxy.has_extension(FILTER);
        let obstacle = if proxy.is_router() {
            "gateways get all clusters: automatic scoping is for sidecars"
        } else if proxy.state_of_the_world {
            "the proxy speaks state-of-the-world discovery: loading on demand needs delta (DELTA_GRPC)"
        } else if lacks_filter {
            "the proxy does not have the filter envoy.filters.http.on_demand"
        } else {
            return Self::Automatic;
        };
        Self::Unavailable(obstacle.to_owned())
    }
}

/// What is said about a proxy, and where.
fn wanted<'a>(snapshot: &'a Snapshot, proxy: &'a Proxy) -> Option<(&'a str, String)> {
    if let Some(text) = proxy.metadata.annotations.get(ANNOTATION) {
        return Some((text.trim(), format!("the annotation {ANNOTATION}")));
    }
    let place = format!("proxyMetadata.{VARIABLE}");
    // A proxy that tells its configuration keeps what it was started with.
    let text = match &proxy.metadata.proxy_config {
        Some(own) => own.get("proxyMetadata")?.get(VARIABLE)?.as_str()?,
        None => snapshot.mesh.default_config.as_ref()?.proxy_metadata.get(VARIABLE)?,
    };
    Some((text.trim(), place))
}

/// The filter that holds requests while their cluster is loaded.
pub(crate) fn filter() -> HttpFilter {
    let odcds = OnDemandCds { source: Some(ads(true)), ..Default::default() };
    http_filter(FILTER, &OnDemand { odcds: Some(odcds) })
}

/// Names of clusters of services, and a stamp of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Named {
    names: BTreeSet<String>,
    stamp: u64,
}

impl Named {
    pub(crate) fn new(names: BTreeSet<String>) -> Arc<Self> {
        let mut hash = Xxh3::new();
        for name in &names {
            hash.update(name.as_bytes());
            hash.update(&[0]);
        }
        Arc::new(Self { stamp: hash.digest(), names })
    }
}

/// The clusters of services that a proxy has from the start where it loads the others on demand.
#[derive(Clone, Debug, Default)]
pub struct AtStart(Vec<Arc<Named>>);

impl AtStart {
    pub(crate) fn new(named: impl IntoIterator<Item = Arc<Named>>) -> Self {
        Self(named.into_iter().collect())
    }

    /// Whether the proxy has a cluster from the start. What is no service's it always has.
    pub fn has(&self, cluster: &str) -> bool {
        !cluster.starts_with(OUTBOUND) || self.0.iter().any(|named| named.names.contains(cluster))
    }

    /// Equal stamps mean equal names.
    pub fn stamp(&self) -> u64 {
        self.0.iter().fold(0, |stamp, named| stamp.rotate_left(7) ^ named.stamp)
    }

    /// The names that only one of both has.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().zip(&other.0).filter(|(a, b)| a.stamp != b.stamp);
        pairs.flat_map(|(a, b)| a.names.symmetric_difference(&b.names)).map(String::as_str)
    }
}

/// Finds the clusters of services that an encoded message names, at whatever depth: bytes before a text say its length,
/// and texts that are more than a name, as scripts are, are searched for what looks like one.
pub(crate) fn find_named(bytes: &[u8], names: &mut BTreeSet<String>) {
    for at in memmem::find_iter(bytes, OUTBOUND.as_bytes()) {
        let run = bytes[at..].iter().take_while(|byte| is_of_name(**byte)).count();
        let exact = length_before(&bytes[..at]).filter(|length| *length < run);
        for length in exact.into_iter().chain([run]) {
            if let Ok(name) = std::str::from_utf8(&bytes[at..at + length]) {
                names.insert(name.to_owned());
            }
        }
    }
}

/// The clusters that a virtual host names beside those that its requests go to.
pub(crate) fn find_beside(host: &route::VirtualHost, names: &mut BTreeSet<String>) {
    let mut mirrors = |policies: &[RequestMirrorPolicy]| {
        let clusters = policies.iter().map(|policy| &policy.cluster);
        names.extend(clusters.filter(|name| name.starts_with(OUTBOUND)).cloned());
    };
    mirrors(&host.request_mirror_policies);
    let actions = || {
        host.routes.iter().filter_map(|route| match &route.action {
            Some(Action::Route(action)) => Some(action),
            _ => None,
        })
    };
    actions().for_each(|action| mirrors(&action.request_mirror_policies));
    let weighted = actions().filter_map(|action| match &action.cluster_specifier {
        Some(ClusterSpecifier::WeightedClusters(weighted)) => Some(weighted),
        _ => None,
    });
    let of_clusters =
        weighted.flat_map(|all| &all.clusters).flat_map(|one| one.typed_per_filter_config.values());
    let of_routes = host.routes.iter().flat_map(|route| route.typed_per_filter_config.values());
    for config in host.typed_per_filter_config.values().chain(of_routes).chain(of_clusters) {
        find_named(&config.value, names);
    }
}

/// The same of a whole route configuration.
pub(crate) fn find_beside_all(config: &route::RouteConfiguration, names: &mut BTreeSet<String>) {
    let mirrors = config.request_mirror_policies.iter().map(|policy| &policy.cluster);
    names.extend(mirrors.filter(|name| name.starts_with(OUTBOUND)).cloned());
    config.typed_per_filter_config.values().for_each(|own| find_named(&own.value, names));
    config.virtual_hosts.iter().for_each(|host| find_beside(host, names));
}

fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"|.-_*:/".contains(&byte)
}

/// The length that stands before a text, a varint of one byte or two: no name is longer.
fn length_before(bytes: &[u8]) -> Option<usize> {
    let high = usize::from(*bytes.last()?);
    let low = bytes.len().checked_sub(2).and_then(|at| bytes.get(at)).map_or(0, |low| usize::from(*low));
    match low & 0x80 {
        0 => Some(high),
        _ => Some(high << 7 | (low & 0x7f)),
    }
}

#[cfg(test)]
mod tests {
    use lateen_proto::envoy::config::core::v3::Metadata;
    use lateen_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
    use lateen_proto::{Any, Message};

    use super::*;

    fn found(bytes: &[u8]) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        find_named(bytes, &mut names);
        names
    }

    /// Whatever follows in the message, and however long the name is.
    #[test]
    fn names_are_found_at_any_depth_and_length() {
        for length in [1, 60, 90, 107, 108, 109, 150, 200] {
            let name = format!("outbound|80||{}.svc", "h".repeat(length));
            let message = tcp::TcpProxy {
                stat_prefix: "x".into(),
                cluster_specifier: Some(tcp::tcp_proxy::ClusterSpecifier::Cluster(name.clone())),
                // Its tag, 0x42, could be a letter of the name.
                metadata_match: Some(Metadata::default()),
                hash_policy: vec![Default::default()],
                ..Default::default()
            };
            let nested = Any::pack(&message).encode_to_vec();
            assert!(found(&nested).contains(&name), "{length}: {:?}", found(&nested));
        }
    }

    #[test]
    fn names_in_scripts_are_found() {
        let script = Any {
            type_url: "lua".into(),
            value: b"handle:httpCall(\"outbound|80||audit.default.svc.cluster.local\", {})".to_vec().into(),
        };
        let names = found(&script.encode_to_vec());
        assert!(names.contains("outbound|80||audit.default.svc.cluster.local"), "{names:?}");
        assert!(found(b"outbound_80").is_empty());
    }

    #[test]
    fn what_is_no_services_is_there_from_the_start() {
        let at_start = AtStart::new([Named::new(["outbound|1||a".to_owned()].into())]);
        assert!(at_start.has("PassthroughCluster") && at_start.has("outbound|1||a"));
        assert!(!at_start.has("outbound|1||b"));
        let other = AtStart::new([Named::new(["outbound|1||b".to_owned()].into())]);
        assert_ne!(at_start.stamp(), other.stamp());
        assert_eq!(at_start.differing(&other).collect::<Vec<_>>(), ["outbound|1||a", "outbound|1||b"]);
    }
}
