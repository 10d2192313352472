//! `ServiceEntry`: a service that the registry does not know by itself.

use serde_json::Value;

use super::rules::{PORT, part, size, text};
use super::selector::WorkloadSelector;
use super::workload::WorkloadEntry;
use crate::field::{enumeration, message};

message! {
    /// A service that is added to the registry. See https://istio.io/docs/reference/config/networking/service-entry/.
    pub struct ServiceEntry [
        Cel {
            rule: "(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1",
            message: "only one of WorkloadSelector or Endpoints can be set",
            holds: |value| part(value, "workload_selector").is_none() || part(value, "endpoints").is_none(),
        },
        Cel {
            rule: "!((has(self.addresses) ? self.addresses : []).exists(k, k.contains(\"/\")) && \
                   !((has(self.resolution) ? self.resolution : \"NONE\") in [\"STATIC\", \"NONE\"]))",
            message: "CIDR addresses are allowed only for NONE/STATIC resolution types",
            holds: |value| ["", "NONE", "STATIC"].contains(&text(value, "resolution")) || !has_cidr(value),
        },
        Cel {
            rule: "((has(self.resolution) ? self.resolution : \"NONE\") == \"NONE\") ? !has(self.endpoints) : true",
            message: "NONE mode cannot set endpoints",
            holds: |value| !["", "NONE"].contains(&text(value, "resolution")) || part(value, "endpoints").is_none(),
        },
        Cel {
            rule: "((has(self.resolution) ? self.resolution : \"\") == \"DNS_ROUND_ROBIN\") ? \
                   ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true",
            message: "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
            holds: |value| text(value, "resolution") != "DNS_ROUND_ROBIN" || size(value, "endpoints") <= 1,
        },
    ] {
        /// Its hosts, perhaps with a leading wildcard.
        hosts: Vec<String> [Required, MinItems(1), MaxItems(256), Each(&[Cel {
            rule: "self != \"*\"",
            message: "hostname cannot be wildcard",
            holds: |value| value.as_str() != Some("*"),
        }])],
        /// Its addresses, perhaps with a prefix length.
        addresses: Vec<String> [MaxItems(256), Each(&[MaxLength(64)])],
        /// Its ports.
        ports: Vec<ServicePort> [MaxItems(256), ListKey("name"), Cel {
            rule: "self.all(l1, self.exists_one(l2, l1.number == l2.number))",
            message: "port number cannot be duplicated",
            holds: distinct_numbers,
        }],
        /// Whether it is part of the mesh.
        location: Location,
        /// How the addresses of its endpoints are found.
        resolution: Resolution,
        /// Its endpoints.
        endpoints: Vec<WorkloadEntry> [MaxItems(4096)],
        /// Labels of the workload entries and pods that are its endpoints.
        workload_selector: Option<WorkloadSelector>,
        /// The namespaces it is visible to: names, `.` for its own, `*` for all.
        export_to: Vec<String>,
        /// Names of which the server's certificate needs to have one.
        subject_alt_names: Vec<String>,
    }
}

fn has_cidr(value: &Value) -> bool {
    let addresses = part(value, "addresses").and_then(Value::as_array);
    addresses.into_iter().flatten().any(|a| a.as_str().is_some_and(|a| a.contains('/')))
}

fn distinct_numbers(ports: &Value) -> bool {
    let numbers: Vec<_> = ports.as_array().into_iter().flatten().map(|port| part(port, "number")).collect();
    numbers.iter().enumerate().all(|(i, number)| number.is_none() || !numbers[..i].contains(number))
}

message! {
    /// A port of a service.
    pub struct ServicePort {
        /// Its number.
        number: u32 [Required, PORT],
        /// Its protocol: HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
        protocol: String [MaxLength(256)],
        /// Its name.
        name: String [Required, MaxLength(256)],
        /// The port on the endpoints; the same when zero.
        target_port: u32 [PORT],
    }
}

enumeration! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        /// It is outside.
        MeshExternal = "MESH_EXTERNAL" 0,
        /// It is part of the mesh.
        MeshInternal = "MESH_INTERNAL" 1,
    }
}

enumeration! {
    /// How the addresses of a service's endpoints are found.
    pub enum Resolution {
        /// The caller knows them.
        None = "NONE" 0,
        /// They are written down.
        Static = "STATIC" 1,
        /// By DNS, all answers.
        Dns = "DNS" 2,
        /// By DNS, the first answer for new connections.
        DnsRoundRobin = "DNS_ROUND_ROBIN" 3,
        /// By DNS, from the host that is asked for.
        DynamicDns = "DYNAMIC_DNS" 4,
    }
}
