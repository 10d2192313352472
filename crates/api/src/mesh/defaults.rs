//! Istio's defaults of the mesh configuration, and how a user's lies over them.

use std::time::Duration;

use serde_json::Value;

use super::config::{
    DefaultProviders, IngressControllerMode, MeshConfig, MeshInboundTrafficPolicy, MeshOutboundMode,
    MeshOutboundTrafficPolicy,
};
use super::providers::{ExtensionProvider, FileAccessLogProvider, PrometheusProvider, StackdriverProvider};
use super::proxy::{AuthenticationPolicy, MeshProxyConfig, MeshTracing};
use crate::field::{FieldErrors, names, overlay};
use crate::kinds::destination_rule::LocalityLbSetting;

impl MeshConfig {
    /// What a mesh has whose administrator says nothing (Istio's `mesh.DefaultMeshConfig`).
    pub fn istio_default() -> Self {
        Self {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            connect_timeout: Some(Duration::from_secs(10)),
            protocol_detection_timeout: Some(Duration::ZERO),
            ingress_class: "istio".to_owned(),
            ingress_service: "istio-ingressgateway".to_owned(),
            ingress_controller_mode: IngressControllerMode::Strict,
            ingress_selector: "ingressgateway".to_owned(),
            enable_tracing: true,
            default_config: Some(MeshProxyConfig::istio_default()),
            outbound_traffic_policy: Some(MeshOutboundTrafficPolicy {
                mode: MeshOutboundMode::AllowAny,
                tls: None,
            }),
            inbound_traffic_policy: Some(MeshInboundTrafficPolicy::default()),
            enable_auto_mtls: Some(true),
            trust_domain: "cluster.local".to_owned(),
            default_service_export_to: vec!["*".to_owned()],
            default_virtual_service_export_to: vec!["*".to_owned()],
            default_destination_rule_export_to: vec!["*".to_owned()],
            root_namespace: "istio-system".to_owned(),
            locality_lb_setting: Some(LocalityLbSetting { enabled: Some(true), ..Default::default() }),
            dns_refresh_rate: Some(Duration::from_secs(60)),
            enable_prometheus_merge: Some(true),
            extension_providers: default_providers(),
            default_providers: Some(DefaultProviders::default()),
            ..Self::default()
        }
    }

    /// Istio's defaults under what `text`, the YAML of the ConfigMap's key `mesh`, says.
    ///
    /// # Errors
    /// Broken YAML, unknown fields, wrong types, each with its path.
    pub fn parse(text: &str) -> Result<Self, FieldErrors> {
        Self::istio_default().overlaid(&crate::manifest::value(text)?)
    }

    /// This configuration under `value`: messages field by field, lists as a whole, but providers by name and the
    /// tracer of the proxies' defaults as a whole.
    ///
    /// # Errors
    /// Unknown fields and wrong types, each with its path.
    pub fn overlaid(mut self, value: &Value) -> Result<Self, FieldErrors> {
        if value.is_null() {
            return Ok(self);
        }
        let providers = std::mem::take(&mut self.extension_providers);
        if let (Some(config), Some(over)) = (&mut self.default_config, part(value, "default_config")) {
            config.forget_replaced(over);
        }
        overlay(&mut self, value)?;
        let own = std::mem::take(&mut self.extension_providers);
        self.extension_providers = providers
            .into_iter()
            .filter(|provider| own.iter().all(|own| own.name != provider.name))
            .collect();
        self.extension_providers.extend(own);
        Ok(self)
    }
}

impl MeshProxyConfig {
    /// How proxies are started when nobody says anything (Istio's `mesh.DefaultProxyConfig`).
    pub fn istio_default() -> Self {
        Self {
            config_path: "./etc/istio/proxy".to_owned(),
            binary_path: "/usr/local/bin/envoy".to_owned(),
            service_cluster: Some("istio-proxy".to_owned()),
            drain_duration: Some(Duration::from_secs(45)),
            termination_drain_duration: Some(Duration::from_secs(5)),
            discovery_address: "istiod.istio-system.svc:15012".to_owned(),
            proxy_admin_port: 15000,
            control_plane_auth_policy: AuthenticationPolicy::MutualTls,
            stat_name_length: 189,
            status_port: 15020,
            tracing: Some(MeshTracing::default()),
            ..Self::default()
        }
    }

    /// This configuration under `value`, such as a pod's annotation `proxy.istio.io/config`: field by field, maps by
    /// key, the tracer as a whole.
    ///
    /// # Errors
    /// Unknown fields and wrong types, each with its path.
    pub fn overlaid(mut self, value: &Value) -> Result<Self, FieldErrors> {
        self.forget_replaced(value);
        overlay(&mut self, value)?;
        Ok(self)
    }

    /// Forgets what `over` replaces as a whole.
    fn forget_replaced(&mut self, over: &Value) {
        if part(over, "tracing").is_some() {
            self.tracing = None;
        }
        if part(over, "service_cluster").is_some() || part(over, "tracing_service_name").is_some() {
            self.service_cluster = None;
            self.tracing_service_name = None;
        }
        if part(over, "private_key_provider").is_some() {
            self.private_key_provider = None;
        }
    }
}

fn part<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value
        .as_object()?
        .iter()
        .find(|(key, value)| names(name, key) && !value.is_null())
        .map(|(_, value)| value)
}

fn default_providers() -> Vec<ExtensionProvider> {
    let named = |name: &str| ExtensionProvider { name: name.to_owned(), ..Default::default() };
    let log = FileAccessLogProvider { path: "/dev/stdout".to_owned(), ..Default::default() };
    vec![
        ExtensionProvider { prometheus: Some(PrometheusProvider {}), ..named("prometheus") },
        ExtensionProvider { stackdriver: Some(StackdriverProvider::default()), ..named("stackdriver") },
        ExtensionProvider { envoy_file_access_log: Some(log), ..named("envoy") },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_s_configuration_lies_over_the_defaults() {
        let mesh = MeshConfig::parse(
            "enableTracing: false\naccessLogFile: /dev/stdout\nextensionProviders:\n- name: envoy\n  \
             envoyFileAccessLog: {path: /x}\n- name: z\n  zipkin: {service: z, port: 9411}\n\
             defaultConfig:\n  concurrency: 4\n  proxyMetadata: {A: b}\nmeshMTLS: {minProtocolVersion: TLSV1_3}\n",
        )
        .unwrap();
        assert!(!mesh.enable_tracing);
        assert_eq!(mesh.trust_domain, "cluster.local");
        let config = mesh.default_config.clone().unwrap();
        assert_eq!((config.concurrency, config.status_port), (Some(4), 15020));
        let names: Vec<_> = mesh.extension_providers.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["prometheus", "stackdriver", "envoy", "z"]);
        assert!(mesh.mesh_mTLS.is_some());
        assert_eq!(MeshConfig::parse("").unwrap(), MeshConfig::istio_default());
    }

    #[test]
    fn unknown_fields_are_named() {
        let error = MeshConfig::parse("defaultConfig: {concurency: 1}").unwrap_err().to_string();
        assert_eq!(
            error,
            "defaultConfig.concurency: unknown field \"concurency\"; did you mean \"concurrency\"?"
        );
    }
}
