//! What a proxy sees: services, virtual services and destination rules, narrowed by the Sidecar that applies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::kinds::Sidecar;
use lateen_api::kinds::sidecar::{IstioEgressListener, OutboundTrafficPolicy};
use lateen_api::{Kind, Object, Spec};
use lateen_base::{Host, Labels, Namespace, ObjectRef};
use lateen_registry::{Resolution, Service, Source};

use super::destination_rules::for_client;
use super::virtual_services::MESH_GATEWAY;
use super::{MergedRule, Snapshot, VirtualServiceConfig};
use crate::Proxy;

/// What one egress listener of a Sidecar sees; without Sidecar there is one that sees everything shown.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// The listener, where a Sidecar has written one.
    pub listener: Option<IstioEgressListener>,
    /// The services, trimmed to the listener's port where it has one.
    pub services: Vec<Arc<Service>>,
    /// The virtual services for sidecars, oldest first.
    pub virtual_services: Vec<Arc<VirtualServiceConfig>>,
}

/// What a proxy sees.
#[derive(Debug, Default)]
pub struct Scope {
    /// The namespace of the proxy.
    pub namespace: Namespace,
    /// The Sidecar that applies, for provenance.
    pub object: Option<ObjectRef>,
    /// The Sidecar that applies.
    pub sidecar: Option<Arc<Sidecar>>,
    /// What each egress listener sees.
    pub egress: Vec<Egress>,
    /// All services seen, one for each host.
    pub services: Vec<Arc<Service>>,
    /// Those of which clients see the endpoints themselves.
    pub(crate) headless: Vec<Arc<Service>>,
    by_host: BTreeMap<Host, usize>,
    rules: BTreeMap<Host, Vec<Arc<MergedRule>>>,
}

impl Scope {
    pub(super) fn of(snapshot: &Snapshot, namespace: &Namespace, object: Option<&Arc<Object>>) -> Self {
        let sidecar = object.and_then(|object| match &object.spec {
            Spec::Sidecar(spec) => Some(spec.clone()),
            _ => None,
        });
        let mut scope = Self {
            namespace: namespace.clone(),
            object: object.map(|object| object.reference()),
            sidecar,
            ..Self::default()
        };
        let seen = snapshot.services.seen_by(namespace);
        let routed: Vec<Arc<VirtualServiceConfig>> =
            snapshot.virtual_services.at(MESH_GATEWAY, namespace).cloned().collect();
        let listeners = scope.sidecar.as_ref().map(|s| s.egress.clone()).unwrap_or_default();
        if listeners.is_empty() {
            for service in &seen {
                scope.add(service.clone());
            }
            scope.egress =
                vec![Egress { listener: None, services: scope.services.clone(), virtual_services: routed }];
        } else {
            for listener in listeners {
                let egress = imported(listener, &seen, &routed, namespace, snapshot.domain());
                for service in &egress.services {
                    scope.add(service.clone());
                }
                scope.egress.push(egress);
            }
            scope.add_destinations(snapshot, &seen);
        }
        let headless = scope.services.iter().filter(|service| service.resolution == Resolution::None);
        scope.headless = headless.cloned().collect();
        for service in &scope.services {
            let rules = snapshot.destination_rules.lookup(service, namespace);
            if !rules.is_empty() {
                scope.rules.insert(service.host.clone(), rules.to_vec());
            }
        }
        scope
    }

    /// The service of a host, as this scope sees it.
    pub fn service(&self, host: &Host) -> Option<&Arc<Service>> {
        self.by_host.get(host).and_then(|index| self.services.get(*index))
    }

    /// Where among the services that of a host is.
    pub(crate) fn place(&self, host: &Host) -> Option<usize> {
        self.by_host.get(host).copied()
    }

    /// The destination rule that a client of these labels uses for a host.
    pub fn destination_rule(&self, host: &Host, client: &Labels) -> Option<&Arc<MergedRule>> {
        self.rules.get(host).and_then(|rules| for_client(rules, client, &self.namespace))
    }

    /// The outbound traffic policy that the Sidecar sets in the place of the mesh's.
    pub fn outbound_policy(&self) -> Option<&OutboundTrafficPolicy> {
        self.sidecar.as_ref()?.outbound_traffic_policy.as_ref()
    }

    /// Adds a service: of two for one host the Kubernetes one counts, or the first; entries of one namespace that
    /// differ only in ports are one service.
    fn add(&mut self, service: Arc<Service>) {
        let Some(index) = self.by_host.get(&service.host).copied() else {
            self.by_host.insert(service.host.clone(), self.services.len());
            self.services.push(service);
            return;
        };
        let known = &mut self.services[index];
        if known.source != Source::Kubernetes && service.source == Source::Kubernetes {
            *known = service;
        } else if mergeable(known, &service) {
            let more: Vec<_> =
                service.ports.iter().filter(|port| known.port(port.number).is_none()).collect();
            if !more.is_empty() {
                let more: Vec<_> = more.into_iter().cloned().collect();
                let merged = Arc::make_mut(known);
                merged.targets.extend(service.targets.clone());
                merged.ports.extend(more);
            }
        }
    }

