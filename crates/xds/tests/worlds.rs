//! State-of-the-world and delta are one machine: whatever happens, clients of either hold the same.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use lateen_xds::client::Subscriptions;
use lateen_xds::server::{Dialect, Session, Verdict};
use lateen_xds::{Catalog, Resource, ResourceMap, types};
use proptest::prelude::*;

const TYPES: [&str; 3] = [types::CLUSTER, types::ENDPOINT, types::ROUTE];

/// By type and name: what a client holds, in which version.
type Held = BTreeMap<(usize, String), Vec<u8>>;
/// By type: what a client wants; `*` is everything that a wildcard covers.
type Wanted = [BTreeSet<String>; TYPES.len()];

#[derive(Clone, Debug)]
enum Step {
    Put { kind: usize, name: u8, version: u8, on_demand: bool },
    Remove { kind: usize, name: u8 },
    Subscribe { kind: usize, names: Vec<u8> },
    Unsubscribe { kind: usize, name: u8 },
    SubscribeAll { kind: usize },
    UnsubscribeAll { kind: usize },
    Push,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = 0..TYPES.len();
    let name = 0u8..6;
    prop_oneof![
        4 => (kind.clone(), name.clone(), 0u8..4, any::<bool>())
            .prop_map(|(kind, name, version, on_demand)| Step::Put { kind, name, version, on_demand }),
        2 => (kind.clone(), name.clone()).prop_map(|(kind, name)| Step::Remove { kind, name }),
        3 => (kind.clone(), prop::collection::vec(name.clone(), 1..3))
            .prop_map(|(kind, names)| Step::Subscribe { kind, names }),
        2 => (kind.clone(), name).prop_map(|(kind, name)| Step::Unsubscribe { kind, name }),
        1 => kind.clone().prop_map(|kind| Step::SubscribeAll { kind }),
        1 => kind.prop_map(|kind| Step::UnsubscribeAll { kind }),
        4 => Just(Step::Push),
        1 => Just(Step::Reconnect),
    ]
}

fn node() -> Node {
    Node { id: "sidecar~1.1.1.1~a.b~b.svc.cluster.local".into(), ..Default::default() }
}

fn resource(name: u8, version: u8) -> Resource {
    let any = Any { type_url: "t".into(), value: vec![name, version].into() };
    Resource { name: name.to_string().into(), version: version.to_string().into(), any }
}

/// A client that believes what differs.
struct Delta {
    session: Session,
    client: Subscriptions,
    held: Held,
}

impl Delta {
    fn new() -> Self {
        let mut client = Subscriptions::new(node());
        client.open();
        Self { session: Session::new(Dialect::Delta), client, held: Held::new() }
    }

    fn tell(&mut self, request: Option<DeltaDiscoveryRequest>) {
        if let Some(request) = request {
            self.session.on_delta(DeltaDiscoveryRequest { node: Some(node()), ..request }).unwrap();
        }
    }

    fn reconnect(&mut self) {
        self.session = Session::new(Dialect::Delta);
        self.client.close();
        for request in self.client.open() {
            self.tell(Some(request));
        }
    }

    fn push(&mut self, catalog: &ResourceMap) {
        for push in self.session.pushes(catalog) {
            let update = self.client.on_response(push.into_delta());
            let kind = TYPES.iter().position(|kind| **kind == *update.type_url).unwrap();
            for resource in &update.resources {
                self.held.insert((kind, resource.name.to_string()), resource.any.value.to_vec());
            }
            for name in &update.removed {
                self.held.remove(&(kind, name.to_string()));
            }
            let ack = self.client.ack(&update);
            self.tell(Some(ack));
        }
    }
}

/// A client that believes each response as a whole.
struct World {
    session: Session,
    nonces: [String; TYPES.len()],
    held: Held,
}

impl World {
    fn new() -> Self {
        let session = Session::new(Dialect::StateOfTheWorld);
        Self { session, nonces: Default::default(), held: Held::new() }
    }

