//! What every part of a mesh trusts and shows: control planes, published roots, webhooks, and the proxies themselves.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use lateen_ca::chain;
use lateen_kube::{Client, ResourceKind};
use lateen_status::{Authority, ProxySync};
use serde::Serialize;
use serde_json::Value;

use crate::commands::CliError;
use crate::globals::Globals;
use crate::pods::{self, PodName};

/// Proxies that are asked at once.
const AT_ONCE: usize = 16;
/// The ConfigMap of the roots, in every namespace, and its key.
const ROOT_MAP: &str = "istio-ca-root-cert";
const ROOT_KEY: &str = "root-cert.pem";

/// SHA-256 of certificates.
pub(super) type Fingerprints = Vec<String>;

/// The mesh at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) control_planes: Vec<(String, Authority)>,
    /// What is published, by namespace.
    pub(super) maps: BTreeMap<String, Fingerprints>,
    /// What the API server trusts, by webhook configuration.
    pub(super) webhooks: BTreeMap<String, Fingerprints>,
    pub(super) proxies: Vec<Seen>,
}

impl Look {
    /// A proxy's name, with its cluster where there are several.
    pub(super) fn name(&self, seen: &Seen) -> String {
        name(&self.proxies, seen)
    }
}

/// A proxy's name among others, with its cluster where they are of several.
pub(super) fn name(all: &[Seen], seen: &Seen) -> String {
    match all.iter().any(|other| other.cluster != seen.cluster) {
        true => format!("{} of cluster {}", seen.proxy, seen.cluster),
        false => seen.proxy.clone(),
    }
}

/// What one proxy has in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// `POD.NAMESPACE`.
    pub(super) proxy: String,
    /// The cluster that it runs in, by the name the mesh has for it.
    pub(super) cluster: String,
    /// The roots that it trusts.
    pub(super) trusts: Fingerprints,
    /// The root, of all that are known, that its own certificate leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shows: Option<String>,
    /// Why nothing is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
}

/// Asks everybody, proxies also where the clients of other clusters reach. `roots` are the PEM texts of all roots that matter.
pub(super) async fn look(
    client: &Client,
    others: &[Client],
    globals: &Globals,
    roots: &str,
) -> Result<Look, CliError> {
    let control_planes = control_planes(client, globals).await?;
    Ok(Look {
        control_planes: control_planes.into_iter().map(|(pod, authority)| (pod.name, authority)).collect(),
        maps: maps(client).await?,
        webhooks: webhooks(client, globals).await?,
        proxies: proxies(client, others, globals, roots).await?,
    })
}

/// Every control plane's authority.
pub(super) async fn control_planes(
    client: &Client,
    globals: &Globals,
) -> Result<Vec<(PodName, Authority)>, CliError> {
    let all = pods::debug::<Option<Authority>>(client, globals, "/debug/ca").await?;
    all.into_iter()
        .map(|(pod, authority)| match authority {
            Some(authority) => Ok((pod, authority)),
            None => Err(CliError(format!("control plane {} has no authority yet", pod.name))),
        })
        .collect()
}

async fn maps(client: &Client) -> Result<BTreeMap<String, Fingerprints>, CliError> {
    let kind = ResourceKind::core("ConfigMap", "configmaps");
    let all = client.list(&kind, None, Some("istio.io/config=true")).await?;
    let ours = all.iter().filter(|map| map["metadata"]["name"] == ROOT_MAP);
    Ok(ours
        .map(|map| (text(&map["metadata"]["namespace"]), fingerprints(&text(&map["data"][ROOT_KEY]))))
        .collect())
}

