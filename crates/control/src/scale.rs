//! What a change costs in a mesh of many services and proxies: a measurement, not a test.
//!
//! `cargo test -p lateen-control --release --lib scale -- --ignored --nocapture` prints it; `LATEEN_SERVICES` and
//! `LATEEN_PROXIES` set the size.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use lateen_registry::{Event, Registry, Resource};
use lateen_translate::{Proxy, Snapshot};
use lateen_xds::Catalog;
use lateen_xds::server::{Dialect, Session};
use lateen_xds::types;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::engine::Published;
use crate::mesh::Mesh;
use crate::proxies::{Newcomer, Proxies, Registration};
use crate::secrets::Secrets;

/// A mesh of services with one pod and one proxy each, ten to a namespace.
struct Mass {
    registry: Registry,
    snapshot: Arc<Snapshot>,
    proxies: Proxies,
    clients: Vec<Client>,
    number: u64,
}

struct Client {
    session: Session,
    catalogs: watch::Receiver<Arc<dyn Catalog>>,
    _registration: Registration,
}

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn namespace(service: usize) -> String {
    format!("ns{}", service / 10)
}

fn address(service: usize, last: usize) -> String {
    format!("10.{}.{}.{last}", service / 250, service % 250)
}

fn service(at: usize, private: bool) -> Resource {
    let annotations = if private { json!({ "networking.istio.io/exportTo": "." }) } else { json!({}) };
    kube(json!({
        "kind": "Service",
        "metadata": { "name": format!("s{at}"), "namespace": namespace(at), "annotations": annotations },
        "spec": { "clusterIP": address(at, 1), "selector": { "app": format!("s{at}") },
                  "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    }))
}

fn slice(at: usize, last: usize) -> Resource {
    kube(json!({
        "kind": "EndpointSlice",
        "metadata": { "name": format!("s{at}-x"), "namespace": namespace(at),
                      "labels": { "kubernetes.io/service-name": format!("s{at}") } },
        "endpoints": [{ "addresses": [address(at, 2)] }, { "addresses": [address(at, last)] }],
        "ports": [{ "name": "http", "port": 8080 }],
    }))
}

fn virtual_service(at: usize, timeout: &str) -> Resource {
    let object = lateen_api::parse_json(&json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": { "name": "vs", "namespace": namespace(at) },
        "spec": { "hosts": [format!("s{at}")],
                  "http": [{ "timeout": timeout, "route": [{ "destination": { "host": format!("s{at}") } }] }] },
    }));
    Resource::Config(Arc::new(object.unwrap()))
}

fn kube(value: Value) -> Resource {
    match value["kind"].as_str() {
        Some("Service") => Resource::Service(Arc::new(serde_json::from_value(value).unwrap())),
        Some("EndpointSlice") => Resource::EndpointSlice(Arc::new(serde_json::from_value(value).unwrap())),
        Some("Pod") => Resource::Pod(Arc::new(serde_json::from_value(value).unwrap())),
        other => panic!("{other:?}"),
    }
}

impl Mass {
    fn new(services: usize, proxies: usize, private: bool) -> Self {
        let mut registry = Registry::new(lateen_registry::Settings::default());
        let mut apply = |resource| drop(registry.apply(&"Kubernetes".into(), Event::Applied(resource)));
        for at in 0..services {
            apply(service(at, private));
            apply(slice(at, 3));
            apply(kube(json!({
                "kind": "Pod",
                "metadata": { "name": format!("p{at}"), "namespace": namespace(at),
                              "labels": { "app": format!("s{at}"), "pod-template-hash": format!("{at:x}") } },
                "spec": { "nodeName": format!("node{}", at % 100) },
                "status": { "podIP": address(at, 2) },
            })));
        }
        let snapshot = build(&registry, None);
        let mut mass =
            Self { registry, snapshot, proxies: Proxies::default(), clients: Vec::new(), number: 1 };
        let published = mass.published();
        for at in 0..proxies {
            mass.connect(at % services, &published);
        }
        mass
    }

    fn published(&self) -> Published {
        Published {
            snapshot: self.snapshot.clone(),
            secrets: Secrets::default(),
            mesh: Mesh::default(),
            rejected: Arc::default(),
            number: self.number,
        }
    }

    fn connect(&mut self, at: usize, published: &Published) {
        let id = format!("p{at}.{}", namespace(at));
        let node = Node {
            id: format!("sidecar~{}~{id}~{}.svc.cluster.local", address(at, 2), namespace(at)),
            ..Default::default()
        };
        let proxy = Proxy::from_node(&node).unwrap();
        let newcomer =
            Newcomer { node: id, proxy, address: String::new(), dialect: Dialect::Delta, credentials: false };
        let (registration, catalogs) = self.proxies.add(newcomer, published, SystemTime::now()).unwrap();
        let mut session = Session::new(Dialect::Delta);
        let catalog = catalogs.borrow().clone();
        let ask = |type_url: &str, names: Vec<String>, nonce: String| DeltaDiscoveryRequest {
            node: Some(node.clone()),
            type_url: type_url.to_owned(),
            resource_names_subscribe: names,
            response_nonce: nonce,
            ..Default::default()
        };
        for kind in [types::CLUSTER, types::LISTENER] {
            session.on_delta(ask(kind, vec!["*".to_owned()], String::new())).unwrap();
        }
        for kind in [types::ENDPOINT, types::ROUTE] {
            let names = catalog.all(kind).map(|entry| entry.name.to_string()).collect();
            session.on_delta(ask(kind, names, String::new())).unwrap();
        }
        for push in session.pushes(&*catalog) {
            session.on_delta(ask(&push.type_url, vec![], push.nonce)).unwrap();
        }
        self.clients.push(Client { session, catalogs, _registration: registration });
    }

    fn change(&mut self, what: &str, resource: Resource) {
        let started = Instant::now();
        self.registry.apply(&"Kubernetes".into(), Event::Applied(resource));
        self.snapshot = build(&self.registry, Some(&self.snapshot));
        self.number += 1;
        let built = started.elapsed();
        self.proxies.push(&self.published());
        let generated = started.elapsed() - built;
        let (mut told, mut resources) = (0, 0);
        for client in &mut self.clients {
            if !client.catalogs.has_changed().unwrap() {
                continue;
            }
            let catalog = client.catalogs.borrow_and_update().clone();
            let pushes = client.session.pushes(&*catalog);
            told += usize::from(!pushes.is_empty());
            resources += pushes.iter().map(|push| push.resources.len()).sum::<usize>();
        }
        println!(
            "{what}: snapshot {built:?}, lists {generated:?}, sessions {:?}; {told} of {} told, {resources} resources",
            started.elapsed() - built - generated,
            self.clients.len(),
        );
    }
}

fn build(registry: &Registry, previous: Option<&Snapshot>) -> Arc<Snapshot> {
    let mesh = Mesh::default();
    Snapshot::build(
        mesh.config.clone(),
        mesh.networks.clone(),
        registry.settings(),
        registry.view(),
        previous,
    )
}

#[test]
#[ignore = "a measurement; run it with --release and --nocapture"]
fn a_change_among_many() {
    let (services, proxies) = (size("LATEEN_SERVICES", 1000), size("LATEEN_PROXIES", 1000));
    for (words, private) in [("services for all", false), ("services for their namespace", true)] {
        let started = Instant::now();
        let mut mass = Mass::new(services, proxies, private);
        println!("{words}: {services} services, {proxies} proxies connected in {:?}", started.elapsed());
        for round in 0..3 {
            mass.change("  an endpoint", slice(7, 4 + round));
            mass.change("  a virtual service", virtual_service(7, &format!("{}s", round + 1)));
        }
        mass.change("  a service", service(services, private));
    }
}
