//! Following a control plane: one delta ADS stream, and one stream of secrets per agent.
//!
//! What clusters, listeners and TLS contexts refer to is subscribed to as they come. A response is taken whole before
//! anything is published; what is refused is named in the answer, the rest of it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3::grpc_service::TargetSpecifier;
use lateen_proto::envoy::config::core::v3::{ApiConfigSource, BuildVersion, Extension, Node, address, node};
use lateen_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_proto::envoy::r#type::v3::SemanticVersion;
use lateen_proto::{Struct, Value, value};
use lateen_route::tls::SecretSource;
use lateen_xds::client::{self, Event, Handle, Service, Update};
use lateen_xds::transport::Target;
use lateen_xds::{Rejection, types};
use tokio::sync::mpsc;

use crate::handle::lock;
use crate::on_demand::Questions;
use crate::source::socket_address;
use crate::store::{Rejected, Source, Store};

/// What is asked of one server.
#[derive(Debug)]
struct Peer {
    name: String,
    handle: Handle,
    wanted: BTreeMap<&'static str, BTreeSet<Arc<str>>>,
}

impl Peer {
    /// Asks for names; `all` is what is wanted of the type now.
    fn want(&mut self, type_url: &'static str, all: BTreeSet<Arc<str>>) {
        let old = self.wanted.entry(type_url).or_default();
        let new: Vec<&str> = all.difference(old).map(|name| &**name).collect();
        let gone: Vec<&str> = old.difference(&all).map(|name| &**name).collect();
        if !new.is_empty() {
            self.handle.subscribe(type_url, new);
        }
        if !gone.is_empty() {
            self.handle.unsubscribe(type_url, gone);
        }
        *old = all;
    }
}

/// Follows the sources of a bootstrap until the process ends.
pub(crate) async fn run(store: Arc<Mutex<Store>>, bootstrap: Bootstrap, mut questions: Questions) {
    let mut follower = Follower::new(store, bootstrap);
    follower.connect_ads();
    follower.ask();
    loop {
        tokio::select! {
            event = follower.events.recv() => match event {
                Some((peer, event)) => follower.hear(peer, event),
                None => return,
            },
            Some(cluster) = questions.recv() => follower.fetch(&cluster),
        }
    }
}

struct Follower {
    store: Arc<Mutex<Store>>,
    bootstrap: Bootstrap,
    peers: Vec<Peer>,
    ads: Option<usize>,
    agents: BTreeMap<Arc<str>, Option<usize>>,
    inbox: mpsc::Sender<(usize, Event)>,
    events: mpsc::Receiver<(usize, Event)>,
}

impl Follower {
    fn new(store: Arc<Mutex<Store>>, bootstrap: Bootstrap) -> Self {
        let (inbox, events) = mpsc::channel(4);
        Self { store, bootstrap, peers: Vec::new(), ads: None, agents: BTreeMap::new(), inbox, events }
    }

    fn connect_ads(&mut self) {
        let dynamic = self.bootstrap.dynamic_resources.clone().unwrap_or_default();
        let Some(name) = dynamic.ads_config.as_ref().and_then(cluster_of) else { return };
        self.ads = self.connect(&name, Service::Aggregated);
        if let Some(peer) = self.ads.and_then(|index| self.peers.get(index)) {
            peer.handle.subscribe(types::CLUSTER, ["*"]);
            peer.handle.subscribe(types::LISTENER, ["*"]);
        }
    }

