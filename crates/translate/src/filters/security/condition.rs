//! Conditions of authorization rules as permissions and principals.

// Matchers of metadata are deprecated in favour of sourced ones, and what Istio sends.
#![allow(deprecated)]

use lateen_api::kinds::authorization_policy::{AuthorizationRule, Condition, Operation, Source};
use lateen_base::Namespace;
use lateen_proto::Any;
use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::envoy::config::rbac::v3::permission::{self, Rule};
use lateen_proto::envoy::config::rbac::v3::principal::{self, Identifier};
use lateen_proto::envoy::config::rbac::v3::{Permission, Policy, Principal};
use lateen_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use lateen_proto::envoy::r#type::matcher::v3::{PathMatcher, StringMatcher, path_matcher};

use super::patterns::{
    block, claim, expression, header, list_value, metadata, regex, string, text_or_list, text_value,
    with_prefix,
};
use super::trust_domains::TrustDomains;

/// What rules are translated for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct For<'a> {
    /// The namespace of the policy.
    pub(crate) namespace: &'a Namespace,
    /// Whether only the connection is seen.
    pub(crate) tcp: bool,
    /// Whether a rule that asks for more than is seen is left out (ALLOW), rather than asked the rest (all others).
    pub(crate) strict: bool,
    /// The trust domains that stand for one another.
    pub(crate) domains: &'a TrustDomains,
}

/// A condition asks for something of requests, of which a connection has none.
struct NeedsRequests;

type Checked<T> = Result<T, NeedsRequests>;

/// The policy of a rule, or none where it can never be met on connections.
pub(crate) fn policy(rule: &AuthorizationRule, to: For<'_>) -> Option<Policy> {
    let (permission_when, principal_when): (Vec<_>, Vec<_>) =
        rule.when.iter().partition(|when| is_of_destination(&when.key));
    let mut permissions = Vec::new();
    let operations: Vec<Option<&Operation>> = match rule.to.is_empty() {
        true => vec![None],
        false => rule.to.iter().map(|to| to.operation.as_ref()).collect(),
    };
    for operation in operations {
        let mut rules =
            operation.map(|operation| operations_of(operation, to)).unwrap_or(Ok(Vec::new())).ok()?;
        for when in &permission_when {
            rules.extend(destination_condition(when, to).ok()?);
        }
        permissions.push(all_rules(rules));
    }
    let mut principals = Vec::new();
    let sources: Vec<Option<&Source>> = match rule.from.is_empty() {
        true => vec![None],
        false => rule.from.iter().map(|from| from.source.as_ref()).collect(),
    };
    for source in sources {
        let mut ids = source.map(|source| sources_of(source, to)).unwrap_or(Ok(Vec::new())).ok()?;
        for when in &principal_when {
            ids.extend(source_condition(when, to).ok()?);
        }
        principals.push(all_ids(ids));
    }
    Some(Policy { permissions, principals, ..Default::default() })
}

/// A policy that nothing meets.
pub(crate) fn never() -> Policy {
    let permission = Permission { rule: Some(Rule::NotRule(Box::new(any_permission()))) };
    let principal = Principal { identifier: Some(Identifier::NotId(Box::new(any_principal()))) };
    Policy { permissions: vec![permission], principals: vec![principal], ..Default::default() }
}

fn any_permission() -> Permission {
    Permission { rule: Some(Rule::Any(true)) }
}

fn any_principal() -> Principal {
    Principal { identifier: Some(Identifier::Any(true)) }
}

fn all_rules(rules: Vec<Permission>) -> Permission {
    let rules = if rules.is_empty() { vec![any_permission()] } else { rules };
    Permission { rule: Some(Rule::AndRules(permission::Set { rules })) }
}

fn all_ids(ids: Vec<Principal>) -> Principal {
    let ids = if ids.is_empty() { vec![any_principal()] } else { ids };
    Principal { identifier: Some(Identifier::AndIds(principal::Set { ids })) }
}

/// One of some values, and none of others; on connections, conditions of requests make ALLOW rules void and are otherwise
/// left out.
fn permissions_of(
    values: &[String],
    not_values: &[String],
    of_requests: bool,
    to: For<'_>,
    one: impl Fn(&str) -> Option<Permission>,
) -> Checked<Vec<Permission>> {
    if (values.is_empty() && not_values.is_empty()) || skipped(of_requests, to)? {
        return Ok(Vec::new());
    }
    let any = |values: &[String]| Permission {
        rule: Some(Rule::OrRules(permission::Set { rules: values.iter().filter_map(|v| one(v)).collect() })),
    };
    let mut rules = Vec::new();
    if !values.is_empty() {
        rules.push(any(values));
    }
    if !not_values.is_empty() {
        rules.push(Permission { rule: Some(Rule::NotRule(Box::new(any(not_values)))) });
    }
    Ok(rules)
}

