//! `WorkloadEntry` and `WorkloadGroup`: workloads outside of Kubernetes.

use std::collections::BTreeMap;

use lateen_base::Labels;
use serde_json::Value;

use super::rules::{PORT, part, text};
use crate::field::{Rule, message};

const HAS_ADDRESS: Rule = Rule::Cel {
    rule: "has(self.address) || has(self.network)",
    message: "Address is required",
    holds: |value| part(value, "address").is_some() || part(value, "network").is_some(),
};

const NO_PORTS_OF_UDS: Rule = Rule::Cel {
    rule: "(has(self.address) ? self.address : \"\").startsWith(\"unix://\") ? !has(self.ports) : true",
    message: "UDS may not include ports",
    holds: |value| !text(value, "address").starts_with("unix://") || part(value, "ports").is_none(),
};

const ABSOLUTE_UDS: Rule = Rule::Cel {
    rule: "self.startsWith(\"unix://\") ? (self.substring(7, 8) == \"/\" || self.substring(7, 8) == \"@\") : true",
    message: "UDS must be an absolute path or abstract socket",
    holds: |value| uds(value).is_none_or(|path| path.starts_with(['/', '@'])),
};

const UDS_FILE: Rule = Rule::Cel {
    rule: "self.startsWith(\"unix://\") ? !self.endsWith(\"/\") : true",
    message: "UDS may not be a dir",
    holds: |value| uds(value).is_none_or(|path| !path.ends_with('/')),
};

const PORT_NAMES: Rule = Rule::Cel {
    rule: "self.all(key, size(key) < 63 && key.matches(\"^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$\"))",
    message: "port name must be valid",
    holds: |value| value.as_object().is_none_or(|ports| ports.keys().all(|name| is_port_name(name))),
};

fn uds(value: &Value) -> Option<&str> {
    value.as_str()?.strip_prefix("unix://")
}

fn is_port_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() < 63
        && edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

message! {
    /// A workload outside of Kubernetes. See https://istio.io/docs/reference/config/networking/workload-entry/.
    pub struct WorkloadEntry [HAS_ADDRESS, NO_PORTS_OF_UDS] {
        /// An address, a name that DNS resolves, or `unix://` and a path.
        address: String [MaxLength(256), ABSOLUTE_UDS, UDS_FILE],
        /// Ports by the names of the service's ports.
        ports: BTreeMap<String, u32> [MaxEntries(128), PORT_NAMES, Each(&[PORT])],
        /// Its labels.
        labels: Labels [MaxEntries(256)],
        /// Its network.
        network: String [MaxLength(2048)],
        /// Its locality: `region/zone/subzone`.
        locality: String [MaxLength(2048)],
        /// Its weight among the endpoints.
        weight: u32,
        /// Its service account.
        service_account: String [MaxLength(253)],
    }
}

message! {
    /// What the workload entries of a group have in common.
    pub struct WorkloadTemplate [NO_PORTS_OF_UDS] {
        /// Not in use: each workload brings its own.
        address: String [MaxLength(256), ABSOLUTE_UDS, UDS_FILE],
        /// Ports by the names of the service's ports.
        ports: BTreeMap<String, u32> [MaxEntries(128), PORT_NAMES, Each(&[PORT])],
        /// Labels.
        labels: Labels [MaxEntries(256)],
        /// The network.
        network: String [MaxLength(2048)],
        /// The locality: `region/zone/subzone`.
        locality: String [MaxLength(2048)],
        /// The weight among the endpoints.
        weight: u32,
        /// The service account.
        service_account: String [MaxLength(253)],
    }
}

message! {
    /// A group of workloads that register themselves. See https://istio.io/docs/reference/config/networking/workload-group/.
    pub struct WorkloadGroup {
        /// Labels and annotations of their workload entries.
        metadata: Option<GroupMetadata>,
        /// The rest of their workload entries.
        template: WorkloadTemplate [Required],
        /// How their readiness is probed.
        probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations of the workload entries of a group.
    pub struct GroupMetadata {
        /// The labels.
        labels: Labels [MaxEntries(256)],
        /// The annotations.
        annotations: BTreeMap<String, String> [MaxEntries(256)],
    }
}

message! {
    /// How readiness is probed.
    pub struct ReadinessProbe [OneOf(&["http_get", "tcp_socket", "exec", "grpc"])] {
        /// Seconds until the first probe.
        initial_delay_seconds: i32 [Min(0)],
        /// Seconds that a probe may take; 1 when zero.
        timeout_seconds: i32 [Min(0)],
        /// Seconds between probes; 10 when zero.
        period_seconds: i32 [Min(0)],
        /// Successes in a row for ready; 1 when zero.
        success_threshold: i32 [Min(0)],
        /// Failures in a row for not ready; 3 when zero.
        failure_threshold: i32 [Min(0)],
        /// By an HTTP GET.
        http_get: Option<HttpHealthCheck>,
        /// By connecting.
        tcp_socket: Option<TcpHealthCheck>,
        /// By a command.
        exec: Option<ExecHealthCheck>,
        /// By gRPC's health service.
        grpc: Option<GrpcHealthCheck>,
    }
}

message! {
    /// A probe by HTTP.
    pub struct HttpHealthCheck {
        /// The path.
        path: String,
        /// The port.
        port: u32 [Required, PORT],
        /// The host; the workload's address when empty.
        host: String,
        /// HTTP or HTTPS.
        scheme: String [Cel {
            rule: "self in [\"\", \"HTTP\", \"HTTPS\"]",
            message: "scheme must be one of [HTTP, HTTPS]",
            holds: |value| value.as_str().is_none_or(|s| ["", "HTTP", "HTTPS"].contains(&s)),
        }],
        /// Headers of the request.
        http_headers: Vec<HttpHeader>,
    }
}

message! {
    /// A header of a probe.
    pub struct HttpHeader {
        /// Its name.
        name: String [Pattern("^[-_A-Za-z0-9]+$")],
        /// Its value.
        value: String,
    }
}

message! {
    /// A probe by connecting.
    pub struct TcpHealthCheck {
        /// The host; the workload's address when empty.
        host: String,
        /// The port.
        port: u32 [Required, PORT],
    }
}

message! {
    /// A probe by a command.
    pub struct ExecHealthCheck {
        /// The command and its arguments; no shell.
        command: Vec<String> [Required, Each(&[MinLength(1)])],
    }
}

message! {
    /// A probe by gRPC's health service.
    pub struct GrpcHealthCheck {
        /// The port.
        port: u32 [PORT],
        /// The service that is asked for.
        service: String,
    }
}
