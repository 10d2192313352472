//! The mesh configuration, the proxies' defaults in it, and the networks.

use super::names;
use super::path::Path;
use super::{Problem, Problems, connection, http, load_balancer, providers, tls, workload};
use crate::kinds::virtual_service::HttpRetry;
use crate::mesh::networks::{IstioNetworkGateway, NetworkEndpoints};
use crate::mesh::proxy::{MeshCustomTag, MeshTracing, RemoteService};
use crate::mesh::{MeshConfig, MeshNetworks, MeshProxyConfig};

/// What is wrong with a mesh configuration, such as [`MeshConfig::parse`] gives it.
pub fn validate_mesh_config(mesh: &MeshConfig) -> Vec<Problem> {
    let mut out = Problems::default();
    mesh_config(mesh, &Path::Root(""), &mut out);
    out.0
}

/// What is wrong with the proxies' defaults.
pub fn validate_proxy_config(config: &MeshProxyConfig) -> Vec<Problem> {
    let mut out = Problems::default();
    proxy_config(config, &Path::Root(""), &mut out);
    out.0
}

/// What is wrong with networks.
pub fn validate_mesh_networks(networks: &MeshNetworks) -> Vec<Problem> {
    let mut out = Problems::default();
    let root = Path::Root("");
    let at = &root.field("networks");
    for (name, network) in &networks.networks {
        let at = &at.entry(name);
        for (i, endpoints) in network.endpoints.iter().enumerate() {
            network_endpoints(endpoints, &at.field("endpoints").item(i), &mut out);
        }
        for (i, gateway) in network.gateways.iter().enumerate() {
            network_gateway(gateway, &at.field("gateways").item(i), &mut out);
        }
    }
    out.0
}

fn mesh_config(mesh: &MeshConfig, at: &Path<'_>, out: &mut Problems) {
    for (field, port, optional) in [
        ("proxyListenPort", mesh.proxy_listen_port, false),
        ("proxyInboundListenPort", mesh.proxy_inbound_listen_port, true),
        ("proxyHttpPort", mesh.proxy_http_port, true),
    ] {
        if port != 0 || !optional {
            out.check(&at.field(field), names::port(port.into()));
        }
    }
    match mesh.connect_timeout {
        Some(timeout) => out.check(&at.field("connectTimeout"), names::duration(timeout)),
        None => out.error(&at.field("connectTimeout"), "duration must be greater than 1ms"),
    }
    let detection = mesh.protocol_detection_timeout.filter(|timeout| !timeout.is_zero());
    names::maybe_duration(detection, &at.field("protocolDetectionTimeout"), out);
    names::maybe_duration(mesh.dns_refresh_rate, &at.field("dnsRefreshRate"), out);
    if let Some(keepalive) = &mesh.tcp_keepalive {
        connection::tcp_keepalive(keepalive, &at.field("tcpKeepalive"), out);
    }
    match &mesh.default_config {
        Some(config) => proxy_config(config, &at.field("defaultConfig"), out),
        None => out.error(&at.field("defaultConfig"), "missing default config"),
    }
    trust_domains(mesh, at, out);
    if let Some(locality) = &mesh.locality_lb_setting {
        load_balancer::locality_setting(locality, true, &at.field("localityLbSetting"), out);
    }
    if let Some(settings) = mesh.outbound_traffic_policy.as_ref().and_then(|policy| policy.tls.as_ref()) {
        tls::client(settings, &at.field("outboundTrafficPolicy").field("tls"), out);
    }
    if let Some(zone) = &mesh.zone_aware_lb_setting {
        load_balancer::zone_setting(zone, &at.field("zoneAwareLbSetting"), out);
    }
    service_settings(mesh, at, out);
    providers::check(&mesh.extension_providers, &at.field("extensionProviders"), out);
    retry_policies(mesh, at, out);
    if let Some(policy) = &mesh.default_traffic_policy {
        let at = &at.field("defaultTrafficPolicy");
        if let Some(pool) = &policy.connection_pool {
            connection::pool(pool, &at.field("connectionPool"), out);
        }
        if let Some(outlier) = &policy.outlier_detection {
            connection::outlier(outlier, &at.field("outlierDetection"), out);
        }
    }
    for (field, list) in [
        ("defaultServiceExportTo", &mesh.default_service_export_to),
        ("defaultVirtualServiceExportTo", &mesh.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", &mesh.default_destination_rule_export_to),
    ] {
        names::export_to(list, true, &at.field(field), out);
    }
}

fn retry_policies(mesh: &MeshConfig, at: &Path<'_>, out: &mut Problems) {
    let mut check = |field: &str, policy: &Option<HttpRetry>| {
        let Some(policy) = policy else { return };
        let at = &at.field(field);
        if policy.per_try_timeout.is_some() {
            out.warn(&at.field("perTryTimeout"), "perTryTimeout is ignored for mesh-wide retry policies");
        }
        http::retry(policy, at, out);
    };
    check("defaultHttpRetryPolicy", &mesh.default_http_retry_policy);
    check("defaultInboundHttpRetryPolicy", &mesh.default_inbound_http_retry_policy);
}

fn trust_domains(mesh: &MeshConfig, at: &Path<'_>, out: &mut Problems) {
    out.check(&at.field("trustDomain"), trust_domain(&mesh.trust_domain));
    for (i, alias) in mesh.trust_domain_aliases.iter().enumerate() {
        out.check(&at.field("trustDomainAliases").item(i), trust_domain(alias));
    }
}

fn trust_domain(domain: &str) -> Result<(), String> {
    if domain.is_empty() {
        return Err("empty domain name not allowed".to_owned());
    }
    let good = |part: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.len() <= 63
            && part.bytes().all(word)
    };
    match domain.split('.').find(|part| !good(part)) {
        Some(part) => Err(format!("trust domain name {domain:?} invalid (label {part:?} invalid)")),
        None => Ok(()),
    }
}

