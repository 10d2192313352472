//! The protocol from both sides: client and server machines against each other, and over real sockets.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use lateen_xds::client::{Config, Event, Subscriptions, Update};
use lateen_xds::server::{
    Dialect, Discovery, Heard, Observer, Opened, Peer, Push, Session, Verdict, service,
};
use lateen_xds::transport::Target;
use lateen_xds::{Catalog, Entry, Rejection, Resource, ResourceMap, types};
use proptest::prelude::*;
use tokio::sync::watch;

fn resource(name: &str, version: u32) -> Resource {
    Resource {
        name: name.into(),
        version: version.to_string().into(),
        any: Any { type_url: "t".into(), value: version.to_string().into_bytes().into() },
    }
}

fn node() -> Option<Node> {
    Some(Node { id: "sidecar~1.1.1.1~a.b~b.svc.cluster.local".into(), ..Default::default() })
}

fn ask(type_url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node(),
        type_url: type_url.into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn names(push: &Push) -> Vec<&str> {
    push.resources.iter().map(|r| &*r.name).collect()
}

#[test]
fn an_empty_first_request_means_everything_for_clusters_and_nothing_for_endpoints() {
    let mut catalog = ResourceMap::default();
    catalog.insert(types::CLUSTER, resource("c", 1));
    catalog.insert(types::ENDPOINT, resource("c", 1));
    let mut session = Session::new(Dialect::Delta);
    session.on_delta(ask(types::CLUSTER, &[])).unwrap();
    session.on_delta(ask(types::ENDPOINT, &[])).unwrap();
    let pushes = session.pushes(&catalog);
    assert_eq!(names(&pushes[0]), ["c"]);
    assert_eq!(names(&pushes[1]), [""; 0]);
    assert!(session.pushes(&catalog).is_empty(), "nothing is told twice");
}

#[test]
fn every_subscription_is_answered_even_with_nothing() {
    let mut session = Session::new(Dialect::Delta);
    session.on_delta(ask(types::LISTENER, &["*"])).unwrap();
    session.on_delta(ask(types::ENDPOINT, &["ghost"])).unwrap();
    let pushes = session.pushes(&ResourceMap::default());
    assert_eq!(pushes.len(), 2);
    assert_eq!(&*pushes[0].type_url, types::ENDPOINT, "endpoints come before listeners");
    assert_eq!(pushes[0].removed, ["ghost".into()]);
    assert!(pushes[1].resources.is_empty());
}

#[test]
fn a_changed_cluster_takes_its_load_assignment_along() {
    let mut catalog = ResourceMap::default();
    catalog.insert(types::CLUSTER, resource("c", 1));
    catalog.insert(types::ENDPOINT, resource("c", 1));
    let mut session = Session::new(Dialect::Delta);
    session.on_delta(ask(types::CLUSTER, &["*"])).unwrap();
    session.on_delta(ask(types::ENDPOINT, &["c"])).unwrap();
    session.pushes(&catalog);
    catalog.insert(types::CLUSTER, resource("c", 2));
    let pushes = session.pushes(&catalog);
    assert_eq!(pushes.len(), 2);
    assert_eq!(names(&pushes[1]), ["c"]);
}

#[test]
fn a_reconnect_transfers_only_what_changed() {
    let mut catalog = ResourceMap::default();
    catalog.insert(types::CLUSTER, resource("same", 1));
    catalog.insert(types::CLUSTER, resource("changed", 2));
    let mut request = ask(types::CLUSTER, &["*"]);
    for (name, version) in [("same", "1"), ("changed", "1"), ("gone", "1")] {
        request.initial_resource_versions.insert(name.into(), version.into());
    }
    let mut session = Session::new(Dialect::Delta);
    session.on_delta(request).unwrap();
    let pushes = session.pushes(&catalog);
    assert_eq!(names(&pushes[0]), ["changed"]);
    assert_eq!(pushes[0].removed, ["gone".into()]);
}

#[test]
fn a_refusal_names_its_resource_until_a_version_is_accepted() {
    let mut catalog = ResourceMap::default();
    catalog.insert(types::ROUTE, resource("80", 1));
    let mut session = Session::new(Dialect::Delta);
    session.on_delta(ask(types::ROUTE, &["80"])).unwrap();
    let mut client = Subscriptions::new(Node::default());
    let mut exchange = |session: &mut Session, catalog: &ResourceMap, rejections: &[Rejection]| {
        let update = client.on_response(session.pushes(catalog).remove(0).into_delta());
        let answer = match rejections.is_empty() {
            true => client.ack(&update),
            false => client.nack(&update, rejections),
        };
        session.on_delta(answer).unwrap().verdict
    };
    let rejection = Rejection { resource: "80".into(), reason: "regex: unclosed group".into() };
    let verdict = exchange(&mut session, &catalog, std::slice::from_ref(&rejection));
    assert_eq!(verdict, Some(Verdict::Nack(vec![rejection.clone()])));
    assert_eq!(session.status()[0].rejected, [rejection]);
    assert!(session.pushes(&catalog).is_empty(), "a refused version is not sent again");
    catalog.insert(types::ROUTE, resource("80", 2));
    assert_eq!(exchange(&mut session, &catalog, &[]), Some(Verdict::Ack));
    assert!(session.status()[0].rejected.is_empty());
}

#[test]
fn state_of_the_world_carries_all_that_is_subscribed() {
    let mut catalog = ResourceMap::default();
    for name in ["a", "b", "c"] {
        catalog.insert(types::SECRET, resource(name, 1));
    }
    let request = |names: &[&str], nonce: &str| DiscoveryRequest {
        node: node(),
        type_url: types::SECRET.into(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.into(),
        ..Default::default()
    };
    let mut session = Session::new(Dialect::StateOfTheWorld);
    session.on_state_of_the_world(request(&["a"], "")).unwrap();
    assert_eq!(names(&session.pushes(&catalog)[0]), ["a"]);
    let heard = session.on_state_of_the_world(request(&["a"], "1")).unwrap();
    assert_eq!(heard.verdict, Some(Verdict::Ack));
    assert!(session.pushes(&catalog).is_empty());
    session.on_state_of_the_world(request(&["a", "b"], "1")).unwrap();
    assert_eq!(names(&session.pushes(&catalog)[0]), ["a", "b"]);
    session.on_state_of_the_world(request(&["a"], "1")).unwrap();
    assert!(session.pushes(&catalog).is_empty(), "a request with an old nonce is stale");
}

/// A catalog whose resource `soon` is on its way.
struct Soon(ResourceMap);

impl Catalog for Soon {
    fn stamp(&self, type_url: &str) -> u64 {
        self.0.stamp(type_url)
    }

    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        self.0.all(type_url)
    }

    fn find(&self, type_url: &str, name: &str) -> Option<Resource> {
        self.0.find(type_url, name)
    }

    fn is_pending(&self, type_url: &str, name: &str) -> bool {
        name == "soon" && !self.0.contains(type_url, name)
    }
}

#[test]
fn a_resource_on_its_way_is_waited_for() {
    for dialect in [Dialect::Delta, Dialect::StateOfTheWorld] {
        let mut catalog = Soon(ResourceMap::default());
        let mut session = Session::new(dialect);
        let resource_names = vec!["soon".to_owned()];
        match dialect {
            Dialect::Delta => session.on_delta(ask(types::SECRET, &["soon"])).unwrap(),
            Dialect::StateOfTheWorld => session
                .on_state_of_the_world(DiscoveryRequest {
                    node: node(),
                    type_url: types::SECRET.into(),
                    resource_names,
                    ..Default::default()
                })
                .unwrap(),
        };
        assert!(session.pushes(&catalog).is_empty());
        catalog.0.insert(types::SECRET, resource("soon", 1));
        assert_eq!(names(&session.pushes(&catalog)[0]), ["soon"]);
        assert!(session.pushes(&catalog).is_empty());
    }
}

#[test]
fn a_request_without_node_or_type_is_refused() {
    let mut session = Session::new(Dialect::Delta);
    let anonymous = DeltaDiscoveryRequest { node: None, ..ask(types::CLUSTER, &[]) };
    assert!(session.on_delta(anonymous).is_err());
    assert!(session.on_delta(ask("", &[])).is_err());
}

/// One step of a conversation.
#[derive(Clone, Debug)]
enum Step {
    Put(usize, u8, u32),
    Remove(usize, u8),
    Subscribe(usize, Vec<u8>),
    SubscribeAll(usize),
    Unsubscribe(usize, u8),
    UnsubscribeAll(usize),
    Push,
    Reconnect,
}

const TYPES: [&str; 3] = [types::CLUSTER, types::ENDPOINT, types::ROUTE];

fn step() -> impl Strategy<Value = Step> {
    let kind = 0..TYPES.len();
    let name = 0u8..6;
    prop_oneof![
        4 => (kind.clone(), name.clone(), 0u32..4).prop_map(|(k, n, v)| Step::Put(k, n, v)),
        2 => (kind.clone(), name.clone()).prop_map(|(k, n)| Step::Remove(k, n)),
        3 => (kind.clone(), prop::collection::vec(name.clone(), 1..3)).prop_map(|(k, n)| Step::Subscribe(k, n)),
        1 => kind.clone().prop_map(Step::SubscribeAll),
        2 => (kind.clone(), name).prop_map(|(k, n)| Step::Unsubscribe(k, n)),
        1 => kind.prop_map(Step::UnsubscribeAll),
        4 => Just(Step::Push),
        1 => Just(Step::Reconnect),
    ]
}

/// A client that believes what it is told, as a proxy does.
struct World {
    catalog: ResourceMap,
    session: Session,
    client: Subscriptions,
    wanted: BTreeMap<(usize, String), ()>,
    held: BTreeMap<(usize, String), String>,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            catalog: ResourceMap::default(),
            session: Session::new(Dialect::Delta),
            client: Subscriptions::new(node().unwrap()),
            wanted: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        world.client.open();
        world
    }

    fn tell(&mut self, request: Option<DeltaDiscoveryRequest>) {
        if let Some(request) = request {
            self.session.on_delta(DeltaDiscoveryRequest { node: node(), ..request }).unwrap();
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Put(k, n, v) => self.catalog.insert(TYPES[k], resource(&n.to_string(), v)),
            Step::Remove(k, n) => self.catalog.remove(TYPES[k], &n.to_string()),
            Step::Subscribe(k, names) => {
                let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                self.wanted.extend(names.iter().map(|n| ((k, n.clone()), ())));
                let request = self.client.subscribe(TYPES[k], names);
                self.tell(request);
            }
            Step::SubscribeAll(k) => {
                self.wanted.insert((k, "*".into()), ());
                let request = self.client.subscribe(TYPES[k], ["*"]);
                self.tell(request);
            }
            Step::Unsubscribe(k, n) => {
                self.wanted.remove(&(k, n.to_string()));
                let request = self.client.unsubscribe(TYPES[k], [n.to_string()]);
                self.tell(request);
                self.forget();
            }
            Step::UnsubscribeAll(k) => {
                self.wanted.remove(&(k, "*".into()));
                let request = self.client.unsubscribe(TYPES[k], ["*"]);
                self.tell(request);
                self.forget();
            }
            Step::Push => self.push(),
            Step::Reconnect => {
                self.session = Session::new(Dialect::Delta);
                self.client.close();
                for request in self.client.open() {
                    self.tell(Some(request));
                }
            }
        }
    }

    /// What is wanted no more is dropped by the client itself.
    fn forget(&mut self) {
        let wanted = &self.wanted;
        self.held.retain(|(k, n), _| {
            wanted.contains_key(&(*k, n.clone())) || wanted.contains_key(&(*k, "*".into()))
        });
    }

    fn push(&mut self) {
        for push in self.session.pushes(&self.catalog) {
            let update = self.client.on_response(push.into_delta());
            let kind = TYPES.iter().position(|t| **t == *update.type_url).unwrap();
            for resource in &update.resources {
                self.held.insert((kind, resource.name.to_string()), resource.version.to_string());
            }
            for name in &update.removed {
                self.held.remove(&(kind, name.to_string()));
            }
            let ack = self.client.ack(&update);
            self.tell(Some(ack));
        }
    }

    fn should_hold(&self) -> BTreeMap<(usize, String), String> {
        let mut all = BTreeMap::new();
        for (k, type_url) in TYPES.iter().enumerate() {
            for resource in self.catalog.all(type_url) {
                let name = resource.name.to_string();
                if self.wanted.contains_key(&(k, name.clone())) || self.wanted.contains_key(&(k, "*".into()))
                {
                    all.insert((k, name), resource.version.to_string());
                }
            }
        }
        all
    }
}

