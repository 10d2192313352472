//! Virtual hosts of sidecars: services, the VirtualServices that claim them, and what catches the rest.

use std::collections::{BTreeMap, BTreeSet};

use lateen_base::{Host, ObjectRef};
use lateen_proto::envoy::config::route::v3 as route;
use lateen_registry::{Port, Service};

use super::action::{ActionInputs, alpn_overrides, to_cluster};
use super::destinations::Destinations;
use super::domains;
use super::matches::route_match;
use super::virtual_service::{self, Client, Rule};
use crate::Note;
use crate::filters::wire::provenance;

/// The services and VirtualServices of one outbound route configuration.
pub(crate) struct OutboundHosts<'a> {
    /// The services that are visible, each with the ports that this configuration is for.
    pub(crate) services: Vec<(&'a Service, Vec<&'a Port>)>,
    /// The VirtualServices for the mesh that are visible, in order of precedence.
    pub(crate) rules: &'a [Rule<'a>],
    /// The listener's port; none where one listener serves all ports, and domains bear them.
    pub(crate) port: Option<u16>,
    /// Who asks.
    pub(crate) client: Client<'a>,
    /// What destinations stand for.
    pub(crate) destinations: &'a Destinations<'a>,
}

/// A VirtualService's routes for a port, and what they are for.
struct Claim<'a> {
    object: &'a ObjectRef,
    port: u16,
    services: Vec<&'a Service>,
    hosts: Vec<Host>,
    routes: Vec<route::Route>,
}

/// Virtual hosts under construction: no two may have a domain in common.
#[derive(Default)]
pub(crate) struct HostSet {
    /// The virtual hosts.
    pub(crate) hosts: Vec<route::VirtualHost>,
    /// What was dropped or shadowed.
    pub(crate) notes: Vec<Note>,
    taken: BTreeMap<String, Option<ObjectRef>>,
}

impl<'a> OutboundHosts<'a> {
    /// Builds them, ordered by name, without the one that catches the rest.
    pub(crate) fn build(&self) -> HostSet {
        let mut set = HostSet::default();
        let claims = self.claims(&mut set.notes);
        let mut claimed = BTreeSet::new();
        for claim in &claims {
            for service in &claim.services {
                claimed.insert((&service.host, claim.port));
                let names = self.service_names(service, claim.port);
                set.add(&service.host, claim.port, names, &claim.routes, Some(claim.object));
            }
            for host in &claim.hosts {
                let names = self.with_port(vec![host.as_str().to_owned()], claim.port);
                set.add(host, claim.port, names, &claim.routes, Some(claim.object));
            }
        }
        for (service, ports) in &self.services {
            for port in ports.iter().filter(|port| takes_requests(port)) {
                if claimed.contains(&(&service.host, port.number)) {
                    continue;
                }
                let names = self.service_names(service, port.number);
                set.add(&service.host, port.number, names, &[self.own_route(service, port)], None);
            }
        }
        set.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        set
    }

