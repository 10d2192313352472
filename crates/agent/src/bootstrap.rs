//! The bootstrap: one JSON file for stock Envoy and for Lateen's proxy.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use crate::files;
use crate::settings::Settings;

/// The readiness port that kubelet asks.
pub(crate) const READINESS_PORT: u16 = 15021;
/// The port of the proxy's own metrics.
pub(crate) const METRICS_PORT: u16 = 15090;

/// Renders the bootstrap.
pub(crate) fn render(settings: &Settings) -> Value {
    let mut bootstrap = json!({
        "node": {
            "id": settings.node_id(),
            "cluster": settings.service_cluster,
            "metadata": settings.metadata,
        },
        "layered_runtime": { "layers": [
            { "name": "global config", "static_layer": {
                "re2.max_program_size.error_level": 32768,
            }},
            { "name": "admin", "admin_layer": {} },
        ]},
        "stats_config": stats(settings),
        "admin": { "address": address(settings.admin()) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": if settings.delta { "DELTA_GRPC" } else { "GRPC" },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
            "cds_config": from_ads(),
            "lds_config": from_ads(),
        },
        "static_resources": {
            "clusters": [
                static_cluster("prometheus_stats", address(settings.admin())),
                static_cluster("agent", address(reachable(settings, settings.config.status_port))),
                sds(settings),
                xds(settings),
            ],
            "listeners": [
                http_listener(settings, METRICS_PORT, "/stats/prometheus", "prometheus_stats"),
                http_listener(settings, READINESS_PORT, "/healthz/ready", "agent"),
            ],
        },
    });
    if settings.shares_loopback() {
        // Without it every peer would see 127.0.0.1 and no policy by source could hold.
        bootstrap["cluster_manager"] = json!({ "upstream_bind_config": {
            "source_address": { "address": settings.address(), "port_value": 0 },
        }});
    }
    if let Some(server) = settings.dns {
        bootstrap["typed_dns_resolver_config"] = json!({
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [address(server)],
                "dns_resolver_options": { "no_default_search_domain": true },
            },
        });
    }
    bootstrap
}

fn from_ads() -> Value {
    json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" })
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } })
}

/// Where the proxy reaches a port of its own pod.
pub(crate) fn reachable(settings: &Settings, port: u16) -> SocketAddr {
    match settings.shares_loopback() {
        true => SocketAddr::new(settings.address(), port),
        false => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port),
    }
}

fn static_cluster(name: &str, endpoint: Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": { "cluster_name": name, "endpoints": [
            { "lb_endpoints": [{ "endpoint": { "address": endpoint } }] },
        ]},
    })
}

fn pipe(path: &Path) -> Value {
    json!({ "pipe": { "path": files::text(path) } })
}

fn http2(mut cluster: Value, options: Value) -> Value {
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": options },
        },
    });
    cluster
}

fn sds(settings: &Settings) -> Value {
    let mut cluster = http2(static_cluster("sds-grpc", pipe(&settings.secrets_socket())), json!({}));
    cluster["connect_timeout"] = json!("1s");
    cluster
}

fn xds(settings: &Settings) -> Value {
    const MOST: u32 = 100_000;
    let thresholds = |priority| json!({ "priority": priority, "max_connections": MOST, "max_pending_requests": MOST, "max_requests": MOST });
    let mut cluster = http2(static_cluster("xds-grpc", pipe(&settings.discovery_socket())), json!({}));
    cluster["connect_timeout"] = json!("1s");
    cluster["circuit_breakers"] = json!({ "thresholds": [thresholds("DEFAULT"), thresholds("HIGH")] });
    cluster
}

fn http_listener(settings: &Settings, port: u16, prefix: &str, cluster: &str) -> Value {
    let route = json!({ "match": { "prefix": prefix }, "route": { "cluster": cluster } });
    json!({
        "name": format!("static_{port}"),
        "address": address(SocketAddr::new(settings.wildcard(), port)),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "AUTO",
                "stat_prefix": cluster,
                "route_config": { "virtual_hosts": [
                    { "name": "backend", "domains": ["*"], "routes": [route] },
                ]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
            },
        }]}],
    })
}

