//! The root certificate in every namespace: one ConfigMap each, kept as it should be for as long as the control plane
//! runs, and owned by the installation, so that it goes when the installation does.
//!
//! Each revision adds its own `ClusterRole` as an owner; Kubernetes removes the map when none of its owners is there.
//! Revisions do not fight: the one that wrote a map, by an annotation, keeps its content while it is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_ca::Authority;
use lateen_kube::WatchEvent;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::{Backoff, Cluster, Role, within};
use crate::engine::Published;
use crate::settings::Settings;

/// The ConfigMap that holds the root certificate, in every namespace.
pub(crate) const ROOT_MAP: &str = "istio-ca-root-cert";
/// Its key.
const KEY: &str = "root-cert.pem";
/// The label by which an uninstallation finds it.
const LABEL: &str = "istio.io/config";
/// The annotation that names the role of the revision whose root it has.
const WRITER: &str = "lateen.dev/root-of";
/// Namespaces that get no root certificate, since no workload of a mesh runs there.
const WITHOUT_ROOT: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// One request about a ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub enum RootWrite {
    /// This object is to be created.
    Create(Value),
    /// This is to be merged into the one there is, if it is still of the version that the patch names.
    Merge(Value),
}

/// The maps there are, by namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct RootMaps(BTreeMap<String, RootMap>);

/// What matters of a map.
#[derive(Clone, Debug, PartialEq)]
struct RootMap {
    version: String,
    /// The hash of the certificate; thousands of namespaces hold the same.
    content: u64,
    labelled: bool,
    writer: String,
    owners: Vec<Value>,
}

impl RootMaps {
    /// Takes in what the watch tells.
    pub(crate) fn take(&mut self, event: WatchEvent) {
        let there = match event {
            WatchEvent::Applied(map) => vec![map],
            WatchEvent::Deleted(map) => {
                self.0.remove(namespace(&map));
                vec![]
            }
            WatchEvent::Replaced(maps) => {
                self.0.clear();
                maps
            }
            WatchEvent::Failed(_) => vec![],
        };
        self.0.extend(there.iter().map(|map| (namespace(map).to_owned(), RootMap::of(map))));
    }
}

impl RootMap {
    fn of(map: &Value) -> Self {
        let metadata = &map["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            version: text(&metadata["resourceVersion"]),
            content: hash(map["data"][KEY].as_str().unwrap_or_default()),
            labelled: metadata["labels"][LABEL] == "true",
            writer: text(&metadata["annotations"][WRITER]),
            owners: metadata["ownerReferences"].as_array().cloned().unwrap_or_default(),
        }
    }

    fn has_owner(&self, name: &str) -> bool {
        self.owners.iter().any(|owner| owner["name"] == name)
    }
}

fn namespace(map: &Value) -> &str {
    map["metadata"]["namespace"].as_str().unwrap_or_default()
}

fn hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// What this control plane wants every map to be.
struct Wanted<'a> {
    pem: &'a str,
    /// The role of this revision.
    role: &'a str,
    /// Its uid; none where it may not be read.
    uid: Option<&'a str>,
}

/// What has to be done about a map.
#[derive(Debug, Default, PartialEq)]
struct Due {
    write: Option<RootWrite>,
    /// Somebody changed what the map says.
    changed: bool,
    /// Another revision, which is installed, publishes another root.
    disputed: bool,
}

impl Wanted<'_> {
    fn owner(&self) -> Option<Value> {
        self.uid.map(|uid| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "name": self.role, "uid": uid,
            })
        })
    }

    fn due(&self, namespace: &str, map: Option<&RootMap>) -> Due {
        let Some(map) = map else {
            return Due { write: Some(RootWrite::Create(self.created(namespace))), ..Due::default() };
        };
        let owned = self.uid.is_none_or(|uid| map.owners.iter().any(|owner| owner["uid"] == uid));
        let same = map.content == hash(self.pem);
        let of_another = map.writer != self.role && map.has_owner(&map.writer);
        let ours = same && map.labelled && map.writer == self.role;
        let changed = !(of_another || ours);
        let disputed = of_another && !same;
        if owned && !changed {
            return Due { disputed, ..Due::default() };
        }
        let mut patch = json!({ "metadata": { "resourceVersion": map.version } });
        if !owned {
            // One of the same name is of an installation that is gone.
            let others = map.owners.iter().filter(|owner| owner["name"] != self.role).cloned();
            patch["metadata"]["ownerReferences"] = others.chain(self.owner()).collect();
        }
        if changed {
            patch["metadata"]["labels"] = json!({ LABEL: "true" });
            patch["metadata"]["annotations"] = json!({ WRITER: self.role });
            patch["data"] = json!({ KEY: self.pem });
        }
        Due { write: Some(RootWrite::Merge(patch)), changed: changed && !same, disputed }
    }

    fn created(&self, namespace: &str) -> Value {
        let mut map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": ROOT_MAP,
                "namespace": namespace,
                "labels": { LABEL: "true" },
                "annotations": { WRITER: self.role },
            },
            "data": { KEY: self.pem },
        });
        if let Some(owner) = self.owner() {
            map["metadata"]["ownerReferences"] = json!([owner]);
        }
        map
    }
}

