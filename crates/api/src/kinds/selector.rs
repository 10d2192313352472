//! What a policy applies to.

use lateen_base::Labels;
use serde_json::Value;

use super::rules::NO_WILDCARD_IN_SELECTOR;
use crate::field::{Rule, message};

const LABEL_KEYS: [Rule; 2] = [
    Rule::Cel {
        rule: "self.all(key, !key.contains(\"*\"))",
        message: "wildcard not allowed in label key match",
        holds: |value| keys(value).all(|key| !key.contains('*')),
    },
    Rule::Cel {
        rule: "self.all(key, key.size() != 0)",
        message: "key must not be empty",
        holds: |value| keys(value).all(|key| !key.is_empty()),
    },
];

const LABEL_VALUE: Rule = Rule::Cel {
    rule: "!self.contains(\"*\")",
    message: "wildcard not allowed in label value match",
    holds: |value| value.as_str().is_none_or(|text| !text.contains('*')),
};

fn keys(value: &Value) -> impl Iterator<Item = &String> {
    value.as_object().into_iter().flat_map(serde_json::Map::keys)
}

message! {
    /// Selects workloads by their labels (`istio.type.v1beta1.WorkloadSelector`).
    pub struct LabelSelector {
        /// Labels that a workload needs to have, all of them.
        match_labels: Labels [MaxEntries(4096), LABEL_KEYS[0], LABEL_KEYS[1], Each(&[MaxLength(63), LABEL_VALUE])],
    }
}

message! {
    /// Selects workloads by their labels (`istio.networking.v1.WorkloadSelector`).
    pub struct WorkloadSelector {
        /// Labels that a workload needs to have, all of them.
        labels: Labels [MaxEntries(256), Each(&[MaxLength(63), NO_WILDCARD_IN_SELECTOR])],
    }
}

message! {
    /// Refers to the object a policy is attached to: a Gateway, GatewayClass, Service or ServiceEntry.
    pub struct PolicyTargetReference {
        /// The API group of the target; empty for the core group.
        group: String [MaxLength(253), Pattern(r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")],
        /// The kind of the target.
        kind: String [Required, MinLength(1), MaxLength(63), Pattern("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")],
        /// The name of the target.
        name: String [Required, MinLength(1), MaxLength(253)],
        /// Its namespace; only the policy's own is supported, which leaving it out means.
        namespace: String [Cel {
            rule: "self.size() == 0",
            message: "cross namespace referencing is not currently supported",
            holds: |value| value.as_str().is_none_or(str::is_empty),
        }],
    }
}
