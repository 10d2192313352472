//! `Sidecar`.

use super::names;
use super::path::Path;
use super::virtual_service::destination;
use super::{Problems, connection, tls, workload};
use crate::kinds::Sidecar;
use crate::kinds::gateway::ServerTlsMode;
use crate::kinds::sidecar::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficMode, OutboundTrafficPolicy,
    SidecarPort,
};

pub(super) fn check(spec: &Sidecar, at: &Path<'_>, out: &mut Problems) {
    if let Some(selector) = &spec.workload_selector {
        workload::selector(&selector.labels, &at.field("workloadSelector"), out);
    }
    let nothing = spec.ingress.is_empty()
        && spec.egress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none();
    out.error_if(nothing, at, "sidecar: empty configuration provided");
    for (i, listener) in spec.ingress.iter().enumerate() {
        let at = &at.field("ingress");
        let twice = spec.ingress[..i].iter().any(|other| other.port.number == listener.port.number);
        let message = format!("sidecar: ports on listeners must be unique: {}", listener.port.number);
        out.error_if(twice, &at.item(i).field("port"), message);
        ingress(listener, &at.item(i), out);
    }
    egress_listeners(&spec.egress, &at.field("egress"), out);
    if let Some(pool) = &spec.inbound_connection_pool {
        connection::pool(pool, &at.field("inboundConnectionPool"), out);
    }
    if let Some(policy) = &spec.outbound_traffic_policy {
        outbound_policy(policy, &at.field("outboundTrafficPolicy"), out);
    }
}

fn ingress(listener: &IstioIngressListener, at: &Path<'_>, out: &mut Problems) {
    port(&listener.port, listener.bind.starts_with("unix://"), &at.field("port"), out);
    bind(&listener.bind, &listener.port, listener.capture_mode, at, out);
    out.check(&at.field("defaultEndpoint"), default_endpoint(&listener.default_endpoint));
    if let Some(settings) = &listener.tls {
        let at = &at.field("tls");
        let modes = [ServerTlsMode::Simple, ServerTlsMode::Mutual, ServerTlsMode::OptionalMutual];
        if !modes.contains(&settings.mode) {
            let message =
                format!("sidecar ingress TLS mode {} is not supported: use SIMPLE or MUTUAL", settings.mode);
            out.error(&at.field("mode"), message);
        }
        let redirect = settings.https_redirect;
        out.error_if(redirect, &at.field("httpsRedirect"), "httpsRedirect is not supported in sidecars");
        let names = !settings.subject_alt_names.is_empty();
        out.error_if(names, &at.field("subjectAltNames"), "subjectAltNames is not supported in sidecars");
        let plain = !names::is_tls(&listener.port.protocol);
        out.error_if(plain, at, "server cannot have TLS settings for non HTTPS/TLS ports");
        tls::server(settings, at, out);
    }
    if let Some(pool) = &listener.connection_pool {
        let at = &at.field("connectionPool");
        connection::pool(pool, at, out);
        if pool.http.is_some()
            && !names::is_http(&listener.port.protocol)
            && !names::is_tls(&listener.port.protocol)
        {
            out.warn(&at.field("http"), "sidecar: HTTP connection pool settings are ignored on a TCP port");
        }
    }
}

fn egress_listeners(listeners: &[IstioEgressListener], at: &Path<'_>, out: &mut Problems) {
    let mut portless = 0;
    for (i, listener) in listeners.iter().enumerate() {
        let at = &at.item(i);
        match &listener.port {
            None => portless += 1,
            Some(own) => {
                let same = |other: &IstioEgressListener| {
                    other.port.as_ref().is_some_and(|port| port.number == own.number)
                        && other.bind == listener.bind
                };
                let twice = listeners[..i].iter().any(same);
                let message = format!("sidecar: ports on listeners must be unique: {}", own.number);
                out.error_if(twice, &at.field("port"), message);
                port(own, listener.bind.starts_with("unix://"), &at.field("port"), out);
            }
        }
        if listener.port.is_none() && i + 1 != listeners.len() {
            out.error(at, "sidecar: empty port in egress listener should be in the last listener");
        }
        egress(listener, at, out);
    }
    out.error_if(portless > 1, at, "sidecar: only one egress listener can have no port");
}