async fn webhooks(client: &Client, globals: &Globals) -> Result<BTreeMap<String, Fingerprints>, CliError> {
    let mut found = BTreeMap::new();
    for (kind, plural) in [
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ] {
        let kind = ResourceKind::new("admissionregistration.k8s.io", "v1", kind, plural, false);
        for object in client.list(&kind, None, None).await? {
            let bundles = object["webhooks"].as_array().into_iter().flatten().filter_map(|webhook| {
                let service = &webhook["clientConfig"]["service"];
                let ours = service["namespace"] == *globals.istio_namespace
                    && service["name"].as_str().is_some_and(|name| name.starts_with("istiod"));
                ours.then(|| decoded(&text(&webhook["clientConfig"]["caBundle"])))
            });
            // Of several webhooks in one configuration the first that lags is told.
            if let Some(least) = bundles.map(|pem| fingerprints(&pem)).min_by_key(Vec::len) {
                found.insert(text(&object["metadata"]["name"]), least);
            }
        }
    }
    Ok(found)
}

/// Cluster, namespace and name.
type Place = (String, String, String);

/// The proxies that are connected, and those that run in pods within reach whether connected or not.
async fn proxies(
    client: &Client,
    others: &[Client],
    globals: &Globals,
    roots: &str,
) -> Result<Vec<Seen>, CliError> {
    let mut all: BTreeMap<Place, Option<&Client>> = BTreeMap::new();
    for reached in [client].into_iter().chain(others) {
        let pods = reached.list(&ResourceKind::core("Pod", "pods"), None, None).await?;
        let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
        all.extend(running.filter_map(place).map(|place| (place, Some(reached))));
    }
    let connected = pods::debug::<Vec<ProxySync>>(client, globals, "/debug/syncz").await?;
    for proxy in connected.into_iter().flat_map(|(_, proxies)| proxies) {
        let Some((name, namespace)) = proxy.proxy.rsplit_once('.') else { continue };
        let place = (proxy.cluster_id.clone(), namespace.to_owned(), name.to_owned());
        all.entry(place).or_insert(None);
    }
    let seen = futures::stream::iter(all).map(|((cluster, namespace, name), reached)| async move {
        let seen = match reached {
            Some(client) => see(client, &PodName { namespace, name }, roots).await,
            None => Seen::lost(format!("{name}.{namespace}"), out_of_reach(&cluster)),
        };
        Seen { cluster, ..seen }
    });
    let mut seen: Vec<Seen> = seen.buffer_unordered(AT_ONCE).collect().await;
    seen.sort_by(|a, b| (&a.proxy, &a.cluster).cmp(&(&b.proxy, &b.cluster)));
    Ok(seen)
}