fn service_settings(mesh: &MeshConfig, at: &Path<'_>, out: &mut Problems) {
    for (i, settings) in mesh.service_settings.iter().enumerate() {
        let at = &at.field("serviceSettings");
        let at = &at.item(i);
        for (j, host) in settings.hosts.iter().enumerate() {
            out.check(&at.field("hosts").item(j), names::wildcard_domain(host));
        }
    }
}

fn proxy_config(config: &MeshProxyConfig, at: &Path<'_>, out: &mut Problems) {
    out.error_if(config.config_path.is_empty(), &at.field("configPath"), "config path must be set");
    out.error_if(config.binary_path.is_empty(), &at.field("binaryPath"), "binary path must be set");
    let named = config.service_cluster.as_ref().is_some_and(|name| !name.is_empty());
    let named = named || config.tracing_service_name.is_some();
    out.error_if(
        !named,
        &at.field("serviceCluster"),
        "oneof service cluster or tracing service name must be specified",
    );
    match config.drain_duration {
        Some(drain) if drain.as_secs() == 0 => {
            out.error(&at.field("drainDuration"), "drain duration: must be greater than 1 second");
        }
        Some(_) => {}
        None => out.error(&at.field("drainDuration"), "drain duration is required"),
    }
    out.check(&at.field("discoveryAddress"), address(&config.discovery_address));
    let remote =
        |service: &Option<RemoteService>| service.as_ref().map(|s| s.address.clone()).unwrap_or_default();
    for (field, text) in [
        ("statsdUdpAddress", config.statsd_udp_address.clone()),
        ("envoyMetricsServiceAddress", config.envoy_metrics_service_address.clone()),
        ("envoyMetricsService", remote(&config.envoy_metrics_service)),
        ("envoyAccessLogService", remote(&config.envoy_access_log_service)),
    ] {
        if !text.is_empty() {
            out.check(&at.field(field), address(&text));
        }
    }
    out.check(&at.field("proxyAdminPort"), names::port(config.proxy_admin_port.into()));
    if config.status_port != 0 {
        out.check(&at.field("statusPort"), names::port(config.status_port.into()));
    }
    let negative = config.concurrency.is_some_and(|concurrency| concurrency < 0);
    out.error_if(negative, &at.field("concurrency"), "concurrency must be greater than or equal to 0");
    if let Some(settings) = &config.tracing {
        tracing(settings, &at.field("tracing"), out);
    }
    private_keys(config, at, out);
    if let Some(probe) = &config.readiness_probe {
        workload::readiness(probe, &at.field("readinessProbe"), out);
    }
}

