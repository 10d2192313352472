//! The admin server.

use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proxy::Config;
use serde_json::json;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn log_levels_change_while_it_runs() {
    lateen_runtime::logs::init(&lateen_runtime::logs::Config::default()).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bootstrap: Bootstrap =
        lateen_proto::json::from_value(&json!({"admin": {"address": socket(port)}})).unwrap();
    let proxy = Config { bootstrap, ..Config::default() }.build().unwrap();
    let post = |path: &str| {
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        async move { ask(port, &request).await }
    };
    let is_on = || tracing::enabled!(target: "connection", tracing::Level::DEBUG);
    assert!(!is_on());
    let listing = post("/logging?connection=debug").await;
    assert_eq!(listing.status, 200);
    assert!(listing.body.contains("  connection: debug\n  upstream: info\n"), "{}", listing.body);
    assert!(is_on());
    assert!(post("/logging?level=warning").await.body.contains("  connection: warning\n"));
    assert!(!is_on());
    assert!(post("/logging?paths=ads:error,connection:trace").await.body.contains("  ads: error\n"));
    assert!(is_on());
    assert_eq!(post("/logging").await.body, post("/logging?default=warning").await.body);
    for (query, reason) in [
        ("level=loud", "error: unknown logger level"),
        ("nobody=debug", "error: unknown logger name"),
        ("ads=debug&config=debug", "error: invalid number of parameters"),
        ("paths=ads", "error: empty logger name or empty logger level"),
    ] {
        let refused = post(&format!("/logging?{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
        assert!(refused.body.starts_with(reason), "{query}: {}", refused.body);
    }
    assert_eq!(get(port, "/logging?level=debug").await.status, 405);
    drop(proxy);
}
