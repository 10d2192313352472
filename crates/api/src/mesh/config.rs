//! `MeshConfig`: what holds for the whole mesh.

use std::time::Duration;

use lateen_base::Labels;

use super::providers::ExtensionProvider;
use super::proxy::MeshProxyConfig;
use crate::field::{enumeration, message};
use crate::kinds::destination_rule::{
    ClientTlsSettings, ConnectionPoolSettings, LocalityLbSetting, OutlierDetection, TcpKeepalive,
    ZoneAwareLbSetting,
};
use crate::kinds::virtual_service::HttpRetry;

message! {
    /// What holds for the whole mesh. See https://istio.io/docs/reference/config/istio.mesh.v1alpha1/.
    pub struct MeshConfig {
        /// The port of outbound traffic; 15001.
        proxy_listen_port: i32,
        /// The port of inbound traffic; 15006.
        proxy_inbound_listen_port: i32,
        /// The port of the HTTP proxy; zero means none.
        proxy_http_port: i32,
        /// How long connecting may take; 10 s.
        connect_timeout: Option<Duration>,
        /// How long protocol detection may take; zero means without limit.
        protocol_detection_timeout: Option<Duration>,
        /// TCP keepalive.
        tcp_keepalive: Option<TcpKeepalive>,
        /// The class of Ingress objects.
        ingress_class: String,
        /// The service of the ingress gateway.
        ingress_service: String,
        /// Which Ingress objects are served.
        ingress_controller_mode: IngressControllerMode,
        /// The label `istio` of the ingress gateway.
        ingress_selector: String,
        /// Whether spans and request ids are made.
        enable_tracing: bool,
        /// The file of access logs; empty means none.
        access_log_file: String,
        /// The format of access logs.
        access_log_format: String,
        /// The encoding of access logs.
        access_log_encoding: AccessLogEncoding,
        /// Whether access logs go to the access log service.
        enable_envoy_access_log_service: bool,
        /// Whether listeners have no access log.
        disable_envoy_listener_log: bool,
        /// How proxies are started.
        default_config: Option<MeshProxyConfig>,
        /// What becomes of traffic to unknown services.
        outbound_traffic_policy: Option<MeshOutboundTrafficPolicy>,
        /// Where inbound traffic goes.
        inbound_traffic_policy: Option<MeshInboundTrafficPolicy>,
        /// Where configuration comes from.
        config_sources: Vec<ConfigSource>,
        /// Whether mTLS is used towards workloads that accept it; true.
        enable_auto_mtls: Option<bool>,
        /// The trust domain.
        trust_domain: String,
        /// Other names of the trust domain.
        trust_domain_aliases: Vec<String>,
        /// Further authorities.
        ca_certificates: Vec<CertificateData>,
        /// The namespaces that services are visible to, by default.
        default_service_export_to: Vec<String>,
        /// The namespaces that virtual services are visible to, by default.
        default_virtual_service_export_to: Vec<String>,
        /// The namespaces that destination rules are visible to, by default.
        default_destination_rule_export_to: Vec<String>,
        /// The namespace whose configuration holds for all.
        root_namespace: String,
        /// Balancing by locality.
        locality_lb_setting: Option<LocalityLbSetting>,
        /// Balancing by zone.
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// How often names are resolved; 60 s.
        dns_refresh_rate: Option<Duration>,
        /// Whether HTTP/1.1 becomes HTTP/2.
        h2_upgrade_policy: MeshH2UpgradePolicy,
        /// The pattern of inbound clusters' names in statistics.
        inbound_cluster_stat_name: String,
        /// The pattern of outbound clusters' names in statistics.
        outbound_cluster_stat_name: String,
        /// Not in use.
        certificates: Vec<ProvisionedCertificate>,
        /// Settings of single services.
        service_settings: Vec<ServiceSettings>,
        /// Which services are visible across clusters.
        service_scope_configs: Vec<ServiceScopeConfig>,
        /// Whether metrics of proxy and application are merged; true.
        enable_prometheus_merge: Option<bool>,
        /// Whether certificates of servers outside of the mesh are verified.
        verify_certificate_at_client: Option<bool>,
        /// An external authority.
        ca: Option<ExternalCa>,
        /// Services that policies and telemetry refer to.
        extension_providers: Vec<ExtensionProvider>,
        /// The providers used by default.
        default_providers: Option<DefaultProviders>,
        /// Which namespaces are watched; one selector suffices.
        discovery_selectors: Vec<KubernetesLabelSelector>,
        /// How paths are normalized.
        path_normalization: Option<ProxyPathNormalization>,
        /// How failed requests are tried again, by default.
        default_http_retry_policy: Option<HttpRetry>,
        /// How failed requests to the own application are tried again, by default.
        default_inbound_http_retry_policy: Option<HttpRetry>,
        /// What destination rules say, by default.
        default_traffic_policy: Option<DefaultTrafficPolicy>,
        /// TLS between workloads.
        mesh_mTLS: Option<TlsConfig>,
        /// TLS outside of the mesh.
        tls_defaults: Option<TlsConfig>,
        /// Restrictions of TLS: empty or `fips-140-2`.
        compliance_policy: String,
    }
}

