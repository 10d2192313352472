//! Active health checks, as Envoy does them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Response, header::HeaderValue};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::sides::sides;
use crate::support::*;

fn checked(name: &str, hosts: &[SocketAddr], probe: (&str, Value)) -> Value {
    let mut out = cluster(name, hosts);
    let mut check = json!({
        "timeout": "5s", "interval": "0.05s", "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 2, "healthy_threshold": 2,
    });
    check[probe.0] = probe.1;
    out["health_checks"] = json!([check]);
    out["common_lb_config"] = json!({"healthy_panic_threshold": {"value": 0.0}});
    out
}

/// Answers its checks with 200 or 503, as it is told; requests with its text.
async fn switchable(text: &'static str) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let state = well.clone();
    let origin = Origin::start(move |request| {
        let check = request.uri().path() == "/healthz";
        let host = request.headers().get("host").map_or("", |host| host.to_str().unwrap());
        let agent = request.headers().get("user-agent").map_or("", |agent| agent.to_str().unwrap());
        let proper =
            !check || (host == "asked" && agent == "Envoy/HC" && request.headers().contains_key("x-probe"));
        let status = match (check, state.load(Ordering::SeqCst)) {
            _ if !proper => 400,
            (true, false) => 503,
            _ => 200,
        };
        Response::builder().status(status).body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap()
    })
    .await;
    (origin, well)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_fails_its_checks_is_left_out_until_it_passes() {
    let (one, one_is_well) = switchable("one").await;
    let (two, _) = switchable("two").await;
    let probe = json!({"path": "/healthz", "host": "asked",
        "request_headers_to_add": [{"header": {"key": "x-probe", "value": "yes"}}]});
    let both = checked("both", &[one.address, two.address], ("http_health_check", probe));
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "both"}}]);
    let resources = json!({"listeners": [listener("l", json!([manager(routes)]))], "clusters": [both]});
    for side in sides(&resources) {
        let name = side.name;
        one_is_well.store(true, Ordering::SeqCst);
        let healthy = || side.figure("cluster.both.membership_healthy");
        until("both are in", || healthy() == 2).await;
        // A cluster counts its hosts before it is in force.
        within("the cluster is in force", async {
            while get(side.at("l"), "/").await.status != 200 {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        one_is_well.store(false, Ordering::SeqCst);
        until("one is out", || healthy() == 1).await;
        for _ in 0..8 {
            assert_eq!(get(side.at("l"), "/").await.body, "two", "{name}");
        }
        one_is_well.store(true, Ordering::SeqCst);
        until("one is back", || healthy() == 2).await;
        assert!(side.figure("cluster.both.health_check.success") > 0, "{name}");
        assert!(side.figure("cluster.both.health_check.failure") > 0, "{name}");
        assert_eq!(side.figure("cluster.both.health_check.network_failure"), 0, "{name}");
    }
}

/// gRPC's health service: `well` is serving, everything else is not.
async fn grpc_health() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service =
                hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let status = if body.ends_with(b"well") { 1 } else { 2 };
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    let frames =
                        [Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status])), Frame::trailers(trailers)];
                    let body =
                        StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
                    let mut response = Response::new(body);
                    response
                        .headers_mut()
                        .insert("content-type", HeaderValue::from_static("application/grpc"));
                    Ok::<_, std::convert::Infallible>(response)
                });
            tokio::spawn(async move {
                let executor = hyper_util::rt::TokioExecutor::new();
                let builder = hyper::server::conn::http2::Builder::new(executor);
                drop(builder.serve_connection(hyper_util::rt::TokioIo::new(tcp), service).await);
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_check_tells_the_well_from_the_ill() {
    let origin = Origin::echo().await;
    let nobody = {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.local_addr().unwrap()
    };
    let grpc = grpc_health().await;
    let http = |path: &str, more: Value| {
        let mut probe = json!({"path": path});
        for (key, value) in more.as_object().unwrap() {
            probe[key] = value.clone();
        }
        ("http_health_check", probe)
    };
    // "HTTP/1.1 400", whatever it was sent.
    let greeting =
        json!({"send": {"text": "470d0a0d0a"}, "receive": [{"text": "48545450"}, {"text": "343030"}]});
    let mut elsewhere = checked("elsewhere", &[nobody], ("tcp_health_check", json!({})));
    elsewhere["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["health_check_config"] =
        json!({"port_value": origin.address.port()});
    let mut unchecked = checked("unchecked", &[nobody], ("tcp_health_check", json!({})));
    unchecked["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["health_check_config"] =
        json!({"disable_active_health_check": true});
    let over_http2 = |name: &str, service: &str| {
        let mut out = checked(name, &[grpc], ("grpc_health_check", json!({"service_name": service})));
        out["typed_extension_protocol_options"] = http2_options();
        out
    };
    let cases = [
        (
            checked(
                "expected",
                &[origin.address],
                http("/", json!({"expected_statuses": [{"start": 200, "end": 201}]})),
            ),
            true,
        ),
        (
            checked(
                "unexpected",
                &[origin.address],
                http("/", json!({"expected_statuses": [{"start": 300, "end": 400}]})),
            ),
            false,
        ),
        (checked("head", &[origin.address], http("/", json!({"codec_client_type": "HTTP2"}))), true),
        (
            checked(
                "service",
                &[origin.address],
                http("/", json!({"service_name_matcher": {"prefix": "other"}})),
            ),
            false,
        ),
        (checked("connects", &[origin.address], ("tcp_health_check", json!({}))), true),
        (checked("refused", &[nobody], ("tcp_health_check", json!({}))), false),
        (checked("answers", &[origin.address], ("tcp_health_check", greeting)), true),
        (over_http2("serving", "well"), true),
        (over_http2("not_serving", "ill"), false),
        (elsewhere, true),
        (unchecked, true),
    ];
    let clusters: Vec<Value> = cases.iter().map(|(cluster, _)| cluster.clone()).collect();
    let routes: Vec<Value> = clusters
        .iter()
        .map(|cluster| json!({"match": {"path": format!("/{}", cluster["name"].as_str().unwrap())}, "route": {"cluster": cluster["name"]}}))
        .collect();
    let resources =
        json!({"listeners": [listener("l", json!([manager(json!(routes))]))], "clusters": clusters});
    for side in sides(&resources) {
        for (cluster, well) in &cases {
            let name = cluster["name"].as_str().unwrap();
            if name != "unchecked" {
                let counted = if *well { "success" } else { "failure" };
                let what = format!("{} {name}", side.name);
                until(&what, || side.figure(&format!("cluster.{name}.health_check.{counted}")) > 1).await;
            }
            let healthy = side.figure(&format!("cluster.{name}.membership_healthy"));
            assert_eq!(healthy, u64::from(*well), "{} {name}", side.name);
            if !well {
                let answer = get(side.at("l"), &format!("/{name}")).await;
                assert_eq!(
                    (answer.status, &*answer.body),
                    (503, "no healthy upstream"),
                    "{} {name}",
                    side.name
                );
            }
        }
    }
}
