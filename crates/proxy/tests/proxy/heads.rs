//! What becomes of heads and of answers of the proxy's own by settings of the connection manager; as Envoy does.

use serde_json::{Value, json};

use crate::sides::sides;
use crate::support::*;

fn get_text(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n{headers}connection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_cleaned_completed_or_refused() {
    let origin = Origin::echo().await;
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]);
    let listening =
        |name: &str, settings: Value| listener(name, json!([manager_with(routes.clone(), settings)]));
    let mut drop_them = listening(
        "drop",
        json!({
            "common_http_protocol_options": {"headers_with_underscores_action": "DROP_HEADER"},
            "append_x_forwarded_port": true,
            "scheme_header_transformation": {"scheme_to_overwrite": "https"},
            "http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "ten.example"},
            "normalize_path": true,
            "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        }),
    );
    drop_them["tcp_keepalive"] =
        json!({"keepalive_time": 30, "keepalive_interval": 5, "keepalive_probes": 3});
    let mut echo = cluster("echo", &[origin.address]);
    echo["upstream_connection_options"] = json!({"tcp_keepalive": {"keepalive_time": 30}});
    let resources = json!({
        "listeners": [
            drop_them,
            listening("reject", json!({"common_http_protocol_options": {
                "headers_with_underscores_action": "REJECT_REQUEST", "max_headers_count": 4}})),
        ],
        "clusters": [echo],
    });
    for side in sides(&resources) {
        let (name, address) = (side.name, side.at("drop"));
        let answer = ask(address, &get_text("/", "a_b: 1\r\nc-d: 2\r\n")).await;
        assert!(!answer.body.contains("a_b") && answer.body.contains("c-d: 2"), "{name}: {}", answer.body);
        let port = format!("x-forwarded-port: {}", address.port());
        assert!(answer.body.contains(&port), "{name}: {}", answer.body);
        assert!(answer.body.contains("x-forwarded-proto: https"), "{name}: {}", answer.body);
        let old = ask(address, "GET /ten HTTP/1.0\r\n\r\n").await;
        assert!(old.body.contains("host: ten.example"), "{name}: {}", old.body);
        let moved = ask(address, &get_text("/a%2Fb?c", "")).await;
        assert_eq!((moved.status, moved.header("location")), (307, Some("/a/b?c")), "{name}");
        let refused = ask(side.at("reject"), &get_text("/", "a_b: 1\r\n")).await;
        assert_eq!((refused.status, refused.body.as_str()), (400, "Bad Request"), "{name}");
        let many = ask(side.at("reject"), &get_text("/", "a: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\n")).await;
        assert_eq!(many.status, 431, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_our_own_are_changed_as_configured() {
    let status = |code: u16| json!({"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": code, "runtime_key": "k"}}}});
    let routes = json!([
        {"match": {"path": "/tea"}, "direct_response": {"status": 418, "body": {"inline_string": "tea"}}},
        {"match": {"path": "/away"}, "redirect": {"path_redirect": "/there"}},
    ]);
    let settings = json!({"local_reply_config": {
        "mappers": [
            {"filter": status(404), "status_code": 470, "body": {"inline_string": "mapped"},
             "headers_to_add": [{"header": {"key": "x-was", "value": "%RESPONSE_CODE%"}}]},
            {"filter": status(418), "body_format_override": {"json_format": {"body": "%LOCAL_REPLY_BODY%", "code": "%RESPONSE_CODE%"}}},
        ],
        "body_format": {"text_format_source": {"inline_string": "<%LOCAL_REPLY_BODY%|%RESPONSE_CODE%|%REQ(:PATH)%>"},
                        "content_type": "text/html"},
    }});
    let resources =
        json!({"listeners": [listener("l", json!([manager_with(routes, settings)]))], "clusters": []});
    for side in sides(&resources) {
        let name = side.name;
        let tea = ask(side.at("l"), &get_text("/tea", "")).await;
        assert_eq!((tea.status, tea.header("content-type")), (418, Some("application/json")), "{name}");
        assert_eq!(tea.body, "{\"body\":\"tea\",\"code\":418}\n", "{name}");
        let away = ask(side.at("l"), &get_text("/away", "")).await;
        assert_eq!((away.status, away.body.as_str()), (301, "<|301|/away>"), "{name}");
        let none = ask(side.at("l"), &get_text("/none", "")).await;
        assert_eq!((none.status, none.body.as_str()), (470, "<mapped|470|/none>"), "{name}");
        assert_eq!(
            (none.header("x-was"), none.header("content-type")),
            (Some("404"), Some("text/html")),
            "{name}"
        );
        let grpc = ask(side.at("l"), &get_text("/none", "content-type: application/grpc\r\n")).await;
        let status = (grpc.header("grpc-status"), grpc.header("grpc-message"));
        assert_eq!(status, (Some("2"), Some("<mapped|470|/none>")), "{name}");
    }
}