enumeration! {
    /// Which Ingress objects are served.
    pub enum IngressControllerMode {
        /// As STRICT.
        Unspecified = "UNSPECIFIED" 0,
        /// None.
        Off = "OFF" 1,
        /// Those of the class, and those without.
        Default = "DEFAULT" 2,
        /// Those of the class.
        Strict = "STRICT" 3,
    }
}

enumeration! {
    /// The encoding of access logs.
    pub enum AccessLogEncoding {
        /// Text.
        Text = "TEXT" 0,
        /// JSON.
        Json = "JSON" 1,
    }
}

message! {
    /// What becomes of traffic to unknown services.
    pub struct MeshOutboundTrafficPolicy {
        /// The mode.
        mode: MeshOutboundMode,
        /// TLS towards hosts that proxies resolve themselves (ALLOW_ANY_DYNAMIC_DNS).
        tls: Option<ClientTlsSettings>,
    }
}

enumeration! {
    /// What becomes of traffic to unknown services.
    pub enum MeshOutboundMode {
        /// It is refused.
        RegistryOnly = "REGISTRY_ONLY" 0,
        /// It is let through.
        AllowAny = "ALLOW_ANY" 1,
        /// It is let through, and requests go to the host that their authority names, which the proxy resolves.
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS" 3,
    }
}

message! {
    /// Where inbound traffic goes.
    pub struct MeshInboundTrafficPolicy {
        /// The mode.
        mode: MeshInboundMode,
    }
}

enumeration! {
    /// Where inbound traffic goes.
    pub enum MeshInboundMode {
        /// To the pod's address.
        Passthrough = "PASSTHROUGH" 0,
        /// To the loopback address.
        Localhost = "LOCALHOST" 1,
    }
}

message! {
    /// Where configuration comes from.
    pub struct ConfigSource {
        /// `xds://`, `k8s://` or `fs://`.
        address: String,
        /// TLS.
        tls_settings: Option<ClientTlsSettings>,
        /// What it gives.
        subscribed_resources: Vec<ConfigResource>,
    }
}

enumeration! {
    /// What a source gives.
    pub enum ConfigResource {
        /// Services.
        ServiceRegistry = "SERVICE_REGISTRY" 0,
    }
}

message! {
    /// A further authority.
    pub struct CertificateData [OneOf(&["pem", "spiffe_bundle_url"])] {
        /// Its certificate.
        pem: Option<String>,
        /// Where its SPIFFE bundle is.
        spiffe_bundle_url: Option<String>,
        /// The Kubernetes signers it is for.
        cert_signers: Vec<String>,
        /// The trust domains it is for.
        trust_domains: Vec<String>,
    }
}