fn egress(listener: &IstioEgressListener, at: &Path<'_>, out: &mut Problems) {
    if let Some(own) = &listener.port {
        bind(&listener.bind, own, listener.capture_mode, at, out);
    } else {
        let bound = !listener.bind.is_empty();
        out.error_if(bound, &at.field("bind"), "sidecar: bind without a port");
    }
    let hosts = &at.field("hosts");
    out.error_if(listener.hosts.is_empty(), hosts, "sidecar: egress listener must contain at least one host");
    for (i, host) in listener.hosts.iter().enumerate() {
        out.check(&hosts.item(i), namespaced_host(host));
        let before = &listener.hosts[..i];
        if before.contains(host) || before.iter().any(|other| covers(other, host) || covers(host, other)) {
            out.warn(&hosts.item(i), format!("duplicated egress host: {host}"));
        }
    }
}

/// Whether `wide` is all hosts of a namespace that `narrow` is one host of.
fn covers(wide: &str, narrow: &str) -> bool {
    let (Some((wide_ns, "*")), Some((ns, _))) = (wide.split_once('/'), narrow.split_once('/')) else {
        return false;
    };
    wide_ns == ns
}

fn namespaced_host(host: &str) -> Result<(), String> {
    let Some((namespace, name)) = host.split_once('/') else {
        return Err(format!("sidecar: host {host:?} must be of form namespace/dnsName"));
    };
    if namespace.is_empty() || name.is_empty() {
        return Err(format!("sidecar: config namespace and dnsName in host entry cannot be empty: {host:?}"));
    }
    if !["*", ".", "~"].contains(&namespace) {
        names::dns_label(namespace)
            .map_err(|why| format!("sidecar: invalid namespace in {host:?}: {why}"))?;
    }
    names::wildcard_domain(name).map_err(|why| format!("sidecar: invalid host {host:?}: {why}"))
}

fn port(port: &SidecarPort, unix: bool, at: &Path<'_>, out: &mut Problems) {
    out.check(&at.field("protocol"), names::protocol(&port.protocol, false));
    match unix {
        true => out.error_if(
            port.number != 0,
            &at.field("number"),
            "sidecar: unix domain socket with a port number",
        ),
        false => out.check(&at.field("number"), names::port(port.number.into())),
    }
    if !port.name.is_empty() {
        out.check(&at.field("name"), names::port_name(&port.name));
    }
}

fn bind(bind: &str, port: &SidecarPort, capture: CaptureMode, at: &Path<'_>, out: &mut Problems) {
    if bind.is_empty() {
        return;
    }
    let bind_at = &at.field("bind");
    let Some(path) = bind.strip_prefix("unix://") else {
        return out.check(bind_at, names::ip(bind));
    };
    out.check(bind_at, names::unix_address(path));
    let intercepted = capture == CaptureMode::Iptables;
    let message = "sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners";
    out.error_if(intercepted, &at.field("captureMode"), message);
    out.error_if(port.number != 0, bind_at, "sidecar: unix domain socket with a port number");
}

fn default_endpoint(endpoint: &str) -> Result<(), String> {
    const WANTED: &str = "must be 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///path";
    if endpoint.is_empty() {
        return Ok(());
    }
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return names::unix_address(path).map_err(|why| format!("sidecar: defaultEndpoint: {why}"));
    }
    let wrong = || format!("sidecar: defaultEndpoint {endpoint:?} {WANTED}");
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(wrong)?;
    let local = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"].contains(&host);
    let number: i64 = port.parse().map_err(|_| wrong())?;
    names::port(number)?;
    if local { Ok(()) } else { Err(wrong()) }
}

fn outbound_policy(policy: &OutboundTrafficPolicy, at: &Path<'_>, out: &mut Problems) {
    let Some(proxy) = &policy.egress_proxy else { return };
    let at_proxy = &at.field("egressProxy");
    let open = policy.mode == OutboundTrafficMode::AllowAny;
    out.error_if(
        !open,
        at_proxy,
        "sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode",
    );
    destination(proxy, at_proxy, out);
}
