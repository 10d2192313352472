//! Resources in a static bootstrap, with everything in place that they fetch by reference.

use std::collections::BTreeMap;

use lateen_proto::envoy::config::{cluster, endpoint, listener, route};
use lateen_proto::json::{JsonError, Names, to_value};
use serde_json::{Map, Value, json};

/// Resources of one proxy, as messages.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Listeners.
    pub listeners: Vec<listener::v3::Listener>,
    /// Clusters.
    pub clusters: Vec<cluster::v3::Cluster>,
    /// Route configurations.
    pub routes: Vec<route::v3::RouteConfiguration>,
    /// Load assignments.
    pub endpoints: Vec<endpoint::v3::ClusterLoadAssignment>,
}

impl Dump {
    /// The form of `lateen x dump-xds`.
    ///
    /// # Errors
    /// When a message holds an extension of unknown type.
    pub fn to_json(&self) -> Result<Value, JsonError> {
        fn all<M: lateen_proto::Message + lateen_proto::Name>(list: &[M]) -> Result<Value, JsonError> {
            list.iter().map(|message| to_value(message, Names::Camel)).collect()
        }
        Ok(json!({
            "listeners": all(&self.listeners)?,
            "clusters": all(&self.clusters)?,
            "routes": all(&self.routes)?,
            "endpoints": all(&self.endpoints)?,
        }))
    }
}

/// A dump (`{"listeners": [..], "clusters": [..], "routes": [..], "endpoints": [..], "secrets": [..]}`) as a static
/// bootstrap: route configurations inside their listeners, load assignments inside their clusters, every secret that
/// is referred to among the static ones (a made-up certificate where the dump has none).
pub fn freeze(dump: &Value) -> Value {
    let list = |name: &str| dump[name].as_array().cloned().unwrap_or_default();
    let by_name = |name: &str, keys: &[&str]| -> BTreeMap<String, Value> {
        let named = |item: Value| Some((keys.iter().find_map(|key| item[*key].as_str())?.to_owned(), item));
        list(name).into_iter().filter_map(named).collect()
    };
    let mut freezer = Freezer {
        routes: by_name("routes", &["name"]),
        endpoints: by_name("endpoints", &["clusterName", "cluster_name"]),
        certificates: BTreeMap::new(),
        validations: BTreeMap::new(),
    };
    let mut listeners = list("listeners");
    let mut clusters = list("clusters");
    listeners.iter_mut().for_each(|listener| freezer.freeze(listener));
    clusters.iter_mut().for_each(|cluster| {
        freezer.freeze(cluster);
        freezer.freeze_cluster(cluster);
    });
    let mut secrets = list("secrets");
    // The offline dump tells of secrets that no manifest has only the names, and redacts keys.
    secrets.retain(|secret| {
        let whole = secret.as_object().is_some_and(|fields| fields.len() > 1);
        let key = secret.pointer("/tlsCertificate/privateKey/inlineBytes");
        whole && key.is_none_or(|key| key != "W3JlZGFjdGVkXQ==")
    });
    let known: Vec<String> =
        secrets.iter().filter_map(|secret| Some(secret["name"].as_str()?.to_owned())).collect();
    let missing = freezer.certificates.into_values().chain(freezer.validations.into_values());
    secrets.extend(missing.filter(|secret| !known.iter().any(|name| secret["name"] == **name)));
    json!({
        "node": {"id": "sidecar~127.0.0.1~test.default~default.svc.cluster.local", "cluster": "test"},
        "staticResources": {"listeners": listeners, "clusters": clusters, "secrets": secrets},
    })
}

struct Freezer {
    routes: BTreeMap<String, Value>,
    endpoints: BTreeMap<String, Value>,
    certificates: BTreeMap<String, Value>,
    validations: BTreeMap<String, Value>,
}

impl Freezer {
    fn freeze(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.freeze(item)),
            Value::Object(fields) => {
                self.freeze_routes(fields);
                self.freeze_secrets(fields);
                fields.values_mut().for_each(|field| self.freeze(field));
            }
            _ => {}
        }
    }

    fn freeze_routes(&self, fields: &mut Map<String, Value>) {
        let name =
            |rds: &Value| Some(either(rds, "routeConfigName", "route_config_name")?.as_str()?.to_owned());
        let Some(name) = fields.get("rds").and_then(name) else { return };
        fields.remove("rds");
        let missing = json!({"name": name, "virtualHosts": []});
        fields.insert("routeConfig".into(), self.routes.get(&name).cloned().unwrap_or(missing));
    }

    fn freeze_secrets(&mut self, fields: &mut Map<String, Value>) {
        for key in ["tlsCertificateSdsSecretConfigs", "tls_certificate_sds_secret_configs"] {
            for reference in fields.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(name) = detach(reference) {
                    self.certificates.entry(name.clone()).or_insert_with(|| certificate(&name));
                }
            }
        }
        for key in ["validationContextSdsSecretConfig", "validation_context_sds_secret_config"] {
            if let Some(name) = fields.get_mut(key).and_then(detach) {
                self.validations.entry(name.clone()).or_insert_with(|| validation(&name));
            }
        }
    }

    fn freeze_cluster(&self, cluster: &mut Value) {
        let Some(eds) = either(cluster, "edsClusterConfig", "eds_cluster_config").cloned() else { return };
        let own = cluster["name"].as_str().unwrap_or_default().to_owned();
        let service =
            either(&eds, "serviceName", "service_name").and_then(Value::as_str).unwrap_or(&own).to_owned();
        let Some(fields) = cluster.as_object_mut() else { return };
        fields.remove("edsClusterConfig");
        fields.remove("eds_cluster_config");
        fields.insert("type".into(), json!("STATIC"));
        let missing = json!({"clusterName": service, "endpoints": []});
        fields.insert("loadAssignment".into(), self.endpoints.get(&service).cloned().unwrap_or(missing));
    }
}

fn either<'v>(value: &'v Value, camel: &str, snake: &str) -> Option<&'v Value> {
    value.get(camel).or_else(|| value.get(snake))
}

/// Takes a reference's source away, so that it means a static secret.
fn detach(reference: &mut Value) -> Option<String> {
    let fields = reference.as_object_mut()?;
    fields.remove("sdsConfig");
    fields.remove("sds_config");
    Some(fields.get("name")?.as_str()?.to_owned())
}

fn certificate(name: &str) -> Value {
    let (chain, key) = pem();
    json!({"name": name, "tlsCertificate": {
        "certificateChain": {"inlineString": chain}, "privateKey": {"inlineString": key}}})
}

fn validation(name: &str) -> Value {
    json!({"name": name, "validationContext": {"trustedCa": {"inlineString": pem().0}}})
}

/// A certificate that signs itself, and its key; nobody ever sees it but a validator.
fn pem() -> (String, String) {
    use std::sync::OnceLock;
    static PEM: OnceLock<(String, String)> = OnceLock::new();
    PEM.get_or_init(|| {
        // Generating a key for a valid name can only fail when the random source does.
        let made = rcgen::generate_simple_self_signed(["test.invalid".to_owned()]).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    })
    .clone()
}