    /// What each VirtualService claims: the services that it names, or that its wildcards are the best match of; the hosts
    /// that are no service, which are served on HTTP's own port alone.
    fn claims(&self, notes: &mut Vec<Note>) -> Vec<Claim<'a>> {
        let best = self.best_wildcards();
        let mut claims = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let (services, hosts) = self.divide(index, rule, &best);
            for (port, services) in self.by_port(services, !hosts.is_empty()) {
                let inputs = ActionInputs {
                    destinations: self.destinations,
                    owner: &rule.config.namespace,
                    port,
                    semantics: rule.semantics,
                };
                let (routes, unreachable) = virtual_service::routes(rule, self.client, &inputs);
                if unreachable > 0 {
                    let text = format!("{unreachable} routes come after one that takes every request");
                    notes.push(Note::on(&rule.config.object, text));
                }
                if !routes.is_empty() {
                    claims.push(Claim {
                        object: &rule.config.object,
                        port,
                        services,
                        hosts: hosts.clone(),
                        routes,
                    });
                }
            }
        }
        claims
    }

    fn by_port(&self, services: Vec<&'a Service>, has_hosts: bool) -> BTreeMap<u16, Vec<&'a Service>> {
        let mut by_port: BTreeMap<u16, Vec<&Service>> = BTreeMap::new();
        let wanted: BTreeSet<&Host> = services.iter().map(|service| &service.host).collect();
        for (service, ports) in self.services.iter().filter(|(service, _)| wanted.contains(&service.host)) {
            for port in ports.iter().filter(|port| takes_requests(port)) {
                by_port.entry(port.number).or_default().push(service);
            }
        }
        if by_port.is_empty() && has_hosts && self.port == Some(80) {
            by_port.insert(80, Vec::new());
        }
        by_port
    }

    /// For each service, the VirtualService whose host is its name or the narrowest wildcard around it.
    fn best_wildcards(&self) -> BTreeMap<&'a Host, usize> {
        let mut best: BTreeMap<&Host, (usize, usize)> = BTreeMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for host in &rule.config.hosts {
                for (service, _) in &self.services {
                    let score = match *host == service.host {
                        true => usize::MAX,
                        false if host.is_wildcard() && host.matches(&service.host) => host.as_str().len(),
                        false => continue,
                    };
                    let found = best.entry(&service.host).or_insert((index, score));
                    if score > found.1 {
                        *found = (index, score);
                    }
                }
            }
        }
        best.into_iter().map(|(host, (index, _))| (host, index)).collect()
    }

    fn divide(
        &self,
        index: usize,
        rule: &Rule<'a>,
        best: &BTreeMap<&'a Host, usize>,
    ) -> (Vec<&'a Service>, Vec<Host>) {
        let (mut services, mut hosts) = (Vec::new(), Vec::new());
        for host in &rule.config.hosts {
            let mut known = false;
            for (service, _) in &self.services {
                let named = *host == service.host;
                if !(named || host.is_wildcard() && host.matches(&service.host)) {
                    continue;
                }
                known = true;
                if named || best.get(&service.host) == Some(&index) {
                    services.push(*service);
                }
            }
            if !known {
                hosts.push(host.clone());
            }
        }
        (services, hosts)
    }

    /// The names by which a service is reached on a port.
    pub(crate) fn service_names(&self, service: &Service, port: u16) -> Vec<String> {
        let domain = self.destinations.dns_domain();
        let addresses = self.destinations.addresses(service);
        let mut names = domains::of_service(service.host.as_str(), domain, &addresses, service.is_headless());
        for alias in self.destinations.aliases(service) {
            names.extend(domains::of_service(alias.as_str(), domain, &[], false));
        }
        self.with_port(names, port)
    }

    fn with_port(&self, names: Vec<String>, port: u16) -> Vec<String> {
        match self.port {
            Some(_) => names,
            None => domains::with_port(names, port),
        }
    }

    fn own_route(&self, service: &Service, port: &Port) -> route::Route {
        let target = self.destinations.own_target(service, port);
        route::Route {
            name: "default".into(),
            r#match: Some(route_match(None, Default::default())),
            typed_per_filter_config: alpn_overrides(target.alpn, self.destinations.has_alpn_filter()),
            decorator: Some(route::Decorator {
                operation: format!("{}:{}/*", service.host, port.number),
                propagate: None,
            }),
            action: Some(route::route::Action::Route(to_cluster(target, self.destinations.mesh_retry()))),
            ..Default::default()
        }
    }
}

fn takes_requests(port: &Port) -> bool {
    port.protocol.is_http() || port.protocol.is_auto()
}

impl HostSet {
    /// Adds a virtual host for `host`, with those names that no other has; without its own name it is shadowed.
    pub(crate) fn add(
        &mut self,
        host: &Host,
        port: u16,
        names: Vec<String>,
        routes: &[route::Route],
        object: Option<&ObjectRef>,
    ) {
        let name = format!("{host}:{port}");
        let Some(first) = names.first() else { return };
        if let Some(owner) = self.taken.get(&first.to_ascii_lowercase()) {
            if let Some(object) = object {
                let owner = owner.as_ref().map_or("another service".to_owned(), ToString::to_string);
                self.notes.push(Note::on(object, format!("host {host} on port {port} belongs to {owner}")));
            }
            return;
        }
        let mut domains = Vec::with_capacity(names.len());
        for domain in names {
            if let std::collections::btree_map::Entry::Vacant(free) =
                self.taken.entry(domain.to_ascii_lowercase())
            {
                free.insert(object.cloned());
                domains.push(domain);
            }
        }
        let routes = routes.to_vec();
        let metadata = object.map(provenance);
        self.hosts.push(route::VirtualHost { name, domains, routes, metadata, ..Default::default() });
    }
}