    fn tell(&mut self, kind: usize, wanted: &Wanted) -> Option<Verdict> {
        let request = DiscoveryRequest {
            node: Some(node()),
            type_url: TYPES[kind].into(),
            resource_names: wanted[kind].iter().cloned().collect(),
            response_nonce: self.nonces[kind].clone(),
            version_info: self.nonces[kind].clone(),
            ..Default::default()
        };
        self.session.on_state_of_the_world(request).unwrap().verdict
    }

    fn reconnect(&mut self, wanted: &Wanted) {
        self.session = Session::new(Dialect::StateOfTheWorld);
        self.nonces = Default::default();
        for kind in (0..TYPES.len()).filter(|kind| !wanted[*kind].is_empty()) {
            self.tell(kind, wanted);
        }
    }

    fn push(&mut self, catalog: &ResourceMap, wanted: &Wanted) {
        for push in self.session.pushes(catalog) {
            let response = push.into_state_of_the_world();
            let kind = TYPES.iter().position(|kind| *kind == response.type_url).unwrap();
            self.held.retain(|(of, _), _| *of != kind);
            let held =
                response.resources.iter().map(|any| ((kind, any.value[0].to_string()), any.value.to_vec()));
            self.held.extend(held);
            self.nonces[kind] = response.nonce;
            assert_eq!(self.tell(kind, wanted), Some(Verdict::Ack));
        }
    }
}

/// What every client is to hold in the end.
fn due(catalog: &ResourceMap, wanted: &Wanted) -> Held {
    let mut due = Held::new();
    for (kind, type_url) in TYPES.iter().enumerate() {
        let named = wanted[kind].iter().filter_map(|name| catalog.find(type_url, name));
        let covered =
            catalog.all(type_url).filter(|_| wanted[kind].contains("*")).map(|entry| entry.to_resource());
        due.extend(named.chain(covered).map(|r| ((kind, r.name.to_string()), r.any.value.to_vec())));
    }
    due
}

/// Clients drop what they want no more themselves.
fn forget(held: &mut Held, wanted: &Wanted) {
    held.retain(|(kind, name), _| wanted[*kind].contains(name) || wanted[*kind].contains("*"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..Default::default() })]

    /// However contents, subscriptions and connections change, replaying differences gives what the state of the world says.
    #[test]
    fn replayed_differences_are_the_state_of_the_world(steps in prop::collection::vec(step(), 0..60)) {
        let mut catalog = ResourceMap::default();
        let (mut delta, mut world) = (Delta::new(), World::new());
        let mut wanted = Wanted::default();
        for step in steps {
            match step {
                Step::Put { kind, name, version, on_demand: true } => {
                    catalog.insert_on_demand(TYPES[kind], resource(name, version));
                }
                Step::Put { kind, name, version, on_demand: false } => {
                    catalog.insert(TYPES[kind], resource(name, version));
                }
                Step::Remove { kind, name } => catalog.remove(TYPES[kind], &name.to_string()),
                Step::Subscribe { kind, names } => {
                    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                    wanted[kind].extend(names.iter().cloned());
                    let request = delta.client.subscribe(TYPES[kind], names);
                    delta.tell(request);
                    world.tell(kind, &wanted);
                }
                Step::SubscribeAll { kind } => {
                    wanted[kind].insert("*".into());
                    let request = delta.client.subscribe(TYPES[kind], ["*"]);
                    delta.tell(request);
                    world.tell(kind, &wanted);
                }
                Step::Unsubscribe { kind, name } => {
                    let name = name.to_string();
                    if !wanted[kind].remove(&name) {
                        continue;
                    }
                    let request = delta.client.unsubscribe(TYPES[kind], [name]);
                    delta.tell(request);
                    world.tell(kind, &wanted);
                }
                Step::UnsubscribeAll { kind } => {
                    if !wanted[kind].remove("*") {
                        continue;
                    }
                    let request = delta.client.unsubscribe(TYPES[kind], ["*"]);
                    delta.tell(request);
                    world.tell(kind, &wanted);
                }
                Step::Push => {
                    delta.push(&catalog);
                    world.push(&catalog, &wanted);
                    prop_assert_eq!(&delta.held, &world.held);
                }
                Step::Reconnect => {
                    delta.reconnect();
                    world.reconnect(&wanted);
                }
            }
            forget(&mut delta.held, &wanted);
            forget(&mut world.held, &wanted);
        }
        delta.push(&catalog);
        world.push(&catalog, &wanted);
        let due = due(&catalog, &wanted);
        prop_assert_eq!(&delta.held, &due);
        prop_assert_eq!(&world.held, &due);
        prop_assert!(delta.session.pushes(&catalog).is_empty());
        prop_assert!(world.session.pushes(&catalog).is_empty());
    }
}

