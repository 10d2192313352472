//! Callers of the secure port that show a certificate of the mesh.

use std::time::{Duration, SystemTime};

use lateen_base::SpiffeId;
use lateen_ca::Authority;
use lateen_ca::client::{ClientError, Issued, request};
use lateen_ca::request::KeyRequest;
use lateen_xds::client::Config;
use lateen_xds::transport::Target;
use lateen_xds::types;

use crate::fake::{Client, World, deadline, node};

const DAY: Duration = Duration::from_secs(86_400);
const VM: &str = "spiffe://cluster.local/ns/default/sa/vm";

/// A chain with its key.
type Shown = (String, String);

fn key(id: &str) -> KeyRequest {
    KeyRequest::new(&id.parse::<SpiffeId>().unwrap()).unwrap()
}

async fn ask(target: Target, token: Option<&str>, csr: &str) -> Result<Issued, ClientError> {
    let channel = deadline(target.channel()).await.unwrap();
    deadline(request(channel, token, csr.to_owned(), DAY)).await
}

async fn certified(world: &World) -> Shown {
    let key = key(VM);
    let issued = ask(world.secure(), Some("default:vm"), &key.csr_pem).await.unwrap();
    (issued.chain_pem, key.key_pem)
}

fn shown(shown: &Shown) -> Option<(&str, &str)> {
    Some((&shown.0, &shown.1))
}

#[tokio::test]
async fn a_certificate_is_renewed_by_who_holds_it() {
    let world = World::start(Vec::new()).await;
    let holder = certified(&world).await;
    let as_holder = || world.secure_as(shown(&holder));
    let next = key(VM).csr_pem;
    let renewed = ask(as_holder(), None, &next).await.unwrap();
    assert_eq!(renewed.root_pem, world.control.root_pem());
    ask(as_holder(), Some("expired"), &next).await.unwrap();

    let other = key("spiffe://cluster.local/ns/default/sa/other").csr_pem;
    let refused = ask(as_holder(), None, &other).await.unwrap_err().to_string();
    assert!(refused.contains("sa/other"), "{refused}");
    ask(as_holder(), Some("default:other"), &other).await.expect("a good token says who calls");
    for token in [None, Some("expired")] {
        let refused = ask(world.secure(), token, &next).await.unwrap_err().to_string();
        assert!(refused.contains("token"), "{refused}");
    }
}

#[tokio::test]
async fn certificates_of_others_are_not_taken() {
    let world = World::start(Vec::new()).await;
    let csr = key(VM);
    let vm: SpiffeId = VM.parse().unwrap();
    let stranger = Authority::self_signed("cluster.local", SystemTime::now(), DAY).unwrap();
    let chain = stranger.sign(&csr.csr_pem, &vm, SystemTime::now(), DAY).unwrap();
    let strange = (chain[0].clone(), csr.key_pem.clone());
    let channel = world.secure_as(shown(&strange)).channel().await;
    let asked = async {
        request(channel.map_err(|e| e.to_string())?, None, csr.csr_pem.clone(), DAY)
            .await
            .map_err(|e| e.to_string())
    };
    assert!(deadline(asked).await.is_err(), "of another authority");
}

#[tokio::test]
async fn the_holder_of_a_certificate_discovers_for_its_own_namespace() {
    let world = World::start(Vec::new()).await;
    let holder = certified(&world).await;
    let connect = |namespace: &str| {
        let mut node = node("vm");
        node.id = node.id.replace(".default~", &format!(".{namespace}~"));
        let (handle, events) =
            lateen_xds::client::connect(Config::new(world.secure_as(shown(&holder)), node));
        handle.subscribe(types::CLUSTER, ["*"]);
        Client { handle, events }
    };
    assert!(!connect("default").update(types::CLUSTER).await.resources.is_empty());
    let reason = connect("other").refusal().await;
    assert!(reason.contains("not in the namespace"), "{reason}");
}