    /// Connects to a static cluster of the bootstrap.
    fn connect(&mut self, cluster: &str, service: Service) -> Option<usize> {
        let Some(target) = target(&self.bootstrap, cluster) else {
            tracing::error!(target: "ads", cluster, "the bootstrap has no static cluster of that name with one plain address");
            return None;
        };
        let config = client::Config { service, ..client::Config::new(target, node(&self.bootstrap)) };
        let (handle, mut events) = client::connect(config);
        let index = self.peers.len();
        self.peers.push(Peer { name: cluster.to_owned(), handle, wanted: BTreeMap::new() });
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                if inbox.send((index, event)).await.is_err() {
                    return;
                }
            }
        });
        Some(index)
    }

    /// Asks for a cluster that a request wants.
    fn fetch(&self, cluster: &str) {
        match self.ads.and_then(|index| self.peers.get(index)) {
            Some(peer) => peer.handle.subscribe(types::CLUSTER, [cluster]),
            None => drop(lock(&self.store).shared.on_demand.answer(cluster)),
        }
    }

    /// Clusters that a request asked for and that there are not: they may be asked for again.
    fn forget_missing(&self, peer: usize, update: &Update) {
        if *update.type_url != *types::CLUSTER || update.removed.is_empty() {
            return;
        }
        let shared = lock(&self.store).shared.clone();
        for name in &update.removed {
            if shared.on_demand.answer(name)
                && let Some(peer) = self.peers.get(peer)
            {
                peer.handle.unsubscribe(types::CLUSTER, [&**name]);
            }
        }
    }

    fn hear(&mut self, peer: usize, event: Event) {
        let Some(name) = self.peers.get(peer).map(|peer| peer.name.clone()) else { return };
        match event {
            Event::Connected => {
                tracing::info!(target: "ads", "connected to {name}");
                lock(&self.store).shared.stats.control_plane_connected.set(1);
            }
            Event::Disconnected { reason, retry_in } => {
                tracing::warn!(target: "ads", "{name}: {reason}; next try in {retry_in:?}");
                lock(&self.store).shared.stats.control_plane_connected.set(0);
            }
            Event::Update(update) => {
                let rejected = self.take(&update);
                self.forget_missing(peer, &update);
                self.answer(peer, update, &rejected);
                self.ask();
            }
        }
    }

    /// Puts an update into the store and publishes.
    fn take(&self, update: &Update) -> Vec<Rejected> {
        let mut store = lock(&self.store);
        let updated = SystemTime::now();
        let mut rejected = Vec::new();
        for resource in &update.resources {
            let source = Source {
                any: resource.any.clone(),
                version: resource.version.clone(),
                updated,
                is_static: false,
            };
            let taken = match &*update.type_url {
                types::CLUSTER => store.set_cluster(source),
                types::ENDPOINT => store.set_endpoints(source),
                types::LISTENER => store.set_listener(source),
                types::ROUTE => store.set_routes(source),
                types::SECRET => store.set_secret(source),
                _ => Ok(()),
            };
            if let Err(mut error) = taken {
                error.resource = resource.name.to_string();
                tracing::warn!(target: "ads", "{} refused: {error}", types::short_name(&update.type_url));
                store.note_rejected(&update.type_url, &error, resource.any.clone(), updated);
                rejected.push(error);
            } else {
                store.forget_rejected(&update.type_url, &resource.name);
            }
        }
        for name in &update.removed {
            match &*update.type_url {
                types::CLUSTER => store.remove_cluster(name),
                types::ENDPOINT => store.remove_endpoints(name),
                types::LISTENER => store.remove_listener(name),
                types::ROUTE => store.remove_routes(name),
                types::SECRET => store.remove_secret(name),
                _ => {}
            }
        }
        store.count_update(&update.type_url, rejected.is_empty());
        store.publish();
        tracing::debug!(
            target: "ads",
            "{}: {} resources, {} removed, {} refused",
            types::short_name(&update.type_url),
            update.resources.len(),
            update.removed.len(),
            rejected.len()
        );
        rejected
    }

    fn answer(&self, peer: usize, update: Update, rejected: &[Rejected]) {
        let Some(peer) = self.peers.get(peer) else { return };
        if rejected.is_empty() {
            peer.handle.ack(update);
        } else {
            let rejections = rejected
                .iter()
                .map(|error| Rejection {
                    resource: error.resource.as_str().into(),
                    reason: error.reason.clone(),
                })
                .collect();
            peer.handle.nack(update, rejections);
        }
    }

    /// Asks for what the store wants now.
    fn ask(&mut self) {
        let (endpoints, routes, secrets) = {
            let store = lock(&self.store);
            let endpoints: BTreeSet<_> = store.wanted_endpoints().cloned().collect();
            let routes: BTreeSet<_> = store.wanted_routes();
            (endpoints, routes, store.wanted_secrets())
        };
        let mut by_source: BTreeMap<Option<Arc<str>>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for secret in secrets {
            match secret.source {
                SecretSource::Static => {}
                SecretSource::Ads => drop(by_source.entry(None).or_default().insert(secret.name)),
                SecretSource::Cluster(cluster) => {
                    by_source.entry(Some(cluster)).or_default().insert(secret.name);
                }
            }
        }
        for (source, names) in by_source {
            match source {
                None => self.want(self.ads, types::SECRET, names),
                Some(cluster) => {
                    let peer = self.agent(cluster);
                    self.want(peer, types::SECRET, names);
                }
            }
        }
        self.want(self.ads, types::ENDPOINT, endpoints);
        self.want(self.ads, types::ROUTE, routes);
    }

    fn want(&mut self, peer: Option<usize>, type_url: &'static str, names: BTreeSet<Arc<str>>) {
        if let Some(peer) = peer.and_then(|index| self.peers.get_mut(index)) {
            peer.want(type_url, names);
        }
    }

    /// The stream of secrets of an agent, opened when it is first wanted.
    fn agent(&mut self, cluster: Arc<str>) -> Option<usize> {
        if let Some(known) = self.agents.get(&cluster) {
            return *known;
        }
        let peer = self.connect(&cluster, Service::Secrets);
        self.agents.insert(cluster, peer);
        peer
    }
}

