//! Local rate limits, and URI templates in policies; as Envoy does.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::sides::sides;
use crate::support::*;

fn typed(name: &str, kind: &str, config: Value) -> Value {
    let mut typed = config;
    typed["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"));
    json!({"name": name, "typed_config": typed})
}

/// A filter before the router.
fn filtered(name: &str, routes: &Value, filter: Value, more: Value) -> Value {
    let router = typed("envoy.filters.http.router", "router.v3.Router", json!({}));
    let mut settings = more;
    settings["http_filters"] = json!([filter, router]);
    settings["access_log"] =
        access_log("LOG", "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n");
    listener(name, json!([manager_with(routes.clone(), settings)]))
}

fn percent(numerator: u32) -> Value {
    json!({"default_value": {"numerator": numerator, "denominator": "HUNDRED"}})
}

/// `max` tokens, and no more for a long time.
fn bucket(max: u32) -> Value {
    json!({"max_tokens": max, "tokens_per_fill": 1, "fill_interval": "3600s"})
}

const NAME: &str = "envoy.filters.http.local_ratelimit";
const KIND: &str = "local_ratelimit.v3.LocalRateLimit";

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_bucket_are_turned_away() {
    let origin = Origin::echo().await;
    let routes = json!([
        {"match": {"prefix": "/kind"}, "route": {"cluster": "o", "rate_limits": [{"actions": [
            {"request_headers": {"header_name": "x-kind", "descriptor_key": "kind"}},
            {"generic_key": {"descriptor_value": "word"}},
        ]}]}},
        {"match": {"prefix": "/off"}, "route": {"cluster": "o"},
         "typed_per_filter_config": {NAME: typed("", KIND, json!({"stat_prefix": "off", "token_bucket": bucket(1)}))["typed_config"]}},
        {"match": {"prefix": "/"}, "route": {"cluster": "o"}},
    ]);
    let all = json!({"filter_enabled": percent(100), "filter_enforced": percent(100)});
    let limit = |prefix: &str, more: Value| {
        let mut config = all.clone();
        config["stat_prefix"] = json!(prefix);
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        typed(NAME, KIND, config)
    };
    let added = json!([{"header": {"key": "x-limited", "value": "yes"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]);
    let kinds = json!([{"token_bucket": bucket(1), "entries": [
        {"key": "kind", "value": "rare"}, {"key": "generic_key", "value": "word"}]}]);
    let listeners = json!([
        filtered(
            "plain",
            &routes,
            limit(
                "plain",
                json!({
            "token_bucket": bucket(2), "response_headers_to_add": added, "enable_x_ratelimit_headers": "DRAFT_VERSION_03"})
            ),
            json!({})
        ),
        filtered(
            "teapot",
            &routes,
            limit("teapot", json!({"token_bucket": bucket(1), "status": {"code": 503}})),
            json!({})
        ),
        filtered(
            "shadow",
            &routes,
            limit(
                "shadow",
                json!({
            "token_bucket": bucket(1), "filter_enforced": percent(0), "request_headers_to_add_when_not_enforced": added})
            ),
            json!({})
        ),
        filtered(
            "each",
            &routes,
            limit(
                "each",
                json!({
            "token_bucket": bucket(1), "local_rate_limit_per_downstream_connection": true})
            ),
            json!({})
        ),
        filtered(
            "kinds",
            &routes,
            limit("kinds", json!({"token_bucket": bucket(4), "descriptors": kinds})),
            json!({})
        ),
    ]);
    let resources = json!({"listeners": listeners, "clusters": [cluster("o", &[origin.address])]});
    for side in sides(&resources) {
        let name = side.name;
        for (left, status) in [(1, 200), (0, 200), (0, 429)] {
            let answer = get(side.at("plain"), "/a").await;
            assert_eq!(answer.status, status, "{name}");
            assert_eq!(answer.header("x-ratelimit-limit"), Some("2"), "{name}: {}", answer.head);
            assert_eq!(answer.header("x-ratelimit-remaining"), Some(&*left.to_string()), "{name}");
            if status == 429 {
                assert_eq!(answer.body, "local_rate_limited", "{name}");
                assert_eq!(answer.header("x-envoy-ratelimited"), None, "{name}: {}", answer.head);
                assert_eq!(answer.header("x-limited"), Some("yes"), "{name}");
            }
        }
        let lines = log_lines(&side.log, 3).await;
        let refused = "/a 429 RL local_rate_limited";
        assert!(lines.iter().any(|line| line == refused), "{name}: {lines:?}");
        assert_eq!(get(side.at("plain"), "/off").await.status, 200, "{name}");
        let grpc = "POST /g HTTP/1.1\r\nhost: test\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let refused = ask(side.at("plain"), grpc).await;
        assert_eq!(
            (refused.status, refused.header("grpc-status")),
            (200, Some("14")),
            "{name}: {}",
            refused.head
        );
        let figure =
            |prefix: &str, what: &str| side.figure(&format!("{prefix}.http_local_rate_limit.{what}"));
        let figures = ["enabled", "ok", "rate_limited", "enforced"].map(|what| figure("plain", what));
        assert_eq!(figures, [4, 2, 2, 2], "{name}");

        assert_eq!(get(side.at("teapot"), "/").await.status, 200, "{name}");
        assert_eq!(get(side.at("teapot"), "/").await.status, 503, "{name}");

        assert!(!get(side.at("shadow"), "/").await.body.contains("x-limited"), "{name}");
        let passed = get(side.at("shadow"), "/").await;
        assert!(passed.status == 200 && passed.body.contains("x-limited: yes"), "{name}: {}", passed.body);

        for _ in 0..2 {
            let mut tcp = TcpStream::connect(side.at("each")).await.unwrap();
            let request = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";
            assert_eq!(ask_on(&mut tcp, request).await.status, 200, "{name}");
            assert_eq!(ask_on(&mut tcp, request).await.status, 429, "{name}");
        }

        let kind = |kind: &str| {
            format!("GET /kind HTTP/1.1\r\nhost: test\r\nx-kind: {kind}\r\nconnection: close\r\n\r\n")
        };
        for (request, status) in
            [("rare", 200), ("rare", 429), ("common", 200), ("common", 200), ("common", 200), ("common", 429)]
        {
            assert_eq!(ask(side.at("kinds"), &kind(request)).await.status, status, "{name} {request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_routes_go_by_templates() {
    let origin = Origin::echo().await;
    let template = |text: &str| {
        json!({"name": "t", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": text}})
    };
    let rbac = typed(
        "rbac",
        "rbac.v3.RBAC",
        json!({"rules": {"action": "DENY", "policies": {"p": {
        "permissions": [{"uri_template": template("/secret/*/key")}, {"uri_template": template("/all/**")}],
        "principals": [{"any": true}]}}}}),
    );
    let routes = json!([
        {"match": {"path_match_policy": template("/v1/{id}/items")}, "direct_response": {"status": 202}},
        {"match": {"prefix": "/"}, "route": {"cluster": "o"}},
    ]);
    let resources = json!({"listeners": [filtered("l", &routes, rbac, json!({}))], "clusters": [cluster("o", &[origin.address])]});
    for side in sides(&resources) {
        for (path, status) in [
            ("/secret/a/key", 403),
            ("/secret/a/key?x=1", 403),
            ("/secret/a/b/key", 200),
            ("/secret//key", 200),
            ("/secret/a/keys", 200),
            ("/all/", 403),
            ("/all/a/b.c", 403),
            ("/all", 200),
            ("/v1/7/items", 202),
            ("/v1/7/items?q", 202),
            ("/v1/7/8/items", 200),
        ] {
            assert_eq!(get(side.at("l"), path).await.status, status, "{} {path}", side.name);
        }
    }
}
