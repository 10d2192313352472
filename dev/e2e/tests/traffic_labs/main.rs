//! Labs 3.4 to 3.6, 4.1 (retries), 4.2, 5.2 and the keys of Lab 8 on our proxy and on stock Envoy: what is outside of the
//! mesh, the gateways, circuit breakers and mirrors.

#![allow(clippy::unwrap_used)]

mod egress_tls;

use e2e::{Answer, Cluster, curl, eventually, on_both, repository};

on_both!(&["kubectl", "curl", "openssl"], labs);

fn labs(cluster: &Cluster) {
    cluster.apply_sample("sleep/sleep.yaml");
    cluster.apply_sample("httpbin/httpbin.yaml");
    rollout(cluster, "sleep");
    rollout(cluster, "httpbin");
    lab_3_6_egress_gateway(cluster);
    egress_tls::through_the_egress_gateway(cluster);
    lab_3_4_service_entry(cluster);
    lab_3_5_ingress(cluster);
    lab_4_2_circuit_breaker(cluster);
    lab_5_2_mirror(cluster);
    lab_8_fetched_keys(cluster);
    lab_4_1_retries(cluster);
}

/// Whom the outside sees calling: addresses of pods stay inside.
const NODE: &str = "127.0.0.1";

fn manual(cluster: &Cluster, verb: &str, file: &str) {
    let path = repository().join("istiolabmanual").join(file);
    cluster.kubectl(&[verb, "-f", path.to_str().unwrap()]);
}

fn rollout(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["rollout", "status", &format!("deploy/{name}"), "--timeout=60s"]);
}