    /// Adds the services that virtual services seen lead to, trimmed to the ports that they name.
    fn add_destinations(&mut self, snapshot: &Snapshot, seen: &[Arc<Service>]) {
        let mut wanted: Vec<(Host, BTreeSet<u16>)> = Vec::new();
        for egress in &self.egress {
            let port = port_of(egress.listener.as_ref());
            for config in &egress.virtual_services {
                for (host, mut ports) in config.destinations(&self.namespace) {
                    if let (Some(port), true) = (port, ports.is_empty()) {
                        ports.insert(port);
                    }
                    wanted.push((host, ports));
                }
            }
        }
        for (host, ports) in wanted {
            let host = snapshot.services.concrete(&host).cloned().unwrap_or(host);
            let of_host = || seen.iter().filter(|service| service.host == host);
            let own = of_host().find(|service| service.namespace == self.namespace);
            // Of several namespaces the first by name counts, so that the outcome does not depend on age.
            let chosen = own.or_else(|| of_host().min_by_key(|service| service.namespace.clone()));
            let trimmed = chosen.and_then(|service| match ports.is_empty() {
                true => Some(service.clone()),
                false => trimmed(service, |port| ports.contains(&port)),
            });
            if let Some(service) = trimmed {
                self.add(service);
            }
        }
    }
}

fn mergeable(known: &Service, other: &Service) -> bool {
    known.namespace == other.namespace
        && known.source == other.source
        && known.resolution == other.resolution
        && known.selector == other.selector
}

/// A service with only some of its ports; `None` when none is left.
fn trimmed(service: &Arc<Service>, keep: impl Fn(u16) -> bool) -> Option<Arc<Service>> {
    let kept = service.ports.iter().filter(|port| keep(port.number)).count();
    if kept == service.ports.len() {
        return Some(service.clone());
    }
    let mut service = service.as_ref().clone();
    service.ports.retain(|port| keep(port.number));
    (kept > 0).then(|| Arc::new(service))
}

/// The port that services have to have to be seen by a listener; HTTP proxies see all ports.
fn port_of(listener: Option<&IstioEgressListener>) -> Option<u16> {
    let port = listener?.port.as_ref()?;
    (port.number != 0 && port.protocol != "HTTP_PROXY").then_some(port.number as u16)
}

/// The Sidecar that applies: one that selects the workload, the namespace's own, the root namespace's.
pub(super) fn sidecar_for<'a>(snapshot: &'a Snapshot, proxy: &'a Proxy) -> Option<&'a Arc<Object>> {
    if proxy.is_router() {
        return None;
    }
    let selector = |object: &Arc<Object>| match &object.spec {
        Spec::Sidecar(spec) => spec.workload_selector.clone().map(|s| s.labels).filter(|l| !l.is_empty()),
        _ => None,
    };
    let own = || snapshot.objects_in(Kind::Sidecar, &proxy.namespace);
    let root = || snapshot.objects_in(Kind::Sidecar, snapshot.root_namespace());
    own()
        .find(|object| selector(object).is_some_and(|selector| selector.selects(&proxy.labels)))
        .or_else(|| own().find(|object| selector(object).is_none()))
        .or_else(|| root().find(|object| selector(object).is_none()))
}

/// The hosts that an egress listener imports, by namespace (`*` for all).
fn imports(listener: &IstioEgressListener, own: &Namespace) -> BTreeMap<String, Vec<Host>> {
    let mut imports: BTreeMap<String, Vec<Host>> = BTreeMap::new();
    for entry in &listener.hosts {
        let (namespace, host) = entry.split_once('/').unwrap_or(("*", entry));
        match namespace {
            "~" => continue,
            "." => imports.entry(own.to_string()).or_default().push(Host::new(host)),
            other => imports.entry(other.to_owned()).or_default().push(Host::new(host)),
        }
    }
    imports
}

fn imported(
    listener: IstioEgressListener,
    seen: &[Arc<Service>],
    routed: &[Arc<VirtualServiceConfig>],
    own: &Namespace,
    domain: &str,
) -> Egress {
    let tail = format!(".svc.{domain}");
    let imports = imports(&listener, own);
    let imported = |namespace: &Namespace, covers: &dyn Fn(&Host) -> bool| {
        let of = |key: &str| imports.get(key).is_some_and(|hosts| hosts.iter().any(covers));
        of(namespace.as_str()) || of("*")
    };
    let port = port_of(Some(&listener));
    let wanted =
        |service: &&Arc<Service>| imported(&service.namespace, &|host: &Host| host.contains(&service.host));
    let chosen = seen.iter().filter(wanted).filter_map(|service| match port {
        Some(port) => trimmed(service, |number| number == port),
        None => Some(service.clone()),
    });
    let services = one_for_each_host(chosen, own);
    let virtual_services = routed
        .iter()
        .filter(|config| {
            // Sidecars may name the host of a Kubernetes service by NAME.NAMESPACE, too.
            let short = |host: &Host| {
                let short = host.as_str().strip_suffix(&tail).filter(|short| short.contains('.'));
                short.map(Host::new)
            };
            let named = |wanted: &Host| {
                config.hosts.iter().any(|host| wanted.matches(host) || short(host).as_ref() == Some(wanted))
            };
            imported(&config.namespace, &|wanted: &Host| named(wanted))
        })
        .cloned()
        .collect();
    Egress { listener: Some(listener), services, virtual_services }
}

/// Of the services of a host, the one of the proxy's namespace counts, else those of the first namespace seen.
fn one_for_each_host(services: impl Iterator<Item = Arc<Service>>, own: &Namespace) -> Vec<Arc<Service>> {
    let all: Vec<Arc<Service>> = services.collect();
    let mut chosen: BTreeMap<Host, Namespace> = BTreeMap::new();
    for service in &all {
        let namespace = chosen.entry(service.host.clone()).or_insert_with(|| service.namespace.clone());
        if service.namespace == *own {
            *namespace = own.clone();
        }
    }
    all.into_iter().filter(|service| chosen.get(&service.host) == Some(&service.namespace)).collect()
}
