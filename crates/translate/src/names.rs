//! Names of Envoy resources, as Istio's users know them.

use lateen_base::Host;

/// The cluster without endpoints.
pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
/// The cluster that goes where the client wanted to go.
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// The cluster that hands inbound traffic to the application as it came.
pub const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
/// The cluster that resolves the host that the client asked for.
pub const DYNAMIC_DNS_CLUSTER: &str = "AllowAnyDynamicDNSCluster";
/// The cluster of the agent's SDS socket.
pub const SDS_CLUSTER: &str = "sds-grpc";

/// Which way a cluster leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the workload itself.
    Inbound,
    /// To a service.
    Outbound,
}

impl Direction {
    /// The word in cluster names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// `outbound|PORT|SUBSET|HOST`.
pub fn cluster(direction: Direction, port: u16, subset: &str, host: &Host) -> String {
    format!("{}|{port}|{subset}|{host}", direction.as_str())
}

/// `inbound|PORT||`.
pub fn inbound_cluster(target_port: u16) -> String {
    format!("inbound|{target_port}||")
}

/// `outbound_.PORT_.SUBSET_.HOST`: the SNI of mesh mTLS, and the cluster that a gateway passes it to.
pub fn sni_cluster(port: u16, subset: &str, host: &Host) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// The parts of a cluster name of either form: direction, port, subset, host.
pub fn parse_cluster(name: &str) -> Option<(Direction, u16, &str, Host)> {
    let separator = if name.contains('|') { "|" } else { "_." };
    let mut parts = name.splitn(4, separator);
    let direction = match parts.next()? {
        "inbound" => Direction::Inbound,
        "outbound" => Direction::Outbound,
        _ => return None,
    };
    let port = parts.next()?.parse().ok()?;
    let subset = parts.next()?;
    Some((direction, port, subset, Host::new(parts.next()?)))
}

/// `/apis/GROUP/VERSION/namespaces/NAMESPACE/KIND/NAME`: how clusters, routes and chains refer to an object.
pub fn config_path(group_version: &str, namespace: &str, kind: &str, name: &str) -> String {
    format!("/apis/{group_version}/namespaces/{namespace}/{kind}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        let host = Host::new("reviews.default.svc.cluster.local");
        for name in [cluster(Direction::Outbound, 9080, "v1", &host), sni_cluster(9080, "v1", &host)] {
            assert_eq!(parse_cluster(&name), Some((Direction::Outbound, 9080, "v1", host.clone())), "{name}");
        }
        assert_eq!(parse_cluster(&inbound_cluster(80)), Some((Direction::Inbound, 80, "", Host::new(""))));
        for bad in ["", "BlackHoleCluster", "outbound|x||h", "outbound|80"] {
            assert_eq!(parse_cluster(bad), None, "{bad}");
        }
    }
}
