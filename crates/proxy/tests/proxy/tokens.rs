//! JSON Web Tokens in the request path: our proxy and stock Envoy give the same answers.

use serde_json::{Value, json};

use crate::sides::sides;
use crate::support::*;

const DEMO: &str = include_str!("../../../../samples/jwt/demo.jwt");
const GROUPS: &str = include_str!("../../../../samples/jwt/groups-scope.jwt");
const KEYS: &str = include_str!("../../../../samples/jwt/jwks.json");
const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http";

fn provider(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "local_jwks": {"inline_string": KEYS},
        "payload_in_metadata": "payload",
        "forward_payload_header": "x-payload",
        "claim_to_headers": [{"header_name": "x-subject", "claim_name": "sub"},
                             {"header_name": "x-groups", "claim_name": "groups"}],
        "clear_route_cache": true,
    })
}

fn filters(provider: Value, then: Vec<Value>) -> Value {
    let requires = json!({"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}});
    let mut filters = vec![json!({"name": "envoy.filters.http.jwt_authn", "typed_config": {
        "@type": format!("{TYPE}.jwt_authn.v3.JwtAuthentication"),
        "providers": {"p": provider},
        "requirement_map": {"must": {"provider_name": "p"}},
        "rules": [{"match": {"prefix": "/"}, "requires": requires}],
        "bypass_cors_preflight": true,
    }})];
    filters.extend(then);
    filters.push(json!({"name": "r", "typed_config": {"@type": format!("{TYPE}.router.v3.Router")}}));
    Value::from(filters)
}

/// A claim with this value, or a list with it.
fn claim(name: &str, value: &str) -> Value {
    let text = json!({"string_match": {"exact": value}});
    json!({
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": "payload"}, {"key": name}],
        "value": {"or_match": {"value_matchers": [text, {"list_match": {"one_of": text}}]}},
    })
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{headers}connection: close\r\n\r\n")
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {}\r\n", token.trim())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_validated_as_envoy_does() {
    let origin = Origin::echo().await;
    let must = json!({"envoy.filters.http.jwt_authn": {
        "@type": format!("{TYPE}.jwt_authn.v3.PerRouteConfig"), "requirement_name": "must"}});
    let off = json!({"envoy.filters.http.jwt_authn": {
        "@type": format!("{TYPE}.jwt_authn.v3.PerRouteConfig"), "disabled": true}});
    let routes = json!([
        {"match": {"prefix": "/must"}, "route": {"cluster": "echo"}, "typed_per_filter_config": must},
        {"match": {"prefix": "/off"}, "route": {"cluster": "echo"}, "typed_per_filter_config": off},
        {"match": {"prefix": "/"}, "route": {"cluster": "echo"}},
    ]);
    let log = access_log("LOG", "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%\n");
    let settings =
        |issuer: &str| json!({"http_filters": filters(provider(issuer), vec![]), "access_log": log});
    let resources = json!({
        "listeners": [
            listener("own", json!([manager_with(routes.clone(), settings("testing@secure.istio.io"))])),
            listener("other", json!([manager_with(routes, settings("somebody.else"))])),
        ],
        "clusters": [cluster("echo", &[origin.address])],
    });
    let changed = DEMO.trim().replace("eyJ", "eyK");
    for side in sides(&resources) {
        let name = side.name;
        let own = side.at("own");
        let good = ask(own, &request("/", &bearer(DEMO))).await;
        assert_eq!(good.status, 200, "{name}: {good:?}");
        assert!(good.body.contains("x-subject: testing@secure.istio.io"), "{name}: {}", good.body);
        assert!(good.body.contains("x-payload: eyJ"), "{name}: {}", good.body);
        assert!(!good.body.contains("authorization"), "{name}: {}", good.body);
        let query = ask(own, &request(&format!("/q?a=1&access_token={}&b=2", DEMO.trim()), "")).await;
        assert!(query.body.starts_with("GET /q?a=1&b=2\n"), "{name}: {}", query.body);
        let groups = ask(own, &request("/", &bearer(GROUPS))).await;
        assert!(groups.body.contains("x-groups: WyJncm91cDEiLCJncm91cDIiXQ=="), "{name}: {}", groups.body);
        let spoofed = ask(own, &request("/", "x-subject: admin\r\n")).await;
        assert!(spoofed.status == 200 && !spoofed.body.contains("x-subject"), "{name}: {}", spoofed.body);

        let none = ask(own, &request("/must", "")).await;
        assert_eq!((none.status, none.body.as_str()), (401, "Jwt is missing"), "{name}");
        assert_eq!(
            none.header("www-authenticate"),
            Some("Bearer realm=\"http://shop.example/must\""),
            "{name}"
        );
        let ill = ask(own, &request("/", &bearer("deadbeef"))).await;
        assert_eq!(
            (ill.status, ill.body.as_str()),
            (401, "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"),
            "{name}"
        );
        let challenge = "Bearer realm=\"http://shop.example/\", error=\"invalid_token\"";
        assert_eq!(ill.header("www-authenticate"), Some(challenge), "{name}");
        assert_eq!(ask(own, &request("/", &bearer(&changed))).await.status, 401, "{name}");
        assert_eq!(ask(own, &request("/off", &bearer("deadbeef"))).await.status, 200, "{name}");
        let stranger = ask(side.at("other"), &request("/", &bearer(DEMO))).await;
        assert_eq!(
            (stranger.status, stranger.body.as_str()),
            (401, "Jwt issuer is not configured"),
            "{name}"
        );
        let preflight = "OPTIONS /must HTTP/1.1\r\nhost: a\r\norigin: b\r\naccess-control-request-method: GET\r\nconnection: close\r\n\r\n";
        assert_eq!(ask(own, preflight).await.status, 200, "{name}");
        let lines = log_lines(&side.log, 10).await;
        assert!(
            lines.iter().any(|l| l == "401 jwt_authn_access_denied{Jwt_is_missing}"),
            "{name}: {lines:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_decide_who_may_and_where_to() {
    let origin = Origin::echo().await;
    let only_group1 = json!({"name": "envoy.filters.http.rbac", "typed_config": {
        "@type": format!("{TYPE}.rbac.v3.RBAC"),
        "rules": {"action": "ALLOW", "policies": {"groups": {
            "permissions": [{"any": true}],
            "principals": [{"metadata": claim("groups", "group1")}],
        }}},
    }});
    let routes = json!([
        {"match": {"prefix": "/", "dynamic_metadata": [claim("scope", "scope2")]},
         "route": {"cluster": "echo", "prefix_rewrite": "/scoped"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "echo"}},
    ]);
    let issuer = "testing@secure.istio.io";
    let with = |then| json!({"http_filters": filters(provider(issuer), then)});
    let resources = json!({
        "listeners": [
            listener("policy", json!([manager_with(routes.clone(), with(vec![only_group1]))])),
            listener("routes", json!([manager_with(routes, with(vec![]))])),
        ],
        "clusters": [cluster("echo", &[origin.address])],
    });
    for side in sides(&resources) {
        let name = side.name;
        for (headers, status) in [(bearer(GROUPS), 200), (bearer(DEMO), 403), (String::new(), 403)] {
            let answer = ask(side.at("policy"), &request("/", &headers)).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
        }
        let routed = ask(side.at("routes"), &request("/x", &bearer(GROUPS))).await;
        assert!(routed.body.starts_with("GET /scoped"), "{name}: {}", routed.body);
        let plain = ask(side.at("routes"), &request("/x", &bearer(DEMO))).await;
        assert!(plain.body.starts_with("GET /x\n"), "{name}: {}", plain.body);
    }
}
