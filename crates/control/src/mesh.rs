//! The mesh configuration, from the ConfigMap `istio`: a bad one is refused, and the last good one stays.

use std::sync::Arc;

use lateen_api::field;
use lateen_api::mesh::{MeshConfig, MeshNetworks};
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
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            config: Arc::new(MeshConfig::istio_default()),
            networks: Arc::default(),
            injector: Arc::default(),
            mesh_text: Value::Null,
            injector_values: Value::Null,
        }
    }
}

impl Mesh {
    /// Takes in a ConfigMap of the control plane's namespace; true when something that matters changed. What is
    /// bad is refused with a log line, and the last good word holds.
    pub(crate) fn take(&mut self, map: &Value, settings: &Settings) -> bool {
        let name = map["metadata"]["name"].as_str().unwrap_or_default();
        if name == settings.revisioned("istio") {
            let mesh = self.take_mesh(map["data"]["mesh"].as_str().unwrap_or_default());
            let networks = self.take_networks(map["data"]["meshNetworks"].as_str().unwrap_or_default());
            for (key, taken) in [("mesh", &mesh), ("meshNetworks", &networks)] {
                if let Err(reason) = taken {
                    tracing::error!("ConfigMap {name}: {key} refused, the last good one stays: {reason}");
                }
            }
            return mesh.unwrap_or(false) | networks.unwrap_or(false);
        }
        if name == settings.revisioned("istio-sidecar-injector") {
            return self.take_values(map["data"]["values"].as_str().unwrap_or_default()).unwrap_or_else(
                |reason| {
                    tracing::error!("ConfigMap {name}: values refused, the last good ones stay: {reason}");
                    false
                },
            );
        }
        false
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
        self.injector = injector(&self.injector_values, &value)?;
        self.mesh_text = value;
        Ok(replace(&mut self.config, config))
    }

    fn take_networks(&mut self, text: &str) -> Result<bool, String> {
        let networks = match yaml(text)? {
            Value::Null => MeshNetworks::default(),
            value => field::read::<MeshNetworks>(&value).map_err(|e| e.to_string())?,
        };
        Ok(replace(&mut self.networks, networks))
    }

    fn take_values(&mut self, text: &str) -> Result<bool, String> {
        let values = yaml(text)?;
        self.injector = injector(&values, &self.mesh_text)?;
        self.injector_values = values;
        Ok(false)
    }
}

fn injector(values: &Value, mesh: &Value) -> Result<Arc<InjectSettings>, String> {
    InjectSettings::from_values(values, mesh).map(Arc::new).map_err(|e| e.to_string())
}

fn yaml(text: &str) -> Result<Value, String> {
    match text.trim() {
        "" => Ok(Value::Null),
        text => serde_saphyr::from_str(text).map_err(|e| e.to_string()),
    }
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
        for bad in ["trustDomain: [", "trustDomian: x", "connectTimeout: soon"] {
            assert!(!mesh.take(&map("istio", json!({ "mesh": bad })), &settings), "{bad}");
            assert_eq!(mesh.trust_domain(), "td.example");
        }
        assert!(!mesh.take(&map("other", json!({ "mesh": "trustDomain: x" })), &settings));
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
