//! What is to be installed, put together and typed.

use lateen_api::FieldErrors;
use lateen_api::install::{
    IstioOperator, IstioOperatorSpec, PathError, SetPath, default_values, layer, lookup,
};
use serde_json::{Map, Value, json};

use crate::profile::{UnknownProfile, profile};

/// The name of what owns an installation that has no name of its own.
const OWNER: &str = "installed-state";

/// Why there is nothing to install.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// No such profile.
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
    /// A `--set` flag.
    #[error("--set {0}")]
    Set(#[from] PathError),
    /// Fields that do not exist, or have the wrong type.
    #[error("{0}")]
    Fields(FieldErrors),
    /// What this build cannot install.
    #[error("{path}: {message}")]
    Unsupported {
        /// The field.
        path: &'static str,
        /// Why not, and what else there is.
        message: &'static str,
    },
}

/// An installation, complete: a profile, files over it, flags over those.
#[derive(Clone, Debug, PartialEq)]
pub struct Installation {
    operator: IstioOperator,
    object: Value,
    values: Value,
}

impl Installation {
    /// A profile as it is.
    ///
    /// # Errors
    /// When there is no profile of that name.
    pub fn of(profile: &str) -> Result<Self, InstallationError> {
        Self::build(&[], &[format!("profile={profile}")])
    }

    /// From `IstioOperator` objects, each over the one before, and `--set` flags over them all. The profile is the one
    /// that they name, else `default`.
    ///
    /// # Errors
    /// When the profile does not exist, a flag is malformed, or a field does not exist or has the wrong type.
    pub fn build(files: &[Value], sets: &[String]) -> Result<Self, InstallationError> {
        let mut given = json!({ "spec": {} });
        for file in files {
            // Its own form first: what is wrong is then said as it was written.
            IstioOperator::read(file).map_err(InstallationError::Fields)?;
            let mut file = file.clone();
            file["spec"] = layer::canonical(file["spec"].take());
            layer::overlay(&mut given, &file);
        }
        let (mut flags, mut late) = (json!({}), Vec::new());
        for set in sets {
            let (path, value) = SetPath::assignment(set)?;
            // Items are found, and fields removed, where everything is merged.
            match path.as_str().contains('[') || value.is_null() {
                true => late.push((path, value)),
                false => path.set(&mut flags, value)?,
            }
        }
        IstioOperator::read(&json!({ "spec": flags })).map_err(InstallationError::Fields)?;
        layer::overlay(&mut given["spec"], &layer::canonical(flags));

        let name = given.pointer("/spec/profile").and_then(Value::as_str).unwrap_or_default();
        let mut object = profile(name)?;
        layer::overlay(&mut object, &given);
        for (path, value) in late {
            path.set(&mut object["spec"], value)?;
        }
        let operator = IstioOperator::read(&object).map_err(InstallationError::Fields)?;
        let mut values = default_values();
        layer::overlay(&mut values, &Value::Object(operator.spec.values.clone()));
        layer::overlay(&mut values, &Value::Object(operator.spec.unvalidated_values.clone()));
        let installation = Self { operator, object, values };
        installation.check()?;
        Ok(installation)
    }

    fn check(&self) -> Result<(), InstallationError> {
        let enabled = |component: &Option<lateen_api::install::ComponentSpec>| {
            component.as_ref().is_some_and(|component| component.enabled == Some(true))
        };
        if enabled(&self.spec().components.ztunnel) {
            return Err(InstallationError::Unsupported {
                path: "spec.components.ztunnel",
                message: "ambient mode is not supported: use sidecars",
            });
        }
        Ok(())
    }

    /// The merged `IstioOperator`, as a profile dump prints it.
    pub fn object(&self) -> &Value {
        &self.object
    }

    pub(crate) fn spec(&self) -> &IstioOperatorSpec {
        &self.operator.spec
    }

    /// Whether what it owned before and no longer has is to be removed: not when it only adds.
    pub fn prunes(&self) -> bool {
        self.profile() != "empty"
    }

    /// The profile's name.
    pub fn profile(&self) -> &str {
        non_empty(&self.spec().profile).unwrap_or("default")
    }