proptest! {
    /// However subscriptions, contents and connections change, replaying the differences gives the full state.
    #[test]
    fn delta_replay_equals_the_full_state(steps in prop::collection::vec(step(), 0..60)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.push();
        prop_assert_eq!(&world.held, &world.should_hold());
        prop_assert!(world.session.pushes(&world.catalog).is_empty());
    }
}

struct Fake {
    catalogs: watch::Receiver<Arc<dyn Catalog>>,
    verdicts: tokio::sync::mpsc::UnboundedSender<Verdict>,
}

struct Ear(tokio::sync::mpsc::UnboundedSender<Verdict>);

impl Observer for Ear {
    fn heard(&mut self, _: &Session, heard: &Heard) {
        if let Some(verdict) = &heard.verdict {
            let _ = self.0.send(verdict.clone());
        }
    }

    fn pushed(&mut self, _: &Session, _: &Push) {}
}

impl Discovery for Fake {
    fn open<'a>(
        &'a self,
        _: Peer,
        _: &'a Node,
    ) -> futures::future::BoxFuture<'a, Result<Opened, tonic::Status>> {
        let observer = Box::new(Ear(self.verdicts.clone()));
        Box::pin(async move { Ok(Opened { catalogs: self.catalogs.clone(), observer }) })
    }
}

