//! Tokens are judged as Envoy judges them; the expectations were seen on stock Envoy 1.40.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use lateen_proto::envoy::config::route::v3::{RouteMatch, route_match::PathSpecifier};
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use proptest::prelude::*;
use proto::jwt_provider::JwksSourceSpecifier;
use serde_json::{Value as Json, json};

use super::*;
use crate::request::ConnectionView;

const NOW: u64 = 1_800_000_000;

/// A key pair with its JWK.
struct Signer {
    pair: EcdsaKeyPair,
    jwk: Json,
}

impl Signer {
    fn new(id: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        Self { pair, jwk: json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y}) }
    }

    fn sign(&self, header: &Json, payload: &Json) -> String {
        let signed = sections(header, payload);
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }

    fn token(&self, payload: &Json) -> String {
        self.sign(&json!({"alg": "ES256", "kid": self.jwk["kid"]}), payload)
    }
}

fn sections(header: &Json, payload: &Json) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(payload.to_string()))
}

fn provider(issuer: &str, keys: &[&Json]) -> proto::JwtProvider {
    let source = DataSource {
        specifier: Some(Specifier::InlineString(json!({ "keys": keys }).to_string())),
        watched_directory: None,
    };
    proto::JwtProvider {
        issuer: issuer.into(),
        payload_in_metadata: "payload".into(),
        forward_payload_header: "x-payload".into(),
        claim_to_headers: vec![proto::JwtClaimToHeader {
            header_name: "x-sub".into(),
            claim_name: "sub".into(),
            ..Default::default()
        }],
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(source)),
        ..Default::default()
    }
}

fn requires(kind: RequiresType) -> proto::JwtRequirement {
    proto::JwtRequirement { requires_type: Some(kind) }
}

fn named(name: &str) -> proto::JwtRequirement {
    requires(RequiresType::ProviderName(name.into()))
}

fn any(requirements: Vec<proto::JwtRequirement>) -> proto::JwtRequirement {
    requires(RequiresType::RequiresAny(proto::JwtRequirementOrList { requirements }))
}

fn or_missing(name: &str) -> proto::JwtRequirement {
    any(vec![named(name), requires(RequiresType::AllowMissing(()))])
}

fn filter(providers: Vec<proto::JwtProvider>, requirement: proto::JwtRequirement) -> JwtFilter {
    let everything =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..Default::default() };
    let message = proto::JwtAuthentication {
        providers: providers.into_iter().enumerate().map(|(at, one)| (format!("p{at}"), one)).collect(),
        rules: vec![proto::RequirementRule {
            r#match: Some(everything),
            requirement_type: Some(RequirementType::Requires(requirement)),
        }],
        bypass_cors_preflight: true,
        ..Default::default()
    };
    Cx::run("test", |cx| JwtFilter::compile(cx, &message)).unwrap().value
}

fn judge(filter: &JwtFilter, path: &str, headers: &[(&str, &str)]) -> Result<Accepted, Invalid> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let connection = ConnectionView::default();
    let request = RequestView {
        method: "GET",
        scheme: "http",
        authority: "a",
        path,
        headers: &map,
        connection: &connection,
        metadata: None,
        remote: None,
    };
    filter.judge(&request, None, 0, NOW)
}

fn bearer(filter: &JwtFilter, token: &str) -> Result<Accepted, Invalid> {
    judge(filter, "/", &[("authorization", &format!("Bearer {token}"))])
}

fn good() -> Json {
    json!({"iss": "one", "sub": "user", "exp": NOW + 60, "scope": "read write"})
}

#[test]
fn a_good_token_gives_metadata_and_headers_and_is_taken_away() {
    let signer = Signer::new("k");
    let mut of = provider("one", &[&signer.jwk]);
    of.normalize_payload_in_metadata =
        Some(proto::jwt_provider::NormalizePayload { space_delimited_claims: vec!["scope".into()] });
    let filter = filter(vec![of], named("p0"));
    let accepted = bearer(&filter, &signer.token(&good())).unwrap();
    assert_eq!(accepted.remove, [http::header::AUTHORIZATION]);
    let set: Vec<_> = accepted.set.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(set, ["x-payload", "x-sub"]);
    let (key, payload) = &accepted.metadata[0];
    assert_eq!(key, "payload");
    let scope = format!("{:?}", payload.fields["scope"]);
    assert!(scope.contains("read") && scope.contains("ListValue"), "{scope}");
}