fn world_request(names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node()),
        type_url: types::CLUSTER.into(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.into(),
        ..Default::default()
    }
}

/// A client that never named anything wants everything, until it names something; from then on nothing means nothing.
#[test]
fn a_state_of_the_world_client_that_names_something_wants_that_alone() {
    let mut catalog = ResourceMap::default();
    catalog.insert(types::CLUSTER, resource(1, 1));
    catalog.insert(types::CLUSTER, resource(2, 1));
    let mut session = Session::new(Dialect::StateOfTheWorld);
    let held = |session: &mut Session, catalog: &ResourceMap| -> Option<Vec<String>> {
        let push = session.pushes(catalog).pop()?;
        Some(push.resources.iter().map(|resource| resource.name.to_string()).collect())
    };
    session.on_state_of_the_world(world_request(&[], "")).unwrap();
    assert_eq!(held(&mut session, &catalog).unwrap(), ["1", "2"]);
    session.on_state_of_the_world(world_request(&[], "1")).unwrap();
    catalog.insert(types::CLUSTER, resource(2, 2));
    assert_eq!(held(&mut session, &catalog).unwrap(), ["1", "2"], "an empty ACK is still a wildcard");
    session.on_state_of_the_world(world_request(&["2"], "2")).unwrap();
    catalog.insert(types::CLUSTER, resource(1, 2));
    assert_eq!(held(&mut session, &catalog).unwrap(), ["2"]);
    session.on_state_of_the_world(world_request(&[], "3")).unwrap();
    catalog.insert(types::CLUSTER, resource(2, 3));
    assert_eq!(held(&mut session, &catalog), None, "nothing is wanted any more");
}

/// What is loaded on demand comes to those who ask for it, stays up to date, survives a reconnect, and goes when it is
/// wanted no more; a wildcard alone does not bring it.
#[test]
fn on_demand_resources_are_for_those_who_name_them() {
    let mut catalog = ResourceMap::default();
    catalog.insert(types::CLUSTER, resource(1, 1));
    catalog.insert_on_demand(types::CLUSTER, resource(2, 1));
    let mut delta = Delta::new();
    let request = delta.client.subscribe(types::CLUSTER, ["*"]);
    delta.tell(request);
    let names = |delta: &mut Delta, catalog: &ResourceMap| -> Vec<String> {
        delta.push(catalog);
        delta.held.iter().map(|((_, name), value)| format!("{name} v{}", value[1])).collect()
    };
    assert_eq!(names(&mut delta, &catalog), ["1 v1"]);
    let request = delta.client.subscribe(types::CLUSTER, ["2", "9"]);
    delta.tell(request);
    let answer = delta.session.pushes(&catalog).remove(0);
    assert_eq!(answer.removed, ["9".into()], "what does not exist is answered, too");
    assert_eq!(&*answer.resources[0].name, "2");
    assert_eq!(answer.resources.len(), 1);
    let update = delta.client.on_response(answer.into_delta());
    let ack = delta.client.ack(&update);
    delta.tell(Some(ack));
    catalog.insert_on_demand(types::CLUSTER, resource(2, 2));
    assert_eq!(names(&mut delta, &catalog), ["1 v1", "2 v2"]);
    delta.reconnect();
    catalog.insert_on_demand(types::CLUSTER, resource(2, 3));
    let push = delta.session.pushes(&catalog).remove(0);
    assert_eq!(push.resources.len(), 1, "only what changed is sent again: {push:?}");
    let update = delta.client.on_response(push.into_delta());
    let ack = delta.client.ack(&update);
    delta.tell(Some(ack));
    let request = delta.client.unsubscribe(types::CLUSTER, ["2"]);
    delta.tell(request);
    assert_eq!(names(&mut delta, &catalog), ["1 v1"]);
}
