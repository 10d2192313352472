//! What the injector is told: the installation's values, its own configuration, the mesh configuration.

use std::collections::BTreeMap;

use lateen_api::install::{default_values, layer, lookup};
use serde_json::{Map, Value, json};

use crate::Policy;
use crate::selector::Selector;

/// Where every agent looks for the control plane when nobody tells it.
const BUILT_IN_DISCOVERY: &str = "istiod.istio-system.svc:15012";
/// The address of the tracing collector that needs no mention.
const ZIPKIN: &str = "zipkin.istio-system:9411";

/// The settings of an injector.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    values: Value,
    /// Whether pods get a sidecar that ask for none and refuse none.
    pub policy: Policy,
    /// Pods that get none whatever the policy, unless they ask for one themselves.
    pub never: Vec<Selector>,
    /// Pods that get one whatever the policy, unless they refuse it themselves.
    pub always: Vec<Selector>,
    /// The proxy as a restartable init container.
    pub native_sidecar: bool,
    /// Templates that users have added, by name.
    pub templates: BTreeMap<String, String>,
    /// The templates of pods that name none.
    pub default_templates: Vec<String>,
    /// Annotations that every injected pod gets.
    pub annotations: Map<String, Value>,
    /// `trustDomain` of the mesh.
    pub trust_domain: String,
    /// `defaultConfig` of the mesh as somebody wrote it.
    pub default_config: Map<String, Value>,
    /// Whether inbound traffic goes to the loopback address (`inboundTrafficPolicy`), and so do probes.
    pub inbound_to_localhost: bool,
    /// Whether the proxy serves the application's metrics with its own.
    pub merge_metrics: bool,
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
        // The built-in values are part of the binary, and a test reads them.
        Self::build(&Value::Null, &Value::Null, &Value::Null).expect("the built-in values are valid")
    }
}