#[test]
fn what_is_not_good_is_refused_with_its_reason() {
    let (signer, stranger) = (Signer::new("k"), Signer::new("k"));
    let other_id = Signer::new("other");
    let mut of = provider("one", &[&signer.jwk]);
    of.audiences = vec!["https://shop.example/".into()];
    let filter = filter(vec![of], or_missing("p0"));
    let with = |name: &str, value: Json| {
        let mut payload = good();
        payload["aud"] = json!(["x", "shop.example"]);
        payload[name] = value;
        payload
    };
    let plain = with("x", json!(1));
    assert!(bearer(&filter, &signer.token(&plain)).is_ok());
    for (token, why) in [
        (signer.token(&good()), Invalid::Audience),
        (signer.token(&with("aud", json!("shop"))), Invalid::Audience),
        (signer.token(&with("aud", json!(7))), Invalid::Audiences),
        (signer.token(&with("exp", json!(NOW - 61))), Invalid::Expired),
        (signer.token(&with("nbf", json!(NOW + 61))), Invalid::NotYet),
        (signer.token(&with("exp", json!("soon"))), Invalid::NotInteger("exp")),
        (signer.token(&with("exp", json!(-1))), Invalid::NotInteger("exp")),
        (signer.token(&with("iss", json!("two"))), Invalid::UnknownIssuer),
        (signer.token(&with("iss", json!(1))), Invalid::NotText("iss")),
        (stranger.token(&plain), Invalid::Signature),
        (other_id.token(&plain), Invalid::NoFittingKey),
        ("deadbeef".into(), Invalid::Form),
        ("a.b.c.d".into(), Invalid::Form),
        ("!.b.c".into(), Invalid::HeaderBase64),
        ("YQ.b.c".into(), Invalid::HeaderJson),
        (format!("{}, x", signer.token(&plain)), Invalid::SignatureBase64),
        (String::new(), Invalid::Form),
    ] {
        assert_eq!(bearer(&filter, &token).unwrap_err(), why, "{token}");
    }
    assert!(bearer(&filter, &signer.token(&with("exp", json!(NOW - 60)))).is_ok(), "within the clock's skew");
}

#[test]
fn no_algorithm_is_confused_with_another() {
    let signer = Signer::new("k");
    let filter = filter(vec![provider("one", &[&signer.jwk])], named("p0"));
    let none = sections(&json!({"alg": "none"}), &good());
    for (token, why) in [
        (format!("{none}."), Invalid::UnknownAlgorithm),
        (signer.sign(&json!({"alg": "HS256", "kid": "k"}), &good()), Invalid::UnknownAlgorithm),
        (signer.sign(&json!({"alg": "es256", "kid": "k"}), &good()), Invalid::UnknownAlgorithm),
        (signer.sign(&json!({"alg": "ES384", "kid": "k"}), &good()), Invalid::Signature),
        (signer.sign(&json!({"alg": "RS256", "kid": "k"}), &good()), Invalid::Signature),
        (signer.sign(&json!({"kid": "k"}), &good()), Invalid::NoAlgorithm),
        (signer.sign(&json!({"alg": "ES256", "kid": 1}), &good()), Invalid::KeyId),
        (signer.sign(&json!({"alg": "ES256", "crit": ["b64"]}), &good()), Invalid::Critical),
        (signer.sign(&json!({"alg": "ES256", "kid": "../k"}), &good()), Invalid::NoFittingKey),
    ] {
        assert_eq!(bearer(&filter, &token).unwrap_err(), why, "{token}");
    }
}

#[test]
fn rsa_keys_serve_the_algorithm_that_they_name() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    // PKCS #1: a sequence of two numbers, the first with a leading zero, the second 65537.
    let der = pair.public_key().as_ref();
    let (n, e) = (BASE64.encode(&der[9..265]), BASE64.encode(&der[der.len() - 3..]));
    let sign = |algorithm: &str| {
        let signed = sections(&json!({"alg": algorithm}), &good());
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    };
    let jwk = json!({"kty": "RSA", "n": n, "e": e});
    let open = filter(vec![provider("one", &[&jwk])], named("p0"));
    assert!(bearer(&open, &sign("RS256")).is_ok());
    assert_eq!(bearer(&open, &sign("PS256")).unwrap_err(), Invalid::Signature);
    let jwk = json!({"kty": "RSA", "n": n, "e": e, "alg": "PS256"});
    let narrow = filter(vec![provider("one", &[&jwk])], named("p0"));
    assert_eq!(bearer(&narrow, &sign("RS256")).unwrap_err(), Invalid::NoFittingKey);
}

