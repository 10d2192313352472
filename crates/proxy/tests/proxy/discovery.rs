//! A control plane and an agent: resources by ADS, secrets by SDS, as they come and change.

use std::net::SocketAddr;
use std::sync::Arc;

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3::Node;
use lateen_proto::envoy::config::listener::v3::Listener;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::Secret;
use lateen_proto::{Message, Name, json as proto_json};
use lateen_proxy::Config;
use lateen_xds::server::{Discovery, Heard, Observer, Opened, Peer, Push, Session, secret_service, service};
use lateen_xds::{Catalog, Entry, Resource, ResourceMap, types};
use serde_json::{Value, json};
use testkit::envoy::Envoy;
use tokio::sync::watch;

use crate::support::*;
use crate::tls::{Authority, common, server};

/// A server of whatever is published.
struct Served {
    catalogs: watch::Receiver<Arc<dyn Catalog>>,
}

struct Deaf;

impl Observer for Deaf {
    fn heard(&mut self, _: &Session, _: &Heard) {}
    fn pushed(&mut self, _: &Session, _: &Push) {}
}

impl Discovery for Served {
    fn open<'a>(
        &'a self,
        _: Peer,
        _: &'a Node,
    ) -> futures::future::BoxFuture<'a, Result<Opened, tonic::Status>> {
        let catalogs = self.catalogs.clone();
        Box::pin(async move { Ok(Opened { catalogs, observer: Box::new(Deaf) }) })
    }
}

/// A control plane or an agent.
struct Plane {
    address: SocketAddr,
    resources: ResourceMap,
    publish: watch::Sender<Arc<dyn Catalog>>,
}

impl Plane {
    async fn start() -> Self {
        let (publish, catalogs) = watch::channel::<Arc<dyn Catalog>>(Arc::new(ResourceMap::default()));
        let served = Arc::new(Served { catalogs });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(tcp, _)| tcp);
            Some((accepted, listener))
        });
        let server = tonic::transport::Server::builder()
            .add_service(service(served.clone()))
            .add_service(secret_service(served));
        tokio::spawn(async move { server.serve_with_incoming(incoming).await });
        Self { address, resources: ResourceMap::default(), publish }
    }

    fn put<M: Message + Name + Default>(&mut self, type_url: &str, version: &str, value: &Value) {
        let message: M = proto_json::from_value(value).unwrap();
        let name = value["name"].as_str().unwrap();
        self.resources.insert(type_url, Resource::of(name, version, &message));
    }

    fn publish(&self) {
        self.publish.send_replace(Arc::new(self.resources.clone()));
    }

    fn put_secrets(&mut self, version: &str, secrets: &Value) {
        for secret in secrets.as_array().unwrap() {
            self.put::<Secret>(types::SECRET, version, secret);
        }
        self.publish();
    }
}

/// A map of which a wildcard covers no cluster that is called `late-…`; one of them may be on its way.
struct OnDemand {
    map: ResourceMap,
    pending: bool,
}

impl Catalog for OnDemand {
    fn stamp(&self, type_url: &str) -> u64 {
        self.map.stamp(type_url) * 2 + u64::from(self.pending)
    }

    fn all<'a>(&'a self, type_url: &str) -> Box<dyn Iterator<Item = Entry<'a>> + 'a> {
        Box::new(self.map.all(type_url).filter(|entry| !entry.name.starts_with("late-")))
    }

    fn find(&self, type_url: &str, name: &str) -> Option<Resource> {
        self.map.find(type_url, name)
    }

    fn is_pending(&self, _: &str, name: &str) -> bool {
        self.pending && name == "late-1"
    }
}

