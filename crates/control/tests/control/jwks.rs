//! Keys named by address reach proxies as keys; until then, and where they may not be fetched, tokens are refused.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use lateen_control::{JwksSettings, Settings, Watched};
use lateen_xds::client::Update;
use lateen_xds::types;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bookinfo;
use crate::fake::{FakeCluster, World};

const KEYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"fetched-key","x":"A6Vb56hV17_EOwIbVHA63R0aW4li45SigKA8ZDCzFRY","y":"uIokQz9ffBxo--50xrCLmYalQ9JLwBuJNmvakwMsACY"}]}"#;

fn authentication(uri: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": { "name": "tokens", "namespace": "default" },
        "spec": { "jwtRules": [{ "issuer": "issuer.example", "jwksUri": uri }] },
    })
}

/// What the proxy is told of the tokens, byte by byte.
fn told(update: &Update) -> String {
    let texts =
        update.resources.iter().map(|resource| String::from_utf8_lossy(&resource.any.value).into_owned());
    texts.collect::<Vec<_>>().join("\n")
}

async fn keys_at(path: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route(path, get(|| async { KEYS }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}{path}")
}

#[tokio::test]
async fn keys_are_fetched_for_proxies() {
    let uri = keys_at("/jwks.json").await;
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    let jwks = JwksSettings { allowed, refresh: Duration::from_secs(60), ..JwksSettings::default() };
    let settings = Settings { jwks, ..Settings::default() };
    let world = World::start_with(Arc::new(FakeCluster::default()), bookinfo(), settings).await;
    let mut client = world.connect("reviews");
    client.handle.subscribe(types::LISTENER, ["*"]);
    client.until(types::LISTENER, |update| !told(update).contains("jwt_authn")).await;
    world.apply(Watched::Istio(lateen_api::Kind::RequestAuthentication), authentication(&uri)).await;
    client.until(types::LISTENER, |update| told(update).contains("fetched-key")).await;
}

#[tokio::test]
async fn what_must_not_be_fetched_refuses_tokens() {
    let uri = keys_at("/jwks.json").await;
    let world = World::start(bookinfo()).await;
    let mut client = world.connect("reviews");
    client.handle.subscribe(types::LISTENER, ["*"]);
    world.apply(Watched::Istio(lateen_api::Kind::RequestAuthentication), authentication(&uri)).await;
    let update = client.until(types::LISTENER, |update| told(update).contains("jwt_authn")).await;
    assert!(
        told(&update).contains("not-fetched") && !told(&update).contains("fetched-key"),
        "{}",
        told(&update)
    );
}