#[test]
fn several_issuers_several_tokens() {
    let (one, two) = (Signer::new("a"), Signer::new("b"));
    let all = requires(RequiresType::RequiresAll(proto::JwtRequirementAndList {
        requirements: vec![or_missing("p0"), or_missing("p1")],
    }));
    let providers = vec![provider("one", &[&one.jwk]), provider("two", &[&two.jwk])];
    let filter = filter(providers, any(vec![named("p0"), named("p1"), all]));
    let of_two = json!({"iss": "two", "sub": "u"});
    assert!(judge(&filter, "/", &[]).is_ok());
    assert!(bearer(&filter, &one.token(&good())).is_ok());
    assert!(bearer(&filter, &two.token(&of_two)).is_ok());
    assert_eq!(bearer(&filter, &one.token(&of_two)).unwrap_err(), Invalid::NoFittingKey);
    assert_eq!(bearer(&filter, &one.token(&json!({"iss": "zz"}))).unwrap_err(), Invalid::UnknownIssuer);
    // Each of two tokens has to be good.
    let header = format!("Bearer {}", one.token(&good()));
    let path = format!("/x?access_token={}", Signer::new("a").token(&good()));
    assert_eq!(judge(&filter, &path, &[("authorization", &header)]).unwrap_err(), Invalid::Signature);
}

#[test]
fn places() {
    let signer = Signer::new("k");
    let token = signer.token(&good());
    let by_default = filter(vec![provider("one", &[&signer.jwk])], named("p0"));
    let accepted = judge(&by_default, &format!("/x?a=1&access_token={token}&b=2"), &[]).unwrap();
    assert_eq!(accepted.path.as_deref(), Some("/x?a=1&b=2"));
    for header in [format!("Basic {token}"), format!("bearer {token}")] {
        assert_eq!(judge(&by_default, "/", &[("authorization", &header)]).unwrap_err(), Invalid::Missing);
    }
    let mut of = provider("one", &[&signer.jwk]);
    of.from_headers = vec![proto::JwtHeader { name: "x-jwt".into(), value_prefix: "T=".into() }];
    of.from_params = vec!["t".into()];
    of.from_cookies = vec!["session".into()];
    of.forward = true;
    let custom = filter(vec![of], named("p0"));
    assert!(judge(&custom, "/", &[("x-jwt", &format!("T={token}"))]).unwrap().remove.is_empty());
    assert!(judge(&custom, &format!("/?t={token}"), &[]).unwrap().path.is_none());
    assert!(judge(&custom, "/", &[("cookie", &format!("a=b; session={token}"))]).is_ok());
    assert_eq!(bearer(&custom, &token).unwrap_err(), Invalid::Missing);
}

#[test]
fn claims_in_headers_come_from_tokens_only() {
    let signer = Signer::new("k");
    let filter = filter(vec![provider("one", &[&signer.jwk])], or_missing("p0"));
    let accepted = judge(&filter, "/", &[("x-sub", "admin"), ("x-payload", "e30")]).unwrap();
    let removed: Vec<_> = accepted.remove.iter().map(HeaderName::as_str).collect();
    assert_eq!(removed, ["x-payload", "x-sub"]);
    assert!(accepted.set.is_empty() && accepted.metadata.is_empty());
}

#[test]
fn keys_that_are_no_good_refuse_tokens_and_not_the_listener() {
    let signer = Signer::new("k");
    let mut broken = provider("one", &[]);
    broken.jwks_source_specifier = Some(JwksSourceSpecifier::LocalJwks(DataSource {
        specifier: Some(Specifier::InlineString("not json".into())),
        watched_directory: None,
    }));
    let filter = filter(vec![broken], or_missing("p0"));
    assert_eq!(bearer(&filter, &signer.token(&good())).unwrap_err(), Invalid::NoKeys);
    assert!(judge(&filter, "/", &[]).is_ok());
}

proptest! {
    #[test]
    fn nothing_but_a_signature_makes_a_token_good(text in "[A-Za-z0-9_.-]{0,80}", flip in 0usize..200) {
        let signer = Signer::new("k");
        let filter = filter(vec![provider("one", &[&signer.jwk])], named("p0"));
        prop_assert!(bearer(&filter, &text).is_err());
        // One character changed anywhere is another token.
        let token = signer.token(&good());
        let at = flip % token.len();
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut changed = token.clone();
        changed.replace_range(at..=at, other);
        prop_assert!(bearer(&filter, &changed).is_err(), "{at}");
    }
}
