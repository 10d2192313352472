//! `AuthorizationPolicy`.

use super::super::Problems;
use super::super::names;
use super::super::path::Path;
use super::target;
use crate::kinds::AuthorizationPolicy;
use crate::kinds::authorization_policy::{
    AuthorizationAction, AuthorizationRule, Condition, Operation, Source,
};
use crate::object::Object;

/// The annotation that makes a policy speak without acting.
const DRY_RUN: &str = "istio.io/dry-run";

pub(in crate::validate) fn authorization_policy(
    object: &Object,
    spec: &AuthorizationPolicy,
    at: &Path<'_>,
    out: &mut Problems,
) {
    target(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, out);
    provider(spec, at, out);
    dry_run(object, spec, out);
    let custom = spec.action == AuthorizationAction::Custom;
    let deny_without_rules = spec.action == AuthorizationAction::Deny && spec.rules.is_empty();
    let message = "a DENY policy without `rules` will never be triggered: is it missing rules?";
    out.error_if(deny_without_rules && !object.annotations.contains_key(DRY_RUN), at, message);
    for (i, one) in spec.rules.iter().enumerate() {
        let at = &at.field("rules");
        rule(one, custom, &at.item(i), out);
        if spec.action == AuthorizationAction::Deny {
            deny_of_http(one, &at.item(i), out);
        }
    }
}

fn provider(spec: &AuthorizationPolicy, at: &Path<'_>, out: &mut Problems) {
    let at_provider = &at.field("provider");
    let custom = spec.action == AuthorizationAction::Custom;
    match &spec.provider {
        Some(provider) if custom => {
            out.error_if(provider.name.is_empty(), at_provider, "`provider.name` must not be empty");
            let message = "CUSTOM policy without `rules` will never be triggered";
            out.error_if(spec.rules.is_empty(), &at.field("rules"), message);
        }
        Some(_) => out.error(at_provider, "`provider` must not be with non CUSTOM action"),
        None => out.error_if(custom, at_provider, "`provider.name` must not be empty for CUSTOM action"),
    }
}

fn dry_run(object: &Object, spec: &AuthorizationPolicy, out: &mut Problems) {
    let Some(value) = object.annotations.get(DRY_RUN) else { return };
    let root = Path::Root("metadata");
    let at = root.field("annotations");
    let at = &at.entry(DRY_RUN);
    let acts = matches!(spec.action, AuthorizationAction::Allow | AuthorizationAction::Deny);
    out.error_if(!acts, at, format!("dry-run only supports ALLOW and DENY, not {}", spec.action));
    let flag = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    let known = flag.contains(&value.as_str());
    out.error_if(!known, at, format!("dry-run must be true or false, got {value:?}"));
}

fn rule(rule: &AuthorizationRule, custom: bool, at: &Path<'_>, out: &mut Problems) {
    for (i, from) in rule.from.iter().enumerate() {
        let at = &at.field("from");
        let at = &at.item(i);
        match &from.source {
            Some(one) if *one != Source::default() => {
                source(one, &at.field("source"), out);
                if custom {
                    no_identity(one, &at.field("source"), out);
                }
            }
            _ => out.error(at, "`from.source` cannot be nil or empty"),
        }
    }
    for (i, to) in rule.to.iter().enumerate() {
        let at = &at.field("to");
        let at = &at.item(i);
        match &to.operation {
            Some(one) if *one != Operation::default() => operation(one, &at.field("operation"), out),
            _ => out.error(at, "`to.operation` cannot be nil or empty"),
        }
    }
    for (i, one) in rule.when.iter().enumerate() {
        condition(one, &at.field("when").item(i), out);
    }
}

/// A list whose texts must not be empty, and are checked by `check`.
fn texts(list: &[String], at: &Path<'_>, out: &mut Problems, check: impl Fn(&str) -> Result<(), String>) {
    for (i, text) in list.iter().enumerate() {
        match text.is_empty() {
            true => out.error(&at.item(i), "must not contain an empty value"),
            false => out.check(&at.item(i), check(text)),
        }
    }
}

fn any(_: &str) -> Result<(), String> {
    Ok(())
}

fn source(source: &Source, at: &Path<'_>, out: &mut Problems) {
    for (field, list) in [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ] {
        texts(list, &at.field(field), out, any);
    }
    for (field, list) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        texts(list, &at.field(field), out, service_account);
    }
    for (field, list) in [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ] {
        texts(list, &at.field(field), out, names::subnet);
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    let both = accounts && others.iter().any(|list| !list.is_empty());
    out.error_if(both, at, "Cannot set serviceAccounts with namespaces or principals");
}