/// What curl prints in sleep's pod.
fn inside(cluster: &Cluster, flags: &[&str], url: &str) -> String {
    let exec = ["exec", "deploy/sleep", "-c", "sleep", "--", "curl", "-s"];
    let output = cluster.try_kubectl(&[&exec[..], flags, &[url]].concat(), "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The caller's address as httpbin.org tells it.
fn origin(cluster: &Cluster) -> Result<String, String> {
    let seen = inside(cluster, &[], "http://httpbin.org/ip");
    let json: Result<serde_json::Value, _> = serde_json::from_str(&seen);
    match json.ok().and_then(|json| json["origin"].as_str().map(str::to_owned)) {
        Some(origin) => Ok(origin),
        None => Err(seen),
    }
}

fn address(cluster: &Cluster, label: &str) -> String {
    cluster.kubectl(&["get", "pod", "-l", label, "-o", "jsonpath={.items[0].status.podIP}"])
}

/// A line of the access log of a pod's proxy; stock Envoy writes it every ten seconds.
fn log_line(cluster: &Cluster, pods: &[&str], words: &[&str]) {
    eventually(&format!("an access log of {pods:?} with {words:?}"), || {
        let log = cluster.kubectl(&[&["logs", "-c", "istio-proxy", "--tail", "-1"], pods].concat());
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(log) }
    });
}

fn head_of(table: &str) -> String {
    table.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lab_3_6_egress_gateway(cluster: &Cluster) {
    let services = cluster.kubectl(&["get", "svc", "-n", "istio-system"]);
    assert!(services.contains("istio-egressgateway"), "{services}");
    manual(cluster, "apply", "egressse.yaml");
    let sleep = address(cluster, "app=sleep");
    eventually("httpbin.org, straight", || match origin(cluster)? {
        seen if seen == NODE => Ok(()),
        seen => Err(seen),
    });
    let own = ["-l", "app=sleep"];
    log_line(cluster, &own, &["\"GET /ip HTTP/1.1\" 200 -", "\"httpbin.org\"", "outbound|80||httpbin.org"]);
    manual(cluster, "apply", "egressgw.yaml");
    manual(cluster, "apply", "egressvs.yaml");
    let through = format!("{sleep}, {NODE}");
    eventually("httpbin.org, through the gateway", || match origin(cluster)? {
        seen if seen == through => Ok(()),
        seen => Err(seen),
    });
    let first = "outbound|80|httpbin|istio-egressgateway.istio-system.svc.cluster.local";
    log_line(cluster, &own, &["\"GET /ip HTTP/1.1\" 200 -", "\"httpbin.org\"", first]);
    let gateway = ["-n", "istio-system", "-l", "istio=egressgateway"];
    log_line(cluster, &gateway, &["\"GET /ip HTTP/", "\"httpbin.org\"", "outbound|80||httpbin.org"]);
    for file in ["egressse.yaml", "egressgw.yaml", "egressvs.yaml"] {
        manual(cluster, "delete", file);
    }
}

fn lab_3_4_service_entry(cluster: &Cluster) {
    let headers = || inside(cluster, &[], "http://httpbin.org/headers");
    eventually("an unknown host, where any is allowed", || {
        let seen = headers();
        if seen.contains("\"Host\": \"httpbin.org\"") && seen.contains("\"X-Envoy-Attempt-Count\": \"1\"") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    let told =
        cluster.lateen(&["install", "--set", "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY", "-y"]);
    assert!(told.contains("Installation complete"), "{told}");
    let services = cluster.kubectl(&["get", "svc,deploy", "-n", "istio-system"]);
    assert!(!services.contains("istio-egressgateway"), "{services}");
    eventually("an unknown host, where only known ones are allowed", || {
        let seen = inside(cluster, &["-w", "%{http_code}"], "http://httpbin.org/headers");
        if seen == "502" { Ok(()) } else { Err(seen) }
    });
    manual(cluster, "apply", "serviceentry.yaml");
    let table = cluster.kubectl(&["get", "se"]);
    assert_eq!(head_of(&table), "NAME HOSTS LOCATION RESOLUTION AGE", "{table}");
    assert!(table.contains("[\"httpbin.org\"]") && table.contains("MESH_EXTERNAL"), "{table}");
    eventually("the host, once it is known", || match origin(cluster)? {
        seen if seen == NODE => Ok(()),
        seen => Err(seen),
    });
    manual(cluster, "delete", "serviceentry.yaml");
    eventually("the host, unknown again", || {
        let seen = inside(cluster, &["-w", "%{http_code}"], "http://httpbin.org/headers");
        if seen == "502" { Ok(()) } else { Err(seen) }
    });
    cluster.lateen(&["install", "--set", "profile=demo", "-y"]);
    eventually("any host is allowed again", || origin(cluster).map(drop));
    eventually("TLS with the outside, through the sidecar", || {
        let seen = inside(cluster, &["-k"], "https://httpbin.org/ip");
        if seen.contains("origin") { Ok(()) } else { Err(seen) }
    });
}

fn lab_3_5_ingress(cluster: &Cluster) {
    let ask = |path: &str, flags: &[&str]| cluster.get(path, flags);
    let named = ["-H", "Host:httpbin.example.com", "-I"];
    let until = |what: &str, status: u16, look: &dyn Fn() -> Answer| {
        eventually(what, || {
            let answer = look();
            if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}")) }
        })
    };
    manual(cluster, "apply", "ingressgateway.yaml");
    manual(cluster, "apply", "ingressvs.yaml");
    let answer = until("a path that is let in", 200, &|| ask("/status/200", &named));
    assert!(answer.head.to_lowercase().contains("server: istio-envoy"), "{answer:?}");
    assert_eq!(ask("/delay/2", &named).status, 200);
    assert_eq!(ask("/headers", &named).status, 404);
    assert_eq!(ask("/status/200", &["-I"]).status, 404, "another host");
    manual(cluster, "apply", "ingressgateway2.yaml");
    until("every host", 200, &|| ask("/headers", &[]));
    assert_eq!(ask("/status/200", &named).status, 404);
    let table = cluster.kubectl(&["get", "vs", "httpbin", "--no-headers"]);
    assert!(table.contains("[\"httpbin-gateway\"]") && table.contains("[\"*\"]"), "{table}");
    cluster.kubectl(&["delete", "gateway", "httpbin-gateway"]);
    cluster.kubectl(&["delete", "virtualservice", "httpbin"]);
    // Without a Gateway nobody listens.
    until("nobody is let in", 0, &|| ask("/headers", &[]));
}

/// How many calls of a fortio run ended with a status.
fn count(report: &str, status: u16) -> u64 {
    let prefix = format!("Code {status} : ");
    let line = report.lines().find_map(|line| line.strip_prefix(&prefix));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn lab_4_2_circuit_breaker(cluster: &Cluster) {
    manual(cluster, "apply", "circuitbreaking.yaml");
    cluster.apply_sample("httpbin/sample-client/fortio-deploy.yaml");
    rollout(cluster, "fortio-deploy");
    let fortio = |args: &[&str]| {
        let exec = ["exec", "deploy/fortio-deploy", "-c", "fortio", "--", "/usr/bin/fortio", "load"];
        let output = cluster.try_kubectl(&[&exec[..], args, &["http://httpbin:8000/get"]].concat(), "");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    eventually("one call", || {
        let seen = fortio(&["-curl"]);
        if seen.contains("200 OK") && seen.contains("\"Host\": \"httpbin:8000\"") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    let stats = || {
        let args = ["exec", "deploy/fortio-deploy", "-c", "istio-proxy", "--"];
        let text = cluster.kubectl(&[&args[..], &["pilot-agent", "request", "GET", "stats"]].concat());
        move |name: &str| {
            // Istio ends the cluster's name in a statistic with a semicolon.
            let prefix = format!("cluster.outbound|8000||httpbin.default.svc.cluster.local;.{name}: ");
            let value = text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned);
            value.unwrap_or_else(|| panic!("no {name}")).parse::<u64>().unwrap()
        }
    };
    let mut refused = 0;
    for (connections, calls) in [("2", 20), ("3", 30)] {
        // Two callers find the breaker open only where they meet: the run is repeated until they have.
        eventually(&format!("{connections} callers: some get through, some do not"), || {
            let before = stats()("upstream_rq_pending_overflow");
            let n = calls.to_string();
            let seen = fortio(&["-c", connections, "-qps", "0", "-n", &n, "-loglevel", "Warning"]);
            let (good, bad) = (count(&seen, 200), count(&seen, 503));
            assert_eq!(good + bad, calls, "{seen}");
            let after = stats()("upstream_rq_pending_overflow");
            assert_eq!(after - before, bad, "every 503 is an overflow: {seen}");
            refused += bad;
            if good > 0 && bad > 0 { Ok(()) } else { Err(seen) }
        });
    }
    let now = stats();
    assert_eq!(now("upstream_rq_pending_overflow"), refused);
    assert!(now("upstream_rq_pending_total") > 0);
    assert_eq!(now("circuit_breakers.default.remaining_pending"), 1);
    for idle in ["circuit_breakers.default.rq_pending_open", "upstream_rq_pending_active"] {
        assert_eq!(now(idle), 0, "{idle}");
    }
    log_line(
        cluster,
        &["-l", "app=fortio"],
        &["503 UO upstream_reset_before_response_started{overflow}", "outbound|8000||httpbin.default"],
    );
    cluster.kubectl(&["delete", "destinationrule", "httpbin"]);
    cluster.kubectl(&["delete", "deploy", "httpbin", "fortio-deploy"]);
    cluster.kubectl(&["delete", "svc", "httpbin", "fortio"]);
}

fn lab_5_2_mirror(cluster: &Cluster) {
    for file in ["httpbin-v1.yaml", "httpbin-v2.yaml", "httpbinsvc.yaml", "httpbinvs.yaml"] {
        manual(cluster, "apply", file);
    }
    rollout(cluster, "httpbin-v1");
    rollout(cluster, "httpbin-v2");
    // Lines of calls to a path in a version's log.
    let calls = |version: &str, path: &str| {
        let log =
            cluster.kubectl(&["logs", &format!("deploy/httpbin-{version}"), "-c", "httpbin", "--tail", "-1"]);
        log.lines().filter(|line| line.contains(&format!("\"GET {path} HTTP/1.1\" 200"))).count()
    };
    eventually("version 1", || {
        let seen = inside(cluster, &[], "http://httpbin:8000/headers");
        if seen.contains("\"Host\": \"httpbin:8000\"") { Ok(()) } else { Err(seen) }
    });
    for _ in 0..10 {
        inside(cluster, &[], "http://httpbin:8000/headers?alone");
    }
    assert_eq!((calls("v1", "/headers?alone"), calls("v2", "/headers?alone")), (10, 0));
    manual(cluster, "apply", "mirror.yaml");
    eventually("a copy of a call", || {
        inside(cluster, &[], "http://httpbin:8000/headers?first");
        if calls("v2", "/headers?first") > 0 { Ok(()) } else { Err("version 2 was not called".into()) }
    });
    for _ in 0..10 {
        let seen = inside(cluster, &[], "http://httpbin:8000/headers?both");
        assert!(seen.contains("\"Host\": \"httpbin:8000\""), "version 1 answers: {seen}");
    }
    assert_eq!(calls("v1", "/headers?both"), 10);
    eventually("a copy of every call", || match calls("v2", "/headers?both") {
        10 => Ok(()),
        other => Err(format!("{other} of 10")),
    });
    cluster.kubectl(&["delete", "virtualservice", "httpbin"]);
    cluster.kubectl(&["delete", "destinationrule", "httpbin"]);
    cluster.kubectl(&["delete", "deploy", "httpbin-v1", "httpbin-v2"]);
    cluster.kubectl(&["delete", "svc", "httpbin"]);
}

/// Lab 8 as written: the issuer's keys are fetched from an address.
fn lab_8_fetched_keys(cluster: &Cluster) {
    const OLD: &str = "https://raw.githubusercontent.com/istio/istio/release-1.5/security/tools/jwt/samples";
    cluster.apply_sample("httpbin/httpbin.yaml");
    rollout(cluster, "httpbin");
    cluster.apply(&format!(
        "apiVersion: security.istio.io/v1beta1\nkind: RequestAuthentication\nmetadata: {{name: jwt-example}}\nspec:\n  \
         selector: {{matchLabels: {{app: httpbin}}}}\n  jwtRules:\n  - issuer: testing@secure.istio.io\n    \
         jwksUri: {OLD}/jwks.json\n"
    ));
    // The token as the lab gets it; the host's own curl has to be told where the outside is.
    let node = cluster.gateway().split('.').take(2).collect::<Vec<_>>().join(".");
    let resolve = format!("raw.githubusercontent.com:443:{node}.254.2");
    let root = cluster.state().join("outside/root.pem");
    let token =
        curl(&format!("{OLD}/demo.jwt"), &["--resolve", &resolve, "--cacert", root.to_str().unwrap()]);
    assert_eq!(token.status, 200, "{token:?}");
    let asks = |what: &str, token: &str, wanted: &str| {
        let bearer = format!("Authorization: Bearer {token}");
        eventually(what, || {
            let flags = ["-o", "/dev/null", "-w", "%{http_code}", "-H", bearer.as_str()];
            let code = inside(cluster, &flags, "http://httpbin:8000/headers");
            if code == wanted { Ok(()) } else { Err(code) }
        });
    };
    asks("a good token", token.body.trim(), "200");
    asks("a token that is none", "invalidToken", "401");
    asks("the good token once more", token.body.trim(), "200");
    cluster.kubectl(&["delete", "requestauthentication", "jwt-example"]);
}

fn lab_4_1_retries(cluster: &Cluster) {
    cluster.apply_sample("bookinfo/platform/kube/bookinfo.yaml");
    cluster.apply_sample("bookinfo/networking/bookinfo-gateway.yaml");
    cluster.apply_sample("bookinfo/networking/destination-rule-all.yaml");
    cluster.apply_sample("bookinfo/networking/virtual-service-all-v1.yaml");
    for name in ["productpage-v1", "reviews-v2", "ratings-v1", "details-v1"] {
        rollout(cluster, name);
    }
    cluster.apply(
        "{\"apiVersion\":\"networking.istio.io/v1alpha3\",\"kind\":\"VirtualService\",\"metadata\":{\"name\":\"ratings\"},\
         \"spec\":{\"hosts\":[\"ratings\"],\"http\":[{\"fault\":{\"delay\":{\"percent\":100,\"fixedDelay\":\"2s\"}},\
         \"route\":[{\"destination\":{\"host\":\"ratings\",\"subset\":\"v1\"}}]}]}}",
    );
    manual(cluster, "apply", "retry.yaml");
    let asked = || {
        let log = cluster.kubectl(&["logs", "-l", "app=ratings", "-c", "ratings", "--tail", "-1"]);
        log.lines().filter(|line| line.contains("GET /ratings/0")).count()
    };
    eventually("the page without reviews", || {
        let page = cluster.get("/productpage", &[]);
        if page.body.contains("Sorry, product reviews are currently unavailable") {
            Ok(())
        } else {
            Err(format!("{page:?}"))
        }
    });
    // What earlier pages have started is over when the number stays.
    let (mut before, mut looks) = (asked(), 0);
    eventually("calm", || {
        let now = asked();
        looks = if now == before { looks + 1 } else { 0 };
        before = now;
        if looks == 30 { Ok(()) } else { Err(now.to_string()) }
    });
    cluster.get("/productpage", &[]);
    eventually("ratings are asked twice for one page", || match asked().saturating_sub(before) {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
}
