//! A proxy under test: ours in this process, or stock Envoy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::json::from_value;
use serde_json::{Value, json};
use testkit::envoy::{Admin, Envoy, Running};

use super::Problem;

/// Which proxy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Lateen's.
    Ours,
    /// Stock Envoy.
    Envoy,
}

/// A proxy that runs until this is dropped.
pub(crate) struct Subject {
    /// The node it says it is.
    pub(crate) node: String,
    /// Its own address; its listeners for service addresses are beside it.
    pub(crate) own: Ipv4Addr,
    /// Its access log.
    pub(crate) log: PathBuf,
    admin: Admin,
    _running: Process,
}

/// What runs.
enum Process {
    Ours { _handle: lateen_proxy::Handle },
    Envoy { _running: Running },
}

impl Who {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Envoy => "envoy",
        }
    }
}

/// Where everything of a lane is.
pub(crate) struct Site<'a> {
    /// The node.
    pub(crate) node: String,
    /// The proxy's own address.
    pub(crate) own: Ipv4Addr,
    /// The control plane.
    pub(crate) plane: SocketAddr,
    /// The resolver.
    pub(crate) resolver: SocketAddr,
    /// A folder for logs.
    pub(crate) folder: &'a Path,
}

impl Subject {
    /// Starts it. One worker each: limits and rotations are then exact.
    pub(crate) fn start(who: Who, site: &Site<'_>, envoy: &Envoy) -> Result<Self, Problem> {
        let mut bootstrap = bootstrap(site);
        let (admin, running) = match who {
            Who::Ours => {
                let address = SocketAddr::from((site.own, 15000));
                bootstrap["admin"] = json!({"address": socket(address)});
                let bootstrap: Bootstrap = from_value(&bootstrap).map_err(|error| error.to_string())?;
                let config = lateen_proxy::Config {
                    bootstrap,
                    xds_file: None,
                    concurrency: 1,
                    drain_time: Duration::from_secs(1),
                };
                let handle = config.build().map_err(|error| error.to_string())?;
                (Admin::at(address), Process::Ours { _handle: handle })
            }
            Who::Envoy => {
                let running = envoy.start(&bootstrap, 1).map_err(|error| error.to_string())?;
                (*running.admin(), Process::Envoy { _running: running })
            }
        };
        let log = site.folder.join(format!("{}.log", who.name()));
        Ok(Self { node: site.node.clone(), own: site.own, log, admin, _running: running })
    }

    /// All figures, by name, in one spelling.
    pub(crate) fn figures(&self) -> Result<BTreeMap<String, u64>, Problem> {
        let text = self.admin.get("/stats?format=text").map_err(|error| error.to_string())?;
        let figure = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.replace(';', "").replace(&self.own.to_string(), "PROXY"), value.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(figure).collect())
    }

    /// The configuration that it has, as it tells.
    pub(crate) fn config_dump(&self) -> String {
        match self.admin.json("/config_dump?include_eds") {
            Ok(dump) => serde_json::to_string_pretty(&dump).unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// The address at which it is reached in the place of a service's, or (`None`) of all addresses.
    pub(crate) fn stands_for(&self, service: Option<Ipv4Addr>) -> Ipv4Addr {
        let [a, b, c, _] = self.own.octets();
        match service {
            Some(service) => Ipv4Addr::new(a, b, c, service.octets()[3]),
            None => self.own,
        }
    }
}

/// What both proxies start with.
fn bootstrap(site: &Site<'_>) -> Value {
    let from_ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "node": {"id": site.node, "cluster": "differential"},
        "layered_runtime": {"layers": [
            {"name": "global config", "static_layer": {"re2.max_program_size.error_level": 32768}},
            {"name": "admin", "admin_layer": {}},
        ]},
        "dynamic_resources": {
            "lds_config": from_ads,
            "cds_config": from_ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": [grpc("xds-grpc", site.plane), grpc("sds-grpc", site.plane)]},
        // By it the workloads tell the proxies apart.
        "cluster_manager": {"upstream_bind_config": {
            "source_address": {"address": site.own.to_string(), "port_value": 0}}},
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [socket(site.resolver)],
                "dns_resolver_options": {"no_default_search_domain": true},
            },
        },
    })
}

fn grpc(name: &str, address: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(address)}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
    })
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}
