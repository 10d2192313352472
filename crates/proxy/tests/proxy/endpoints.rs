//! Where endpoints come from, and when they are left out; as Envoy does.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use http_body_util::Full;
use hyper::Response;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::sides::sides;
use crate::support::*;

type Table = Arc<Mutex<Vec<IpAddr>>>;

/// A DNS server with one table for every name; answers hold for a second.
async fn dns(table: Table) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Ok(mut message) = Message::from_vec(&buffer[..length]) else { continue };
            message.metadata.message_type = MessageType::Response;
            message.metadata.recursion_available = true;
            let Some(query) = message.queries.first().cloned() else { continue };
            if query.query_type() == RecordType::A {
                for ip in table.lock().unwrap().iter() {
                    let IpAddr::V4(ip) = ip else { continue };
                    message.answers.push(Record::from_rdata(query.name().clone(), 1, RData::A(A(*ip))));
                }
            }
            message.additionals.clear();
            message.edns = None;
            let _ = socket.send_to(&message.to_vec().unwrap(), from).await;
        }
    });
    address
}

/// Servers on one port of several addresses; each answers with its own.
pub(crate) async fn servers(addresses: &[&str]) -> (Vec<IpAddr>, u16) {
    let ips: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let mut port = 0;
    for ip in &ips {
        let text = ip.to_string();
        let origin = Origin::at(SocketAddr::new(*ip, port), move |_| {
            Response::new(Full::new(Bytes::from(text.clone())))
        })
        .await;
        port = origin.address.port();
    }
    (ips, port)
}

fn by_name(name: &str, kind: &str, port: u16, resolver: SocketAddr) -> Value {
    let mut cluster = cluster(name, &[SocketAddr::from(([127, 0, 0, 1], port))]);
    cluster["type"] = json!(kind);
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        ["address"] = json!("service.test");
    cluster["dns_lookup_family"] = json!("V4_ONLY");
    cluster["dns_refresh_rate"] = json!("1s");
    cluster["respect_dns_ttl"] = json!(true);
    cluster["typed_dns_resolver_config"] = json!({"name": "envoy.network.dns_resolver.cares", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [socket(resolver)],
    }});
    cluster
}