/// Requests for clusters that come late, later, or never; the proxy is at `port`.
async fn ask_for_late_clusters(plane: &mut Plane, origin: SocketAddr, port: u16) {
    let filter = |name: &str, kind: &str, config: Value| {
        let mut typed = config;
        typed["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
        json!({"name": name, "typed_config": typed})
    };
    let odcds = |timeout: &str| json!({"odcds": {"source": {"ads": {}, "resource_api_version": "V3"}, "timeout": timeout}});
    let short = filter("", "on_demand.v3.PerRouteConfig", odcds("0.2s"))["typed_config"].clone();
    let route = |name: &str| json!({"match": {"path": format!("/{name}")}, "route": {"cluster": name}});
    let mut impatient = route("late-1");
    impatient["match"]["path"] = json!("/impatient");
    impatient["typed_per_filter_config"] = json!({"envoy.filters.http.on_demand": short});
    let settings = json!({"http_filters": [
        filter("envoy.filters.http.on_demand", "on_demand.v3.OnDemand", odcds("60s")),
        filter("envoy.filters.http.router", "router.v3.Router", json!({})),
    ]});
    let routes = json!([route("late-1"), route("late-2"), route("late-3"), impatient]);
    let mut listener = listener("in", json!([manager_with(routes, settings)]));
    listener["address"]["socket_address"]["port_value"] = json!(port);
    listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["validate_clusters"] =
        json!(false);
    plane.put::<Listener>(types::LISTENER, "1", &listener);
    plane.put::<Cluster>(types::CLUSTER, "1", &cluster("late-2", &[origin]));
    let publish = |plane: &Plane, pending: bool| {
        plane.publish.send_replace(Arc::new(OnDemand { map: plane.resources.clone(), pending }));
    };
    publish(plane, true);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    within("the listener", async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(get(address, "/late-2").await.status, 200, "it comes by name");
    assert_eq!(get(address, "/late-2").await.status, 200, "and stays");
    assert_eq!(get(address, "/late-3").await.status, 503, "there is none");
    let impatient = get(address, "/impatient").await;
    assert_eq!(impatient.status, 503, "it did not come in time");
    let held: Vec<_> = (0..3).map(|_| tokio::spawn(get(address, "/late-1"))).collect();
    // Long enough that a request that is not held would have been answered.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(held.iter().all(|request| !request.is_finished()), "they wait");
    plane.put::<Cluster>(types::CLUSTER, "1", &cluster("late-1", &[origin]));
    publish(plane, false);
    for request in held {
        assert_eq!(request.await.unwrap().status, 200, "they were held");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_its_cluster() {
    let origin = Origin::echo().await;
    let (mut plane, agent) = (Plane::start().await, Plane::start().await);
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let bootstrap: Bootstrap =
        proto_json::from_value(&bootstrap(admin, plane.address, agent.address)).unwrap();
    let _proxy = Config { bootstrap, ..Config::default() }.build().unwrap();
    ask_for_late_clusters(&mut plane, origin.address, free_port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_envoy_has_requests_wait_likewise() {
    let Some(envoy) = Envoy::find() else { return };
    let origin = Origin::echo().await;
    let (mut plane, agent) = (Plane::start().await, Plane::start().await);
    plane.publish();
    let bootstrap = bootstrap(SocketAddr::from(([127, 0, 0, 1], 0)), plane.address, agent.address);
    let port = free_port();
    let requests = tokio::spawn(async move { ask_for_late_clusters(&mut plane, origin.address, port).await });
    let running = tokio::task::spawn_blocking(move || envoy.start(&bootstrap, 2).unwrap()).await.unwrap();
    requests.await.unwrap();
    assert_eq!(running.admin().rejected().unwrap(), Vec::<String>::new());
}

fn bootstrap(admin: SocketAddr, ads: SocketAddr, sds: SocketAddr) -> Value {
    let grpc = |name: &str, address: SocketAddr| {
        let mut cluster = cluster(name, &[address]);
        cluster["typed_extension_protocol_options"] = http2_options();
        cluster
    };
    json!({
        "node": {"id": "sidecar~127.0.0.1~a.default~default.svc.cluster.local", "cluster": "test"},
        "admin": {"address": socket(admin)},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3",
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]},
        },
        "static_resources": {"clusters": [grpc("xds-grpc", ads), grpc("sds-grpc", sds)]},
    })
}

/// The listener of the server, its secrets from the agent.
fn inbound(origin: SocketAddr, port: u16) -> (Value, Value) {
    let world = server(origin, json!([]));
    let mut listener = world["listeners"][0].clone();
    listener["address"]["socket_address"]["port_value"] = json!(port);
    let from_agent = json!({"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}]}, "resource_api_version": "V3"});
    let mut context = common(&[], &["h2", "http/1.1"]);
    context["tls_certificate_sds_secret_configs"][0]["sds_config"] = from_agent.clone();
    context["combined_validation_context"]["validation_context_sds_secret_config"]["sds_config"] = from_agent;
    listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"] = context;
    (listener, world["clusters"][0].clone())
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What a request through `front` says of the identity that answered.
async fn identity_seen(front: SocketAddr) -> Option<String> {
    let answer = get(front, "/").await;
    if answer.status != 200 {
        return None;
    }
    let header = answer.body.lines().find(|line| line.starts_with("x-forwarded-client-cert: By="))?;
    Some(header.split("/sa/").nth(1)?.split(';').next()?.to_owned())
}

/// Rotates the server's secrets under a stream of requests; none of them may fail.
async fn rotate(plane: &mut Plane, agent: &mut Plane, origin: SocketAddr, port: u16) {
    let authority = Authority::new();
    let (listener, cluster) = inbound(origin, port);
    plane.put::<Listener>(types::LISTENER, "1", &listener);
    plane.put::<Cluster>(types::CLUSTER, "1", &cluster);
    plane.publish();
    agent.put_secrets("0", &authority.secrets("server-0"));

    let mut world =
        crate::tls::client(SocketAddr::from(([127, 0, 0, 1], port)), &[], authority.secrets("client"));
    // Every request shakes hands.
    world["clusters"][0]["max_requests_per_connection"] = json!(1);
    let client = proxy(world);
    let front = client.listener_address("out").unwrap();
    within("the first answer", async {
        while identity_seen(front).await.is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    for round in 1..=4 {
        let name = format!("server-{round}");
        agent.put_secrets(&round.to_string(), &authority.secrets(&name));
        within("the new identity", async {
            loop {
                let seen = identity_seen(front).await.expect("no request fails while a secret is rotated");
                if seen == name {
                    return;
                }
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_rotated_without_a_failed_request() {
    let origin = Origin::echo().await;
    let (mut plane, mut agent) = (Plane::start().await, Plane::start().await);
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let bootstrap: Bootstrap =
        proto_json::from_value(&bootstrap(admin, plane.address, agent.address)).unwrap();
    let proxy = Config { bootstrap, ..Config::default() }.build().unwrap();
    rotate(&mut plane, &mut agent, origin.address, free_port()).await;
    // A listener that is taken away takes no new connections; a refused one leaves what was.
    let address = proxy.listener_address("in").unwrap();
    plane.put::<Listener>(
        types::LISTENER,
        "2",
        &json!({"name": "broken", "address": socket(address), "udp_listener_config": {}}),
    );
    plane.publish();
    until("the refusal", || proxy.figure("listener_manager.lds_update_rejected") > 0).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_ok());
    plane.resources.remove(types::LISTENER, "in");
    plane.publish();
    within("a closed port", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_envoy_takes_the_same_rotation() {
    let Some(envoy) = Envoy::find() else { return };
    let origin = Origin::echo().await;
    let (mut plane, mut agent) = (Plane::start().await, Plane::start().await);
    let admin = SocketAddr::from(([127, 0, 0, 1], 0));
    // Envoy is ready once it has clusters and listeners.
    plane.publish();
    let bootstrap = bootstrap(admin, plane.address, agent.address);
    let port = free_port();
    let rotation = tokio::spawn(async move { rotate(&mut plane, &mut agent, origin.address, port).await });
    let running = tokio::task::spawn_blocking(move || envoy.start(&bootstrap, 2).unwrap()).await.unwrap();
    rotation.await.unwrap();
    assert_eq!(running.admin().rejected().unwrap(), Vec::<String>::new());
}
