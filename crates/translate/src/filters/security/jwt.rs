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

/// The keys; while they are not at hand, one that nobody has the private half of, so that no token is good.
fn keys(rule: &JwtRule) -> &str {
    match rule.jwks.as_str() {
        "" => NOBODYS,
        keys => keys,
    }
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
