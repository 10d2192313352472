//! `Gateway`.

use super::names;
use super::path::Path;
use super::{Problems, tls};
use crate::kinds::Gateway;
use crate::kinds::gateway::{Port, Server};

pub(super) fn check(spec: &Gateway, at: &Path<'_>, out: &mut Problems) {
    out.error_if(spec.servers.is_empty(), &at.field("servers"), "gateway must have at least one server");
    for (i, server) in spec.servers.iter().enumerate() {
        let at = &at.field("servers");
        let at = &at.item(i);
        check_server(server, at, out);
        let name = &server.port.name;
        let twice = !name.is_empty() && spec.servers[..i].iter().any(|other| other.port.name == *name);
        let message = format!("port names in servers must be unique: duplicate name {name}");
        out.error_if(twice, &at.field("port").field("name"), message);
        let twice =
            !server.name.is_empty() && spec.servers[..i].iter().any(|other| other.name == server.name);
        out.error_if(
            twice,
            &at.field("name"),
            format!("server names must be unique: duplicate name {}", server.name),
        );
    }
    names::labels(&spec.selector.0, &at.field("selector"), out);
}

fn check_server(server: &Server, at: &Path<'_>, out: &mut Problems) {
    let hosts = &at.field("hosts");
    out.error_if(server.hosts.is_empty(), hosts, "server config must contain at least one host");
    for (i, host) in server.hosts.iter().enumerate() {
        out.check(&hosts.item(i), host_of_server(host));
    }
    port(&server.port, server.bind.starts_with("unix://"), &at.field("port"), out);
    bind(server, at, out);
    let protocol = &server.port.protocol;
    let Some(settings) = &server.tls else {
        let wanted = names::is_tls(protocol);
        return out.error_if(
            wanted,
            &at.field("tls"),
            "server must have TLS settings for HTTPS/TLS protocols",
        );
    };
    let at = &at.field("tls");
    let redirect_only = settings.https_redirect
        && *settings
            == crate::kinds::gateway::ServerTlsSettings { https_redirect: true, ..Default::default() };
    if names::is_http(protocol) && !redirect_only {
        out.error(at, "server cannot have TLS settings for plain text HTTP ports");
    }
    if settings.https_redirect && !names::is_http(protocol) {
        out.warn(&at.field("httpsRedirect"), "tls.httpsRedirect should only be used with http servers");
    }
    if !redirect_only {
        tls::server(settings, at, out);
    }
}

fn host_of_server(host: &str) -> Result<(), String> {
    let name = match host.split_once('/') {
        None => host,
        Some((namespace, name)) => {
            if !["*", "."].contains(&namespace) {
                names::dns_label(namespace).map_err(|why| {
                    format!("namespace value {namespace:?} of host {host:?} is not valid: {why}")
                })?;
            }
            name
        }
    };
    names::wildcard_domain(name)
        .or_else(|why| names::ip(name).map_err(|_| why))
        .map_err(|why| format!("invalid domain {host:?}: {why}"))
}

fn port(port: &Port, unix: bool, at: &Path<'_>, out: &mut Problems) {
    out.check(&at.field("protocol"), names::protocol(&port.protocol, false));
    if !unix || port.number != 0 {
        out.check(&at.field("number"), names::port(port.number.into()));
    }
    match port.name.is_empty() {
        true => out.error(&at.field("name"), "port name must be set"),
        false => out.check(&at.field("name"), names::port_name(&port.name)),
    }
}

fn bind(server: &Server, at: &Path<'_>, out: &mut Problems) {
    if server.bind.is_empty() {
        return;
    }
    let at = &at.field("bind");
    match server.bind.strip_prefix("unix://") {
        Some(path) => {
            out.check(at, names::unix_address(path));
            out.error_if(server.port.number != 0, at, "port number must be 0 for unix domain socket");
        }
        None => out.check(at, names::ip(&server.bind)),
    }
}
