//! Which servers of which Gateways a gateway proxy runs, on which ports: selection, port translation, conflicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::kinds::gateway::{Gateway, Server, ServerTlsMode};
use lateen_api::{Object, Spec};
use lateen_base::{Host, Namespace, ObjectRef};
use lateen_registry::Protocol;

use crate::snapshot::ServiceTarget;
use crate::{Note, Proxy};

/// The annotation by which a Gateway names the services that it is served by, in the place of a selector.
pub(crate) const SERVED_BY: &str = "internal.istio.io/gateway-service";
/// The label by which a service leaves the ports of Gateways as they are.
const UNTRANSLATED: &str = "experimental.istio.io/disable-gateway-port-translation";
/// Ports below this need privilege to bind.
const PRIVILEGED: u16 = 1024;

/// A Gateway that is meant for a proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected<'a> {
    /// The object.
    pub(crate) object: &'a ObjectRef,
    /// What it says.
    pub(crate) spec: &'a Gateway,
    /// The services that it is served by, when it names them; only their ports are then listened on.
    pub(crate) services: Option<&'a str>,
}

/// A port of a service that the proxy is an endpoint of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exposed<'a> {
    /// The service.
    pub(crate) host: &'a Host,
    /// The service's port.
    pub(crate) port: u16,
    /// The port that the proxy listens on.
    pub(crate) target: u16,
    /// Whether Gateways' ports are translated by this service.
    pub(crate) translates: bool,
}

/// What the servers of one port do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    /// Plain HTTP, all servers in one chain.
    Http,
    /// TLS, a chain or more per server.
    Tls,
    /// Bytes, one server.
    Tcp,
}

/// A server that a proxy runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running<'a> {
    /// Its Gateway.
    pub(crate) gateway: &'a ObjectRef,
    /// What it says.
    pub(crate) server: &'a Server,
    /// The port that its Gateway gives, by which routes are matched.
    pub(crate) port: u16,
    /// The port that is bound.
    pub(crate) target: u16,
    /// The protocol.
    pub(crate) protocol: Protocol,
}

impl Running<'_> {
    /// The Gateway's name as VirtualServices have it.
    pub(crate) fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.namespace, self.gateway.name)
    }

    /// The name of its route configuration, if it has HTTP routes.
    pub(crate) fn route_name(&self) -> Option<String> {
        let bind = match self.server.bind.as_str() {
            "" => String::new(),
            bind => format!(".{bind}"),
        };
        match self.tls_mode() {
            None if self.protocol.is_http() => Some(format!("http.{}{bind}", self.target)),
            Some(mode) if self.protocol == Protocol::Https && !passes_through(mode) => Some(format!(
                "https.{}.{}.{}.{}{bind}",
                self.target, self.server.port.name, self.gateway.name, self.gateway.namespace
            )),
            _ => None,
        }
    }

    /// How it takes TLS; plain HTTP that only redirects to HTTPS takes none.
    pub(crate) fn tls_mode(&self) -> Option<ServerTlsMode> {
        if self.protocol.is_http() {
            return None;
        }
        self.server.tls.as_ref().map(|tls| tls.mode)
    }

    /// Whether plain HTTP is sent to HTTPS.
    pub(crate) fn redirects(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// Its hosts for routes of a namespace: without the namespace part, where that admits them.
    pub(crate) fn hosts_for<'s>(&'s self, namespace: &'s Namespace) -> impl Iterator<Item = Host> + 's {
        self.server.hosts.iter().filter_map(move |text| {
            let (admitted, host) = text.split_once('/').unwrap_or(("*", text));
            let fits = match admitted {
                "*" => true,
                "." => self.gateway.namespace == *namespace,
                name => name == namespace.as_str(),
            };
            fits.then(|| Host::new(host).to_lowercase())
        })
    }

    /// Its hosts, whatever namespace they admit; lower case, each once.
    pub(crate) fn hosts(&self) -> Vec<Host> {
        let mut seen = BTreeSet::new();
        let names = self.server.hosts.iter().map(|text| text.rsplit('/').next().unwrap_or_default());
        names.map(|name| Host::new(name).to_lowercase()).filter(|host| seen.insert(host.clone())).collect()
    }
}

/// Whether TLS of this mode is not ended at the gateway.
pub(crate) fn passes_through(mode: ServerTlsMode) -> bool {
    matches!(mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
}

/// The servers of one address and port.
#[derive(Clone, Debug)]
pub(crate) struct PortServers<'a> {
    /// What they do.
    pub(crate) kind: PortKind,
    /// The servers, oldest Gateway first.
    pub(crate) servers: Vec<Running<'a>>,
}

