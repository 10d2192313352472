//! `WorkloadEntry`, `WorkloadGroup`, and selectors of workloads.

use lateen_base::Labels;

use super::Problems;
use super::names;
use super::path::Path;
use crate::kinds::workload::ReadinessProbe;
use crate::kinds::{WorkloadEntry, WorkloadGroup};

pub(super) fn entry(spec: &WorkloadEntry, at: &Path<'_>, out: &mut Problems) {
    let address = &at.field("address");
    if spec.address.is_empty() {
        match spec.network.is_empty() {
            true => out.error(address, "Address is required"),
            false => out.warn(
                address,
                "address is unset with network set: traffic goes through the network's gateway",
            ),
        }
    } else if !spec.address.starts_with("unix://") {
        let good = names::fqdn(&spec.address).is_ok() || names::ip(&spec.address).is_ok();
        out.error_if(!good, address, format!("{:?} is neither an address nor a domain name", spec.address));
    }
    common(spec, at, out);
}

/// What holds for every endpoint outside of Kubernetes.
pub(super) fn common(entry: &WorkloadEntry, at: &Path<'_>, out: &mut Problems) {
    if let Some(path) = entry.address.strip_prefix("unix://") {
        out.check(&at.field("address"), names::unix_address(path));
        out.error_if(
            !entry.ports.is_empty(),
            &at.field("ports"),
            "unix endpoint address must not include ports",
        );
    }
    for (name, port) in &entry.ports {
        let at = &at.field("ports");
        out.check(&at.entry(name), names::port_name(name));
        out.check(&at.entry(name), names::port((*port).into()));
    }
    names::labels(&entry.labels.0, &at.field("labels"), out);
}

pub(super) fn group(spec: &WorkloadGroup, at: &Path<'_>, out: &mut Problems) {
    if let Some(metadata) = &spec.metadata {
        names::labels(&metadata.labels.0, &at.field("metadata").field("labels"), out);
    }
    let template = &at.field("template");
    names::labels(&spec.template.labels.0, &template.field("labels"), out);
    for (name, port) in &spec.template.ports {
        let at = &template.field("ports");
        out.check(&at.entry(name), names::port_name(name));
        out.check(&at.entry(name), names::port((*port).into()));
    }
    if let Some(probe) = &spec.probe {
        readiness(probe, &at.field("probe"), out);
    }
}

/// How readiness is probed.
pub(super) fn readiness(probe: &ReadinessProbe, at: &Path<'_>, out: &mut Problems) {
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        out.error_if(value < 0, &at.field(field), "must be non-negative");
    }
    let nothing = probe.http_get.is_none()
        && probe.tcp_socket.is_none()
        && probe.exec.is_none()
        && probe.grpc.is_none();
    out.error_if(
        nothing,
        at,
        "unknown health check method: one of httpGet, tcpSocket, exec, grpc is required",
    );
    if let Some(http) = &probe.http_get {
        let at = &at.field("httpGet");
        out.check(&at.field("port"), names::port(http.port.into()));
        let known = ["", "HTTP", "HTTPS"].contains(&http.scheme.as_str());
        out.error_if(!known, &at.field("scheme"), "scheme must be one of [HTTP, HTTPS]");
        for (i, header) in http.http_headers.iter().enumerate() {
            out.check(
                &at.field("httpHeaders").item(i).field("name"),
                names::strict_header_name(&header.name),
            );
        }
    }
    if let Some(tcp) = &probe.tcp_socket {
        out.check(&at.field("tcpSocket").field("port"), names::port(tcp.port.into()));
    }
    if let Some(grpc) = &probe.grpc {
        out.check(&at.field("grpc").field("port"), names::port(grpc.port.into()));
    }
    if let Some(exec) = &probe.exec {
        let at = &at.field("exec");
        let at = &at.field("command");
        out.error_if(exec.command.is_empty(), at, "exec command is required");
        for (i, word) in exec.command.iter().enumerate() {
            out.error_if(word.is_empty(), &at.item(i), "must not be empty");
        }
    }
}

/// A selector with the field `labels`.
pub(super) fn selector(labels: &Labels, at: &Path<'_>, out: &mut Problems) {
    select(labels, &at.field("labels"), at, out);
}

/// A selector with the field `matchLabels`.
pub(super) fn label_selector(labels: &Labels, at: &Path<'_>, out: &mut Problems) {
    select(labels, &at.field("matchLabels"), at, out);
}

fn select(labels: &Labels, at: &Path<'_>, selector: &Path<'_>, out: &mut Problems) {
    if labels.is_empty() {
        out.warn(selector, "workload selector specified without labels");
    }
    for (key, value) in &labels.0 {
        let at = &at.entry(key);
        out.error_if(key.is_empty(), at, "empty key is not supported in selector");
        let wild = key.contains('*') || value.contains('*');
        out.error_if(wild, at, "wildcard is not supported in selector");
    }
}
