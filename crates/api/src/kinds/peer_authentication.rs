//! `PeerAuthentication`: whether workloads accept plain text, mTLS, or both.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rules::{part, size};
use super::selector::LabelSelector;
use crate::field::{enumeration, message};

message! {
    /// What workloads accept. See https://istio.io/docs/reference/config/security/peer_authentication/.
    pub struct PeerAuthentication [Cel {
        rule: "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? \
               self.selector.matchLabels : {}).size() > 0) : true",
        message: "portLevelMtls requires selector",
        holds: |value| {
            let labels = part(value, "selector").map_or(0, |selector| size(selector, "match_labels"));
            part(value, "port_level_mtls").is_none() || labels > 0
        },
    }] {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// What they accept.
        mtls: Option<MutualTls>,
        /// What single ports of the workload accept.
        port_level_mtls: BTreeMap<u32, MutualTls> [MinEntries(1), Cel {
            rule: "self.all(key, 0 < int(key) && int(key) <= 65535)",
            message: "port must be between 1-65535",
            holds: all_ports,
        }],
    }
}

fn all_ports(value: &Value) -> bool {
    let is_port = |key: &String| key.parse::<u64>().is_ok_and(|port| (1..=65535).contains(&port));
    value.as_object().is_none_or(|ports| ports.keys().all(is_port))
}

message! {
    /// Settings of mTLS.
    pub struct MutualTls {
        /// What is accepted.
        mode: MutualTlsMode,
    }
}

enumeration! {
    /// What is accepted.
    pub enum MutualTlsMode {
        /// As the parent says; PERMISSIVE if it does not.
        Unset = "UNSET" 0,
        /// Plain text.
        Disable = "DISABLE" 1,
        /// Plain text and mTLS.
        Permissive = "PERMISSIVE" 2,
        /// mTLS.
        Strict = "STRICT" 3,
    }
}
