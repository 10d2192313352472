//! What the injector is told: the installation's values and the mesh configuration.

use serde_json::{Map, Value};

use crate::Policy;

/// The settings of an injector.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The registry and folder of images, such as `docker.io/istio`.
    pub hub: String,
    /// The tag of images.
    pub tag: String,
    /// The image's name, or a whole reference when it has a slash.
    pub image: String,
    /// `imagePullPolicy` of containers; empty leaves it out.
    pub image_pull_policy: String,
    /// The revision; empty is `default`.
    pub revision: String,
    /// The namespace of the control plane.
    pub istio_namespace: String,
    /// `CLUSTER_ID`.
    pub cluster_id: String,
    /// `MESH_ID`; empty takes the trust domain.
    pub mesh_id: String,
    /// The network of the cluster's pods.
    pub network: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Whether pods get a sidecar that ask for none and refuse none.
    pub policy: Policy,
    /// The proxy as a restartable init container.
    pub native_sidecar: bool,
    /// `ISTIO_META_INTERCEPTION_MODE`: REDIRECT, TPROXY or NONE.
    pub interception_mode: String,
    /// `resources` of the proxy's container.
    pub resources: Value,
    /// `--proxyLogLevel`.
    pub log_level: String,
    /// `--proxyComponentLogLevel`.
    pub component_log_level: String,
    /// `--log_output_level`.
    pub agent_log_level: String,
    /// The port of readiness and merged metrics.
    pub status_port: u16,
    /// `readinessProbe.initialDelaySeconds`, `periodSeconds`, `failureThreshold`.
    pub readiness: [u32; 3],
    /// `trustDomain` of the mesh.
    pub trust_domain: String,
    /// `defaultConfig` of the mesh as somebody wrote it.
    pub default_config: Map<String, Value>,
}

/// Why settings were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{path}: {message}")]
pub struct SettingsError {
    /// The field.
    pub path: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hub: "docker.io/istio".into(),
            tag: "1.26.0".into(),
            image: "proxyv2".into(),
            image_pull_policy: String::new(),
            revision: String::new(),
            istio_namespace: "istio-system".into(),
            cluster_id: "Kubernetes".into(),
            mesh_id: String::new(),
            network: String::new(),
            cluster_domain: "cluster.local".into(),
            policy: Policy::Enabled,
            native_sidecar: false,
            interception_mode: "REDIRECT".into(),
            resources: serde_json::json!({
                "limits": { "cpu": "2", "memory": "1Gi" },
                "requests": { "cpu": "10m", "memory": "40Mi" },
            }),
            log_level: "warning".into(),
            component_log_level: "misc:error".into(),
            agent_log_level: "default:info".into(),
            status_port: 15020,
            readiness: [0, 15, 4],
            trust_domain: "cluster.local".into(),
            default_config: Map::new(),
        }
    }
}