/// Where the proxy of a pod runs, if it has one.
fn place(pod: &Value) -> Option<Place> {
    const CLUSTER: &str = "ISTIO_META_CLUSTER_ID";
    let containers = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    let proxy = containers.into_iter().find(|container| container["name"] == "istio-proxy")?;
    let said = proxy["env"].as_array().into_iter().flatten().find(|variable| variable["name"] == CLUSTER);
    let cluster = said.and_then(|variable| variable["value"].as_str()).unwrap_or("Kubernetes");
    Some((cluster.to_owned(), text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"])))
}

fn out_of_reach(cluster: &str) -> String {
    format!(
        "it is connected from cluster {cluster}, where no running pod of it is within reach, so nobody knows what it trusts: \
         name the kubeconfig's context of that cluster (--remote-contexts)"
    )
}

async fn see(client: &Client, pod: &PodName, roots: &str) -> Seen {
    let proxy = format!("{}.{}", pod.name, pod.namespace);
    match pod.ask_proxy(client, "/config_dump?resource=dynamic_active_secrets").await {
        Ok(dump) => of_dump(proxy, &dump, roots),
        Err(error) => Seen::lost(proxy, format!("its admin interface does not answer: {error}")),
    }
}

impl Seen {
    fn lost(proxy: String, problem: String) -> Self {
        Self { proxy, cluster: String::new(), trusts: Vec::new(), shows: None, problem: Some(problem) }
    }
}

/// What a proxy's dump of secrets says.
fn of_dump(proxy: String, dump: &Value, roots: &str) -> Seen {
    let secrets: Vec<&Value> = dump["configs"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|config| match config["dynamic_active_secrets"].as_array() {
            Some(list) => list.iter().collect(),
            None => vec![config],
        })
        .map(|entry| &entry["secret"])
        .collect();
    let named = |name: &str| secrets.iter().find(|secret| secret["name"] == name);
    let chain = named("default").map(|secret| inline(&secret["tls_certificate"]["certificate_chain"]));
    let trusted = named("ROOTCA").map(|secret| inline(&secret["validation_context"]["trusted_ca"]));
    let (Some(chain), Some(trusted)) = (chain, trusted) else {
        return Seen::lost(proxy, "it has no certificate and roots of the mesh in use".to_owned());
    };
    let known = format!("{roots}\n{trusted}");
    let shows = chain::root_of(&chain, &known).ok().flatten().map(|root| root.sha256);
    Seen { proxy, cluster: String::new(), trusts: fingerprints(&trusted), shows, problem: None }
}

fn inline(source: &Value) -> String {
    match source["inline_string"].as_str() {
        Some(text) => text.to_owned(),
        None => decoded(&text(&source["inline_bytes"])),
    }
}

fn decoded(base64: &str) -> String {
    STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

fn fingerprints(pem: &str) -> Fingerprints {
    chain::facts(pem).map(|all| all.into_iter().map(|root| root.sha256).collect()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use lateen_ca::make::{Kind, Maker};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dump_tells_what_is_trusted_and_under_which_root_the_certificate_is() {
        let maker =
            Maker { key: Kind::EcdsaP256, now: SystemTime::now(), lifetime: Duration::from_secs(3600) };
        let (old, new) = (maker.root("O", "Old").unwrap(), maker.root("O", "New").unwrap());
        let leaf = old.intermediate(&maker, "O", "Leaf", "c", Some(0)).unwrap();
        let both = format!("{}{}", new.certificate_pem(), old.certificate_pem());
        let dump = json!({"configs": [
            {"@type": "x", "name": "default", "secret": {"name": "default", "tls_certificate":
                {"certificate_chain": {"inline_bytes": STANDARD.encode(leaf.certificate_pem())}}}},
            {"@type": "x", "name": "ROOTCA", "secret": {"name": "ROOTCA", "validation_context":
                {"trusted_ca": {"inline_string": new.certificate_pem()}}}},
        ]});
        let sha = |pem: &str| fingerprints(pem).remove(0);
        let seen = of_dump("a.b".into(), &dump, &both);
        assert_eq!(
            (seen.trusts, seen.shows),
            (vec![sha(new.certificate_pem())], Some(sha(old.certificate_pem())))
        );
        let strange = of_dump("a.b".into(), &dump, "");
        assert_eq!(strange.shows, None, "of a root that nobody knows");
        let empty = of_dump("a.b".into(), &json!({"configs": []}), &both);
        assert!(empty.problem.is_some());
    }

    #[test]
    fn a_pod_with_a_proxy_tells_its_cluster() {
        let pod = |list: &str, containers: Value| {
            let (metadata, mut spec) = (json!({"name": "p", "namespace": "ns"}), json!({}));
            spec[list] = containers;
            place(&json!({"metadata": metadata, "spec": spec}))
        };
        let at = |cluster: &str| Some((cluster.to_owned(), "ns".to_owned(), "p".to_owned()));
        let east = json!([{"name": "ISTIO_META_CLUSTER_ID", "value": "east"}]);
        assert_eq!(pod("containers", json!([{"name": "app"}])), None);
        assert_eq!(pod("containers", json!([{"name": "app"}, {"name": "istio-proxy"}])), at("Kubernetes"));
        assert_eq!(pod("initContainers", json!([{"name": "istio-proxy", "env": east}])), at("east"));
    }
}
