//! `RequestAuthentication`: which JWTs are accepted.

use std::time::Duration;

use super::rules::{DURATION, ONE_TARGET, count, part};
use super::selector::{LabelSelector, PolicyTargetReference};
use crate::field::{Rule, enumeration, message};

const HTTP_URL: Rule = Rule::Cel {
    rule: "url(self).getScheme() in [\"http\", \"https\"]",
    message: "url must have scheme http:// or https://",
    holds: |value| value.as_str().is_none_or(|u| u.starts_with("http://") || u.starts_with("https://")),
};

message! {
    /// Which JWTs are accepted. See https://istio.io/docs/reference/config/security/request_authentication/.
    pub struct RequestAuthentication [ONE_TARGET] {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// The object it is attached to.
        target_ref: Option<PolicyTargetReference>,
        /// The objects it is attached to.
        target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// The issuers. A request without token is accepted; one with a token that no rule accepts is not.
        jwt_rules: Vec<JwtRule> [MaxItems(4096)],
    }
}

message! {
    /// An issuer of JWTs.
    pub struct JwtRule [Cel {
        rule: "(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1",
        message: "only one of jwks or jwksUri can be set",
        holds: |value| {
            part(value, "jwks").is_none() || count(value, &["jwks_uri"]) == 0
        },
    }] {
        /// The issuer, as in the token.
        issuer: String [MinLength(1)],
        /// Audiences, of which the token needs to have one.
        audiences: Vec<String> [Each(&[MinLength(1)])],
        /// Where the keys are fetched from; by OpenID discovery of the issuer when neither is set.
        jwks_uri: String [SnakeCaseToo, MinLength(1), MaxLength(2048), HTTP_URL],
        /// The keys.
        jwks: String,
        /// Headers that carry the token.
        from_headers: Vec<JwtHeader>,
        /// Query parameters that carry the token.
        from_params: Vec<String> [Each(&[MinLength(1)])],
        /// A header that hands the payload on, in base64.
        output_payload_to_header: String,
        /// Cookies that carry the token.
        from_cookies: Vec<String> [Each(&[MinLength(1)])],
        /// Whether the token is handed on.
        forward_original_token: bool,
        /// Headers that hand claims on.
        output_claim_to_headers: Vec<ClaimToHeader>,
        /// How long fetching keys may take; 5 s when absent.
        timeout: Option<Duration> [DURATION],
        /// Claims whose text is a list separated by spaces, beside `scope` and `permission`.
        space_delimited_claims: Vec<String> [MaxItems(64), Each(&[MinLength(1)])],
        /// Whether a token has to be there.
        presence: JwtPresence,
    }
}

enumeration! {
    /// Whether a token has to be there.
    pub enum JwtPresence {
        /// It may be missing.
        Optional = "OPTIONAL" 0,
        /// It has to be there.
        Required = "REQUIRED" 1,
    }
}

message! {
    /// A header that carries a token.
    pub struct JwtHeader {
        /// Its name.
        name: String [Required, MinLength(1)],
        /// What precedes the token, such as `Bearer `.
        prefix: String,
    }
}

message! {
    /// A header that hands a claim on.
    pub struct ClaimToHeader {
        /// The header.
        header: String [Required, MinLength(1), Pattern("^[-_A-Za-z0-9]+$")],
        /// The claim.
        claim: String [Required, MinLength(1)],
    }
}
