//! The same resources in our proxy and in a stock Envoy: what both do is what is right.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use lateen_proxy::Handle;
use serde_json::Value;
use testkit::envoy::{Envoy, Running, freeze};

use crate::support::try_proxy;

/// A proxy that runs the resources.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    /// The file that stands for `LOG` in the resources.
    pub(crate) log: PathBuf,
    listeners: BTreeMap<String, SocketAddr>,
    pub(crate) runs: Runs,
    _folder: tempfile::TempDir,
}

/// What runs.
pub(crate) enum Runs {
    Ours(Handle),
    Envoy(Running),
}

impl Side {
    /// Where a listener is.
    pub(crate) fn at(&self, listener: &str) -> SocketAddr {
        self.listeners[listener]
    }

    /// A figure by its name in `/stats`.
    pub(crate) fn figure(&self, name: &str) -> u64 {
        match &self.runs {
            Runs::Ours(proxy) => proxy.figure(name),
            Runs::Envoy(envoy) => envoy.admin().stat(name).unwrap(),
        }
    }
}

/// Our proxy, and Envoy where there is one.
pub(crate) fn sides(resources: &Value) -> Vec<Side> {
    let mut out = vec![ours(resources)];
    out.extend(Envoy::find().map(|envoy| stock(&envoy, resources)));
    out
}

/// The resources with the side's own log in them.
fn with_log(resources: &Value) -> (tempfile::TempDir, PathBuf, Value) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let text = resources.to_string().replace("\"LOG\"", &format!("{:?}", log.to_str().unwrap()));
    (folder, log, serde_json::from_str(&text).unwrap())
}

fn names(resources: &Value) -> Vec<String> {
    let listeners = resources["listeners"].as_array().unwrap().iter();
    listeners.map(|listener| listener["name"].as_str().unwrap().to_owned()).collect()
}

fn ours(resources: &Value) -> Side {
    let (folder, log, resources) = with_log(resources);
    let listed = names(&resources);
    let proxy = try_proxy(resources).unwrap();
    let address = |name: String| {
        let address = proxy.listener_address(&name).unwrap();
        (name, address)
    };
    let listeners = listed.into_iter().map(address).collect();
    Side { name: "lateen", log, listeners, runs: Runs::Ours(proxy), _folder: folder }
}

fn stock(envoy: &Envoy, resources: &Value) -> Side {
    let (folder, log, resources) = with_log(resources);
    let running = envoy.start(&freeze(&resources), 2).unwrap();
    let listing = running.admin().json("/listeners?format=json").unwrap();
    let listeners = listing["listener_statuses"].as_array().unwrap().iter().map(|status| {
        let socket = &status["local_address"]["socket_address"];
        let port = socket["port_value"].as_u64().unwrap() as u16;
        (status["name"].as_str().unwrap().to_owned(), SocketAddr::from(([127, 0, 0, 1], port)))
    });
    Side { name: "envoy", log, listeners: listeners.collect(), runs: Runs::Envoy(running), _folder: folder }
}