fn private_keys(config: &MeshProxyConfig, at: &Path<'_>, out: &mut Problems) {
    let Some(provider) = &config.private_key_provider else { return };
    let at = &at.field("privateKeyProvider");
    let nothing = provider.cryptomb.is_none() && provider.qat.is_none();
    out.error_if(nothing, at, "private key provider: one of cryptomb, qat is required");
    for (field, polled) in [("cryptomb", &provider.cryptomb), ("qat", &provider.qat)] {
        let Some(polled) = polled else { continue };
        let waits = polled.poll_delay.is_some_and(|delay| !delay.is_zero());
        out.error_if(
            !waits,
            &at.field(field).field("pollDelay"),
            format!("pollDelay is required for {field}"),
        );
    }
}

/// Host and port; what the environment gives, `$(HOST_IP):9411` or `$HOST_IP:9411`, is left to it.
fn address(text: &str) -> Result<(), String> {
    if text.starts_with('$') {
        return Ok(());
    }
    names::host_port(text)
}

fn tracing(tracing: &MeshTracing, at: &Path<'_>, out: &mut Problems) {
    if let Some(zipkin) = &tracing.zipkin {
        out.check(&at.field("zipkin").field("address"), address(&zipkin.address));
    }
    if let Some(datadog) = &tracing.datadog {
        out.check(&at.field("datadog").field("address"), address(&datadog.address));
    }
    if let Some(lightstep) = &tracing.lightstep {
        let at = &at.field("lightstep");
        out.check(&at.field("address"), address(&lightstep.address));
        out.error_if(lightstep.access_token.is_empty(), &at.field("accessToken"), "access token is required");
    }
    let wild = !(0.0..=100.0).contains(&tracing.sampling);
    out.error_if(wild, &at.field("sampling"), "sampling must be in range [0.0 - 100.0]");
    for (name, tag) in &tracing.custom_tags {
        let (empty, what) = match tag {
            MeshCustomTag::Unset => (true, "type"),
            MeshCustomTag::Literal(tag) => (tag.value.is_empty(), "value"),
            MeshCustomTag::Environment(tag) | MeshCustomTag::Header(tag) => (tag.name.is_empty(), "name"),
        };
        let at = &at.field("customTags");
        out.error_if(empty, &at.entry(name), format!("tag {name:?} may not have an empty {what}"));
    }
    if let Some(settings) = &tracing.tls_settings {
        tls::client(settings, &at.field("tlsSettings"), out);
    }
}

fn network_endpoints(endpoints: &NetworkEndpoints, at: &Path<'_>, out: &mut Problems) {
    match endpoints {
        NetworkEndpoints::FromCidr(cidr) => out.check(&at.field("fromCidr"), names::subnet(cidr)),
        NetworkEndpoints::FromRegistry(name) => {
            out.error_if(name.is_empty(), &at.field("fromRegistry"), "empty registry name");
        }
        NetworkEndpoints::Unset => out.error(at, "one of fromCidr, fromRegistry is required"),
    }
}

fn network_gateway(gateway: &IstioNetworkGateway, at: &Path<'_>, out: &mut Problems) {
    let (service, address) = (&gateway.registry_service_name, &gateway.address);
    match (service.is_empty(), address.is_empty()) {
        (false, _) => out.check(&at.field("registryServiceName"), names::fqdn(service)),
        (true, false) => {
            let good = names::ip(address).is_ok() || names::fqdn(address).is_ok();
            out.error_if(
                !good,
                &at.field("address"),
                format!("{address:?} is neither an address nor a domain name"),
            );
        }
        (true, true) => out.error(at, "one of registryServiceName, address is required"),
    }
    out.check(&at.field("port"), names::port(gateway.port.into()));
}
