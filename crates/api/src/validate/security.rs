//! `PeerAuthentication`, `RequestAuthentication`, `AuthorizationPolicy`.

mod authorization;

pub(super) use authorization::authorization_policy;

use serde_json::Value;

use super::Problems;
use super::names;
use super::path::Path;
use super::workload::label_selector;
use crate::kinds::request_authentication::JwtRule;
use crate::kinds::selector::{LabelSelector, PolicyTargetReference};
use crate::kinds::{PeerAuthentication, RequestAuthentication};

/// What policies can be attached to: group, kind.
const TARGETS: &[(&str, &str)] = &[
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// What a policy applies to: a selector, a reference, or references.
pub(super) fn target(
    selector: Option<&LabelSelector>,
    one: Option<&PolicyTargetReference>,
    several: &[PolicyTargetReference],
    at: &Path<'_>,
    out: &mut Problems,
) {
    if let Some(selector) = selector {
        label_selector(&selector.match_labels, &at.field("selector"), out);
    }
    let ways = [selector.is_some(), one.is_some(), !several.is_empty()];
    let too_many = ways.iter().filter(|way| **way).count() > 1;
    out.error_if(too_many, at, "only one of targetRefs or workloadSelector can be set");
    if let Some(one) = one {
        reference(one, &at.field("targetRef"), out);
    }
    for (i, one) in several.iter().enumerate() {
        reference(one, &at.field("targetRefs").item(i), out);
    }
}

fn reference(target: &PolicyTargetReference, at: &Path<'_>, out: &mut Problems) {
    out.error_if(target.name.is_empty(), &at.field("name"), "targetRef name must be set");
    out.error_if(!target.namespace.is_empty(), &at.field("namespace"), "targetRef namespace must not be set");
    let group = if target.group == "core" { "" } else { target.group.as_str() };
    if !TARGETS.contains(&(group, target.kind.as_str())) {
        let known: Vec<String> = TARGETS.iter().map(|(group, kind)| format!("{group}/{kind}")).collect();
        let message = format!(
            "targetRef must be to one of [{}] but was {}/{}",
            known.join(" "),
            target.group,
            target.kind
        );
        out.error(at, message);
    }
}

pub(super) fn peer_authentication(spec: &PeerAuthentication, at: &Path<'_>, out: &mut Problems) {
    target(spec.selector.as_ref(), None, &[], at, out);
    let ports = &at.field("portLevelMtls");
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    let without = !spec.port_level_mtls.is_empty() && !selects;
    out.error_if(without, ports, "port-level requires workload selector");
    for port in spec.port_level_mtls.keys() {
        out.check(&ports.entry(&port.to_string()), names::port((*port).into()));
    }
}

pub(super) fn request_authentication(spec: &RequestAuthentication, at: &Path<'_>, out: &mut Problems) {
    target(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, out);
    for (i, rule) in spec.jwt_rules.iter().enumerate() {
        let at = &at.field("jwtRules");
        jwt_rule(rule, &at.item(i), out);
    }
}

fn jwt_rule(rule: &JwtRule, at: &Path<'_>, out: &mut Problems) {
    let nameless = rule.issuer.is_empty() && rule.jwks.is_empty() && rule.jwks_uri.is_empty();
    out.error_if(nameless, &at.field("issuer"), "issuer must be set when neither jwks nor jwksUri is");
    for (field, list) in [
        ("audiences", &rule.audiences),
        ("fromParams", &rule.from_params),
        ("fromCookies", &rule.from_cookies),
        ("spaceDelimitedClaims", &rule.space_delimited_claims),
    ] {
        let at = &at.field(field);
        for (i, text) in list.iter().enumerate() {
            out.error_if(text.is_empty(), &at.item(i), format!("{field} cannot be an empty string"));
        }
    }
    if !rule.jwks_uri.is_empty() {
        let at = &at.field("jwksUri");
        out.error_if(!rule.jwks.is_empty(), at, "only one of jwks or jwksUri can be set");
        out.check(at, http_url(&rule.jwks_uri));
    }
    if !rule.jwks.is_empty() {
        jwks(&rule.jwks, &at.field("jwks"), out);
    }
    for (i, header) in rule.from_headers.iter().enumerate() {
        let at = &at.field("fromHeaders");
        out.error_if(
            header.name.is_empty(),
            &at.item(i).field("name"),
            "location header name must be non-empty string",
        );
    }
    for (i, claim) in rule.output_claim_to_headers.iter().enumerate() {
        let at = &at.field("outputClaimToHeaders");
        let at = &at.item(i);
        out.check(&at.field("header"), names::strict_header_name(&claim.header));
        out.error_if(
            claim.claim.is_empty(),
            &at.field("claim"),
            "outputClaimToHeader claim must be non-empty string",
        );
    }
}

fn http_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match rest.map(|rest| rest.split('/').next().unwrap_or_default()) {
        Some(authority) if !authority.is_empty() && !authority.contains([' ', '@']) => {
            match authority.rsplit_once(':') {
                Some((_, port)) if !port.ends_with(']') && port.parse::<u16>().is_err() => {
                    Err(format!("URI {url:?} has an invalid port"))
                }
                _ => Ok(()),
            }
        }
        _ => Err(format!("URI scheme of {url:?} is not supported: url must have scheme http:// or https://")),
    }
}

fn jwks(text: &str, at: &Path<'_>, out: &mut Problems) {
    let keys = match serde_json::from_str::<Value>(text) {
        Ok(value) => value.get("keys").and_then(Value::as_array).cloned(),
        Err(error) => return out.error(at, format!("invalid jwks: {error}")),
    };
    let Some(keys) = keys else {
        return out.error(at, "invalid jwks: a JSON object with the list \"keys\" is wanted");
    };
    if keys.iter().any(|key| key.get("kty").and_then(Value::as_str).is_none()) {
        return out.error(at, "invalid jwks: a key without \"kty\"");
    }
    let private = |key: &Value| {
        let secret = if key.get("kty").and_then(Value::as_str) == Some("oct") { "k" } else { "d" };
        key.get(secret).is_some()
    };
    if keys.iter().any(private) {
        out.warn(at, "jwks contains a private key: only public keys belong here");
    }
}
