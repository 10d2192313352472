//! RequestAuthentication as the filter that validates tokens.

use std::collections::BTreeMap;

use lateen_api::kinds::request_authentication::{JwtPresence, JwtRule};
use lateen_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3 as jwt;
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::{
    JwksSourceSpecifier, NormalizePayload,
};
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use crate::filters::wire::http_filter;
use crate::routes::everything;

const NOBODYS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"not-fetched","x":"A6Vb56hV17_EOwIbVHA63R0aW4li45SigKA8ZDCzFRY","y":"uIokQz9ffBxo--50xrCLmYalQ9JLwBuJNmvakwMsACY"}]}"#;

/// The filter's name.
pub(crate) const FILTER: &str = "envoy.filters.http.jwt_authn";

/// The filter for some rules.
pub(crate) fn filter(rules: &[&JwtRule], clear_route_cache: bool) -> HttpFilter {
    let mut providers = BTreeMap::new();
    let mut either = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let name = format!("origins-{at}");
        providers.insert(name.clone(), provider(rule, clear_route_cache));
        either.push(match rule.presence {
            JwtPresence::Required => requires(RequiresType::ProviderName(name)),
            JwtPresence::Optional => or_missing(name),
        });
    }
    let requirement = match either.len() {
        1 => either.swap_remove(0),
        // Any of the issuers will do, and no token at all; a token that none accepts will not.
        _ => {
            let names =
                (0..rules.len()).map(|at| requires(RequiresType::ProviderName(format!("origins-{at}"))));
            let all =
                requires(RequiresType::RequiresAll(jwt::JwtRequirementAndList { requirements: either }));
            any(names.chain([all]).collect())
        }
    };
    let config = jwt::JwtAuthentication {
        providers,
        rules: vec![jwt::RequirementRule {
            r#match: Some(everything()),
            requirement_type: Some(jwt::requirement_rule::RequirementType::Requires(requirement)),
        }],
        bypass_cors_preflight: true,
        ..Default::default()
    };
    http_filter(FILTER, &config)
}

fn requires(kind: RequiresType) -> jwt::JwtRequirement {
    jwt::JwtRequirement { requires_type: Some(kind) }
}

fn any(requirements: Vec<jwt::JwtRequirement>) -> jwt::JwtRequirement {
    requires(RequiresType::RequiresAny(jwt::JwtRequirementOrList { requirements }))
}

fn or_missing(provider: String) -> jwt::JwtRequirement {
    any(vec![requires(RequiresType::ProviderName(provider)), requires(RequiresType::AllowMissing(()))])
}

/// The keys; while none of use is at hand, one that nobody has the private half of, so that no token is good: stock Envoy
/// refuses a listener with a set in which it understands no key.
fn keys(rule: &JwtRule) -> &str {
    if has_keys(rule) { &rule.jwks } else { NOBODYS }
}

/// Whether a key is at hand by which a token could be good.
pub(super) fn has_keys(rule: &JwtRule) -> bool {
    let set: Result<serde_json::Value, _> = serde_json::from_str(&rule.jwks);
    set.is_ok_and(|set| set["keys"].as_array().is_some_and(|keys| keys.iter().any(is_understood)))
}

/// Whether a JSON Web Key is of a type, curve and algorithm that stock Envoy verifies by, with all its parts.
fn is_understood(key: &serde_json::Value) -> bool {
    let text = |name: &str| key[name].as_str();
    let has = |names: &[&str]| names.iter().all(|name| text(name).is_some_and(|part| !part.is_empty()));
    let algorithms: &[&str] = match (text("kty"), text("crv")) {
        (Some("RSA"), _) if has(&["n", "e"]) => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        (Some("EC"), Some("P-256") | None) if has(&["x", "y"]) => &["ES256"],
        (Some("EC"), Some("P-384")) if has(&["x", "y"]) => &["ES384"],
        (Some("EC"), Some("P-521")) if has(&["x", "y"]) => &["ES512"],
        (Some("OKP"), Some("Ed25519")) if has(&["x"]) => &["EdDSA"],
        (Some("oct"), _) if has(&["k"]) => &["HS256", "HS384", "HS512"],
        _ => return false,
    };
    key["alg"].is_null() || text("alg").is_some_and(|asked| algorithms.contains(&asked))
}

fn provider(rule: &JwtRule, clear_route_cache: bool) -> jwt::JwtProvider {
    let mut delimited: Vec<String> = rule.space_delimited_claims.clone();
    delimited.extend(["permission".to_owned(), "scope".to_owned()]);
    delimited.sort();
    delimited.dedup();
    let headers = rule
        .from_headers
        .iter()
        .map(|header| jwt::JwtHeader { name: header.name.clone(), value_prefix: header.prefix.clone() });
    let claims = rule.output_claim_to_headers.iter().map(|claim| jwt::JwtClaimToHeader {
        header_name: claim.header.clone(),
        claim_name: claim.claim.clone(),
        ..Default::default()
    });
    jwt::JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        forward: rule.forward_original_token,
        from_headers: headers.collect(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_payload_header: rule.output_payload_to_header.clone(),
        payload_in_metadata: "payload".into(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: delimited }),
        claim_to_headers: claims.collect(),
        clear_route_cache,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(DataSource {
            specifier: Some(Specifier::InlineString(keys(rule).to_owned())),
            watched_directory: None,
        })),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(jwks: &str) -> JwtRule {
        JwtRule { jwks: jwks.to_owned(), ..JwtRule::default() }
    }

    #[test]
    fn a_set_without_a_key_of_use_is_replaced_by_one_that_nobody_can_sign_for() {
        for jwks in [
            "",
            "{}",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"XYZ","kid":"a"}]}"#,
            r#"{"keys":[{"kty":"RSA","n":"AQ"}]}"#,
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ","alg":"RS256"}]}"#,
        ] {
            assert_eq!(keys(&rule(jwks)), NOBODYS, "{jwks}");
        }
        let mixed = r#"{"keys":[{"kty":"XYZ"},{"kty":"RSA","n":"AQ","e":"AQAB"}]}"#;
        assert_eq!(keys(&rule(mixed)), mixed);
        assert!(has_keys(&rule(NOBODYS)));
    }
}
