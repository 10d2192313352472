//! Virtual hosts of sidecars: services, the VirtualServices that claim them, and what catches the rest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use lateen_api::kinds::virtual_service::HttpRoute;
use lateen_base::{Host, ObjectRef};
use lateen_proto::envoy::config::route::v3 as route;
use lateen_registry::{Port, Service};
use xxhash_rust::xxh3::Xxh3;

use super::action::{ActionInputs, alpn_overrides, to_cluster};
use super::destinations::Destinations;
use super::domains;
use super::matches::route_match;
use super::parts::{ClaimInput, HostInput, Known, MadeHost, OwnRouteInput, Routes};
use super::virtual_service::{self, Client, Rule};
use crate::Note;
use crate::cache::Shared;

/// HTTP's own port: hosts of VirtualServices that are no service are served there.
const HTTP: u16 = 80;

/// The services and VirtualServices of one outbound route configuration.
pub(crate) struct OutboundHosts<'a> {
    /// The services that are visible, each with the ports that this configuration is for.
    pub(crate) services: Vec<(&'a Arc<Service>, Vec<&'a Port>)>,
    /// Where among them that of a host is.
    pub(crate) places: HashMap<&'a Host, usize>,
    /// The VirtualServices for the mesh that are visible, in order of precedence.
    pub(crate) rules: &'a [Rule<'a>],
    /// The listener's port; none where one listener serves all ports, and domains bear them.
    pub(crate) port: Option<u16>,
    /// Whether HTTP's own port is among those that this listener stands for, whatever services there are.
    pub(crate) stands_for_http: bool,
    /// Who asks.
    pub(crate) client: Client<'a>,
    /// What destinations stand for.
    pub(crate) destinations: &'a Destinations<'a>,
    /// Whether requests are told which attempt they are.
    pub(crate) counted: bool,
}

/// A VirtualService's routes for a port, and what they are for.
struct Claim<'a> {
    object: &'a ObjectRef,
    port: u16,
    services: Vec<&'a Arc<Service>>,
    hosts: Vec<Host>,
    routes: Routes,
}