impl Settings {
    /// Reads the `values` of the ConfigMap `istio-sidecar-injector` and the `mesh` of the ConfigMap `istio`.
    /// What is absent keeps its default; unknown keys are somebody else's.
    ///
    /// # Errors
    /// When a value has the wrong type.
    pub fn from_values(values: &Value, mesh: &Value) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let read = Reader { root: values };
        read.text("revision", &mut settings.revision)?;
        read.text("global.hub", &mut settings.hub)?;
        read.text("global.tag", &mut settings.tag)?;
        read.text("global.imagePullPolicy", &mut settings.image_pull_policy)?;
        read.text("global.istioNamespace", &mut settings.istio_namespace)?;
        read.text("global.meshID", &mut settings.mesh_id)?;
        read.text("global.network", &mut settings.network)?;
        read.text("global.multiCluster.clusterName", &mut settings.cluster_id)?;
        if settings.cluster_id.is_empty() {
            settings.cluster_id = "Kubernetes".into();
        }
        read.text("global.proxy.image", &mut settings.image)?;
        read.text("global.proxy.clusterDomain", &mut settings.cluster_domain)?;
        read.text("global.proxy.logLevel", &mut settings.log_level)?;
        read.text("global.proxy.componentLogLevel", &mut settings.component_log_level)?;
        read.text("global.logging.level", &mut settings.agent_log_level)?;
        read.number("global.proxy.statusPort", &mut settings.status_port)?;
        for (at, name) in ["InitialDelaySeconds", "PeriodSeconds", "FailureThreshold"].into_iter().enumerate()
        {
            read.number(&format!("global.proxy.readiness{name}"), &mut settings.readiness[at])?;
        }
        read.flag("sidecarInjectorWebhook.nativeSidecars", &mut settings.native_sidecar)?;
        let mut auto_inject = String::new();
        read.text("global.proxy.autoInject", &mut auto_inject)?;
        settings.policy = match auto_inject.as_str() {
            "" | "enabled" => Policy::Enabled,
            "disabled" => Policy::Disabled,
            other => {
                return Err(error(
                    "global.proxy.autoInject",
                    format!("{other:?}: write enabled or disabled"),
                ));
            }
        };
        if let Some(resources) = read.at("global.proxy.resources") {
            settings.resources = resources.clone();
        }
        let read = Reader { root: mesh };
        read.text("trustDomain", &mut settings.trust_domain)?;
        match read.at("defaultConfig") {
            Some(Value::Object(config)) => settings.default_config = config.clone(),
            None => {}
            Some(_) => return Err(error("defaultConfig", "expected an object")),
        }
        if let Some(Value::String(mode)) = settings.default_config.get("interceptionMode") {
            settings.interception_mode = mode.clone();
        }
        Ok(settings)
    }

    /// The revision's name as labels have it.
    pub fn revision_name(&self) -> &str {
        if self.revision.is_empty() { "default" } else { &self.revision }
    }

    /// The reference of the proxy's image.
    pub fn image_reference(&self) -> String {
        if self.image.contains('/') {
            self.image.clone()
        } else {
            format!("{}/{}:{}", self.hub, self.image, self.tag)
        }
    }

    /// `host:port` of the control plane's discovery and CA.
    pub fn discovery_address(&self) -> String {
        match self.default_config.get("discoveryAddress").and_then(Value::as_str) {
            Some(address) => address.to_owned(),
            None => self.built_in_discovery_address(),
        }
    }

    /// The address that a proxy takes when nobody says one.
    pub(crate) fn built_in_discovery_address(&self) -> String {
        let service =
            if self.revision.is_empty() { "istiod".into() } else { format!("istiod-{}", self.revision) };
        format!("{service}.{}.svc:15012", self.istio_namespace)
    }
}

/// Typed look-ups by dotted path.
struct Reader<'a> {
    root: &'a Value,
}

impl<'a> Reader<'a> {
    fn at(&self, path: &str) -> Option<&'a Value> {
        path.split('.').try_fold(self.root, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    fn text(&self, path: &str, into: &mut String) -> Result<(), SettingsError> {
        match self.at(path) {
            Some(Value::String(text)) => text.clone_into(into),
            Some(Value::Number(number)) => *into = number.to_string(),
            Some(_) => return Err(error(path, "expected a string")),
            None => {}
        }
        Ok(())
    }

    fn number<N: TryFrom<u64>>(&self, path: &str, into: &mut N) -> Result<(), SettingsError> {
        let Some(value) = self.at(path) else { return Ok(()) };
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        *into = number
            .and_then(|number| N::try_from(number).ok())
            .ok_or_else(|| error(path, format!("{value}: expected a number in range")))?;
        Ok(())
    }

    fn flag(&self, path: &str, into: &mut bool) -> Result<(), SettingsError> {
        match self.at(path) {
            Some(Value::Bool(flag)) => *into = *flag,
            Some(value) => return Err(error(path, format!("{value}: expected true or false"))),
            None => {}
        }
        Ok(())
    }
}

fn error(path: &str, message: impl Into<String>) -> SettingsError {
    SettingsError { path: path.to_owned(), message: message.into() }
}
