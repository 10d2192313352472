//! What is to be installed.

use std::str::FromStr;

use lateen_inject::Settings;
use serde_json::{Map, Value, json};

use crate::Gateway;

/// A named starting point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The control plane and an ingress gateway.
    Default,
    /// Both gateways, access logs on, every request traced: to try things.
    Demo,
    /// The control plane alone.
    Minimal,
}

/// There is no profile of that name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown profile {0:?}; there are: default, demo, minimal")]
pub struct UnknownProfile(pub String);

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        match name {
            "default" => Ok(Self::Default),
            "demo" => Ok(Self::Demo),
            "minimal" => Ok(Self::Minimal),
            other => Err(UnknownProfile(other.to_owned())),
        }
    }
}

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Demo => "demo",
            Self::Minimal => "minimal",
        }
    }
}

/// An installation, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Installation {
    /// Where it started from.
    pub profile: Profile,
    /// The namespace of the control plane and the gateways.
    pub namespace: String,
    /// The registry and folder of images.
    pub hub: String,
    /// The tag of images.
    pub tag: String,
    /// The revision; empty is `default`.
    pub revision: String,
    /// The cluster's name.
    pub cluster_id: String,
    /// The network of the cluster's pods.
    pub network: String,
    /// The mesh configuration, as users of the ConfigMap `istio` read it.
    pub mesh_config: Map<String, Value>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
}

impl Installation {
    /// A profile as it is.
    pub fn of(profile: Profile) -> Self {
        let namespace = "istio-system";
        let mut mesh_config = match json!({
            "defaultConfig": { "discoveryAddress": format!("istiod.{namespace}.svc:15012") },
            "defaultProviders": { "metrics": ["prometheus"] },
            "enablePrometheusMerge": true,
            "rootNamespace": namespace,
            "trustDomain": "cluster.local",
        }) {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        if profile == Profile::Demo {
            mesh_config.insert("accessLogFile".into(), json!("/dev/stdout"));
            mesh_config.insert(
                "extensionProviders".into(),
                json!([{
                    "name": "otel",
                    "envoyOtelAls": {
                        "service": "opentelemetry-collector.istio-system.svc.cluster.local",
                        "port": 4317,
                    },
                }]),
            );
            mesh_config["defaultConfig"]["tracing"] =
                json!({ "sampling": 100, "zipkin": { "address": format!("zipkin.{namespace}:9411") } });
        }
        Self {
            profile,
            namespace: namespace.into(),
            hub: "docker.io/istio".into(),
            tag: "1.26.0".into(),
            revision: String::new(),
            cluster_id: "Kubernetes".into(),
            network: String::new(),
            mesh_config,
            gateways: match profile {
                Profile::Demo => vec![Gateway::ingress(), Gateway::egress()],
                Profile::Default => vec![Gateway::ingress()],
                Profile::Minimal => vec![],
            },
        }
    }

    /// The revision as labels have it.
    pub fn revision_name(&self) -> &str {
        if self.revision.is_empty() { "default" } else { &self.revision }
    }

    /// A name with the revision behind it, where there is one.
    pub fn revisioned(&self, name: &str) -> String {
        if self.revision.is_empty() { name.to_owned() } else { format!("{name}-{}", self.revision) }
    }

    /// The `values` of the injector, as the ConfigMap `istio-sidecar-injector` keeps them.
    pub fn injector_values(&self) -> Value {
        let demo = self.profile == Profile::Demo;
        json!({
            "revision": self.revision,
            "global": {
                "hub": self.hub,
                "tag": self.tag,
                "istioNamespace": self.namespace,
                "network": self.network,
                "multiCluster": { "clusterName": self.cluster_id },
                "proxy": {
                    "autoInject": "enabled",
                    "clusterDomain": "cluster.local",
                    "image": "proxyv2",
                    "statusPort": 15020,
                    "readinessInitialDelaySeconds": 1,
                    "readinessPeriodSeconds": 2,
                    "readinessFailureThreshold": 30,
                    "resources": {
                        "limits": { "cpu": "2", "memory": "1Gi" },
                        "requests": if demo { json!({ "cpu": "10m", "memory": "40Mi" }) }
                                    else { json!({ "cpu": "100m", "memory": "128Mi" }) },
                    },
                },
            },
        })
    }

    /// The settings with which proxies are rendered.
    pub(crate) fn proxy_settings(&self) -> Settings {
        // The values were made above and by typed fields, so each has its type; defaults stand in for the impossible.
        Settings::from_values(&self.injector_values(), &Value::Object(self.mesh_config.clone()))
            .unwrap_or_default()
    }
}