    /// The value of the label by which the installation owns its objects.
    ///
    /// What starts from nothing adds to an installation, so it must not be taken for the same: without a name of its
    /// own it has its first gateway's.
    pub fn owner(&self) -> String {
        let components = &self.spec().components;
        let added = components.ingress_gateways.iter().chain(&components.egress_gateways);
        let first =
            added.filter(|gateway| gateway.enabled == Some(true)).map(|gateway| gateway.name.as_str()).next();
        let name = match self.operator.name.as_str() {
            "" if self.profile() == "empty" => first.unwrap_or_default(),
            name => name,
        };
        let parts = [OWNER, name, self.revision()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
    }

    /// The namespace of everything that names no other.
    pub fn namespace(&self) -> &str {
        non_empty(&self.spec().namespace).unwrap_or("istio-system")
    }

    /// The namespace of the control plane.
    pub fn control_namespace(&self) -> &str {
        let pilot = self.spec().components.pilot.as_ref();
        pilot.and_then(|pilot| non_empty(&pilot.namespace)).unwrap_or_else(|| self.namespace())
    }

    /// The registry and folder of images.
    pub fn hub(&self) -> &str {
        non_empty(&self.spec().hub).unwrap_or("docker.io/istio")
    }

    /// The tag of images, with the variant behind it.
    pub fn tag(&self) -> String {
        let tag = plain(&self.spec().tag);
        match self.spec().variant.as_str() {
            "" => tag,
            variant if tag.ends_with(&format!("-{variant}")) => tag,
            variant => format!("{tag}-{variant}"),
        }
    }

    /// The revision; empty is `default`.
    pub fn revision(&self) -> &str {
        match self.spec().revision.as_str() {
            "default" => "",
            revision => revision,
        }
    }

    /// The revision as labels have it.
    pub fn revision_name(&self) -> &str {
        non_empty(self.revision()).unwrap_or("default")
    }

    /// A name with the revision behind it, where there is one.
    pub fn revisioned(&self, name: &str) -> String {
        match self.revision() {
            "" => name.to_owned(),
            revision => format!("{name}-{revision}"),
        }
    }

    /// The reference of an image: by name beside the other images, or what has a slash as it is.
    pub(crate) fn image(&self, name: &str, hub: &str, tag: &str) -> String {
        if name.contains('/') {
            return name.to_owned();
        }
        let own = self.tag();
        format!("{}/{name}:{}", non_empty(hub).unwrap_or(self.hub()), non_empty(tag).unwrap_or(&own))
    }

    /// The value at a path of dots.
    pub(crate) fn value(&self, path: &str) -> Option<&Value> {
        lookup(&self.values, path)
    }

    /// The text at a path; numbers and booleans as they are written.
    pub(crate) fn text(&self, path: &str) -> String {
        self.value(path).map(plain).unwrap_or_default()
    }

    /// Whether the value at a path is true.
    pub(crate) fn flag(&self, path: &str) -> bool {
        is_true(self.value(path))
    }

    /// The network of the cluster's pods; empty where there is but one.
    pub fn network(&self) -> String {
        self.text("global.network")
    }

    /// The name of the cluster.
    pub fn cluster_id(&self) -> String {
        non_empty(&self.text("global.multiCluster.clusterName")).unwrap_or("Kubernetes").to_owned()
    }

    /// `host:port` at which proxies find the control plane: a remote one by the service that stands for it.
    pub(crate) fn discovery_address(&self) -> String {
        let service = match self.value("global.remotePilotAddress").and_then(Value::as_str) {
            None | Some("") => self.revisioned("istiod"),
            Some(_) => "istiod-remote".to_owned(),
        };
        format!("{service}.{}.svc:15012", self.control_namespace())
    }

    /// The mesh configuration, as users of the ConfigMap `istio` read it.
    pub fn mesh_config(&self) -> Map<String, Value> {
        let mut mesh = json!({
            "defaultConfig": { "discoveryAddress": self.discovery_address(), "proxyMetadata": {} },
            "rootNamespace": self.control_namespace(),
        });
        let mesh_id = self.text("global.meshID");
        if !mesh_id.is_empty() {
            mesh["defaultConfig"]["meshId"] = json!(mesh_id);
        }
        layer::overlay(&mut mesh, &Value::Object(self.spec().mesh_config.clone()));
        let mut mesh = without_nulls(mesh);
        mesh.sort_keys();
        mesh
    }

    /// The `values` of the injector, as the ConfigMap `istio-sidecar-injector` keeps them.
    pub fn injector_values(&self) -> Value {
        let mut values = json!({});
        for part in ["global", "sidecarInjectorWebhook", "cni", "istio_cni"] {
            values[part] = self.values[part].clone();
        }
        let global = &mut values["global"];
        global["hub"] = json!(self.hub());
        global["tag"] = json!(self.tag());
        global["istioNamespace"] = json!(self.control_namespace());
        values["revision"] = json!(self.revision());
        values["pilot"] = json!({ "env": self.values["pilot"]["env"].clone() });
        if self.cni_enabled() {
            values["istio_cni"]["enabled"] = json!(true);
        }
        if values["cni"].as_object().is_some_and(Map::is_empty) {
            values.as_object_mut().map(|values| values.shift_remove("cni"));
        }
        values
    }

    /// What the injector does beside the values: its policy, selectors and the templates that users have added; the
    /// `config` of the ConfigMap `istio-sidecar-injector`.
    pub fn injector_config(&self) -> Value {
        let webhook = self.value("sidecarInjectorWebhook").cloned().unwrap_or_default();
        json!({
            "policy": self.text("global.proxy.autoInject"),
            "alwaysInjectSelector": webhook["alwaysInjectSelector"],
            "neverInjectSelector": webhook["neverInjectSelector"],
            "injectedAnnotations": webhook["injectedAnnotations"],
            "defaultTemplates": webhook["defaultTemplates"],
            "templates": webhook["templates"],
        })
    }

    pub(crate) fn cni_enabled(&self) -> bool {
        let cni = self.spec().components.cni.as_ref();
        cni.is_some_and(|cni| cni.enabled == Some(true)) || self.flag("pilot.cni.enabled")
    }
}

fn without_nulls(value: Value) -> Map<String, Value> {
    let mut map = match value {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    map.retain(|_, value| !value.is_null());
    for value in map.values_mut().filter(|value| value.is_object()) {
        *value = Value::Object(without_nulls(value.take()));
    }
    map
}

/// The text, where there is some.
pub(crate) fn non_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Whether a value is true, or the text of it.
pub(crate) fn is_true(value: Option<&Value>) -> bool {
    matches!(value, Some(Value::Bool(true))) || value.and_then(Value::as_str) == Some("true")
}

/// A scalar as it is written.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sets: &[&str]) -> Result<Installation, InstallationError> {
        Installation::build(&[], &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_flag_beats_the_profile_wherever_it_is_written() {
        let json = of(&[
            "profile=demo",
            "values.meshConfig.accessLogFile=",
            "values.meshConfig.accessLogEncoding=JSON",
        ]);
        let mesh = json.unwrap().mesh_config();
        assert_eq!(mesh["accessLogEncoding"], "JSON");
        assert_eq!(mesh["accessLogFile"], "");
        assert_eq!(mesh["defaultConfig"]["tracing"]["zipkin"]["address"], "zipkin.istio-system:9411");
        let hub = of(&["values.global.hub=example.com/x", "tag=1.2"]).unwrap();
        assert_eq!(hub.image("pilot", "", ""), "example.com/x/pilot:1.2");
    }

    #[test]
    fn later_files_and_flags_win() {
        let files = [
            json!({ "spec": { "profile": "demo", "revision": "one", "values": { "global": { "network": "n1" } } } }),
            json!({ "metadata": { "name": "mine" }, "spec": { "revision": "two" } }),
        ];
        let both = Installation::build(&files, &["values.global.meshID=m".to_owned()]).unwrap();
        assert_eq!((both.profile(), both.revision()), ("demo", "two"));
        assert_eq!(both.text("global.network"), "n1");
        assert_eq!(both.mesh_config()["defaultConfig"]["meshId"], "m");
        assert_eq!(both.owner(), "installed-state-mine-two");
        assert_eq!(
            both.mesh_config()["defaultConfig"]["discoveryAddress"],
            "istiod-two.istio-system.svc:15012"
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_path() {
        for (set, want) in [
            ("profile=dem", "unknown profile \"dem\"; did you mean \"demo\"?"),
            (
                "meshConfg.accessLogFile=x",
                "spec.meshConfg: unknown field \"meshConfg\"; did you mean \"meshConfig\"?",
            ),
            ("values.global.netwrok=x", "spec.values.global.netwrok: unknown value"),
            ("components", "--set \"components\": write PATH=VALUE"),
            ("components.ztunnel.enabled=true", "spec.components.ztunnel: ambient mode is not supported"),
        ] {
            let said = of(&[set]).unwrap_err().to_string();
            assert!(said.starts_with(want), "{said}");
        }
    }
}
