//! `DestinationRule`: what holds for traffic once it is routed to a service.

use std::collections::BTreeMap;
use std::time::Duration;

use lateen_base::Labels;

use super::rules::DURATION;
use super::selector::LabelSelector;
use super::virtual_service::PortSelector;
use crate::field::{enumeration, message};

message! {
    /// What holds for traffic to a host. See https://istio.io/docs/reference/config/networking/destination-rule/.
    pub struct DestinationRule {
        /// The name of a service in the registry, perhaps with a leading wildcard.
        host: String [Required],
        /// Policies for all its traffic.
        traffic_policy: Option<TrafficPolicy>,
        /// Named sets of its workloads.
        subsets: Vec<Subset>,
        /// The namespaces the rule is visible to: names, `.` for its own, `*` for all.
        export_to: Vec<String>,
        /// The client workloads the rule is for; all of the namespace when absent.
        workload_selector: Option<LabelSelector>,
    }
}

message! {
    /// Policies for traffic.
    pub struct TrafficPolicy {
        /// How a host is picked.
        load_balancer: Option<LoadBalancerSettings>,
        /// Limits of connections.
        connection_pool: Option<ConnectionPoolSettings>,
        /// How failing hosts are ejected.
        outlier_detection: Option<OutlierDetection>,
        /// TLS towards the host.
        tls: Option<ClientTlsSettings>,
        /// Policies of single ports; nothing is inherited from the fields above.
        port_level_settings: Vec<PortTrafficPolicy> [MaxItems(4096)],
        /// Tunnels TCP traffic through an HTTP proxy.
        tunnel: Option<TunnelSettings>,
        /// The PROXY protocol towards the host.
        proxy_protocol: Option<ProxyProtocol>,
        /// A limit of concurrent retries.
        retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// Policies of one port.
    pub struct PortTrafficPolicy {
        /// The port.
        port: Option<PortSelector>,
        /// How a host is picked.
        load_balancer: Option<LoadBalancerSettings>,
        /// Limits of connections.
        connection_pool: Option<ConnectionPoolSettings>,
        /// How failing hosts are ejected.
        outlier_detection: Option<OutlierDetection>,
        /// TLS towards the host.
        tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// Tunnels TCP traffic through an HTTP proxy.
    pub struct TunnelSettings {
        /// CONNECT or POST; CONNECT when empty.
        protocol: String,
        /// The host at the tunnel's end.
        target_host: String [Required],
        /// The port at the tunnel's end.
        target_port: u32 [Required],
    }
}

message! {
    /// The PROXY protocol.
    pub struct ProxyProtocol {
        /// Its version.
        version: ProxyProtocolVersion,
    }
}

enumeration! {
    /// A version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// The text form.
        V1 = "V1" 0,
        /// The binary form.
        V2 = "V2" 1,
    }
}

message! {
    /// A limit of concurrent retries.
    pub struct RetryBudget {
        /// In percent of active and pending requests.
        percent: Option<f64> [Min(0), Max(100), Nullable],
        /// How long a request counts.
        budget_interval: Option<Duration>,
        /// Retries that are always allowed.
        min_retry_concurrency: u32,
    }
}

message! {
    /// A named set of a service's workloads.
    pub struct Subset {
        /// The name.
        name: String [Required],
        /// Labels that its workloads have.
        labels: Labels,
        /// Policies, in the place of the rule's.
        traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    /// How a host is picked.
    pub struct LoadBalancerSettings [OneOf(&["simple", "consistent_hash", "backend_utilization"])] {
        /// By a simple method.
        simple: Option<SimpleLb>,
        /// By hash, so that a client stays with a host.
        consistent_hash: Option<ConsistentHashLb>,
        /// By the utilisation that hosts report.
        backend_utilization: Option<BackendUtilizationLb>,
        /// By locality.
        locality_lb_setting: Option<LocalityLbSetting>,
        /// By zone.
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Old form of warmup.duration.
        warmup_duration_secs: Option<Duration> [DURATION],
        /// How traffic to a new host grows.
        warmup: Option<WarmupConfiguration>,
    }
}

enumeration! {
    /// Simple methods of balancing.
    pub enum SimpleLb {
        /// As LEAST_REQUEST.
        Unspecified = "UNSPECIFIED" 0,
        /// Old name of LEAST_REQUEST.
        LeastConn = "LEAST_CONN" 1,
        /// At random.
        Random = "RANDOM" 2,
        /// To the address the caller asked for.
        Passthrough = "PASSTHROUGH" 3,
        /// One after the other.
        RoundRobin = "ROUND_ROBIN" 4,
        /// The one with fewer requests of two.
        LeastRequest = "LEAST_REQUEST" 5,
    }
}

message! {
    /// Balancing by hash: exactly one of what is hashed, and one of the methods.
    pub struct ConsistentHashLb [
        OneOf(&["http_header_name", "http_cookie", "use_source_ip", "http_query_parameter_name"]),
        OneOf(&["ring_hash", "maglev"]),
    ] {
        /// A header.
        http_header_name: Option<String>,
        /// A cookie, which is set when it is missing.
        http_cookie: Option<HttpCookie>,
        /// The source address.
        use_source_ip: Option<bool>,
        /// A query parameter.
        http_query_parameter_name: Option<String>,
        /// By ring hash.
        ring_hash: Option<RingHash>,
        /// By Maglev.
        maglev: Option<Maglev>,
        /// Old form of ringHash.minimumRingSize.
        minimum_ring_size: u64,
    }
}

message! {
    /// The ring hash method.
    pub struct RingHash {
        /// The least number of points on the ring; 1024 when zero.
        minimum_ring_size: u64,
    }
}

message! {
    /// The Maglev method.
    pub struct Maglev {
        /// The size of the table, a prime number; 65537 when zero.
        table_size: u64,
    }
}

message! {
    /// A cookie that is hashed.
    pub struct HttpCookie {
        /// Its name.
        name: String [Required],
        /// Its path.
        path: String,
        /// Its lifetime; absent: the cookie is never set by the proxy.
        ttl: Option<Duration>,
        /// Further attributes.
        attributes: Vec<HttpCookieAttribute>,
    }
}

message! {
    /// An attribute of a cookie.
    pub struct HttpCookieAttribute {
        /// Its name.
        name: String [Required],
        /// Its value.
        value: String,
    }
}

message! {
    /// Balancing by the utilisation that hosts report.
    pub struct BackendUtilizationLb {
        /// How long a host's first reports do not count.
        weight_stabilization_period: Option<Duration>,
        /// How long a report counts.
        weight_expiration_period: Option<Duration>,
        /// How often weights are computed.
        weight_update_period: Option<Duration>,
        /// The penalty of errors, in percent.
        error_utilization_penalty_percent: u32,
        /// The metrics that weights are computed from.
        metric_names_for_computing_utilization: Vec<String>,
    }
}

message! {
    /// Balancing by locality: at most one of distribute, failover, failoverPriority.
    pub struct LocalityLbSetting {
        /// Explicit shares.
        distribute: Vec<LocalityDistribute>,
        /// Where traffic goes when a region fails.
        failover: Vec<LocalityFailover>,
        /// Labels by which endpoints are ranked.
        failover_priority: Vec<String>,
        /// Whether it is on; the mesh's when absent.
        enabled: Option<bool> [Nullable],
    }
}

message! {
    /// Balancing by zone.
    pub struct ZoneAwareLbSetting {
        /// Whether it is on.
        enabled: Option<bool> [Nullable],
        /// Where traffic goes when a region fails.
        failover: Vec<LocalityFailover>,
        /// Labels by which endpoints are ranked.
        failover_priority: Vec<String>,
        /// The least number of hosts for it to work.
        min_cluster_size: Option<u32> [Min(1), Nullable],
    }
}

message! {
    /// Shares of the traffic of one locality.
    pub struct LocalityDistribute {
        /// The locality of the caller, such as `region/zone/*`.
        from: String,
        /// Shares by locality, 100 in sum.
        to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where traffic of a region goes when it fails.
    pub struct LocalityFailover {
        /// The region that fails.
        from: String,
        /// The region that takes over.
        to: String,
    }
}

message! {
    /// How traffic to a new host grows.
    pub struct WarmupConfiguration {
        /// How long.
        duration: Option<Duration> [Required, DURATION],
        /// The share it begins with, in percent; 10 when absent.
        minimum_percent: Option<f64> [Min(0), Max(100), Nullable],
        /// The speed of growth; 1, linear, when absent.
        aggression: Option<f64> [Min(0), Nullable],
    }
}

message! {
    /// Limits of connections.
    pub struct ConnectionPoolSettings {
        /// For all connections.
        tcp: Option<TcpSettings>,
        /// For HTTP connections.
        http: Option<HttpSettings>,
    }
}

message! {
    /// Limits for all connections.
    pub struct TcpSettings {
        /// How many there may be.
        max_connections: i32,
        /// How long connecting may take; 10 s when absent.
        connect_timeout: Option<Duration> [DURATION],
        /// TCP keepalive.
        tcp_keepalive: Option<TcpKeepalive>,
        /// How long a connection may last.
        max_connection_duration: Option<Duration> [DURATION],
        /// How long a connection may idle; zero means without limit.
        idle_timeout: Option<Duration>,
    }
}

message! {
    /// TCP keepalive.
    pub struct TcpKeepalive {
        /// Probes without answer until the connection is dead.
        probes: u32,
        /// How long a connection idles before probes.
        time: Option<Duration> [DURATION],
        /// The time between probes.
        interval: Option<Duration> [DURATION],
    }
}

message! {
    /// Limits for HTTP connections.
    pub struct HttpSettings {
        /// Requests that may wait for a connection.
        http1_max_pending_requests: i32,
        /// Requests that may be active.
        http2_max_requests: i32,
        /// Requests that a connection may carry; zero means without limit.
        max_requests_per_connection: i32,
        /// Retries that may be outstanding.
        max_retries: i32,
        /// How long a connection may be without active requests.
        idle_timeout: Option<Duration> [DURATION],
        /// Whether HTTP/1.1 becomes HTTP/2.
        h2_upgrade_policy: H2UpgradePolicy,
        /// Whether the client's protocol is kept.
        use_client_protocol: bool,
        /// Streams that a connection may carry at once.
        max_concurrent_streams: i32,
        /// PINGs on HTTP/2 connections.
        http2_keep_alive: Option<Http2KeepAlive>,
    }
}

message! {
    /// PINGs on HTTP/2 connections.
    pub struct Http2KeepAlive {
        /// The time between PINGs.
        interval: Option<Duration> [DURATION],
        /// How long the answer may take.
        timeout: Option<Duration> [DURATION],
    }
}

enumeration! {
    /// Whether HTTP/1.1 becomes HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh configuration says.
        Default = "DEFAULT" 0,
        /// It does not.
        DoNotUpgrade = "DO_NOT_UPGRADE" 1,
        /// It does.
        Upgrade = "UPGRADE" 2,
    }
}

message! {
    /// How failing hosts are ejected.
    pub struct OutlierDetection {
        /// Old form of consecutiveGatewayErrors.
        consecutive_errors: i32,
        /// Whether local failures are counted apart.
        split_external_local_origin_errors: bool,
        /// Local failures in a row that eject a host.
        consecutive_local_origin_failures: Option<u32> [Nullable],
        /// 502, 503 and 504 in a row that eject a host; zero turns it off.
        consecutive_gateway_errors: Option<u32> [Nullable],
        /// 5xx in a row that eject a host; 5 when absent, zero turns it off.
        consecutive_5xx_errors: Option<u32> [Nullable],
        /// The time between analyses; 10 s when absent.
        interval: Option<Duration> [DURATION],
        /// The least time of ejection; 30 s when absent.
        base_ejection_time: Option<Duration> [DURATION],
        /// How many of the hosts may be ejected, in percent; 10 when zero.
        max_ejection_percent: i32,
        /// The share of healthy hosts below which ejection does not count, in percent.
        min_health_percent: i32,
        /// Statuses that count as errors.
        outlier_detection_http_error_codes: Vec<u32> [Each(&[Min(100), Max(599)])],
    }
}

message! {
    /// TLS towards a host.
    pub struct ClientTlsSettings {
        /// The mode.
        mode: ClientTlsMode,
        /// The file of the client certificate.
        client_certificate: String,
        /// The file of its key.
        private_key: String,
        /// The file of the authorities' certificates; the system's when empty.
        ca_certificates: String,
        /// The name of a secret that holds all three.
        credential_name: String,
        /// Names of which the server's certificate needs to have one.
        subject_alt_names: Vec<String>,
        /// The SNI.
        sni: String,
        /// Whether the server's certificate is not verified.
        insecure_skip_verify: Option<bool> [Nullable],
        /// The file of the revocation list.
        ca_crl: String,
    }
}

enumeration! {
    /// Modes of TLS towards a host.
    pub enum ClientTlsMode {
        /// None.
        Disable = "DISABLE" 0,
        /// Without client certificate.
        Simple = "SIMPLE" 1,
        /// With the client certificate given.
        Mutual = "MUTUAL" 2,
        /// With the workload's certificate of the mesh.
        IstioMutual = "ISTIO_MUTUAL" 3,
    }
}