/// All that a gateway proxy runs: by the address it binds (empty for all) and the port.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged<'a> {
    /// The ports.
    pub(crate) ports: BTreeMap<(&'a str, u16), PortServers<'a>>,
    /// What was left out, and why.
    pub(crate) notes: Vec<Note>,
}

/// Merges Gateways, given in order of age: HTTP servers share a port, TLS servers share one as long as their hosts differ; of
/// other servers on one port the oldest wins.
pub(crate) fn merge<'a>(
    gateways: &[Selected<'a>],
    exposed: &[Exposed<'_>],
    unprivileged: bool,
) -> Merged<'a> {
    let mut merged = Merged::default();
    for gateway in gateways {
        for server in &gateway.spec.servers {
            for target in targets(*gateway, server, exposed) {
                if unprivileged && target < PRIVILEGED {
                    let text =
                        format!("port {target} needs privilege to bind, which the gateway's pods lack");
                    merged.notes.push(Note::on(gateway.object, text));
                    continue;
                }
                merged.admit(gateway.object, server, target);
            }
        }
    }
    merged
}

impl<'a> Merged<'a> {
    fn admit(&mut self, gateway: &'a ObjectRef, server: &'a Server, target: u16) {
        let Ok(port) = u16::try_from(server.port.number) else { return };
        let Ok(protocol) = server.port.protocol.parse::<Protocol>() else {
            let text = format!("server on port {port}: protocol {:?} is unknown", server.port.protocol);
            self.notes.push(Note::on(gateway, text));
            return;
        };
        let running = Running { gateway, server, port, target, protocol };
        let kind = kind(&running);
        let entry = self.ports.entry((server.bind.as_str(), target));
        let servers = match entry {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(PortServers { kind, servers: vec![running] });
                return;
            }
            std::collections::btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        if let Some(reason) = refusal(servers, kind, &running) {
            self.notes.push(Note::on(gateway, format!("server on port {port} is not run: {reason}")));
        } else {
            servers.servers.push(running);
        }
    }
}

/// Why a server cannot join those that a port has.
fn refusal(servers: &PortServers<'_>, kind: PortKind, running: &Running<'_>) -> Option<String> {
    let first = servers.servers.first()?;
    if servers.kind != kind || kind == PortKind::Tcp {
        return Some(format!("the port is taken by {}", first.gateway));
    }
    if kind == PortKind::Http {
        return None;
    }
    let own: BTreeSet<&str> = running.server.hosts.iter().map(String::as_str).collect();
    servers.servers.iter().find_map(|other| {
        let shared = other.server.hosts.iter().find(|host| own.contains(host.as_str()))?;
        Some(format!("host {shared} is served there by {}", other.gateway))
    })
}

fn kind(running: &Running<'_>) -> PortKind {
    match running.tls_mode() {
        Some(_) => PortKind::Tls,
        None if running.protocol.is_http() => PortKind::Http,
        None => PortKind::Tcp,
    }
}

/// The ports that are bound for a server: what the proxy's services translate its port to, or the port itself.
fn targets(gateway: Selected<'_>, server: &Server, exposed: &[Exposed<'_>]) -> BTreeSet<u16> {
    let Ok(number) = u16::try_from(server.port.number) else { return BTreeSet::new() };
    let named = |host: &Host| {
        gateway.services.is_none_or(|hosts| hosts.split(',').any(|name| name.trim() == host.as_str()))
    };
    let found: BTreeSet<u16> = exposed
        .iter()
        .filter(|port| port.translates && port.port == number && named(port.host))
        .map(|port| port.target)
        .collect();
    match (found.is_empty(), gateway.services) {
        (true, None) => [number].into(),
        _ => found,
    }
}

/// The Gateways that are meant for a proxy, oldest first.
pub(crate) fn selected<'a>(
    objects: &'a [(ObjectRef, Arc<Object>)],
    proxy: &Proxy,
    exposed: &[Exposed<'_>],
) -> Vec<Selected<'a>> {
    objects
        .iter()
        .filter_map(|(reference, object)| {
            let Spec::Gateway(spec) = &object.spec else { return None };
            let services = object.annotations.get(SERVED_BY).map(String::as_str);
            let meant = match services {
                Some(hosts) => {
                    hosts.split(',').any(|name| exposed.iter().any(|port| port.host.as_str() == name.trim()))
                }
                None => spec.selector.selects(&proxy.labels),
            };
            meant.then_some(Selected { object: reference, spec, services })
        })
        .collect()
}

/// The ports by which services expose a proxy.
pub(crate) fn exposed(targets: &[ServiceTarget]) -> Vec<Exposed<'_>> {
    targets
        .iter()
        .map(|target| Exposed {
            host: &target.service.host,
            port: target.port.number,
            target: target.target_port,
            translates: target.service.labels.value(UNTRANSLATED) != Some("true"),
        })
        .collect()
}