/// How a look at all maps ended.
enum Pass {
    /// All are as they should be.
    Quiet,
    /// Somebody's change was undone: should he insist, we do not do it in a tight circle.
    Undone,
    /// Something could not be done.
    Failed,
}

/// Keeps the maps.
pub(crate) struct Publisher {
    settings: Arc<Settings>,
    cluster: Arc<dyn Cluster>,
    authority: watch::Receiver<Arc<Authority>>,
    pem: String,
    /// The certificates are others than at the look before: that the maps differ is no wonder.
    renewed: bool,
    role: String,
    owner: Option<Role>,
    /// What was complained of: the same is said once.
    said: BTreeSet<String>,
}

impl Publisher {
    pub(crate) fn new(
        settings: Arc<Settings>,
        cluster: Arc<dyn Cluster>,
        authority: watch::Receiver<Arc<Authority>>,
    ) -> Self {
        let role = settings.role();
        let pem = authority.borrow().root_pem().to_owned();
        Self { settings, cluster, authority, pem, renewed: false, role, owner: None, said: BTreeSet::new() }
    }

    /// Looks after the maps whenever namespaces or maps change, until the control plane ends.
    pub(crate) async fn run(
        mut self,
        mut published: watch::Receiver<Option<Arc<Published>>>,
        mut maps: watch::Receiver<RootMaps>,
    ) {
        let mut backoff = Backoff::new(self.settings.retry);
        loop {
            let namespaces = self.namespaces(published.borrow_and_update().as_deref());
            let there = maps.borrow_and_update().clone();
            let pem = self.authority.borrow_and_update().root_pem().to_owned();
            self.renewed |= pem != self.pem;
            self.pem = pem;
            let wait = match self.pass(&namespaces, &there).await {
                Pass::Quiet => {
                    self.renewed = false;
                    backoff = Backoff::new(self.settings.retry);
                    None
                }
                Pass::Undone => {
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
                Pass::Failed => Some(backoff.next()),
            };
            let again = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let going_on = tokio::select! {
                changed = published.changed() => changed.is_ok(),
                changed = maps.changed() => changed.is_ok(),
                changed = self.authority.changed() => changed.is_ok(),
                () = again => true,
            };
            if !going_on {
                return;
            }
        }
    }

    fn namespaces(&self, published: Option<&Published>) -> BTreeSet<String> {
        published
            .into_iter()
            .flat_map(|published| published.snapshot.view.namespaces.keys())
            .filter(|(cluster, _)| *cluster == self.settings.cluster)
            .map(|(_, namespace)| namespace.to_string())
            .filter(|namespace| !WITHOUT_ROOT.contains(&namespace.as_str()))
            .collect()
    }

    async fn pass(&mut self, namespaces: &BTreeSet<String>, maps: &RootMaps) -> Pass {
        let mut due = self.due(namespaces, maps);
        if due.is_empty() && self.owner.is_some() {
            return Pass::Quiet;
        }
        // The role may have been made anew, and the old one's maps been collected with it.
        match within(&self.settings, self.cluster.role(&self.role)).await {
            Ok(Role::Gone) => {
                self.owner = None;
                self.complain(format!(
                    "ClusterRole {} is gone: the installation is being removed, so no root certificate is published",
                    self.role
                ));
                return Pass::Failed;
            }
            Ok(owner) => {
                if let Role::Hidden(reason) = &owner {
                    self.complain(format!(
                        "ConfigMaps {ROOT_MAP} will not go with the installation: {reason}"
                    ));
                }
                self.owner = Some(owner);
            }
            Err(reason) => {
                self.complain(format!("ClusterRole {}: {reason}", self.role));
                return Pass::Failed;
            }
        }
        due = self.due(namespaces, maps);
        let mut pass = Pass::Quiet;
        for (namespace, due) in due {
            let Some(write) = due.write else { continue };
            match within(&self.settings, self.cluster.publish_root(&namespace, write)).await {
                Ok(()) if due.changed && !self.renewed => {
                    tracing::info!("root certificate in namespace {namespace} was changed; it is ours again");
                    pass = if matches!(pass, Pass::Failed) { Pass::Failed } else { Pass::Undone };
                }
                Ok(()) => {}
                Err(reason) => {
                    pass = Pass::Failed;
                    tracing::warn!("root certificate in namespace {namespace}: {reason}");
                }
            }
        }
        pass
    }

    /// What is to be done, by namespace.
    fn due(&mut self, namespaces: &BTreeSet<String>, maps: &RootMaps) -> Vec<(String, Due)> {
        let uid = match &self.owner {
            Some(Role::Here(uid)) => Some(uid.as_str()),
            _ => None,
        };
        let wanted = Wanted { pem: &self.pem, role: &self.role, uid };
        let due = |name: &String| (name.clone(), wanted.due(name, maps.0.get(name)));
        let all: Vec<(String, Due)> = namespaces.iter().map(due).collect();
        if let Some((namespace, _)) = all.iter().find(|(_, due)| due.disputed) {
            let writer = maps.0.get(namespace).map(|map| map.writer.clone()).unwrap_or_default();
            self.complain(format!(
                "the revision of ClusterRole {writer} publishes another root certificate, in namespace {namespace} \
                 and maybe others; it stays while that revision is installed. Give both the same CA"
            ));
        }
        all.into_iter().filter(|(_, due)| due.write.is_some()).collect()
    }

    fn complain(&mut self, words: String) {
        if self.said.insert(words.clone()) {
            tracing::warn!("{words}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Wanted<'static> = Wanted { pem: "pem", role: "istiod", uid: Some("u1") };

    fn map(pem: &str, writer: &str, owners: &[(&str, &str)]) -> RootMap {
        let owner = |(name, uid): &(&str, &str)| json!({ "name": name, "uid": uid });
        RootMap::of(&json!({
            "metadata": {
                "namespace": "a", "resourceVersion": "7", "labels": { LABEL: "true" },
                "annotations": { WRITER: writer },
                "ownerReferences": owners.iter().map(owner).collect::<Vec<_>>(),
            },
            "data": { KEY: pem },
        }))
    }

    fn patch(due: Due) -> Value {
        match due.write {
            Some(RootWrite::Merge(patch)) => patch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_we_create_is_as_we_want_it() {
        let Some(RootWrite::Create(created)) = OURS.due("a", None).write else { panic!() };
        assert_eq!(created["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(OURS.due("a", Some(&RootMap::of(&created))), Due::default());
    }

    #[test]
    fn a_changed_root_is_restored() {
        let due = OURS.due("a", Some(&map("other", "istiod", &[("istiod", "u1")])));
        assert!(due.changed);
        let patch = patch(due);
        assert_eq!(patch["data"][KEY], "pem");
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert!(patch["metadata"].get("ownerReferences").is_none());
    }

    #[test]
    fn every_revision_is_an_owner_and_one_of_a_former_installation_is_not() {
        let due = OURS.due("a", Some(&map("pem", "istiod", &[("istiod", "old"), ("istiod-canary", "c")])));
        let owners = patch(due)["metadata"]["ownerReferences"].clone();
        assert_eq!(owners.as_array().unwrap().len(), 2);
        assert_eq!((&owners[0]["uid"], &owners[1]["uid"]), (&json!("c"), &json!("u1")));
    }

    #[test]
    fn revisions_with_different_roots_do_not_fight() {
        let theirs = map("other", "istiod-canary", &[("istiod-canary", "c"), ("istiod", "u1")]);
        let due = OURS.due("a", Some(&theirs));
        assert!(due.disputed && due.write.is_none());
        // When the other is gone, so is what it wrote.
        let left = map("other", "istiod-canary", &[("istiod", "u1")]);
        assert_eq!(patch(OURS.due("a", Some(&left)))["data"][KEY], "pem");
    }

    #[test]
    fn one_without_a_known_role_has_no_owner() {
        let hidden = Wanted { uid: None, ..OURS };
        let Some(RootWrite::Create(created)) = hidden.due("a", None).write else { panic!() };
        assert!(created["metadata"].get("ownerReferences").is_none());
        assert_eq!(hidden.due("a", Some(&map("pem", "istiod", &[]))), Due::default());
    }
}
