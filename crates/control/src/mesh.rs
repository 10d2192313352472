//! The mesh configuration, from the ConfigMap `istio`: a bad one is refused, and the last good one stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use lateen_api::field::{self, Field as _};
use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_api::validate::{Problem, Severity, validate_mesh_config, validate_mesh_networks};
use lateen_base::ObjectRef;
use lateen_inject::Settings as InjectSettings;
use lateen_registry::Settings as RegistrySettings;
use serde_json::Value;

use crate::settings::Settings;

/// What the ConfigMaps of the control plane say.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) config: Arc<MeshConfig>,
    pub(crate) networks: Arc<MeshNetworks>,
    /// The injector's settings; an error when its ConfigMaps are unusable and never were usable.
    pub(crate) injector: Arc<InjectSettings>,
    mesh_text: Value,
    injector_values: Value,
    injector_config: Value,
    /// The keys of ConfigMaps whose newest value is not used, and why.
    refused: BTreeMap<(String, &'static str), String>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            config: Arc::new(MeshConfig::istio_default()),
            networks: Arc::default(),
            injector: Arc::default(),
            mesh_text: Value::Null,
            injector_values: Value::Null,
            injector_config: Value::Null,
            refused: BTreeMap::new(),
        }
    }
}

impl Mesh {
    /// Takes in a ConfigMap of the control plane's namespace; true when something that matters changed. What is
    /// bad is refused with a log line, and the last good word holds.
    pub(crate) fn take(&mut self, map: &Value, settings: &Settings) -> bool {
        let name = map["metadata"]["name"].as_str().unwrap_or_default();
        let text = |key: &str| map["data"][key].as_str().unwrap_or_default();
        if name == settings.revisioned("istio") {
            let mesh = self.take_mesh(text("mesh"));
            let networks = self.take_networks(text("meshNetworks"));
            return self.judged(name, "mesh", mesh) | self.judged(name, "meshNetworks", networks);
        }
        if name == settings.revisioned("istio-sidecar-injector") {
            let config = self.take_injector_config(text("config"));
            let values = self.take_values(text("values"));
            return self.judged(name, "config", config) | self.judged(name, "values", values);
        }
        false
    }

    /// Remembers a refusal, or that it is over; true when anything changed.
    fn judged(&mut self, map: &str, key: &'static str, taken: Result<bool, String>) -> bool {
        let id = (map.to_owned(), key);
        match taken {
            Ok(changed) => self.refused.remove(&id).is_some() | changed,
            Err(reason) if self.refused.get(&id) == Some(&reason) => false,
            Err(reason) => {
                tracing::error!("ConfigMap {map}: {key} refused, the last good one stays: {reason}");
                self.refused.insert(id, reason);
                true
            }
        }
    }

    /// The ConfigMaps of which something is refused, and what.
    pub(crate) fn refused(&self, settings: &Settings) -> BTreeMap<ObjectRef, String> {
        let mut refused: BTreeMap<ObjectRef, String> = BTreeMap::new();
        for ((map, key), reason) in &self.refused {
            let map = ObjectRef {
                kind: "ConfigMap".to_owned(),
                namespace: settings.namespace.as_str().into(),
                name: map.clone(),
            };
            let text = refused.entry(map).or_default();
            let separator = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{separator}{key}: {reason}"));
        }
        refused
    }

    /// The mesh configuration and the networks in use, as JSON.
    pub(crate) fn written(&self) -> (Value, Value) {
        (self.config.write(), self.networks.write())
    }

    /// The registry's settings that follow.
    pub(crate) fn registry_settings(&self, settings: &Settings) -> RegistrySettings {
        RegistrySettings {
            domain: settings.domain.clone(),
            trust_domain: self.trust_domain().to_owned(),
            root_namespace: self.root_namespace(settings).into(),
            config_cluster: settings.cluster.clone(),
            networks: self.networks.clone(),
        }
    }

    /// The trust domain of identities.
    pub(crate) fn trust_domain(&self) -> &str {
        match self.config.trust_domain.as_str() {
            "" => "cluster.local",
            domain => domain,
        }
    }

    fn root_namespace<'a>(&'a self, settings: &'a Settings) -> &'a str {
        match self.config.root_namespace.as_str() {
            "" => &settings.namespace,
            namespace => namespace,
        }
    }

    fn take_mesh(&mut self, text: &str) -> Result<bool, String> {
        let value = yaml(text)?;
        let config = MeshConfig::istio_default().overlaid(&value).map_err(|e| e.to_string())?;
        sound(validate_mesh_config(&config))?;
        self.injector = injector(&self.injector_values, &self.injector_config, &value)?;
        self.mesh_text = value;
        Ok(replace(&mut self.config, config))
    }

    fn take_networks(&mut self, text: &str) -> Result<bool, String> {
        let networks = match yaml(text)? {
            Value::Null => MeshNetworks::default(),
            value => field::read::<MeshNetworks>(&value).map_err(|e| e.to_string())?,
        };
        sound(validate_mesh_networks(&networks))?;
        Ok(replace(&mut self.networks, networks))
    }