/// The cluster of a gRPC source.
fn cluster_of(source: &ApiConfigSource) -> Option<String> {
    match &source.grpc_services.first()?.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => Some(grpc.cluster_name.clone()),
        _ => None,
    }
}

/// Where a static cluster is.
fn target(bootstrap: &Bootstrap, name: &str) -> Option<Target> {
    let clusters = &bootstrap.static_resources.as_ref()?.clusters;
    let cluster: &Cluster = clusters.iter().find(|cluster| cluster.name == name)?;
    if cluster.transport_socket.is_some() {
        return None;
    }
    let endpoint = cluster.load_assignment.as_ref()?.endpoints.first()?.lb_endpoints.first()?;
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    let address = endpoint.address.as_ref()?;
    match &address.address {
        Some(address::Address::Pipe(pipe)) => Some(Target::Unix(PathBuf::from(&pipe.path))),
        _ => Some(Target::Tcp(socket_address(address)?.to_string())),
    }
}

/// The filters that we have, by Envoy's names. A control plane reads here what it may send: where a filter that guards is
/// missing, ours denies in its place instead of sending what would be refused with all that is new.
const FILTERS: &[(&str, &str)] = &[
    ("envoy.filters.http", "envoy.filters.http.cors"),
    ("envoy.filters.http", "envoy.filters.http.dynamic_forward_proxy"),
    ("envoy.filters.http", "envoy.filters.http.ext_authz"),
    ("envoy.filters.http", "envoy.filters.http.fault"),
    ("envoy.filters.http", "envoy.filters.http.grpc_stats"),
    ("envoy.filters.http", "envoy.filters.http.grpc_web"),
    ("envoy.filters.http", "envoy.filters.http.jwt_authn"),
    ("envoy.filters.http", "envoy.filters.http.on_demand"),
    ("envoy.filters.http", "envoy.filters.http.rbac"),
    ("envoy.filters.http", "envoy.filters.http.router"),
    ("envoy.filters.http", "envoy.filters.http.set_filter_state"),
    ("envoy.filters.listener", "envoy.filters.listener.http_inspector"),
    ("envoy.filters.listener", "envoy.filters.listener.original_dst"),
    ("envoy.filters.listener", "envoy.filters.listener.original_src"),
    ("envoy.filters.listener", "envoy.filters.listener.proxy_protocol"),
    ("envoy.filters.listener", "envoy.filters.listener.tls_inspector"),
    ("envoy.filters.network", "envoy.filters.network.ext_authz"),
    ("envoy.filters.network", "envoy.filters.network.http_connection_manager"),
    ("envoy.filters.network", "envoy.filters.network.rbac"),
    ("envoy.filters.network", "envoy.filters.network.tcp_proxy"),
];

/// Who we are: the bootstrap's node, and what we are made of.
pub(crate) fn node(bootstrap: &Bootstrap) -> Node {
    let version = |index: usize| {
        env!("CARGO_PKG_VERSION").split('.').nth(index).and_then(|part| part.parse().ok()).unwrap_or(0)
    };
    let number = SemanticVersion { major_number: version(0), minor_number: version(1), patch: version(2) };
    // The keys under which Envoy tells the same of itself.
    let build = [
        ("revision.status", "Clean"),
        ("build.type", if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" }),
        ("ssl.version", "AWS-LC"),
    ];
    let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
    let metadata = Struct { fields: build.map(|(key, value)| (key.to_owned(), text(value))).into() };
    let extension = |(category, name): &(&str, &str)| Extension {
        name: (*name).to_owned(),
        category: (*category).to_owned(),
        ..Extension::default()
    };
    Node {
        user_agent_name: "lateen".to_owned(),
        extensions: FILTERS.iter().map(extension).collect(),
        user_agent_version_type: Some(node::UserAgentVersionType::UserAgentBuildVersion(BuildVersion {
            version: Some(number),
            metadata: Some(metadata),
        })),
        ..bootstrap.node.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_is_told_what_it_may_send() {
        let node = node(&Bootstrap::default());
        let has = |name: &str| node.extensions.iter().any(|extension| extension.name == name);
        assert!(has("envoy.filters.http.rbac") && has("envoy.filters.network.rbac"));
        assert!(has("envoy.filters.http.ext_authz") && has("envoy.filters.network.ext_authz"));
        assert!(!has("envoy.filters.http.wasm"), "it is refused; what needs it has to be denied");
    }
}