/// Which statistics are kept, as Istio keeps them.
fn stats(settings: &Settings) -> Value {
    const PREFIXES: &[&str] = &[
        "reporter=",
        "cluster_manager",
        "listener_manager",
        "server",
        "cluster.xds-grpc",
        "wasm",
        "component",
        "istio",
    ];
    const SUFFIXES: &[&str] =
        &["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied", "downstream_cx_active"];
    const REGEXES: &[&str] = &["vhost.*.route.*"];
    let own = &settings.config.proxy_stats_matcher;
    let annotation = |name: &str| -> Vec<String> {
        let text = settings.metadata["ANNOTATIONS"][format!("sidecar.istio.io/{name}")].as_str();
        text.into_iter().flat_map(|t| t.split(',')).map(str::to_owned).collect()
    };
    let all = |fixed: &[&str], configured: &[String], annotated: Vec<String>| -> Vec<String> {
        fixed.iter().map(|s| (*s).to_owned()).chain(configured.iter().cloned()).chain(annotated).collect()
    };
    let prefixes = all(PREFIXES, &own.inclusion_prefixes, annotation("statsInclusionPrefixes"));
    let suffixes = all(SUFFIXES, &own.inclusion_suffixes, annotation("statsInclusionSuffixes"));
    let regexes = all(REGEXES, &own.inclusion_regexps, annotation("statsInclusionRegexps"));
    let mut patterns: Vec<Value> = prefixes.into_iter().map(|p| json!({ "prefix": p })).collect();
    patterns.extend(suffixes.into_iter().map(|s| json!({ "suffix": s })));
    patterns.extend(regexes.into_iter().map(|r| json!({ "safe_regex": { "regex": r } })));
    json!({ "use_all_default_tags": false, "stats_matcher": { "inclusion_list": { "patterns": patterns } } })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;

    use super::*;
    use crate::settings::{Arguments, Role};

    fn settings(address: &str) -> Settings {
        let env: BTreeMap<String, String> = [
            ("POD_NAME", "reviews-v1-abc"),
            ("POD_NAMESPACE", "default"),
            ("INSTANCE_IP", address),
            ("ISTIO_META_INTERCEPTION_MODE", "NONE"),
            ("ISTIO_METAJSON_LABELS", r#"{"app":"reviews"}"#),
            ("PROXY_CONFIG", r#"{"proxyStatsMatcher":{"inclusionRegexps":[".*fortio.*"]}}"#),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        Settings::read(Role::Sidecar, &Arguments::default(), ".".into(), &env).unwrap()
    }

    #[test]
    fn every_port_of_a_shared_loopback_binds_the_pod() {
        let bootstrap = render(&settings("127.10.0.7"));
        let _: Bootstrap = lateen_proto::json::from_value(&bootstrap).unwrap();
        assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "127.10.0.7");
        assert_eq!(
            bootstrap["cluster_manager"]["upstream_bind_config"]["source_address"]["address"],
            "127.10.0.7"
        );
        let text = bootstrap.to_string();
        assert!(!text.contains("0.0.0.0") && !text.contains("\"127.0.0.1\""), "{text}");
        assert_eq!(bootstrap["node"]["metadata"]["LABELS"]["app"], "reviews");
        assert!(text.contains(".*fortio.*"));
    }

    #[test]
    fn a_pod_with_an_address_of_its_own_keeps_istios_ports() {
        let bootstrap = render(&settings("10.1.2.3"));
        let _: Bootstrap = lateen_proto::json::from_value(&bootstrap).unwrap();
        assert!(bootstrap.get("cluster_manager").is_none());
        assert!(bootstrap.get("typed_dns_resolver_config").is_none());
        assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "127.0.0.1");
    }

    /// What the proxy in our process takes says the same as the file, as far as it goes.
    #[test]
    fn the_typed_bootstrap_is_the_files() {
        for address in ["127.10.0.7", "10.1.2.3"] {
            let settings = settings(address);
            let mut file: Bootstrap = lateen_proto::json::from_value(&render(&settings)).unwrap();
            let typed = crate::typed_bootstrap::build(&settings);
            // Timeouts, statistics and the like are Envoy's business.
            file.layered_runtime = None;
            file.stats_config = None;
            for cluster in &mut file.static_resources.as_mut().unwrap().clusters {
                cluster.connect_timeout = None;
                cluster.circuit_breakers = None;
                cluster.typed_extension_protocol_options.clear();
            }
            file.typed_dns_resolver_config.clone_from(&typed.typed_dns_resolver_config);
            assert_eq!(file, typed);
        }
    }

    /// Stock Envoy accepts it; skipped, with a word, where there is no Envoy.
    #[test]
    fn envoy_validates_it() {
        for address in ["127.10.0.7", "10.1.2.3"] {
            let bootstrap = render(&settings(address)).to_string();
            let run = Command::new("envoy")
                .args(["--mode", "validate", "--disable-hot-restart", "--config-yaml", &bootstrap])
                .output();
            match run {
                Ok(output) => {
                    let log = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{log}");
                    assert!(!log.contains("deprecated"), "{log}");
                }
                Err(error) => eprintln!("skipped, no envoy on PATH: {error}"),
            }
        }
    }
}
