//! A client library that others write programs with: kube-rs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, ObjectMeta, PartialObjectMeta, PostParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use lateen_apiserver::{Config, Handle};
use tokio::task::JoinHandle;

use crate::rest::DEADLINE;

async fn serve(folder: &Path, address: SocketAddr) -> Handle {
    let config = Config::new(folder, address);
    tokio::time::timeout(DEADLINE, async {
        loop {
            // The state is in use for a moment after a shutdown.
            match config.clone().build().await {
                Ok(handle) => return handle,
                Err(error) => eprintln!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the server does not start")
}

async fn maps(handle: &Handle) -> Api<ConfigMap> {
    let kubeconfig = kube::config::Kubeconfig::read_from(handle.kubeconfig_path()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    Api::namespaced(kube::Client::try_from(config).unwrap(), "default")
}

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("k".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

/// Name to value and resource version.
type State = BTreeMap<String, (String, String)>;

fn state(maps: impl IntoIterator<Item = ConfigMap>) -> State {
    let entry = |map: ConfigMap| {
        let value = map.data.and_then(|data| data.get("k").cloned()).unwrap_or_default();
        (map.metadata.name.unwrap(), (value, map.metadata.resource_version.unwrap()))
    };
    maps.into_iter().map(entry).collect()
}

fn reflect(api: Api<ConfigMap>, config: watcher::Config) -> (Store<ConfigMap>, JoinHandle<()>) {
    let (store, writer) = reflector::store();
    let stream = watcher(api, config).default_backoff();
    let task = tokio::spawn(async move {
        reflector::reflector(writer, stream).for_each(|_| async {}).await;
    });
    (store, task)
}

async fn becomes(store: &Store<ConfigMap>, expected: &State) {
    let seen = || state(store.state().into_iter().map(|map| (*map).clone()));
    let reached = async {
        while seen() != *expected {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let done = tokio::time::timeout(DEADLINE, reached).await;
    assert!(done.is_ok(), "the reflector has {:?}, the server {expected:?}", seen());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflectors_follow_the_server_through_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut handle = serve(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let (address, api) = (handle.address(), maps(&handle).await);
    // Any page, streamed lists, and lists of the newest state: all that the library knows.
    let pages = watcher::Config::default().page_size(2);
    let reflectors = [
        reflect(api.clone(), pages),
        reflect(api.clone(), watcher::Config::default().streaming_lists()),
        reflect(api.clone(), watcher::Config::default().any_semantic()),
    ];
    for round in 0..3 {
        let post = PostParams::default();
        for n in 0..5 {
            api.create(&post, &map(&format!("r{round}-{n}"), "first")).await.unwrap();
        }
        api.delete(&format!("r{round}-0"), &Default::default()).await.unwrap();
        let mut changed = api.get(&format!("r{round}-1")).await.unwrap();
        changed.data = map("", "second").data;
        api.replace(&format!("r{round}-1"), &post, &changed).await.unwrap();
        let expected = state(api.list(&ListParams::default()).await.unwrap());
        for (store, _) in &reflectors {
            becomes(store, &expected).await;
        }
        handle.shutdown().await;
        handle = serve(folder.path(), address).await;
        // Before the reflectors are back, or while they come.
        api.delete(&format!("r{round}-2"), &Default::default()).await.unwrap();
        api.create(&post, &map(&format!("r{round}-0"), "again")).await.unwrap();
        let expected = state(api.list(&ListParams::default()).await.unwrap());
        for (store, task) in &reflectors {
            becomes(store, &expected).await;
            assert!(!task.is_finished());
        }
    }
    handle.shutdown().await;
}

type Told = BoxStream<'static, watcher::Result<watcher::Event<PartialObjectMeta<ConfigMap>>>>;

async fn word(told: &mut Told) -> String {
    let next = tokio::time::timeout(DEADLINE, told.try_next()).await;
    let name = |one: PartialObjectMeta<ConfigMap>| one.metadata.name.unwrap();
    match next.expect("the watch says nothing").unwrap().unwrap() {
        watcher::Event::Init => "init".to_owned(),
        watcher::Event::InitDone => "done".to_owned(),
        watcher::Event::InitApply(one) => format!("there {}", name(one)),
        watcher::Event::Apply(one) => format!("applied {}", name(one)),
        watcher::Event::Delete(one) => format!("deleted {}", name(one)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_of_metadata_tells_each_change_once() {
    let folder = tempfile::tempdir().unwrap();
    let handle = serve(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let api = maps(&handle).await;
    api.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let partial = Api::<PartialObjectMeta<ConfigMap>>::namespaced(api.clone().into_client(), "default");
    let mut told = watcher(partial, watcher::Config::default()).boxed();
    for expected in ["init", "there a", "done"] {
        assert_eq!(word(&mut told).await, expected);
    }
    api.create(&PostParams::default(), &map("b", "1")).await.unwrap();
    api.delete("a", &Default::default()).await.unwrap();
    for expected in ["applied b", "deleted a"] {
        assert_eq!(word(&mut told).await, expected);
    }
}

/// Writers that all want to add one, each on top of what it has read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicts_are_told_and_retries_lose_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let handle = serve(folder.path(), SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let api = maps(&handle).await;
    api.create(&PostParams::default(), &map("count", "0")).await.unwrap();
    let writers = (0..WRITERS).map(|_| {
        let api = api.clone();
        tokio::spawn(async move {
            let mut conflicts = 0;
            for _ in 0..EACH {
                loop {
                    let mut read = api.get("count").await.unwrap();
                    let value: usize = read.data.as_ref().unwrap()["k"].parse().unwrap();
                    read.data = map("", &(value + 1).to_string()).data;
                    tokio::task::yield_now().await;
                    match api.replace("count", &PostParams::default(), &read).await {
                        Ok(_) => break,
                        Err(kube::Error::Api(status)) => {
                            assert_eq!(
                                (status.code, status.reason.as_str()),
                                (409, "Conflict"),
                                "{status:?}"
                            );
                            conflicts += 1;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }
            conflicts
        })
    });
    let all =
        tokio::time::timeout(DEADLINE, futures::future::join_all(writers)).await.expect("retries do not end");
    let conflicts: usize = all.into_iter().map(Result::unwrap).sum();
    let last = api.get("count").await.unwrap();
    assert_eq!(last.data.unwrap()["k"], (WRITERS * EACH).to_string(), "after {conflicts} conflicts");
    let mut stale = api.get("count").await.unwrap();
    stale.metadata.resource_version = Some("1".into());
    let refused = api.replace("count", &PostParams::default(), &stale).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 409));
}