fn service_account(text: &str) -> Result<(), String> {
    match text.split('/').count() {
        1 | 2 if !text.contains('*') => Ok(()),
        _ => {
            Err(format!("expected serviceAccount to have format <namespace>/<name> or <name>, got {text:?}"))
        }
    }
}

/// What a CUSTOM policy cannot use: its filter comes before those that know identities of requests.
fn no_identity(source: &Source, at: &Path<'_>, out: &mut Problems) {
    for (field, list) in [
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
    ] {
        out.error_if(
            !list.is_empty(),
            &at.field(field),
            format!("`{field}` is not supported with CUSTOM action"),
        );
    }
}

fn operation(operation: &Operation, at: &Path<'_>, out: &mut Problems) {
    for (field, list) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
    ] {
        texts(list, &at.field(field), out, any);
    }
    for (field, list) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        texts(list, &at.field(field), out, port);
    }
    for (field, list) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        texts(list, &at.field(field), out, path);
    }
}

fn port(text: &str) -> Result<(), String> {
    let number: i64 = text.parse().map_err(|_| format!("invalid port {text:?}"))?;
    names::port(number)
}

/// A path, or a template of one: `{*}` is a segment, `{**}` any number of them, and comes last but for more text.
fn path(text: &str) -> Result<(), String> {
    if !text.contains(['{', '}']) {
        return Ok(());
    }
    let wrong =
        || format!("invalid or unsupported path template {text:?}: only {{*}} and {{**}} as whole segments");
    let mut deep = false;
    for segment in text.trim_start_matches('/').split('/') {
        match segment {
            "{*}" | "{**}" if deep => {
                return Err(format!("path template {text:?}: no operator after {{**}}"));
            }
            "{**}" => deep = true,
            "{*}" => {}
            plain if plain.contains(['{', '}', '*']) => return Err(wrong()),
            _ => {}
        }
    }
    Ok(())
}

/// Attributes of conditions, besides those with a key in brackets.
const ATTRIBUTES: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

/// Attributes with a key in brackets.
const KEYED: &[&str] = &["request.headers[", "request.auth.claims[", "experimental.envoy.filters."];

fn condition(condition: &Condition, at: &Path<'_>, out: &mut Problems) {
    let key = condition.key.as_str();
    let keyed = KEYED.iter().any(|prefix| key.starts_with(prefix)) && key.ends_with(']');
    let at_key = &at.field("key");
    match key {
        "" => return out.error(at_key, "`key` must not be empty"),
        key if !keyed && !ATTRIBUTES.contains(&key) => {
            out.error(at_key, format!("unknown attribute: {key}"));
        }
        key if keyed && key.ends_with("[]") => out.error(at_key, format!("bad key: {key}: empty brackets")),
        _ => {}
    }
    let nothing = condition.values.is_empty() && condition.not_values.is_empty();
    out.error_if(nothing, at, "at least one of `values` or `not_values` must be set");
    let check: fn(&str) -> Result<(), String> = match key {
        "source.ip" | "remote.ip" | "destination.ip" => names::subnet,
        "destination.port" => port,
        _ => any,
    };
    for (field, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        texts(list, &at.field(field), out, check);
    }
}

/// A DENY rule of HTTP attributes alone denies all TCP traffic, too: without a port that surprises.
fn deny_of_http(rule: &AuthorizationRule, at: &Path<'_>, out: &mut Problems) {
    let http_to = rule.to.iter().filter_map(|to| to.operation.as_ref()).any(|to| {
        let http = [&to.hosts, &to.not_hosts, &to.methods, &to.not_methods, &to.paths, &to.not_paths];
        to.ports.is_empty() && http.iter().any(|list| !list.is_empty())
    });
    let ported = rule.to.iter().filter_map(|to| to.operation.as_ref()).any(|to| !to.ports.is_empty());
    let http_from = rule
        .from
        .iter()
        .filter_map(|from| from.source.as_ref())
        .any(|from| !from.request_principals.is_empty() || !from.not_request_principals.is_empty());
    let ported_when = rule.when.iter().any(|when| when.key == "destination.port");
    if (http_to || (http_from && !ported)) && !ported_when {
        out.warn(
            at,
            "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP attributes in a DENY rule; it is recommended to explicitly specify the port",
        );
    }
}
