//! The labs, one test each, on our proxy and on stock Envoy: the same YAML, the same answers.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::Value;

use e2e::{Cluster, eventually, on_both};

/// A test per data plane.
macro_rules! lab {
    ($name:ident, $run:expr) => {
        mod $name {
            use super::*;

            on_both!(&["kubectl", "curl"], |cluster| {
                bookinfo(cluster);
                $run(cluster);
            });
        }
    };
}

/// Lab 2: Bookinfo with sidecars, behind the gateway.
fn bookinfo(cluster: &Cluster) {
    cluster.apply_sample("bookinfo/platform/kube/bookinfo.yaml");
    cluster.apply_sample("bookinfo/networking/bookinfo-gateway.yaml");
    cluster.apply_sample("bookinfo/networking/destination-rule-all.yaml");
    let pods = cluster.wait_for_pods("default", 6);
    assert!(pods.lines().all(|pod| pod.contains("2/2")), "{pods}");
    eventually("the product page", || {
        let page = cluster.get("/productpage", &[]);
        let whole = page.status == 200 && !page.body.contains("Error fetching");
        if whole { Ok(()) } else { Err(format!("{page:?}")) }
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stars {
    None,
    Black,
    Red,
    /// No reviews at all, or no ratings.
    Error,
}

fn stars(cluster: &Cluster, user: Option<&str>) -> Stars {
    let page = cluster.product_page(user);
    let has = |text: &str| page.body.contains(text);
    if page.status != 200 || has("Error fetching") || has("Ratings service is currently unavailable") {
        Stars::Error
    } else if has("color=\"red\"") {
        Stars::Red
    } else if has("color=\"black\"") {
        Stars::Black
    } else {
        Stars::None
    }
}

/// Waits until ten pages in a row show the same stars.
fn all(cluster: &Cluster, user: Option<&str>, expected: Stars) {
    eventually(&format!("{user:?} sees {expected:?}"), || {
        let seen: Vec<Stars> = (0..10).map(|_| stars(cluster, user)).collect();
        if seen.iter().all(|stars| *stars == expected) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

lab!(lab_2_bookinfo, |cluster: &Cluster| {
    let page = cluster.get("/productpage", &[]);
    assert!(page.body.contains("<title>Simple Bookstore App</title>"), "{page:?}");
    assert!(page.head.to_lowercase().contains("server: istio-envoy"), "{page:?}");
    let seen = eventually("reviews change on reload", || {
        let mut seen: Vec<Stars> = (0..20).map(|_| stars(cluster, None)).collect();
        seen.dedup();
        if seen.contains(&Stars::None) && seen.contains(&Stars::Black) && seen.contains(&Stars::Red) {
            Ok(seen)
        } else {
            Err(format!("{seen:?}"))
        }
    });
    assert!(!seen.contains(&Stars::Error), "{seen:?}");
    for (kinds, columns) in [
        ("vs", "NAME GATEWAYS HOSTS AGE"),
        ("dr", "NAME HOST AGE"),
        ("gw", "NAME AGE"),
        ("pod", "NAME READY STATUS RESTARTS AGE"),
        ("svc", "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE"),
    ] {
        let table = cluster.kubectl(&["get", kinds]);
        let head: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head.join(" "), columns, "{table}");
    }
    let inside = cluster.kubectl(&[
        "exec",
        "deploy/ratings-v1",
        "-c",
        "ratings",
        "--",
        "curl",
        "-s",
        "productpage:9080/productpage",
    ]);
    assert!(inside.contains("<title>Simple Bookstore App</title>"), "{inside}");
    let stats =
        ["exec", "deploy/ratings-v1", "-c", "istio-proxy", "--", "pilot-agent", "request", "GET", "stats"];
    assert!(cluster.kubectl(&stats).contains("cluster_manager"), "the proxy's own statistics");
    proxy_config(cluster);
    // Stock Envoy writes its log every ten seconds.
    eventually("the access log", || {
        let log = cluster.kubectl(&["logs", "-l", "app=productpage", "-c", "istio-proxy", "--tail", "-1"]);
        if log.contains("\"GET /productpage HTTP/1.1\" 200 - via_upstream") { Ok(()) } else { Err(log) }
    });
    eventually("every proxy is in step and refuses nothing", || {
        let status = cluster.lateen(&["proxy-status"]);
        let in_step = status.contains("SYNCED") && !status.contains("STALE") && !status.contains("ERROR");
        if in_step { Ok(()) } else { Err(status) }
    });
});

/// What `proxy-config` prints of productpage's sidecar: the heads, and the lines that a user of Istio looks for.
fn proxy_config(cluster: &Cluster) {
    let pod =
        cluster.kubectl(&["get", "pod", "-l", "app=productpage", "-o", "jsonpath={.items[0].metadata.name}"]);
    for (part, head, lines) in [
        (
            "cluster",
            "SERVICE FQDN PORT SUBSET DIRECTION TYPE DESTINATION RULE",
            &[
                "9080 - inbound STATIC",
                "reviews.default.svc.cluster.local 9080 - outbound EDS reviews.default",
                "reviews.default.svc.cluster.local 9080 v2 outbound EDS reviews.default",
                "PassthroughCluster - - - ORIGINAL_DST",
                "BlackHoleCluster - - - STATIC",
            ][..],
        ),
        ("listener", "ADDRESSES PORT MATCH DESTINATION", &["15007 ALL Route: http_proxy"]),
        (
            "route",
            "NAME VHOST NAME DOMAINS MATCH VIRTUAL SERVICE",
            &["http_proxy reviews.default.svc.cluster.local:9080 reviews, reviews.default + 1 more... /*"],
        ),
        (
            "endpoint",
            "ENDPOINT STATUS OUTLIER CHECK CLUSTER",
            &["HEALTHY OK outbound|9080|v3|reviews.default.svc.cluster.local"],
        ),
        (
            "secret",
            "RESOURCE NAME TYPE STATUS VALID CERT SERIAL NUMBER NOT AFTER NOT BEFORE",
            &["default Cert Chain ACTIVE true", "ROOTCA CA ACTIVE true"],
        ),
    ] {
        let table = cluster.lateen(&["proxy-config", part, &pod]);
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let table: Vec<String> = table.lines().map(words).collect();
        assert_eq!(table[0], head, "{part}");
        for line in lines {
            assert!(table.iter().any(|found| found.contains(line)), "{part} has no {line:?}: {table:#?}");
        }
    }
    let bootstrap = cluster.lateen(&["proxy-config", "bootstrap", &pod]);
    assert!(bootstrap.starts_with("Istio Version:"), "{bootstrap}");
    let clusters: Value =
        serde_json::from_str(&cluster.lateen(&["proxy-config", "cluster", &pod, "-o", "json"])).unwrap();
    assert!(clusters.as_array().is_some_and(|list| list.len() > 10));
}

lab!(lab_3_1_dynamic_routing, |cluster: &Cluster| {
    cluster.apply_sample("bookinfo/networking/virtual-service-all-v1.yaml");
    all(cluster, None, Stars::None);
    cluster.apply_sample("bookinfo/networking/virtual-service-reviews-test-v2.yaml");
    all(cluster, Some("jason"), Stars::Black);
    all(cluster, None, Stars::None);
});

lab!(lab_3_2_traffic_shifting, |cluster: &Cluster| {
    cluster.apply_sample("bookinfo/networking/virtual-service-all-v1.yaml");
    all(cluster, None, Stars::None);
    cluster.apply_sample("bookinfo/networking/virtual-service-reviews-50-v3.yaml");
    eventually("the first red star", || match stars(cluster, None) {
        Stars::Red => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let red = (0..300).filter(|_| stars(cluster, None) == Stars::Red).count();
    assert!((120..=180).contains(&red), "{red} of 300 pages went to v3");
    cluster.apply_sample("bookinfo/networking/virtual-service-reviews-v3.yaml");
    all(cluster, None, Stars::Red);
});

lab!(lab_3_3_gateway, |cluster: &Cluster| {
    assert_eq!(cluster.get("/details/0", &[]).status, 404);
    let yaml = "\
apiVersion: networking.istio.io/v1alpha3
kind: Gateway
metadata:
  name: test-gateway
spec:
  selector:
    istio: ingressgateway
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [\"*\"]
---
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: test-gateway
spec:
  hosts: [\"*\"]
  gateways: [test-gateway]
  http:
  - match:
    - uri: {prefix: /details}
    - uri: {exact: /health}
    route:
    - destination:
        host: details
        port: {number: 9080}
";
    cluster.apply(yaml);
    let details = eventually("details through the second gateway", || {
        let answer = cluster.get("/details/0", &[]);
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert!(details.body.contains("ISBN-13"), "{details:?}");
    assert!(cluster.get("/health", &[]).body.contains("Details is healthy"));
    assert_eq!(cluster.get("/productpage", &[]).status, 200);
    let gateways = cluster.kubectl(&["get", "gw", "--no-headers"]);
    assert_eq!(gateways.lines().count(), 2, "{gateways}");
});

/// `reviews` to v2, and the rest of its route.
fn reviews_v2(rest: &str) -> String {
    format!(
        "{{\"apiVersion\":\"networking.istio.io/v1alpha3\",\"kind\":\"VirtualService\",\"metadata\":{{\"name\":\"reviews\"}},\
         \"spec\":{{\"hosts\":[\"reviews\"],\"http\":[{{\"route\":[{{\"destination\":{{\"host\":\"reviews\",\
         \"subset\":\"v2\"}}}}]{rest}}}]}}}}"
    )
}

lab!(lab_4_1_timeout, |cluster: &Cluster| {
    cluster.apply(&reviews_v2(""));
    all(cluster, None, Stars::Black);
    cluster.apply(
        "{\"apiVersion\":\"networking.istio.io/v1alpha3\",\"kind\":\"VirtualService\",\"metadata\":{\"name\":\"ratings\"},\
         \"spec\":{\"hosts\":[\"ratings\"],\"http\":[{\"fault\":{\"delay\":{\"percent\":100,\"fixedDelay\":\"2s\"}},\
         \"route\":[{\"destination\":{\"host\":\"ratings\",\"subset\":\"v1\"}}]}]}}",
    );
    eventually("the delay", || {
        let started = Instant::now();
        let seen = stars(cluster, None);
        let took = started.elapsed();
        if seen == Stars::Black && took >= Duration::from_secs(2) {
            Ok(())
        } else {
            Err(format!("{seen:?} in {took:?}"))
        }
    });
    cluster.apply(&reviews_v2(",\"timeout\":\"1s\""));
    let page = eventually("the timeout", || {
        let page = cluster.get("/productpage", &[]);
        if page.body.contains("Error fetching product reviews!") {
            Ok(page)
        } else {
            Err(format!("{page:?}"))
        }
    });
    assert!(page.body.contains("Sorry, product reviews are currently unavailable for this book."));
});

lab!(lab_5_1_fault_injection, |cluster: &Cluster| {
    cluster.apply_sample("bookinfo/networking/virtual-service-all-v1.yaml");
    cluster.apply_sample("bookinfo/networking/virtual-service-reviews-test-v2.yaml");
    all(cluster, Some("jason"), Stars::Black);
    cluster.apply_sample("bookinfo/networking/virtual-service-ratings-test-delay.yaml");
    // productpage gives reviews two tries of 3 s; ratings take 7 s for jason.
    eventually("jason's page without reviews", || {
        let page = cluster.product_page(Some("jason"));
        if page.body.contains("Error fetching product reviews!") { Ok(()) } else { Err(format!("{page:?}")) }
    });
    all(cluster, None, Stars::None);
    cluster.apply_sample("bookinfo/networking/virtual-service-ratings-test-abort.yaml");
    eventually("jason's page without ratings", || {
        let page = cluster.product_page(Some("jason"));
        let aborted = page.body.contains("Ratings service is currently unavailable");
        if aborted { Ok(()) } else { Err(format!("{page:?}")) }
    });
    all(cluster, None, Stars::None);
});
