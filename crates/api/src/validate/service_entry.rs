//! `ServiceEntry`.

use super::Problems;
use super::names;
use super::path::Path;
use super::workload;
use crate::kinds::ServiceEntry;
use crate::kinds::service_entry::{Resolution, ServicePort};
use crate::kinds::workload::WorkloadEntry;

pub(super) fn check(spec: &ServiceEntry, at: &Path<'_>, out: &mut Problems) {
    out.error_if(spec.hosts.is_empty(), &at.field("hosts"), "service entry must have at least one host");
    for (i, host) in spec.hosts.iter().enumerate() {
        check_host(host, &at.field("hosts").item(i), out);
    }
    addresses(spec, &at.field("addresses"), out);
    for (i, port) in spec.ports.iter().enumerate() {
        let at = &at.field("ports");
        check_port(port, &spec.ports[..i], &at.item(i), out);
    }
    selector(spec, at, out);
    resolution(spec, at, out);
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let at = &at.field("endpoints");
        let at = &at.item(i);
        workload::common(endpoint, at, out);
        for name in endpoint.ports.keys().filter(|name| spec.ports.iter().all(|port| port.name != **name)) {
            out.error(
                &at.field("ports").entry(name),
                format!("endpoint port {name} is not defined by the service entry"),
            );
        }
    }
    if spec.resolution != Resolution::None && spec.hosts.len() > 1 {
        let plain =
            spec.ports.iter().any(|port| !names::is_http(&port.protocol) && !names::is_tls(&port.protocol));
        out.error_if(plain, at, "multiple hosts provided with non-HTTP, non-TLS ports");
    }
    names::export_to(&spec.export_to, true, &at.field("exportTo"), out);
}

fn check_host(host: &str, at: &Path<'_>, out: &mut Problems) {
    if host == "*" {
        return out.error(at, format!("invalid host {host}: hostname cannot be wildcard"));
    }
    if let Err(message) = names::wildcard_domain(host) {
        return out.error(at, message);
    }
    if names::is_partial_wildcard(host) {
        out.warn(
            at,
            format!(
                "partial wildcard {host:?} may not work as expected: use \"*.\" and a full domain instead"
            ),
        );
    }
}

fn addresses(spec: &ServiceEntry, at: &Path<'_>, out: &mut Problems) {
    for (i, address) in spec.addresses.iter().enumerate() {
        out.check(&at.item(i), names::subnet(address));
        let fixed = matches!(spec.resolution, Resolution::None | Resolution::Static);
        let message = "CIDR addresses are allowed only for NONE/STATIC resolution types";
        out.error_if(address.contains('/') && !fixed, &at.item(i), message);
    }
}

fn check_port(port: &ServicePort, before: &[ServicePort], at: &Path<'_>, out: &mut Problems) {
    let twice = before.iter().any(|other| other.name == port.name);
    let message = format!("service entry port name {:?} already defined", port.name);
    out.error_if(twice, &at.field("name"), message);
    let twice = before.iter().any(|other| other.number == port.number);
    let message = format!("service entry port {} already defined", port.number);
    out.error_if(twice, &at.field("number"), message);
    out.check(&at.field("name"), names::port_name(&port.name));
    out.check(&at.field("protocol"), names::protocol(&port.protocol, true));
    out.check(&at.field("number"), names::port(port.number.into()));
    if port.target_port != 0 {
        out.check(&at.field("targetPort"), names::port(port.target_port.into()));
    }
}

fn selector(spec: &ServiceEntry, at: &Path<'_>, out: &mut Problems) {
    let Some(selector) = &spec.workload_selector else { return };
    workload::selector(&selector.labels, &at.field("workloadSelector"), out);
    let both = !spec.endpoints.is_empty();
    out.error_if(both, at, "only one of WorkloadSelector or Endpoints is allowed in Service Entry");
    if spec.resolution == Resolution::None {
        out.warn(
            &at.field("resolution"),
            "workloadSelector is ignored with resolution NONE: requests go to the address that was asked for",
        );
    }
}

fn resolution(spec: &ServiceEntry, at: &Path<'_>, out: &mut Problems) {
    let endpoints = &at.field("endpoints");
    match spec.resolution {
        Resolution::None => {
            let message = "no endpoints should be provided for resolution type none";
            out.error_if(!spec.endpoints.is_empty(), endpoints, message);
        }
        Resolution::Static => {
            for (i, endpoint) in spec.endpoints.iter().enumerate() {
                static_endpoint(endpoint, spec.ports.len(), &endpoints.item(i), out);
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => dns(spec, at, out),
        Resolution::DynamicDns => {
            let message = "endpoints cannot be provided for resolution mode DYNAMIC_DNS";
            out.error_if(!spec.endpoints.is_empty(), endpoints, message);
            for (i, host) in spec.hosts.iter().enumerate().filter(|(_, host)| !host.starts_with('*')) {
                let message = format!("host {host:?} must be a wildcard for resolution mode DYNAMIC_DNS");
                out.error(&at.field("hosts").item(i), message);
            }
            for (i, port) in spec.ports.iter().enumerate() {
                let named = names::is_http(&port.protocol) || names::is_tls(&port.protocol);
                let message = "only HTTP and TLS ports are supported for resolution mode DYNAMIC_DNS";
                out.error_if(!named, &at.field("ports").item(i).field("protocol"), message);
            }
        }
    }
}

fn static_endpoint(endpoint: &WorkloadEntry, ports: usize, at: &Path<'_>, out: &mut Problems) {
    let address = &endpoint.address;
    let at_address = &at.field("address");
    if address.starts_with("unix://") {
        out.error_if(ports != 1, at, "exactly 1 service port required for unix endpoints");
    } else if address.is_empty() {
        let message = "endpoint address or network is required";
        out.error_if(endpoint.network.is_empty(), at_address, message);
    } else {
        out.check(at_address, names::ip(address));
    }
}

fn dns(spec: &ServiceEntry, at: &Path<'_>, out: &mut Problems) {
    let endpoints = &at.field("endpoints");
    let one = spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1;
    let message = "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN";
    out.error_if(one, endpoints, message);
    if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
        for (i, host) in spec.hosts.iter().enumerate().filter(|(_, host)| names::fqdn(host).is_err()) {
            let message = format!(
                "hosts must be FQDN if no endpoints are provided for resolution mode {}: {host:?}",
                spec.resolution
            );
            out.error(&at.field("hosts").item(i), message);
        }
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let address = &endpoint.address;
        if address.is_empty() && !endpoint.network.is_empty() {
            continue;
        }
        let good = names::fqdn(address).is_ok() || names::ip(address).is_ok();
        let message = format!("endpoint address {address:?} is not a valid FQDN or an IP address");
        out.error_if(!good, &endpoints.item(i).field("address"), message);
    }
}
