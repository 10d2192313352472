//! Installing and uninstalling against the embedded API server: what is left, what is removed, what can be repeated.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;

use lateen_apiserver::{Config, Handle};
use lateen_kube::install::{Installer, Removal, Step, key};
use lateen_kube::{Access, Client, Discovery};
use lateen_manifests::Installation;
use serde_json::{Value, json};
use tempfile::TempDir;

struct World {
    server: Handle,
    client: Client,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Config::new(folder.path().to_owned(), any).build().await.unwrap();
        let access = Access::Kubeconfig { path: Some(server.kubeconfig_path().to_owned()), context: None };
        let client = Client::connect(&access).await.unwrap();
        Self { server, client, _folder: folder }
    }

    fn installer(&self) -> Installer {
        Installer::new(self.client.clone(), None)
    }

    /// Installs, and says what was removed.
    async fn install(&self, files: &[Value], sets: &[&str]) -> Vec<String> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let installation = Installation::build(files, &sets).unwrap();
        let removed = Mutex::new(Vec::new());
        let tell = |step: Step| {
            if let Step::Removed(object) = step {
                removed.lock().unwrap().push(object);
            }
        };
        self.installer().install(&installation, &tell).await.unwrap();
        removed.into_inner().unwrap()
    }

    async fn uninstall(&self, removal: Removal) {
        let installer = self.installer();
        let objects = installer.removable(&removal).await.unwrap();
        installer.remove(objects, &|_| ()).await.unwrap();
    }

    /// Everything there is, but for the namespace that stays for its owner to delete, and the account that every namespace has.
    async fn objects(&self) -> BTreeSet<String> {
        let discovery = Discovery::of(&self.client).await.unwrap();
        let mut all = BTreeSet::new();
        for kind in discovery.kinds() {
            for mut object in self.client.list(kind, None, None).await.unwrap_or_default() {
                object["kind"] = json!(kind.kind);
                all.insert(key(&object));
            }
        }
        all.retain(|key| {
            !["Namespace::istio-system", "ServiceAccount:istio-system:default"].contains(&key.as_str())
        });
        all
    }

    async fn end(self) {
        self.server.shutdown().await;
    }
}

fn eastwest() -> Value {
    json!({
        "kind": "IstioOperator",
        "metadata": { "name": "eastwest" },
        "spec": {
            "profile": "empty",
            "components": { "ingressGateways": [{ "name": "istio-eastwestgateway", "enabled": true }] },
        },
    })
}

#[tokio::test]
async fn a_purge_leaves_what_was_there_before() {
    let world = World::start().await;
    let before = world.objects().await;
    world.install(&[], &["profile=demo"]).await;
    world.install(&[], &["profile=default", "revision=canary"]).await;
    assert!(world.objects().await.len() > before.len() + 40);
    world.uninstall(Removal::Everything).await;
    let after = world.objects().await;
    assert_eq!(after.symmetric_difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    world.end().await;
}

#[tokio::test]
async fn installing_again_removes_what_is_no_longer_wanted_and_nothing_of_others() {
    let world = World::start().await;
    world.install(&[], &["profile=demo"]).await;
    world.install(&[eastwest()], &[]).await;
    let removed = world.install(&[], &["meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"]).await;
    assert!(removed.contains(&"Deployment:istio-system:istio-egressgateway".to_owned()), "{removed:?}");
    assert!(removed.iter().all(|key| key.contains("istio-egressgateway")), "{removed:?}");
    let there = world.objects().await;
    assert!(there.contains("Deployment:istio-system:istio-eastwestgateway"));
    assert!(there.contains("Service:istio-system:istio-ingressgateway"));
    assert_eq!(world.install(&[], &[]).await, Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn a_revision_is_removed_alone() {
    let world = World::start().await;
    world.install(&[], &["profile=minimal"]).await;
    let before = world.objects().await;
    world.install(&[], &["profile=minimal", "revision=canary"]).await;
    assert!(world.objects().await.contains("Deployment:istio-system:istiod-canary"));
    world.uninstall(Removal::Revision("canary".into())).await;
    assert_eq!(world.objects().await, before);
    let installation = Installation::build(&[], &["profile=minimal".into()]).unwrap();
    world.uninstall(Removal::Installation(Box::new(installation))).await;
    let left = world.objects().await;
    assert!(!left.contains("Deployment:istio-system:istiod"));
    assert!(left.contains("CustomResourceDefinition::gateways.networking.istio.io"), "definitions stay");
    world.end().await;
}

#[tokio::test]
async fn the_first_revision_is_the_default() {
    let world = World::start().await;
    world.install(&[], &["profile=minimal", "revision=one"]).await;
    world.install(&[], &["profile=minimal", "revision=two"]).await;
    let kind = lateen_kube::install::kind_of("MutatingWebhookConfiguration").unwrap();
    let tag = world.client.get(&kind, "", "istio-revision-tag-default").await.unwrap();
    assert_eq!(tag["metadata"]["labels"]["istio.io/rev"], "one");
    assert_eq!(tag["webhooks"][0]["clientConfig"]["service"]["name"], "istiod-one");
    world.end().await;
}
