//! Which host gets a request: hashes, priorities, outliers, limits; as Envoy does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::endpoints::servers;
use crate::sides::sides;
use crate::support::*;

/// A cluster whose hosts have weights.
fn weighted(name: &str, hosts: &[(SocketAddr, u32)], more: Value) -> Value {
    let mut out = cluster(name, &[]);
    let endpoints: Vec<Value> = hosts
        .iter()
        .map(
            |(host, weight)| json!({"endpoint": {"address": socket(*host)}, "load_balancing_weight": weight}),
        )
        .collect();
    out["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!(endpoints);
    for (key, value) in more.as_object().unwrap() {
        out[key] = value.clone();
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_where_envoy_sends_it() {
    // In an order that is not that of their names.
    let (ips, port) = servers(&["127.0.0.9", "127.0.0.10", "127.0.0.2", "127.0.0.77", "127.0.0.5"]).await;
    let hosts: Vec<(SocketAddr, u32)> =
        ips.iter().zip([1, 3, 1, 2, 5]).map(|(ip, weight)| (SocketAddr::new(*ip, port), weight)).collect();
    let equal: Vec<(SocketAddr, u32)> = hosts.iter().map(|(host, _)| (*host, 1)).collect();
    let clusters = [
        weighted("ring", &equal, json!({"lb_policy": "RING_HASH"})),
        weighted(
            "weighted",
            &hosts,
            json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 100}}),
        ),
        weighted(
            "small",
            &hosts,
            json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"minimum_ring_size": 1, "maximum_ring_size": 7}}),
        ),
        weighted(
            "murmur",
            &equal,
            json!({"lb_policy": "RING_HASH", "ring_hash_lb_config": {"hash_function": "MURMUR_HASH_2"}}),
        ),
        weighted("maglev", &hosts, json!({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 307}})),
    ];
    let by = [
        ("header", json!([{"header": {"header_name": "x-key"}}])),
        ("cookie", json!([{"cookie": {"name": "key"}}])),
        ("query", json!([{"query_parameter": {"name": "key"}}])),
        ("both", json!([{"header": {"header_name": "x-key"}}, {"query_parameter": {"name": "key"}}])),
        (
            "first",
            json!([{"header": {"header_name": "x-key"}, "terminal": true}, {"query_parameter": {"name": "other"}}]),
        ),
        ("address", json!([{"connection_properties": {"source_ip": true}}])),
        (
            "rewritten",
            json!([{"header": {"header_name": "x-key", "regex_rewrite": {"pattern": {"regex": "^.*-"}, "substitution": ""}}}]),
        ),
    ];
    let mut routes = Vec::new();
    for cluster in &clusters {
        for (name, policies) in &by {
            let path = format!("/{}/{name}", cluster["name"].as_str().unwrap());
            routes.push(json!({"match": {"prefix": path}, "route": {"cluster": cluster["name"], "hash_policy": policies}}));
        }
    }
    let resources =
        json!({"listeners": [listener("l", json!([manager(json!(routes))]))], "clusters": clusters});
    let mut seen: BTreeMap<String, Vec<(&str, String)>> = BTreeMap::new();
    for side in sides(&resources) {
        for cluster in &clusters {
            let cluster = cluster["name"].as_str().unwrap();
            for key in 0..24 {
                for (by, _) in &by {
                    if *by == "address" && key > 0 {
                        continue;
                    }
                    let path = format!("/{cluster}/{by}?other={}&key=k{key}", key * 7);
                    let request = format!(
                        "GET {path} HTTP/1.1\r\nhost: test\r\nx-key: a-{key}\r\ncookie: x=1; key=c{key}\r\nconnection: close\r\n\r\n"
                    );
                    let answer = ask(side.at("l"), &request).await;
                    assert_eq!(answer.status, 200, "{}: {path}", side.name);
                    seen.entry(path).or_default().push((side.name, answer.body));
                }
            }
        }
    }
    for (path, answers) in &seen {
        assert!(answers.iter().all(|(_, body)| *body == answers[0].1), "{path}: {answers:?}");
    }
    let all: std::collections::BTreeSet<_> = seen.values().map(|answers| &answers[0].1).collect();
    assert_eq!(all.len(), 5, "every host has its keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_is_made_where_it_is_missing() {
    let (ips, port) = servers(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    let hosts: Vec<SocketAddr> = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    let mut ring = cluster("ring", &hosts);
    ring["lb_policy"] = json!("RING_HASH");
    let route = |path: &str, cookie: Value| json!({"match": {"prefix": path}, "route": {"cluster": "ring", "hash_policy": [{"cookie": cookie}]}});
    let routes = json!([
        route("/long", json!({"name": "user", "ttl": "60s", "path": "/here"})),
        route("/session", json!({"name": "user", "ttl": "0s"})),
        route("/never", json!({"name": "user"})),
    ]);
    let resources = json!({"listeners": [listener("l", json!([manager(routes)]))], "clusters": [ring]});
    for side in sides(&resources) {
        let name = side.name;
        for (path, tail) in [("/long", "; Max-Age=60; Path=/here; HttpOnly"), ("/session", "; HttpOnly")] {
            let first = get(side.at("l"), path).await;
            let cookie =
                first.header("set-cookie").unwrap_or_else(|| panic!("{name} {path}: {}", first.head));
            let (pair, attributes) = cookie.split_at(cookie.find("\";").unwrap() + 1);
            assert_eq!(attributes, tail, "{name} {path}");
            assert!(pair.starts_with("user=\""), "{name} {path}: {cookie}");
            for _ in 0..8 {
                let request = format!(
                    "GET {path} HTTP/1.1\r\nhost: test\r\ncookie: {pair}\r\nconnection: close\r\n\r\n"
                );
                let again = ask(side.at("l"), &request).await;
                assert_eq!((again.header("set-cookie"), &again.body), (None, &first.body), "{name} {path}");
            }
        }
        assert_eq!(get(side.at("l"), "/never").await.header("set-cookie"), None, "{name}");
    }
}

/// An origin that always answers with this status and text.
async fn answering(status: u16, text: &'static str) -> Origin {
    Origin::start(move |_| {
        Response::builder().status(status).body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_go_to_priorities_that_were_not_tried() {
    let (near, far) = (answering(503, "near").await, answering(200, "far").await);
    let mut both = cluster("both", &[near.address]);
    let far_one = json!({"priority": 1, "lb_endpoints": [{"endpoint": {"address": socket(far.address)}}]});
    both["load_assignment"]["endpoints"].as_array_mut().unwrap().push(far_one);
    let policy = |frequency: u32| {
        json!({"retry_on": "5xx", "num_retries": 3, "retry_back_off": {"base_interval": "0.001s"}, "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": frequency,
            },
        }})
    };
    let routes = json!([
        {"match": {"prefix": "/1"}, "route": {"cluster": "both", "retry_policy": policy(1)}},
        {"match": {"prefix": "/2"}, "route": {"cluster": "both", "retry_policy": policy(2)}},
        {"match": {"prefix": "/4"}, "route": {"cluster": "both", "retry_policy": policy(4)}},
    ]);
    let resources = json!({"listeners": [listener("l", json!([manager(routes)]))], "clusters": [both]});
    for side in sides(&resources) {
        for (path, status, attempts) in [("/1", 200, 1), ("/2", 200, 2), ("/4", 503, 4)] {
            let before = near.count();
            let answer = get(side.at("l"), path).await;
            assert_eq!((answer.status, near.count() - before), (status, attempts), "{} {path}", side.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outliers_are_ejected_up_to_the_percentage() {
    let (good, bad) = (answering(200, "good").await, answering(500, "bad").await);
    let ejecting = |name: &str, more: Value| {
        let mut out = cluster(name, &[good.address, bad.address]);
        out["outlier_detection"] =
            json!({"consecutive_5xx": 2, "interval": "60s", "base_ejection_time": "60s"});
        for (key, value) in more.as_object().unwrap() {
            out["outlier_detection"][key] = value.clone();
        }
        out["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0.0}});
        out
    };
    let clusters = json!([
        ejecting("half", json!({"max_ejection_percent": 50})),
        ejecting("few", json!({"max_ejection_percent": 10})),
        ejecting("one", json!({"max_ejection_percent": 10, "always_eject_one_host": true})),
        ejecting("off", json!({"max_ejection_percent": 50, "enforcing_consecutive_5xx": 0})),
    ]);
    let routes = ["half", "few", "one", "off"]
        .map(|name| json!({"match": {"prefix": format!("/{name}")}, "route": {"cluster": name}}));
    let resources =
        json!({"listeners": [listener("l", json!([manager(json!(routes))]))], "clusters": clusters});
    for side in sides(&resources) {
        let figure =
            |cluster: &str, name: &str| side.figure(&format!("cluster.{cluster}.outlier_detection.{name}"));
        for (cluster, active, overflow) in [("half", 1, 0), ("few", 0, 1), ("one", 1, 0), ("off", 0, 0)] {
            let found = "ejections_detected_consecutive_5xx";
            within(cluster, async {
                while figure(cluster, found) == 0 {
                    get(side.at("l"), &format!("/{cluster}")).await;
                }
            })
            .await;
            // Envoy's main thread acts a moment after the worker has counted.
            until(cluster, || {
                figure(cluster, "ejections_active") == active
                    && (figure(cluster, "ejections_overflow") > 0) == (overflow > 0)
            })
            .await;
            assert_eq!(figure(cluster, "ejections_enforced_total"), active, "{} {cluster}", side.name);
            let enforced = "ejections_enforced_consecutive_5xx";
            assert_eq!(figure(cluster, enforced), active, "{} {cluster}", side.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_fails_more_often_than_others_is_ejected() {
    let good = answering(200, "good").await;
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    // Never twice in a row.
    let shaky = Origin::start(move |_| {
        let status = if seen.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) { 500 } else { 200 };
        Response::builder().status(status).body(Full::new(Bytes::from_static(b"shaky"))).unwrap()
    })
    .await;
    let judged = |name: &str, rules: Value| {
        let mut out = cluster(name, &[good.address, shaky.address]);
        out["outlier_detection"] = json!({
            "consecutive_5xx": 0, "enforcing_consecutive_5xx": 0, "interval": "1s", "base_ejection_time": "60s",
            "max_ejection_percent": 100, "enforcing_success_rate": 0,
        });
        for (key, value) in rules.as_object().unwrap() {
            out["outlier_detection"][key] = value.clone();
        }
        out
    };
    let clusters = json!([
        judged(
            "rate",
            json!({"enforcing_success_rate": 100, "success_rate_minimum_hosts": 2,
            "success_rate_request_volume": 4, "success_rate_stdev_factor": 500})
        ),
        judged(
            "share",
            json!({"enforcing_failure_percentage": 100, "failure_percentage_minimum_hosts": 2,
            "failure_percentage_request_volume": 4, "failure_percentage_threshold": 30})
        ),
    ]);
    let routes = ["rate", "share"]
        .map(|name| json!({"match": {"prefix": format!("/{name}")}, "route": {"cluster": name}}));
    let resources =
        json!({"listeners": [listener("l", json!([manager(json!(routes))]))], "clusters": clusters});
    for side in sides(&resources) {
        for (cluster, what) in [("rate", "success_rate"), ("share", "failure_percentage")] {
            let figure = |name: &str| side.figure(&format!("cluster.{cluster}.outlier_detection.{name}"));
            within(cluster, async {
                while figure("ejections_active") == 0 {
                    get(side.at("l"), &format!("/{cluster}")).await;
                }
            })
            .await;
            assert_eq!(figure(&format!("ejections_enforced_{what}")), 1, "{} {cluster}", side.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_remains_of_limits_is_told() {
    // A server that takes requests and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((tcp, _)) = silent.accept().await {
            kept.push(tcp);
        }
    });
    let mut limited = cluster("limited", &[address]);
    limited["circuit_breakers"] = json!({"thresholds": [{
        "max_connections": 1, "max_pending_requests": 2, "max_requests": 10, "max_retries": 4, "track_remaining": true,
    }]});
    let mut per_host = cluster("per_host", &[address]);
    per_host["circuit_breakers"] = json!({"per_host_thresholds": [{"max_connections": 1}]});
    let routes = json!([
        {"match": {"prefix": "/host"}, "route": {"cluster": "per_host", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "limited", "timeout": "0s"}},
    ]);
    let resources =
        json!({"listeners": [listener("l", json!([manager(routes)]))], "clusters": [limited, per_host]});
    for side in sides(&resources) {
        let mut clients = Vec::new();
        for path in ["/", "/", "/host", "/host"] {
            let mut tcp = TcpStream::connect(side.at("l")).await.unwrap();
            tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).await.unwrap();
            clients.push(tcp);
            let of = |cluster: &str| side.figure(&format!("cluster.{cluster}.upstream_rq_pending_total"));
            // One after the other: each worker makes a connection where there is none of its own.
            until("a request that waits", || of("limited") + of("per_host") >= clients.len() as u64).await;
        }
        let figure = |name: &str| side.figure(&format!("cluster.limited.{name}"));
        // Either worker may have opened a connection of its own.
        let (open, waiting) = (figure("upstream_cx_active"), figure("upstream_rq_pending_active"));
        assert_eq!(open + waiting, 2, "{}", side.name);
        assert_eq!(figure("circuit_breakers.default.remaining_cx"), 0, "{}", side.name);
        assert_eq!(figure("circuit_breakers.default.remaining_pending"), 2 - waiting, "{}", side.name);
        assert_eq!(figure("circuit_breakers.default.remaining_retries"), 4, "{}", side.name);
        let hosts = |name: &str| side.figure(&format!("cluster.per_host.{name}"));
        assert_eq!(hosts("upstream_cx_active") + hosts("upstream_rq_pending_active"), 2, "{}", side.name);
        assert_eq!(hosts("circuit_breakers.default.remaining_cx"), 0, "{}: not tracked", side.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_is_told_of_the_client() {
    // A server that tells of every connection what came first.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = server.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") || bytes.len() < 20 {
                    if tcp.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let end = bytes.windows(4).position(|part| part == b"GET " || part == b"BYTE").unwrap();
                let hex: String = bytes[..end].iter().map(|byte| format!("{byte:02x}")).collect();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", hex.len());
                let _ = tcp.write_all(format!("{head}{hex}").as_bytes()).await;
            });
        }
    });
    let told = |name: &str, version: &str| {
        let mut out = cluster(name, &[address]);
        out["transport_socket"] = json!({"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
            "config": {"version": version},
            "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}},
        }});
        out
    };
    let routes = json!([
        {"match": {"prefix": "/v1"}, "route": {"cluster": "v1"}},
        {"match": {"prefix": "/v2"}, "route": {"cluster": "v2"}},
    ]);
    let tcp_to = |cluster: &str| {
        json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp", "cluster": cluster}})
    };
    let resources = json!({
        "listeners": [listener("l", json!([manager(routes)])), listener("tcp", json!([tcp_to("v1")]))],
        "clusters": [told("v1", "V1"), told("v2", "V2")],
    });
    let text = |hex: &str| -> Vec<u8> {
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap()).collect()
    };
    for side in sides(&resources) {
        for (listener, path) in [("l", "/v1"), ("l", "/v2"), ("tcp", "/v1")] {
            let mut tcp = TcpStream::connect(side.at(listener)).await.unwrap();
            let (client, port) = (tcp.local_addr().unwrap(), side.at(listener).port());
            let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            tcp.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            within("an answer", tcp.read_to_end(&mut bytes)).await.unwrap();
            let header = text(&parse(&bytes).body);
            let wanted = if path == "/v1" {
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {port}\r\n", client.port()).into_bytes()
            } else {
                let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                wanted.extend(client.port().to_be_bytes());
                wanted.extend(port.to_be_bytes());
                wanted
            };
            assert_eq!(header, wanted, "{} {listener} {path}", side.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tries_that_stand_still_are_given_up_and_pauses_are_as_asked() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((tcp, _)) = silent.accept().await {
            kept.push(tcp);
        }
    });
    // It asks to be left alone for longer than anybody waits, once.
    let busy = Origin::start(|_| {
        let response = Response::builder().status(503).header("retry-after", "3600");
        response.body(Full::new(Bytes::from_static(b"busy"))).unwrap()
    })
    .await;
    let routes = json!([
        {"match": {"prefix": "/silent"}, "route": {"cluster": "silent", "timeout": "0s", "retry_policy":
            {"retry_on": "5xx", "num_retries": 1, "per_try_idle_timeout": "0.1s"}}},
        {"match": {"prefix": "/busy"}, "route": {"cluster": "busy", "timeout": "0.5s", "retry_policy":
            {"retry_on": "5xx", "num_retries": 1, "rate_limited_retry_back_off":
                {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}], "max_interval": "7200s"}}}},
        {"match": {"prefix": "/heard"}, "route": {"cluster": "busy", "timeout": "60s", "retry_policy":
            {"retry_on": "5xx", "num_retries": 1, "rate_limited_retry_back_off":
                {"reset_headers": [{"name": "retry-after", "format": "SECONDS"}], "max_interval": "60s"}}}},
    ]);
    let settings = json!({"access_log":
        access_log("LOG", "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")});
    let resources = json!({
        "listeners": [listener("l", json!([manager_with(routes, settings)]))],
        "clusters": [cluster("silent", &[address]), cluster("busy", &[busy.address])],
    });
    for side in sides(&resources) {
        let before = busy.count();
        let answers = [
            get(side.at("l"), "/silent").await,
            get(side.at("l"), "/busy").await,
            get(side.at("l"), "/heard").await,
        ];
        assert_eq!(answers.map(|answer| answer.status), [504, 504, 503], "{}", side.name);
        // The pause outlasts the request's time; or is longer than may be asked for, and so the usual one.
        assert_eq!(busy.count() - before, 3, "{}", side.name);
        assert_eq!(side.figure("cluster.silent.upstream_rq_per_try_idle_timeout"), 2, "{}", side.name);
        let mut lines = log_lines(&side.log, 3).await;
        lines.sort();
        let wanted = [
            "/busy 504 UT response_timeout",
            "/heard 503 URX via_upstream",
            "/silent 504 URX,UT upstream_per_try_idle_timeout",
        ];
        assert_eq!(lines, wanted, "{}", side.name);
    }
}