    fn take_values(&mut self, text: &str) -> Result<bool, String> {
        let values = yaml(text)?;
        self.injector = injector(&values, &self.injector_config, &self.mesh_text)?;
        let changed = self.injector_values != values;
        self.injector_values = values;
        Ok(changed)
    }

    fn take_injector_config(&mut self, text: &str) -> Result<bool, String> {
        let config = yaml(text)?;
        self.injector = injector(&self.injector_values, &config, &self.mesh_text)?;
        let changed = self.injector_config != config;
        self.injector_config = config;
        Ok(changed)
    }
}

/// An error that names the wrong fields, unless there are only warnings, which are logged.
fn sound(problems: Vec<Problem>) -> Result<(), String> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!("mesh configuration: {}: {}", warning.path, warning.message);
    }
    let words: Vec<String> = errors.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
    if words.is_empty() { Ok(()) } else { Err(words.join("; ")) }
}

fn injector(values: &Value, config: &Value, mesh: &Value) -> Result<Arc<InjectSettings>, String> {
    InjectSettings::build(values, config, mesh).map(Arc::new).map_err(|e| e.to_string())
}

fn yaml(text: &str) -> Result<Value, String> {
    lateen_api::yaml_value(text).map_err(|e| e.to_string())
}

fn replace<T: PartialEq>(old: &mut Arc<T>, new: T) -> bool {
    let changed = **old != new;
    if changed {
        *old = Arc::new(new);
    }
    changed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(name: &str, data: Value) -> Value {
        json!({ "metadata": { "name": name }, "data": data })
    }

    #[test]
    fn a_bad_mesh_is_refused_and_the_last_good_one_stays() {
        let settings = Settings::default();
        let mut mesh = Mesh::default();
        let good = map("istio", json!({ "mesh": "trustDomain: td.example\naccessLogFile: /dev/stdout\n" }));
        assert!(mesh.take(&good, &settings));
        assert_eq!(mesh.trust_domain(), "td.example");
        assert!(!mesh.take(&good, &settings), "the same again changes nothing");
        let bad = [
            ("mesh", "trustDomain: [", "broken"),
            ("mesh", "trustDomian: x", "trustDomian"),
            ("mesh", "connectTimeout: soon", "connectTimeout"),
            ("mesh", "connectTimeout: 0s", "connectTimeout: "),
            ("mesh", "proxyListenPort: 70000", "proxyListenPort: "),
            ("meshNetworks", "networks: {n1: {endpoints: [{fromCidr: 10.0.0.0/99}]}}", "networks[\"n1\"]"),
        ];
        for (key, text, named) in bad {
            let both = json!({ "mesh": "trustDomain: td.example\naccessLogFile: /dev/stdout\n", key: text });
            assert!(mesh.take(&map("istio", both.clone()), &settings), "{text}: the refusal is news");
            assert!(!mesh.take(&map("istio", both), &settings), "{text}: the same refusal is none");
            assert_eq!(mesh.trust_domain(), "td.example");
            let refused: Vec<String> = mesh.refused(&settings).into_values().collect();
            assert!(refused.len() == 1 && refused[0].contains(named), "{refused:?}");
        }
        assert!(mesh.take(&good, &settings), "the end of a refusal is news");
        assert!(mesh.refused(&settings).is_empty());
        assert!(!mesh.take(&map("other", json!({ "mesh": "trustDomain: x" })), &settings));
    }

    #[test]
    fn a_template_that_does_not_parse_is_refused_and_the_last_good_one_stays() {
        let settings = Settings::default();
        let mut mesh = Mesh::default();
        let config = |template: &str| {
            let config = json!({ "templates": { "extra": template } });
            let data = json!({ "config": config.to_string(), "values": "{}" });
            map("istio-sidecar-injector", data)
        };
        let extra = |mesh: &Mesh| mesh.injector.templates["extra"].clone();
        assert!(mesh.take(&config("spec: {dnsPolicy: Default}"), &settings), "a change is news");
        for bad in ["spec: {containers: [", "just words"] {
            assert!(mesh.take(&config(bad), &settings), "the refusal is news");
            assert_eq!(extra(&mesh), "spec: {dnsPolicy: Default}");
            let refused: Vec<String> = mesh.refused(&settings).into_values().collect();
            assert!(refused.len() == 1 && refused[0].contains("templates.extra"), "{refused:?}");
        }
        assert!(mesh.take(&config("spec: {dnsPolicy: None}"), &settings));
        assert_eq!((extra(&mesh), mesh.refused(&settings).len()), ("spec: {dnsPolicy: None}".to_owned(), 0));
    }

    #[test]
    fn a_revision_reads_its_own_map() {
        let settings = Settings { revision: "canary".into(), ..Settings::default() };
        let mut mesh = Mesh::default();
        let data = json!({ "mesh": "trustDomain: canary.example" });
        assert!(!mesh.take(&map("istio", data.clone()), &settings));
        assert!(mesh.take(&map("istio-canary", data), &settings));
    }
}
