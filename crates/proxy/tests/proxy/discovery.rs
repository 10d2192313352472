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
use lateen_xds::{Catalog, Resource, ResourceMap, types};
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