fn principals_of(
    values: &[String],
    not_values: &[String],
    of_requests: bool,
    to: For<'_>,
    one: impl Fn(&str) -> Vec<Principal>,
) -> Checked<Vec<Principal>> {
    if (values.is_empty() && not_values.is_empty()) || skipped(of_requests, to)? {
        return Ok(Vec::new());
    }
    let any = |values: &[String]| Principal {
        identifier: Some(Identifier::OrIds(principal::Set {
            ids: values.iter().flat_map(|v| one(v)).collect(),
        })),
    };
    let mut ids = Vec::new();
    if !values.is_empty() {
        ids.push(any(values));
    }
    if !not_values.is_empty() {
        ids.push(Principal { identifier: Some(Identifier::NotId(Box::new(any(not_values)))) });
    }
    Ok(ids)
}

fn skipped(of_requests: bool, to: For<'_>) -> Checked<bool> {
    match (of_requests && to.tcp, to.strict) {
        (true, true) => Err(NeedsRequests),
        (skipped, _) => Ok(skipped),
    }
}

fn operations_of(op: &Operation, to: For<'_>) -> Checked<Vec<Permission>> {
    let by_header = |name: &'static str, ignore_case| {
        move |value: &str| Some(Permission { rule: Some(Rule::Header(header(name, value, ignore_case))) })
    };
    let mut rules = permissions_of(&op.hosts, &op.not_hosts, true, to, by_header(":authority", true))?;
    rules.extend(permissions_of(&op.methods, &op.not_methods, true, to, by_header(":method", false))?);
    rules.extend(permissions_of(&op.paths, &op.not_paths, true, to, path)?);
    rules.extend(permissions_of(&op.ports, &op.not_ports, false, to, port)?);
    Ok(rules)
}

fn path(pattern: &str) -> Option<Permission> {
    let rule = match pattern.contains("{*}") || pattern.contains("{**}") {
        true => {
            let template = pattern.replace("{*}", "*").replace("{**}", "**");
            let config = UriTemplateMatchConfig { path_template: template };
            Rule::UriTemplate(TypedExtensionConfig {
                name: "uri-template".into(),
                typed_config: Some(Any::pack(&config)),
            })
        }
        false => Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(string(pattern))) }),
    };
    Some(Permission { rule: Some(rule) })
}

fn port(text: &str) -> Option<Permission> {
    Some(Permission { rule: Some(Rule::DestinationPort(text.parse().ok()?)) })
}

fn sources_of(source: &Source, to: For<'_>) -> Checked<Vec<Principal>> {
    let named = |value: &str| peers(value, to.domains);
    let mut ids = principals_of(&source.principals, &source.not_principals, false, to, named)?;
    ids.extend(principals_of(&source.request_principals, &source.not_request_principals, true, to, |v| {
        vec![request_principal(v)]
    })?);
    ids.extend(principals_of(&source.service_accounts, &source.not_service_accounts, false, to, |v| {
        vec![peer(service_account(v, to.namespace))]
    })?);
    ids.extend(principals_of(&source.namespaces, &source.not_namespaces, false, to, |v| {
        vec![peer(in_namespace(v))]
    })?);
    ids.extend(principals_of(&source.trust_domains, &source.not_trust_domains, false, to, |v| {
        vec![peer(trust_domain(v))]
    })?);
    let (remote, not_remote) = (&source.remote_ip_blocks, &source.not_remote_ip_blocks);
    ids.extend(principals_of(remote, not_remote, false, to, |v| addresses(v, Identifier::RemoteIp))?);
    let (direct, not_direct) = (&source.ip_blocks, &source.not_ip_blocks);
    ids.extend(principals_of(direct, not_direct, false, to, |v| addresses(v, Identifier::DirectRemoteIp))?);
    Ok(ids)
}

fn addresses(
    text: &str,
    of: impl Fn(lateen_proto::envoy::config::core::v3::CidrRange) -> Identifier,
) -> Vec<Principal> {
    block(text).map(|block| Principal { identifier: Some(of(block)) }).into_iter().collect()
}

fn peer(name: StringMatcher) -> Principal {
    let authenticated = principal::Authenticated { principal_name: Some(name) };
    Principal { identifier: Some(Identifier::Authenticated(authenticated)) }
}

fn peers(pattern: &str, domains: &TrustDomains) -> Vec<Principal> {
    domains.expand(pattern).iter().map(|pattern| peer(with_prefix("spiffe://", pattern))).collect()
}

fn in_namespace(pattern: &str) -> StringMatcher {
    regex(&format!(".*/ns/{}/.*", expression(pattern, ".*")))
}

