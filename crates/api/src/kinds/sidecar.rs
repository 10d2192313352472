//! `Sidecar`: what a sidecar accepts and what it needs to know.

use super::destination_rule::ConnectionPoolSettings;
use super::gateway::ServerTlsSettings;
use super::selector::WorkloadSelector;
use super::virtual_service::Destination;
use crate::field::{enumeration, message};

message! {
    /// What sidecars accept and what they need to know. See https://istio.io/docs/reference/config/networking/sidecar/.
    pub struct Sidecar {
        /// The workloads it is for; all of the namespace when absent.
        workload_selector: Option<WorkloadSelector>,
        /// What is accepted for the workload.
        ingress: Vec<IstioIngressListener>,
        /// What the workload may reach.
        egress: Vec<IstioEgressListener>,
        /// Limits of inbound connections.
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What becomes of traffic to unknown services.
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// A listener for inbound traffic.
    pub struct IstioIngressListener {
        /// The port.
        port: SidecarPort [Required],
        /// The address it listens on.
        bind: String,
        /// How traffic gets there.
        capture_mode: CaptureMode,
        /// Where traffic goes: `127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///path`.
        default_endpoint: String,
        /// TLS of inbound traffic.
        tls: Option<ServerTlsSettings>,
        /// Limits of connections to the workload.
        connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// A listener for outbound traffic.
    pub struct IstioEgressListener {
        /// The port; all that the hosts have when absent.
        port: Option<SidecarPort>,
        /// The address or Unix socket it listens on.
        bind: String,
        /// How traffic gets there.
        capture_mode: CaptureMode,
        /// The hosts it serves: `namespace/host`, with `.`, `*` and `~` for namespaces.
        hosts: Vec<String> [Required],
    }
}

message! {
    /// A port of a sidecar.
    pub struct SidecarPort {
        /// Its number.
        number: u32,
        /// Its protocol.
        protocol: String,
        /// Its name.
        name: String,
        /// Not in use.
        target_port: u32,
    }
}

enumeration! {
    /// How traffic gets to a listener.
    pub enum CaptureMode {
        /// As the environment does it.
        Default = "DEFAULT" 0,
        /// By interception.
        Iptables = "IPTABLES" 1,
        /// By addressing the listener.
        None = "NONE" 2,
    }
}

message! {
    /// What becomes of traffic to unknown services.
    pub struct OutboundTrafficPolicy {
        /// The mode.
        mode: OutboundTrafficMode,
        /// The service that gets it.
        egress_proxy: Option<Destination>,
    }
}

enumeration! {
    /// What becomes of traffic to unknown services.
    pub enum OutboundTrafficMode {
        /// It is refused.
        RegistryOnly = "REGISTRY_ONLY" 0,
        /// It is let through.
        AllowAny = "ALLOW_ANY" 1,
    }
}