async fn deadline<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("within the deadline")
}

async fn next_update(events: &mut tokio::sync::mpsc::Receiver<Event>) -> Update {
    loop {
        match deadline(events.recv()).await {
            Some(Event::Update(update)) => return update,
            Some(_) => {}
            None => panic!("the client ended"),
        }
    }
}

#[tokio::test]
async fn client_and_server_over_tcp_survive_a_restart_of_the_server() {
    let mut first = ResourceMap::default();
    first.insert(types::CLUSTER, resource("a", 1));
    first.insert(types::CLUSTER, resource("b", 1));
    let (publish, catalogs) = watch::channel::<Arc<dyn Catalog>>(Arc::new(first.clone()));
    let (verdicts, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let fake = Arc::new(Fake { catalogs, verdicts });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |listener: tokio::net::TcpListener| {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = service(fake.clone());
        tokio::spawn(async move {
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await
        })
    };
    let server = serve(listener);
    let config = Config::new(Target::Tcp(address.to_string()), node().unwrap());
    let (handle, mut events) = lateen_xds::client::connect(config);
    handle.subscribe(types::CLUSTER, ["*"]);
    let update = next_update(&mut events).await;
    assert_eq!(update.resources.len(), 2);
    handle.ack(update);
    assert_eq!(deadline(heard.recv()).await, Some(Verdict::Ack));

    first.insert(types::CLUSTER, resource("b", 2));
    publish.send(Arc::new(first.clone())).unwrap();
    let update = next_update(&mut events).await;
    assert_eq!(update.resources.len(), 1);
    let rejection = Rejection { resource: "b".into(), reason: "no".into() };
    handle.nack(update, vec![rejection.clone()]);
    assert_eq!(deadline(heard.recv()).await, Some(Verdict::Nack(vec![rejection])));

    server.abort();
    let _ = server.await;
    publish.send(Arc::new(first.clone())).unwrap();
    first.remove(types::CLUSTER, "a");
    publish.send(Arc::new(first)).unwrap();
    let listener = deadline(async {
        loop {
            match tokio::net::TcpListener::bind(address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let _server = serve(listener);
    loop {
        let update = next_update(&mut events).await;
        let removed = update.removed.clone();
        handle.ack(update);
        if removed == ["a".into()] {
            break;
        }
    }
}

/// A catalog that tells what is different from the one before.
struct Telling {
    now: ResourceMap,
    stamp: u64,
    before: BTreeMap<&'static str, Vec<Arc<str>>>,
}

impl Catalog for Telling {
    fn stamp(&self, _: &str) -> u64 {
        self.stamp
    }

    fn since(&self, type_url: &str, stamp: u64) -> Option<&[Arc<str>]> {
        (stamp + 1 == self.stamp).then(|| self.before.get(type_url).map_or(&[][..], Vec::as_slice))
    }

    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        self.now.all(type_url)
    }

    fn find(&self, type_url: &str, name: &str) -> Option<Resource> {
        self.now.find(type_url, name)
    }
}

proptest! {
    /// Sessions that are told what is different send what sessions send that look at everything; also when they miss a
    /// catalog, ask for more meanwhile, or have a changed cluster's endpoints to send.
    #[test]
    fn knowing_what_is_different_changes_nothing(
        steps in prop::collection::vec((0..2usize, 0..4u8, 0..4u32, 0..3u8), 1..30),
        wildcard in any::<bool>(),
    ) {
        let kinds = [types::CLUSTER, types::ENDPOINT];
        let mut plain = Session::new(Dialect::Delta);
        let mut told = Session::new(Dialect::Delta);
        for session in [&mut plain, &mut told] {
            session.on_delta(ask(types::CLUSTER, if wildcard { &["*"] } else { &["r0", "r1"] })).unwrap();
            session.on_delta(ask(types::ENDPOINT, &["r0", "r2"])).unwrap();
        }
        let mut telling = Telling { now: ResourceMap::default(), stamp: 1, before: BTreeMap::new() };
        for (kind, name, version, what) in steps {
            let (kind, name) = (kinds[kind], format!("r{name}"));
            match version {
                0 => telling.now.remove(kind, &name),
                version => telling.now.insert(kind, resource(&name, version)),
            }
            telling.stamp += 1;
            telling.before = BTreeMap::from([(kind, vec![Arc::from(name.as_str())])]);
            if what == 1 {
                for session in [&mut plain, &mut told] {
                    session.on_delta(ask(kind, &[&name])).unwrap();
                }
            }
            if what == 2 {
                // Neither looks at this one: the next has to be looked at as a whole.
                continue;
            }
            prop_assert_eq!(plain.pushes(&telling.now), told.pushes(&telling));
        }
    }
}
