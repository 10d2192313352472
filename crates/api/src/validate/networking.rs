//! `DestinationRule`.

use super::names;
use super::path::Path;
use super::{Problems, connection, load_balancer, tls};
use crate::kinds::DestinationRule;
use crate::kinds::destination_rule::{H2UpgradePolicy, PortTrafficPolicy, TrafficPolicy, TunnelSettings};

pub(super) fn destination_rule(spec: &DestinationRule, at: &Path<'_>, out: &mut Problems) {
    out.check(&at.field("host"), names::wildcard_domain(&spec.host));
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(policy, &at.field("trafficPolicy"), out);
    }
    for (i, subset) in spec.subsets.iter().enumerate() {
        let at = &at.field("subsets");
        let at = &at.item(i);
        out.check(&at.field("name"), names::label("subset name", &subset.name));
        let twice = spec.subsets[..i].iter().any(|other| other.name == subset.name);
        if twice {
            out.warn(
                &at.field("name"),
                format!("duplicate subset {:?}: only the first is used", subset.name),
            );
        }
        names::labels(&subset.labels.0, &at.field("labels"), out);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(policy, &at.field("trafficPolicy"), out);
        }
    }
    names::export_to(&spec.export_to, false, &at.field("exportTo"), out);
    if let Some(selector) = &spec.workload_selector {
        super::workload::label_selector(&selector.match_labels, &at.field("workloadSelector"), out);
    }
}

fn traffic_policy(policy: &TrafficPolicy, at: &Path<'_>, out: &mut Problems) {
    let nothing = *policy == TrafficPolicy::default();
    out.error_if(nothing, at, "traffic policy must have at least one field");
    if let Some(http) = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref()) {
        let both = http.h2_upgrade_policy == H2UpgradePolicy::Upgrade && http.use_client_protocol;
        out.error_if(both, at, "use client protocol must not be true when H2UpgradePolicy is UPGRADE");
    }
    let both = policy.tunnel.is_some() && policy.proxy_protocol.is_some();
    out.error_if(both, at, "tunnel and proxyProtocol must not be set together");
    let port = PortTrafficPolicy {
        port: None,
        load_balancer: policy.load_balancer.clone(),
        connection_pool: policy.connection_pool.clone(),
        outlier_detection: policy.outlier_detection.clone(),
        tls: policy.tls.clone(),
    };
    port_policy(&port, at, out);
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        let at = &at.field("portLevelSettings");
        let at = &at.item(i);
        match &port.port {
            Some(selector) => {
                out.check(&at.field("port").field("number"), names::port(selector.number.into()))
            }
            None => out.error(&at.field("port"), "portTrafficPolicy must have valid port"),
        }
        port_policy(port, at, out);
    }
    if let Some(settings) = &policy.tunnel {
        tunnel(settings, &at.field("tunnel"), out);
    }
}

fn port_policy(policy: &PortTrafficPolicy, at: &Path<'_>, out: &mut Problems) {
    if let Some(lb) = &policy.load_balancer {
        load_balancer::settings(lb, policy.outlier_detection.as_ref(), &at.field("loadBalancer"), out);
    }
    if let Some(pool) = &policy.connection_pool {
        connection::pool(pool, &at.field("connectionPool"), out);
    }
    if let Some(outlier) = &policy.outlier_detection {
        connection::outlier(outlier, &at.field("outlierDetection"), out);
    }
    if let Some(settings) = &policy.tls {
        tls::client(settings, &at.field("tls"), out);
    }
}

fn tunnel(tunnel: &TunnelSettings, at: &Path<'_>, out: &mut Problems) {
    let known = ["", "CONNECT", "POST"].contains(&tunnel.protocol.as_str());
    out.error_if(!known, &at.field("protocol"), "tunnel protocol must be \"CONNECT\" or \"POST\"");
    let host = &tunnel.target_host;
    match host.is_empty() {
        true => out.error(&at.field("targetHost"), "tunnel target host cannot be empty"),
        false => out.check(
            &at.field("targetHost"),
            names::fqdn(host).or_else(|why| names::ip(host).map_err(|_| why)),
        ),
    }
    out.check(&at.field("targetPort"), names::port(tunnel.target_port.into()));
}
