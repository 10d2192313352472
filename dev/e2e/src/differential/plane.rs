//! The control plane of a lane: what each proxy is to have, and whether it has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::json::from_value;
use lateen_translate::Resources;
use lateen_xds::server::{
    Discovery, Heard, Observer, Opened, Peer, Push, Session, TypeStatus, Verdict, secret_service, service,
};
use lateen_xds::{Catalog, Entry, Resource, ResourceMap, types};
use serde_json::json;
use tokio::sync::watch;
use tonic::Status;

use super::authority::Authority;
use super::{DEADLINE, Problem};

/// The types whose every resource a proxy has to hold.
const HELD: &[&str] = &[types::CLUSTER, types::ENDPOINT, types::LISTENER, types::ROUTE];

/// The control plane of a lane.
pub(crate) struct Plane {
    address: SocketAddr,
    seats: Arc<Seats>,
    authority: Arc<Authority>,
}

/// One place per proxy, by its node's identifier.
struct Seats {
    by_node: BTreeMap<String, Seat>,
    secrets: watch::Sender<Arc<dyn Catalog>>,
}

struct Seat {
    publish: watch::Sender<Arc<dyn Catalog>>,
    heard: Arc<Mutex<Standing>>,
}

/// Where a proxy stands.
#[derive(Debug, Default)]
struct Standing {
    types: Vec<TypeStatus>,
    refused: Vec<String>,
}

impl Plane {
    /// Serves these nodes, from now on.
    pub(crate) async fn start(nodes: &[String], authority: Arc<Authority>) -> Result<Self, Problem> {
        let empty = || watch::Sender::new(Arc::new(ResourceMap::default()) as Arc<dyn Catalog>);
        let seat = |node: &String| (node.clone(), Seat { publish: empty(), heard: Arc::default() });
        let secrets =
            watch::Sender::new(Arc::new(Secrets { authority: authority.clone() }) as Arc<dyn Catalog>);
        let seats = Arc::new(Seats { by_node: nodes.iter().map(seat).collect(), secrets });
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(tcp, _)| tcp);
            Some((accepted, listener))
        });
        let agent = Arc::new(Agent(seats.clone()));
        let server = tonic::transport::Server::builder()
            .add_service(service(seats.clone()))
            .add_service(secret_service(agent));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await });
        Ok(Self { address, seats, authority })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a proxy these resources, and waits until it has them all.
    pub(crate) async fn publish(&self, node: &str, resources: Option<&Resources>) -> Result<(), Problem> {
        let seat = &self.seats.by_node[node];
        lock(&seat.heard).refused.clear();
        let mut map = ResourceMap::default();
        let mut wanted: BTreeMap<&str, usize> = HELD.iter().map(|held| (*held, 0)).collect();
        let none = BTreeSet::new();
        let on_demand = resources.map_or(&none, |resources| &resources.on_demand);
        for (type_url, list) in resources.map(parts).into_iter().flatten() {
            let names: BTreeSet<&str> = list.iter().map(|resource| &*resource.name).collect();
            wanted.insert(type_url, names.into_iter().filter(|name| !on_demand.contains(*name)).count());
            for resource in list {
                let (name, version) = (resource.name.clone(), resource.version.clone());
                let loaded = type_url == types::CLUSTER && on_demand.contains(&*name);
                let resource = Resource { name, version, any: resource.any.clone() };
                match loaded {
                    true => map.insert_on_demand(type_url, resource),
                    false => map.insert(type_url, resource),
                }
            }
        }
        for name in resources.iter().flat_map(|resources| &resources.secret_names) {
            if let Some(secret) = secret(name, &self.authority) {
                map.insert(types::SECRET, secret);
            }
        }
        seat.publish.send_replace(Arc::new(map));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let missing = {
                let heard = lock(&seat.heard);
                if !heard.refused.is_empty() {
                    return Err(format!("{node} refuses: {}", heard.refused.join("; ")));
                }
                heard.missing(&wanted, on_demand.is_empty())
            };
            match missing {
                None => return Ok(()),
                Some(missing) if Instant::now() > deadline => {
                    return Err(format!("{node} has not got {missing}"));
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(3)).await,
            }
        }
    }
}

impl Standing {
    /// What the proxy has still to take; it may hold more where it loads on demand.
    fn missing(&self, wanted: &BTreeMap<&str, usize>, exactly: bool) -> Option<String> {
        wanted.iter().find_map(|(type_url, wanted)| {
            let status = self.types.iter().find(|status| &*status.type_url == *type_url);
            let (held, busy) = status.map_or((0, false), |status| (status.held, status.outstanding));
            let short = types::short_name(type_url);
            (held < *wanted || (exactly && held > *wanted) || busy)
                .then(|| format!("{short}: holds {held} of {wanted}, outstanding: {busy}"))
        })
    }
}