impl Settings {
    /// Reads the `values` and `config` of the ConfigMap `istio-sidecar-injector` and the `mesh` of the ConfigMap
    /// `istio`. What is absent keeps its default.
    ///
    /// # Errors
    /// When a value has the wrong type.
    pub fn build(values: &Value, config: &Value, mesh: &Value) -> Result<Self, SettingsError> {
        let mut all = default_values();
        layer::overlay(&mut all, &object(values, "values")?);
        let config = object(config, "config")?;
        let mesh = object(mesh, "mesh")?;
        let webhook = |key: &str| {
            let of = |place: Option<&Value>| {
                place.and_then(|place| place.get(key)).filter(|v| !v.is_null()).cloned()
            };
            of(Some(&config)).or_else(|| of(all.get("sidecarInjectorWebhook"))).unwrap_or_default()
        };
        let native = lookup(&all, "pilot.env.ENABLE_NATIVE_SIDECARS");
        let native_sidecar = match lookup(&all, "sidecarInjectorWebhook.nativeSidecars").or(native) {
            None => true,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::String(text)) if matches!(text.as_str(), "true" | "auto" | "") => true,
            Some(Value::String(text)) if text == "false" => false,
            Some(other) => {
                return Err(error(
                    "pilot.env.ENABLE_NATIVE_SIDECARS",
                    format!("{other}: write true or false"),
                ));
            }
        };
        let policy = match config.get("policy").or_else(|| lookup(&all, "global.proxy.autoInject")) {
            Some(Value::String(word)) if word == "disabled" => Policy::Disabled,
            Some(Value::String(word)) if word == "enabled" => Policy::Enabled,
            None => Policy::Enabled,
            Some(other) => {
                return Err(error("global.proxy.autoInject", format!("{other}: write enabled or disabled")));
            }
        };
        let default_config = match mesh.get("defaultConfig") {
            Some(Value::Object(config)) => config.clone(),
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(error("defaultConfig", "expected an object")),
        };
        let mut default_templates = Vec::new();
        for name in list(&webhook("defaultTemplates"), "defaultTemplates")? {
            default_templates.push(plain(name));
        }
        if default_templates.is_empty() {
            default_templates.push("sidecar".to_owned());
        }
        let settings = Self {
            policy,
            never: selectors(&webhook("neverInjectSelector"), "neverInjectSelector")?,
            always: selectors(&webhook("alwaysInjectSelector"), "alwaysInjectSelector")?,
            native_sidecar,
            templates: templates(&webhook("templates"))?,
            default_templates,
            annotations: match webhook("injectedAnnotations") {
                Value::Object(annotations) => annotations,
                _ => Map::new(),
            },
            trust_domain: match mesh.get("trustDomain").map(plain) {
                Some(domain) if !domain.is_empty() => domain,
                _ => "cluster.local".to_owned(),
            },
            default_config,
            inbound_to_localhost: mesh.pointer("/inboundTrafficPolicy/mode") == Some(&json!("LOCALHOST")),
            merge_metrics: mesh.get("enablePrometheusMerge") != Some(&Value::Bool(false)),
            values: all,
        };
        settings.numbers()?;
        Ok(settings)
    }

    fn numbers(&self) -> Result<(), SettingsError> {
        for key in [
            "statusPort",
            "readinessInitialDelaySeconds",
            "readinessPeriodSeconds",
            "readinessFailureThreshold",
        ] {
            let path = format!("global.proxy.{key}");
            if self.text(&path).parse::<u32>().is_err() {
                return Err(error(&path, format!("{:?}: expected a number in range", self.text(&path))));
            }
        }
        Ok(())
    }

    /// All values, defaults included.
    pub fn values(&self) -> &Value {
        &self.values
    }

    pub(crate) fn value(&self, path: &str) -> Option<&Value> {
        lookup(&self.values, path)
    }

    pub(crate) fn text(&self, path: &str) -> String {
        self.value(path).map(plain).unwrap_or_default()
    }

    pub(crate) fn flag(&self, path: &str) -> bool {
        self.text(path) == "true"
    }

    /// The port of readiness and merged metrics.
    pub(crate) fn status_port(&self) -> String {
        self.text("global.proxy.statusPort")
    }

    /// The revision's name as labels have it.
    pub fn revision_name(&self) -> String {
        match self.text("revision") {
            revision if revision.is_empty() => "default".to_owned(),
            revision => revision,
        }
    }

    /// The reference of an image: by name beside the other images, or what has a slash as it is.
    pub(crate) fn image(&self, name: &str) -> String {
        let or = |path: &str, default: &str| match self.text(path) {
            text if text.is_empty() => default.to_owned(),
            text => text,
        };
        match name.contains('/') {
            true => name.to_owned(),
            false => {
                format!("{}/{name}:{}", or("global.hub", "docker.io/istio"), or("global.tag", "1.26.0"))
            }
        }
    }

    /// `host:port` of the certificate authority.
    pub(crate) fn ca_address(&self) -> String {
        match self.text("global.caAddress") {
            address if !address.is_empty() => address,
            _ => self.own_control_plane(),
        }
    }

    /// `host:port` of the control plane that injects.
    fn own_control_plane(&self) -> String {
        let service = match self.text("revision").as_str() {
            "" | "default" => "istiod".to_owned(),
            revision => format!("istiod-{revision}"),
        };
        let namespace = match self.text("global.istioNamespace") {
            namespace if namespace.is_empty() => "istio-system".to_owned(),
            namespace => namespace,
        };
        format!("{service}.{namespace}.svc:15012")
    }

    /// A proxy's own configuration: the mesh's `defaultConfig`, `own` over it, without what every proxy takes anyway.
    pub(crate) fn proxy_config(&self, own: Option<&Value>) -> Map<String, Value> {
        let mut config = Value::Object(self.default_config.clone());
        if let Some(own) = own {
            layer::overlay(&mut config, own);
        }
        let mut config = match config {
            Value::Object(config) => config,
            _ => Map::new(),
        };
        config.retain(|key, value| {
            let built_in = match key.as_str() {
                "discoveryAddress" => value == BUILT_IN_DISCOVERY,
                "configPath" => value == "./etc/istio/proxy",
                "binaryPath" => value == "/usr/local/bin/envoy",
                "drainDuration" => value == "45s",
                "terminationDrainDuration" => value == "5s",
                "statusPort" => *value == 15020,
                "proxyAdminPort" => *value == 15000,
                "proxyMetadata" => value.as_object().is_some_and(Map::is_empty),
                // How much is traced is the control plane's to know.
                "tracing" => {
                    value.pointer("/zipkin/address").is_some_and(|address| address == ZIPKIN)
                        && value
                            .as_object()
                            .is_some_and(|t| t.keys().all(|k| matches!(k.as_str(), "zipkin" | "sampling")))
                }
                _ => false,
            };
            !(built_in || value.is_null())
        });
        config
    }
}

fn object(value: &Value, what: &str) -> Result<Value, SettingsError> {
    match value {
        Value::Null => Ok(json!({})),
        Value::Object(_) => Ok(value.clone()),
        _ => Err(error(what, "expected an object")),
    }
}

fn list<'a>(value: &'a Value, path: &str) -> Result<&'a [Value], SettingsError> {
    match value {
        Value::Null => Ok(&[]),
        Value::Array(items) => Ok(items),
        _ => Err(error(path, "expected a list")),
    }
}

fn selectors(value: &Value, path: &str) -> Result<Vec<Selector>, SettingsError> {
    let read = |(at, item)| Selector::read(item).map_err(|message| error(&format!("{path}[{at}]"), message));
    list(value, path)?.iter().enumerate().map(read).collect()
}

fn templates(value: &Value) -> Result<BTreeMap<String, String>, SettingsError> {
    let mut templates = BTreeMap::new();
    for (name, text) in value.as_object().into_iter().flatten() {
        let path = format!("templates.{name}");
        let text = text.as_str().ok_or_else(|| error(&path, "expected the text of a pod in YAML"))?;
        // Templates with actions are Istio's own charts', or refused where a pod asks for them.
        if !text.contains("{{") {
            crate::custom::read(text).map_err(|message| error(&path, message))?;
        }
        templates.insert(name.clone(), text.to_owned());
    }
    Ok(templates)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn error(path: &str, message: impl Into<String>) -> SettingsError {
    SettingsError { path: path.to_owned(), message: message.into() }
}
