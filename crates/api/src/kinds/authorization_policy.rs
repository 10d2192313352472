//! `AuthorizationPolicy`: who may do what.

use super::rules::{ONE_TARGET, count};
use super::selector::{LabelSelector, PolicyTargetReference};
use crate::field::{Rule, enumeration, message};

const ACCOUNTS_ALONE: Rule = Rule::Cel {
    rule: "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && \
           !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
    message: "Cannot set serviceAccounts with namespaces or principals",
    holds: |value| {
        count(value, &["service_accounts", "not_service_accounts"]) == 0
            || count(value, &["principals", "not_principals", "namespaces", "not_namespaces"]) == 0
    },
};

message! {
    /// Who may do what. See https://istio.io/docs/reference/config/security/authorization-policy/.
    pub struct AuthorizationPolicy [OneOf(&["provider"]), ONE_TARGET] {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// The object it is attached to.
        target_ref: Option<PolicyTargetReference>,
        /// The objects it is attached to.
        target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Rules, of which one suffices; without any, nothing matches.
        rules: Vec<AuthorizationRule> [MaxItems(512)],
        /// What happens to requests that match.
        action: AuthorizationAction,
        /// The provider of a CUSTOM action.
        provider: Option<AuthorizationProvider>,
    }
}

message! {
    /// The provider of a CUSTOM action.
    pub struct AuthorizationProvider {
        /// The name of an extension provider in the mesh configuration.
        name: String,
    }
}

enumeration! {
    /// What happens to requests that match.
    pub enum AuthorizationAction {
        /// They are allowed, and others are not.
        Allow = "ALLOW" 0,
        /// They are denied.
        Deny = "DENY" 1,
        /// They are logged.
        Audit = "AUDIT" 2,
        /// The provider is asked.
        Custom = "CUSTOM" 3,
    }
}

message! {
    /// Sources, operations and conditions, all of which have to match; what is missing matches all.
    pub struct AuthorizationRule {
        /// Sources, of which one suffices.
        from: Vec<RuleFrom> [MaxItems(512)],
        /// Operations, of which one suffices.
        to: Vec<RuleTo>,
        /// Further conditions, all of which have to hold.
        when: Vec<Condition>,
    }
}

message! {
    /// Wraps a source.
    pub struct RuleFrom {
        /// The source.
        source: Option<Source>,
    }
}

message! {
    /// Wraps an operation.
    pub struct RuleTo {
        /// The operation.
        operation: Option<Operation>,
    }
}

message! {
    /// Where a request comes from; all fields that are set have to match.
    pub struct Source [ACCOUNTS_ALONE] {
        /// Peers, as trust domain and path of their SPIFFE ID.
        principals: Vec<String>,
        /// Peers that do not match.
        not_principals: Vec<String>,
        /// Tokens, as `issuer/subject`.
        request_principals: Vec<String>,
        /// Tokens that do not match.
        not_request_principals: Vec<String>,
        /// Namespaces of peers.
        namespaces: Vec<String>,
        /// Namespaces that do not match.
        not_namespaces: Vec<String>,
        /// Addresses of the connection's source.
        ip_blocks: Vec<String>,
        /// Addresses that do not match.
        not_ip_blocks: Vec<String>,
        /// Addresses of the client, by X-Forwarded-For or the PROXY protocol.
        remote_ip_blocks: Vec<String>,
        /// Addresses that do not match.
        not_remote_ip_blocks: Vec<String>,
        /// Service accounts of peers, as `namespace/name` or `name`.
        service_accounts: Vec<String> [MaxItems(16), Each(&[MaxLength(320)])],
        /// Service accounts that do not match.
        not_service_accounts: Vec<String> [MaxItems(16), Each(&[MaxLength(320)])],
        /// Trust domains of peers.
        trust_domains: Vec<String>,
        /// Trust domains that do not match.
        not_trust_domains: Vec<String>,
    }
}

message! {
    /// What is asked for; all fields that are set have to match.
    pub struct Operation {
        /// Hosts.
        hosts: Vec<String>,
        /// Hosts that do not match.
        not_hosts: Vec<String>,
        /// Ports.
        ports: Vec<String>,
        /// Ports that do not match.
        not_ports: Vec<String>,
        /// Methods.
        methods: Vec<String>,
        /// Methods that do not match.
        not_methods: Vec<String>,
        /// Paths.
        paths: Vec<String>,
        /// Paths that do not match.
        not_paths: Vec<String>,
    }
}

message! {
    /// A condition of an attribute.
    pub struct Condition {
        /// The attribute.
        key: String [Required],
        /// Values, of which one suffices.
        values: Vec<String>,
        /// Values that do not match.
        not_values: Vec<String>,
    }
}