/// Virtual hosts under construction: no two may have a domain in common.
#[derive(Default)]
pub(crate) struct HostSet {
    /// The virtual hosts.
    pub(crate) hosts: Vec<Arc<MadeHost>>,
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
                set.add(self, &service.host, claim.port, names, (&claim.routes, 0), Some(claim.object));
            }
            for host in &claim.hosts {
                let names = self.with_port(vec![host.as_str().to_owned()], claim.port);
                set.add(self, host, claim.port, names, (&claim.routes, 0), Some(claim.object));
            }
        }
        for (service, ports) in &self.services {
            for port in ports.iter().filter(|port| takes_requests(port)) {
                if claimed.contains(&(&service.host, port.number)) {
                    continue;
                }
                let names = self.service_names(service, port.number);
                let (routes, apart) = self.own_routes(service, port);
                set.add(self, &service.host, port.number, names, (&routes, apart), None);
            }
        }
        set.hosts.sort_by(|a, b| a.message.name.cmp(&b.message.name));
        set
    }

    /// What each VirtualService claims: the services that it names, or that its wildcards are the best match of; the hosts
    /// that are no service, which are served on HTTP's own port alone.
    fn claims(&self, notes: &mut Vec<Note>) -> Vec<Claim<'a>> {
        let best = self.best_wildcards();
        let mut claims = Vec::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for (port, (services, hosts)) in self.by_port(index, rule, &best) {
                let (routes, unreachable) = self.routes_of(rule, port);
                if unreachable > 0 {
                    let text = format!("{unreachable} routes come after one that takes every request");
                    notes.push(Note::on(&rule.config.object, text));
                }
                if !routes.is_empty() {
                    claims.push(Claim { object: &rule.config.object, port, services, hosts, routes });
                }
            }
        }
        claims
    }

    /// The routes of a VirtualService for a port, and how many come after one that takes everything.
    fn routes_of(&self, rule: &Rule<'a>, port: u16) -> (Routes, usize) {
        let inputs = ActionInputs {
            destinations: self.destinations,
            owner: &rule.config.namespace,
            port,
            semantics: rule.semantics,
        };
        let make = || {
            let (routes, unreachable) = virtual_service::routes(rule, self.client, &inputs);
            (Shared(Arc::new(routes)), unreachable)
        };
        // What delegates say is not part of the object.
        if matches!(rule.http, Cow::Owned(_)) {
            return make();
        }
        let snapshot = self.destinations.snapshot;
        let (namespace, labels) = (self.client.namespace, self.client.labels);
        let input = ClaimInput {
            config: Shared(rule.config.clone()),
            port,
            namespace: namespace.clone(),
            labels: labels.clone(),
            known: self.known(rule),
            alpn: self.destinations.has_alpn_filter(),
            mesh: Shared(snapshot.mesh.clone()),
        };
        let key = (rule.config.object.clone(), port, namespace.clone(), labels.clone());
        snapshot.cache.claims.get(key, input, snapshot.number, |_| make())
    }

    /// What the destinations of a VirtualService are.
    fn known(&self, rule: &Rule<'a>) -> Vec<Known> {
        let of_route = |route: &'a HttpRoute| {
            let routed = route.route.iter().map(|to| &to.destination);
            let mirrored = route.mirror.iter().chain(route.mirrors.iter().map(|mirror| &mirror.destination));
            routed.chain(mirrored).map(|destination| destination.host.as_str())
        };
        let hosts: BTreeSet<&str> = rule.config.spec.http.iter().flat_map(of_route).collect();
        hosts.into_iter().map(|host| self.destinations.known(host, &rule.config.namespace)).collect()
    }

    /// Of each port that a VirtualService is for: its services there, and its hosts that are no service.
    fn by_port(
        &self,
        index: usize,
        rule: &Rule<'a>,
        best: &BTreeMap<usize, usize>,
    ) -> BTreeMap<u16, (Vec<&'a Arc<Service>>, Vec<Host>)> {
        let (services, hosts) = self.divide(index, rule, best);
        let mut by_port: BTreeMap<u16, (Vec<&Arc<Service>>, Vec<Host>)> = BTreeMap::new();
        for service in services {
            for port in self.ports(service).iter().filter(|port| takes_requests(port)) {
                by_port.entry(port.number).or_insert_with(|| (Vec::new(), hosts.clone())).0.push(service);
            }
        }
        if self.stands_for_http && !by_port.contains_key(&HTTP) {
            // As the configuration of that port alone would see it: a service without it is a host like any other.
            let has_port = |at: &usize| {
                let service = self.services.get(*at);
                service.is_some_and(|(_, ports)| ports.iter().any(|port| port.number == HTTP))
            };
            let there = rule.config.hosts.iter().filter(|host| !self.services_of(host).iter().any(has_port));
            let hosts: Vec<Host> = there.cloned().collect();
            if !hosts.is_empty() {
                by_port.insert(HTTP, (Vec::new(), hosts));
            }
        }
        if by_port.is_empty() && !hosts.is_empty() && self.port == Some(HTTP) {
            by_port.insert(HTTP, (Vec::new(), hosts));
        }
        by_port
    }

    /// The ports of a service that this configuration is for.
    fn ports(&self, service: &Service) -> &[&'a Port] {
        let known = self.places.get(&service.host).and_then(|at| self.services.get(*at));
        known.map_or(&[], |(_, ports)| ports)
    }

    /// The services that a host of a VirtualService stands for.
    fn services_of(&self, host: &Host) -> Vec<usize> {
        if !host.is_wildcard() {
            return self.places.get(host).copied().into_iter().collect();
        }
        let matches = |(_, (service, _)): &(usize, &(&Arc<Service>, Vec<&Port>))| host.matches(&service.host);
        self.services.iter().enumerate().filter(matches).map(|(at, _)| at).collect()
    }

    /// For each service, the VirtualService whose host is its name or the narrowest wildcard around it.
    fn best_wildcards(&self) -> BTreeMap<usize, usize> {
        let mut best: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for (index, rule) in self.rules.iter().enumerate() {
            for host in &rule.config.hosts {
                let score = if host.is_wildcard() { host.as_str().len() } else { usize::MAX };
                for at in self.services_of(host) {
                    let found = best.entry(at).or_insert((index, score));
                    if score > found.1 {
                        *found = (index, score);
                    }
                }
            }
        }
        best.into_iter().map(|(at, (index, _))| (at, index)).collect()
    }

    fn divide(
        &self,
        index: usize,
        rule: &Rule<'a>,
        best: &BTreeMap<usize, usize>,
    ) -> (Vec<&'a Arc<Service>>, Vec<Host>) {
        let (mut services, mut hosts) = (BTreeSet::new(), Vec::new());
        for host in &rule.config.hosts {
            let known = self.services_of(host);
            if known.is_empty() {
                hosts.push(host.clone());
            }
            services
                .extend(known.into_iter().filter(|at| !host.is_wildcard() || best.get(at) == Some(&index)));
        }
        // In the order of services.
        let services =
            services.into_iter().filter_map(|at| self.services.get(at)).map(|(service, _)| *service);
        (services.collect(), hosts)
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

    /// The route of a service that no VirtualService is for, and what tells it from what other proxies have there.
    fn own_routes(&self, service: &Arc<Service>, port: &Port) -> (Routes, usize) {
        let snapshot = self.destinations.snapshot;
        let (_, _, rule) = self.destinations.known(service.host.as_str(), &service.namespace);
        let alpn = self.destinations.has_alpn_filter();
        let place = rule.as_ref().map_or(0, |rule| Arc::as_ptr(&rule.0) as usize);
        let input = OwnRouteInput {
            service: Shared(service.clone()),
            port: port.number,
            rule,
            alpn,
            mesh: Shared(snapshot.mesh.clone()),
        };
        let key = (service.host.clone(), port.number, place, alpn);
        let make = |_: &OwnRouteInput| Shared(Arc::new(vec![self.own_route(service, port)]));
        (snapshot.cache.own_routes.get(key, input, snapshot.number, make), place)
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
        of: &OutboundHosts<'_>,
        host: &Host,
        port: u16,
        names: Vec<String>,
        (routes, apart): (&Routes, usize),
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
        let mut hash = Xxh3::new();
        for domain in names {
            if let std::collections::btree_map::Entry::Vacant(free) =
                self.taken.entry(domain.to_ascii_lowercase())
            {
                free.insert(object.cloned());
                hash.update(domain.as_bytes());
                hash.update(&[0]);
                domains.push(domain);
            }
        }
        let snapshot = of.destinations.snapshot;
        let key = (name.clone(), hash.digest(), apart);
        let (routes, object) = (routes.clone(), object.cloned());
        let input = HostInput { name, domains, routes, object, counted: of.counted };
        self.hosts.push(snapshot.cache.hosts.get(key, input, snapshot.number, HostInput::make));
    }
}