fn parts(resources: &Resources) -> [(&'static str, &[Arc<lateen_translate::Resource>]); 4] {
    [
        (types::CLUSTER, &resources.clusters),
        (types::ENDPOINT, &resources.endpoints),
        (types::LISTENER, &resources.listeners),
        (types::ROUTE, &resources.routes),
    ]
}

impl Discovery for Seats {
    fn open<'a>(&'a self, _: Peer, node: &'a Node) -> BoxFuture<'a, Result<Opened, Status>> {
        let opened = self.by_node.get(&node.id).map(|seat| Opened {
            catalogs: seat.publish.subscribe(),
            observer: Box::new(Watcher(seat.heard.clone())),
        });
        Box::pin(async move { opened.ok_or_else(|| Status::not_found("no such node")) })
    }
}

/// What an agent serves beside each proxy: the mesh's certificate, and certificates in files.
struct Agent(Arc<Seats>);

impl Discovery for Agent {
    fn open<'a>(&'a self, _: Peer, _: &'a Node) -> BoxFuture<'a, Result<Opened, Status>> {
        let catalogs = self.0.secrets.subscribe();
        Box::pin(async move { Ok(Opened { catalogs, observer: Box::new(Deaf) }) })
    }
}

/// Remembers where a proxy stands.
struct Watcher(Arc<Mutex<Standing>>);

impl Observer for Watcher {
    fn heard(&mut self, session: &Session, heard: &Heard) {
        let mut status = lock(&self.0);
        status.types = session.status();
        if let Some(Verdict::Nack(rejections)) = &heard.verdict {
            let text =
                rejections.iter().map(|rejection| format!("{}: {}", rejection.resource, rejection.reason));
            status.refused.extend(text);
        }
    }

    fn pushed(&mut self, session: &Session, _: &Push) {
        lock(&self.0).types = session.status();
    }
}

struct Deaf;

impl Observer for Deaf {
    fn heard(&mut self, _: &Session, _: &Heard) {}
    fn pushed(&mut self, _: &Session, _: &Push) {}
}

/// The secrets that an agent has, made as they are asked for.
struct Secrets {
    authority: Arc<Authority>,
}

impl Catalog for Secrets {
    fn stamp(&self, _: &str) -> u64 {
        1
    }

    fn all<'a>(&'a self, _: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        Box::new(std::iter::empty())
    }

    fn find(&self, _: &str, name: &str) -> Option<Resource> {
        secret(name, &self.authority)
    }
}

/// A secret by its name: `default` and `ROOTCA` of the mesh, files, and `kubernetes://NAME`, whose certificate is that of NAME;
/// where NAME ends in `-crl`, a list of revoked certificates goes with the anchors.
fn secret(name: &str, authority: &Authority) -> Option<Resource> {
    let chain = |chain: &str, key: &str| json!({"certificateChain": {"inlineString": chain}, "privateKey": {"inlineString": key}});
    let leaf = |leaf: &str| {
        let leaf = authority.leaf(leaf).ok()?;
        Some(json!({"name": name, "tlsCertificate": chain(&leaf.chain, &leaf.key)}))
    };
    let roots =
        |roots: &str| json!({"name": name, "validationContext": {"trustedCa": {"inlineString": roots}}});
    let value = if name == "default" {
        leaf("mesh")?
    } else if name == "ROOTCA" {
        roots(authority.root())
    } else if let Some(path) = name.strip_prefix("file-root:") {
        roots(&std::fs::read_to_string(path).ok()?)
    } else if let Some((certificate, key)) =
        name.strip_prefix("file-cert:").and_then(|pair| pair.split_once('~'))
    {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        json!({"name": name, "tlsCertificate": chain(&read(certificate)?, &read(key)?)})
    } else {
        let asked = name.strip_prefix("kubernetes://")?;
        let asked = asked.rsplit('/').next()?;
        match asked.strip_suffix("-cacert") {
            Some(base) if base.ends_with("-crl") => json!({"name": name, "validationContext": {
                "trustedCa": {"inlineString": authority.root()},
                "crl": {"inlineString": authority.revocations().ok()?}}}),
            Some(_) => roots(authority.root()),
            None => leaf(asked)?,
        }
    };
    let secret: Secret = from_value(&value).ok()?;
    Some(Resource::of(name, "1", &secret))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