/// Asks until `done` holds for what the last answers said.
async fn ask_until(what: &str, address: SocketAddr, path: &str, done: impl Fn(&[String]) -> bool) {
    let mut last = Vec::new();
    within(what, async {
        loop {
            let answer = get(address, path).await;
            last.push(if answer.status == 200 { answer.body } else { answer.status.to_string() });
            if last.len() > 8 {
                last.remove(0);
            }
            if last.len() == 8 && done(&last) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_followed_as_their_addresses_change() {
    let (ips, port) = servers(&["127.0.0.1", "127.0.0.2", "127.0.0.3"]).await;
    let table: Table = Arc::new(Mutex::new(ips[..2].to_vec()));
    let resolver = dns(table.clone()).await;
    let routes = json!([
        {"match": {"prefix": "/strict"}, "route": {"cluster": "strict"}},
        {"match": {"prefix": "/logical"}, "route": {"cluster": "logical"}},
    ]);
    // New connections, so that LOGICAL_DNS shows where they go.
    let mut logical = by_name("logical", "LOGICAL_DNS", port, resolver);
    logical["max_requests_per_connection"] = json!(1);
    let resources = json!({
        "listeners": [listener("l", json!([manager(routes)]))],
        "clusters": [by_name("strict", "STRICT_DNS", port, resolver), logical],
    });
    for side in sides(&resources) {
        *table.lock().unwrap() = ips[..2].to_vec();
        let (name, address) = (side.name, side.at("l"));
        let has = |last: &[String], ip: &str| last.iter().any(|seen| seen == ip);
        let both = |last: &[String]| has(last, "127.0.0.1") && has(last, "127.0.0.2");
        ask_until(&format!("{name}: both addresses"), address, "/strict", both).await;
        ask_until(&format!("{name}: one address"), address, "/logical", |last| {
            last.iter().all(|ip| ip == &last[0] && ip.starts_with("127."))
        })
        .await;
        *table.lock().unwrap() = vec![ips[2]];
        for path in ["/strict", "/logical"] {
            let third = |last: &[String]| last.iter().all(|ip| ip == "127.0.0.3");
            ask_until(&format!("{name} {path}: the third address"), address, path, third).await;
        }
        // A name that has lost its addresses keeps the last ones.
        table.lock().unwrap().clear();
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        assert_eq!(get(address, "/logical").await.body, "127.0.0.3", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_go_where_they_were_going() {
    let (ips, port) = servers(&["127.0.0.1", "127.0.0.2"]).await;
    let original = |name: &str, config: Value| {
        json!({"name": name, "type": "ORIGINAL_DST", "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED",
               "original_dst_lb_config": config})
    };
    let routes = json!([
        {"match": {"prefix": "/header"}, "route": {"cluster": "header"}},
        {"match": {"prefix": "/port"}, "route": {"cluster": "port"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "plain"}},
    ]);
    let mut told = listener("told", json!([manager(routes.clone())]));
    told["listener_filters"] = json!([{"name": "envoy.filters.listener.proxy_protocol", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}}]);
    let resources = json!({
        "listeners": [listener("l", json!([manager(routes)])), told],
        "clusters": [
            original("header", json!({"use_http_header": true})),
            original("port", json!({"use_http_header": true, "upstream_port_override": port})),
            original("plain", json!({})),
        ],
    });
    for side in sides(&resources) {
        let name = side.name;
        for ip in &ips {
            let to = |path: &str, port: u16| {
                format!(
                    "GET {path} HTTP/1.1\r\nhost: test\r\nx-envoy-original-dst-host: {ip}:{port}\r\nconnection: close\r\n\r\n"
                )
            };
            assert_eq!(ask(side.at("l"), &to("/header", port)).await.body, ip.to_string(), "{name}");
            assert_eq!(ask(side.at("l"), &to("/port", 1)).await.body, ip.to_string(), "{name}");
            // A proxy in front says where the connection was going.
            let request = format!(
                "PROXY TCP4 127.0.0.9 {ip} 999 {port}\r\nGET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
            );
            assert_eq!(ask(side.at("told"), &request).await.body, ip.to_string(), "{name}");
        }
        let nowhere = get(side.at("l"), "/header").await;
        assert_eq!(nowhere.status, 503, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_is_left_out_and_comes_back() {
    let good = Origin::start(|_| Response::new(Full::new(Bytes::from_static(b"good")))).await;
    let broken = Arc::new(AtomicBool::new(true));
    let state = broken.clone();
    let shaky = Origin::start(move |_| {
        let status = if state.load(Ordering::SeqCst) { 500 } else { 200 };
        Response::builder().status(status).body(Full::new(Bytes::from_static(b"shaky"))).unwrap()
    })
    .await;
    let mut both = cluster("both", &[good.address, shaky.address]);
    both["outlier_detection"] = json!({
        "consecutive_5xx": 3, "interval": "0.3s", "base_ejection_time": "1s", "max_ejection_percent": 50,
    });
    both["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0.0}});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "both"}}]);
    let resources = json!({"listeners": [listener("l", json!([manager(routes)]))], "clusters": [both]});
    for side in sides(&resources) {
        broken.store(true, Ordering::SeqCst);
        let (name, address) = (side.name, side.at("l"));
        let only_good = |last: &[String]| last.iter().all(|seen| seen == "good");
        ask_until(&format!("{name}: ejected"), address, "/", only_good).await;
        broken.store(false, Ordering::SeqCst);
        ask_until(&format!("{name}: back"), address, "/", |last| last.iter().any(|seen| seen == "shaky"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_resets_counts_as_one_that_fails() {
    // It closes every connection with a reset once a request has come.
    let listener_of_origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener_of_origin.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener_of_origin.accept().await {
            let _ = tcp.read(&mut [0; 1024]).await;
            socket2::SockRef::from(&tcp).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
    });
    let mut resets = cluster("resets", &[address]);
    resets["outlier_detection"] = json!({"consecutive_5xx": 2, "max_ejection_percent": 100});
    resets["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0.0}});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "resets"}}]);
    let format = "%RESPONSE_CODE% %RESPONSE_FLAGS%\n";
    let settings = json!({"access_log": access_log("LOG", format)});
    let resources =
        json!({"listeners": [listener("l", json!([manager_with(routes, settings)]))], "clusters": [resets]});
    for side in sides(&resources) {
        // Envoy's main thread ejects, a moment after the worker has counted.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        for asked in 1.. {
            assert_eq!(get(side.at("l"), "/").await.status, 503, "{}", side.name);
            let lines = log_lines(&side.log, asked).await;
            let reset = lines.iter().filter(|line| *line == "503 UC").count();
            let without_host = lines.iter().filter(|line| *line == "503 UH").count();
            assert_eq!(reset + without_host, asked, "{}: {lines:?}", side.name);
            if without_host > 0 {
                assert!(reset >= 2, "{}: {lines:?}", side.name);
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{}: never ejected: {lines:?}", side.name);
        }
        let mut tcp = TcpStream::connect(side.at("l")).await.unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        assert!(within("an answer", tcp.read(&mut [0; 64])).await.unwrap() > 0);
    }
}