fn service_account(value: &str, own: &Namespace) -> StringMatcher {
    let (namespace, name) = value.split_once('/').unwrap_or((own.as_str(), value));
    let (namespace, name) = (expression(namespace, ".*"), expression(name, ".*"));
    regex(&format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{name}(/.+|)"))
}

fn trust_domain(pattern: &str) -> StringMatcher {
    match pattern.contains('*') {
        true => regex(&format!("spiffe://{}/.*", expression(pattern, "[^/]*"))),
        false => with_prefix("spiffe://", &format!("{pattern}/*")),
    }
}

/// `ISSUER/SUBJECT` of the request's token, either by pattern.
fn request_principal(pattern: &str) -> Principal {
    let (issuer, subject) = match pattern.rsplit_once('/') {
        Some((issuer, subject)) => (issuer, subject),
        None if pattern.starts_with('*') => ("*", pattern),
        None => (pattern, "*"),
    };
    let of = |key: &str, pattern: &str| Principal {
        identifier: Some(Identifier::Metadata(claim(&[key], text_value(string(pattern))))),
    };
    let ids = vec![of("iss", issuer), of("sub", subject)];
    Principal { identifier: Some(Identifier::AndIds(principal::Set { ids })) }
}

fn is_of_destination(key: &str) -> bool {
    key.starts_with("destination.")
        || key == "connection.sni"
        || key.starts_with("experimental.envoy.filters.")
}

fn destination_condition(when: &Condition, to: For<'_>) -> Checked<Vec<Permission>> {
    let (values, not_values) = (&when.values, &when.not_values);
    match when.key.as_str() {
        "destination.ip" => permissions_of(values, not_values, false, to, |v| {
            Some(Permission { rule: Some(Rule::DestinationIp(block(v)?)) })
        }),
        "destination.port" => permissions_of(values, not_values, false, to, port),
        "connection.sni" => permissions_of(values, not_values, false, to, |v| {
            Some(Permission { rule: Some(Rule::RequestedServerName(string(v))) })
        }),
        key => Ok(filter_metadata(key, values, not_values)),
    }
}

/// `experimental.envoy.filters.FILTER[KEY]`; a value in brackets is one of a list.
fn filter_metadata(key: &str, values: &[String], not_values: &[String]) -> Vec<Permission> {
    let name = key.trim_start_matches("experimental.");
    let Some((filter, rest)) = name.split_once('[') else { return Vec::new() };
    let key = rest.trim_end_matches(']');
    let one = |value: &String| {
        let listed = value.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let wanted = match listed {
            Some(inner) => list_value(string(inner)),
            None => text_value(string(value)),
        };
        Permission { rule: Some(Rule::Metadata(metadata(filter, &[key], wanted))) }
    };
    let any = |values: &[String]| {
        let mut rules: Vec<Permission> = values.iter().map(one).collect();
        match rules.len() {
            1 => rules.swap_remove(0),
            _ => Permission { rule: Some(Rule::OrRules(permission::Set { rules })) },
        }
    };
    let mut rules = Vec::new();
    if !values.is_empty() {
        rules.push(any(values));
    }
    if !not_values.is_empty() {
        rules.push(Permission { rule: Some(Rule::NotRule(Box::new(any(not_values)))) });
    }
    rules
}

fn source_condition(when: &Condition, to: For<'_>) -> Checked<Vec<Principal>> {
    let (values, not_values, key) = (&when.values, &when.not_values, when.key.as_str());
    let token = |of: &dyn Fn(&str) -> Principal| principals_of(values, not_values, true, to, |v| vec![of(v)]);
    let claimed =
        |keys: &[&str], value| Principal { identifier: Some(Identifier::Metadata(claim(keys, value))) };
    match key {
        "source.ip" => {
            principals_of(values, not_values, false, to, |v| addresses(v, Identifier::DirectRemoteIp))
        }
        "remote.ip" => principals_of(values, not_values, false, to, |v| addresses(v, Identifier::RemoteIp)),
        "source.namespace" => principals_of(values, not_values, false, to, |v| vec![peer(in_namespace(v))]),
        "source.principal" => principals_of(values, not_values, false, to, |v| peers(v, to.domains)),
        "source.serviceAccount" => {
            principals_of(values, not_values, false, to, |v| vec![peer(service_account(v, to.namespace))])
        }
        "request.auth.principal" => token(&request_principal),
        "request.auth.audiences" => token(&|v| claimed(&["aud"], text_or_list(string(v)))),
        "request.auth.presenter" => token(&|v| claimed(&["azp"], text_value(string(v)))),
        key => match (bracketed(key, "request.headers"), bracketed(key, "request.auth.claims")) {
            (Some(names), _) => {
                let name = names.first().copied().unwrap_or_default();
                token(&|v| Principal { identifier: Some(Identifier::Header(header(name, v, false))) })
            }
            (None, Some(keys)) => token(&|v| claimed(&keys, text_or_list(string(v)))),
            // What nobody knows cannot be met, so the rule is never.
            (None, None) => {
                Ok(vec![Principal { identifier: Some(Identifier::NotId(Box::new(any_principal()))) }])
            }
        },
    }
}

/// The keys in brackets after a word: `word[a][b]`.
fn bracketed<'k>(key: &'k str, word: &str) -> Option<Vec<&'k str>> {
    let inner = key.strip_prefix(word)?.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.split("][").collect())
}