enumeration! {
    /// Whether HTTP/1.1 becomes HTTP/2.
    pub enum MeshH2UpgradePolicy {
        /// It does not.
        DoNotUpgrade = "DO_NOT_UPGRADE" 0,
        /// It does.
        Upgrade = "UPGRADE" 1,
    }
}

message! {
    /// Not in use.
    pub struct ProvisionedCertificate {
        /// The secret.
        secret_name: String,
        /// The names.
        dns_names: Vec<String>,
    }
}

message! {
    /// Settings of single services.
    pub struct ServiceSettings {
        /// The settings.
        settings: Option<ServiceSettingsValues>,
        /// The services, perhaps with a leading wildcard.
        hosts: Vec<String>,
    }
}

message! {
    /// Settings of a service.
    pub struct ServiceSettingsValues {
        /// Whether only endpoints of the caller's cluster are used.
        cluster_local: bool,
    }
}

message! {
    /// Which services are visible across clusters.
    pub struct ServiceScopeConfig {
        /// By their namespace.
        namespace_selector: Option<KubernetesLabelSelector>,
        /// By their labels.
        services_selector: Option<KubernetesLabelSelector>,
        /// Their scope.
        scope: ServiceScope,
    }
}

enumeration! {
    /// The scope of a service.
    pub enum ServiceScope {
        /// Its cluster.
        Local = "LOCAL" 0,
        /// The mesh.
        Global = "GLOBAL" 1,
    }
}

message! {
    /// An external authority.
    pub struct ExternalCa {
        /// Host and port.
        address: String,
        /// TLS.
        tls_settings: Option<ClientTlsSettings>,
        /// How long a request may take; 10 s.
        request_timeout: Option<Duration>,
        /// Whether the control plane asks it.
        istiod_side: bool,
    }
}

message! {
    /// The providers used by default.
    pub struct DefaultProviders {
        /// Of traces.
        tracing: Vec<String>,
        /// Of metrics.
        metrics: Vec<String>,
        /// Of access logs.
        access_logging: Vec<String>,
    }
}

message! {
    /// A Kubernetes label selector; all conditions have to hold.
    pub struct KubernetesLabelSelector {
        /// Labels.
        match_labels: Labels,
        /// Expressions.
        match_expressions: Vec<LabelExpression>,
    }
}

message! {
    /// An expression of a label.
    pub struct LabelExpression {
        /// The label's key.
        key: String,
        /// In, NotIn, Exists or DoesNotExist.
        operator: String,
        /// The values.
        values: Vec<String>,
    }
}

message! {
    /// How paths are normalized.
    pub struct ProxyPathNormalization {
        /// How.
        normalization: NormalizationType,
    }
}

enumeration! {
    /// How paths are normalized.
    pub enum NormalizationType {
        /// As BASE.
        Default = "DEFAULT" 0,
        /// Not at all.
        None = "NONE" 1,
        /// By RFC 3986.
        Base = "BASE" 2,
        /// Slashes are merged, too.
        MergeSlashes = "MERGE_SLASHES" 3,
        /// Escaped slashes are decoded before, too.
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES" 4,
    }
}

message! {
    /// What destination rules say, by default.
    pub struct DefaultTrafficPolicy {
        /// Limits of connections.
        connection_pool: Option<ConnectionPoolSettings>,
        /// How failing hosts are ejected.
        outlier_detection: Option<OutlierDetection>,
    }
}

message! {
    /// TLS.
    pub struct TlsConfig {
        /// The least version.
        min_protocol_version: MeshTlsProtocol,
        /// Key exchange curves.
        ecdh_curves: Vec<String>,
        /// Cipher suites.
        cipher_suites: Vec<String>,
    }
}

enumeration! {
    /// Versions of TLS.
    pub enum MeshTlsProtocol {
        /// The default.
        TlsAuto = "TLS_AUTO" 0,
        /// 1.2
        TlsV1_2 = "TLSV1_2" 1,
        /// 1.3
        TlsV1_3 = "TLSV1_3" 2,
    }
}
