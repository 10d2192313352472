//! What compiled resources decide, from the JSON that a control plane would send.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_proto::envoy::config::{cluster, listener as listener_proto, route as route_proto};
use lateen_proto::json::from_value;
use lateen_route::explain::{Answer, Call, Failure, World};
use lateen_route::request::{ConnectionView, RequestView, Transport};
use lateen_route::routes::{Action, Forward, RouteTable};
use lateen_route::{CompileError, Entropy, Listener, compile_cluster, compile_listener, compile_routes};
use serde_json::{Value, json};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

fn tcp(cluster: &str) -> Value {
    json!({"name": "tcp", "typedConfig": {"@type": TCP, "statPrefix": "t", "cluster": cluster}})
}

fn router() -> Value {
    json!({"name": "envoy.filters.http.router", "typedConfig": {"@type": ROUTER}})
}

fn manager(routes: Value) -> Value {
    let mut config = json!({"@type": HCM, "statPrefix": "h", "httpFilters": [router()]});
    config.as_object_mut().unwrap().extend(routes.as_object().unwrap().clone());
    json!({"name": "hcm", "typedConfig": config})
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socketAddress": {"address": ip, "portValue": port}})
}

fn chain(name: &str, matches: Value, filter: Value) -> Value {
    json!({"name": name, "filterChainMatch": matches, "filters": [filter]})
}

fn mtls(mut chain: Value) -> Value {
    let tls = json!({"@type": DOWNSTREAM, "requireClientCertificate": true, "commonTlsContext": {
        "tlsCertificateSdsSecretConfigs": [{"name": "default", "sdsConfig": {"ads": {}}}]}});
    chain["transportSocket"] = json!({"name": "envoy.transport_sockets.tls", "typedConfig": tls});
    chain
}

fn listener_of(value: Value) -> Result<Listener, CompileError> {
    compile_listener(&from_value(&value).unwrap()).map(|compiled| compiled.value)
}

fn with_chains(chains: Value) -> Result<Listener, CompileError> {
    listener_of(json!({"name": "l", "address": address("0.0.0.0", 80), "filterChains": chains,
        "defaultFilterChain": chain("default", json!({}), tcp("default"))}))
}

fn taken<'l>(listener: &'l Listener, connection: &ConnectionView<'_>) -> &'l str {
    &listener.filter_chain(connection, &mut ()).unwrap().name
}

fn to(address: &str) -> ConnectionView<'static> {
    let destination: SocketAddr = address.parse().unwrap();
    let source: SocketAddr = "10.9.9.9:4000".parse().unwrap();
    ConnectionView { destination, source, direct_source: source, ..ConnectionView::default() }
}

#[test]
fn filter_chains_match_in_envoys_order() {
    let listener = with_chains(json!([
        chain("port", json!({"destinationPort": 9080, "transportProtocol": "tls"}), tcp("a")),
        chain("wide", json!({"prefixRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]}), tcp("a")),
        chain("narrow", json!({"prefixRanges": [{"addressPrefix": "10.1.0.0", "prefixLen": 16}]}), tcp("a")),
        chain("exact", json!({"serverNames": ["a.b.example.com"]}), tcp("a")),
        chain("wildcard", json!({"serverNames": ["*.example.com"]}), tcp("a")),
        chain("longer", json!({"serverNames": ["*.b.example.com"]}), tcp("a")),
        chain("h2", json!({"applicationProtocols": ["h2c"]}), tcp("a")),
        chain("h1", json!({"applicationProtocols": ["http/1.1"]}), tcp("a")),
        chain("tls", json!({"transportProtocol": "tls"}), tcp("a")),
    ]))
    .unwrap();
    let tls = |address: &str, name: &'static str| ConnectionView {
        transport: Transport::Tls,
        server_name: Some(name),
        ..to(address)
    };
    let protocols =
        |list: &'static [&'static [u8]]| ConnectionView { application_protocols: list, ..to("1.2.3.4:80") };
    for (wanted, connection) in [
        ("port", tls("10.1.2.3:9080", "a.b.example.com")),
        // The port decides first: no way back to chains without a port.
        ("default", to("10.1.2.3:9080")),
        ("narrow", to("10.1.2.3:80")),
        ("wide", to("10.2.2.3:80")),
        ("exact", tls("1.2.3.4:80", "a.b.example.com")),
        ("longer", tls("1.2.3.4:80", "c.b.example.com")),
        ("wildcard", tls("1.2.3.4:80", "c.example.com")),
        ("tls", tls("1.2.3.4:80", "example.com")),
        ("h1", protocols(&[b"http/1.1", b"h2c"])),
        ("h2", protocols(&[b"h2c"])),
        ("default", to("1.2.3.4:80")),
    ] {
        assert_eq!(taken(&listener, &connection), wanted, "{connection:?}");
    }
}

#[test]
fn chains_that_both_match_are_refused() {
    let error = with_chains(json!([
        chain("one", json!({"applicationProtocols": ["a", "b"]}), tcp("a")),
        chain("two", json!({"applicationProtocols": ["b", "c"]}), tcp("a")),
    ]))
    .unwrap_err();
    assert_eq!(error.path, "filter_chains");
    assert!(error.reason.contains("\"one\" and \"two\""), "{error}");
}

#[test]
fn refusals_name_resource_field_and_reason() {
    let error = with_chains(json!([chain(
        "c",
        json!({}),
        json!({"name": "x", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy"}})
    )]))
    .unwrap_err();
    assert_eq!(error.resource, "l");
    assert_eq!(error.path, "filter_chains[0].filters[0].typed_config");
    assert!(error.reason.contains("RedisProxy is not supported"), "{error}");

    let error =
        compile_cluster(&from_value(&json!({"name": "c", "lbSubsetConfig": {}, "type": "STATIC"})).unwrap())
            .unwrap_err();
    assert_eq!(error.path, "lb_subset_config");
}

#[test]
fn fields_without_effect_are_noted() {
    let compiled = compile_cluster(
        &from_value(
            &json!({"name": "c", "type": "EDS", "edsClusterConfig": {}, "trackTimeoutBudgets": true}),
        )
        .unwrap(),
    )
    .unwrap();
    assert_eq!(compiled.notes.len(), 1);
    assert_eq!(compiled.notes[0].path, "track_timeout_budgets");
}

fn routes_of(value: Value) -> Result<RouteTable, CompileError> {
    compile_routes(&from_value::<route_proto::v3::RouteConfiguration>(&value).unwrap()).map(|c| c.value)
}

/// One virtual host for everything.
fn routes(list: Value) -> RouteTable {
    routes_of(json!({"name": "r", "virtualHosts": [{"name": "v", "domains": ["*"], "routes": list}]}))
        .unwrap()
}

fn to_cluster(name: &str, matches: Value) -> Value {
    json!({"name": name, "match": matches, "route": {"cluster": name}})
}

struct Asked<'a> {
    authority: &'a str,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

/// The name of the route, and what `see` says of it.
fn ask<T>(
    table: &RouteTable,
    asked: &Asked<'_>,
    see: impl FnOnce(&Action, &RequestView<'_>) -> T,
) -> Option<(String, T)> {
    let mut headers = HeaderMap::new();
    for (name, value) in asked.headers {
        headers
            .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let connection = ConnectionView::default();
    let request = RequestView {
        method: "GET",
        scheme: "http",
        authority: asked.authority,
        path: asked.path,
        headers: &headers,
        connection: &connection,
        metadata: None,
        remote: None,
    };
    let route = table.route(&request, false, Entropy(1), &mut ())?.route?;
    Some((route.name.to_string(), see(&route.action, &request)))
}

fn named(table: &RouteTable, path: &str, headers: &[(&str, &str)]) -> Option<String> {
    ask(table, &Asked { authority: "h", path, headers }, |_, _| ()).map(|(name, ())| name)
}

#[test]
fn hosts_find_their_virtual_host() {
    let host = |name: &str, domains: Value| json!({"name": name, "domains": domains, "routes": [to_cluster(name, json!({"prefix": "/"}))]});
    let hosts = json!([
        host("exact", json!(["a.example.com"])),
        host("suffix", json!(["*.example.com"])),
        host("longer", json!(["*.b.example.com"])),
        host("prefix", json!(["reviews.*"])),
        host("any", json!(["*"])),
    ]);
    let strict = routes_of(json!({"name": "r", "virtualHosts": hosts})).unwrap();
    let lenient =
        routes_of(json!({"name": "r", "virtualHosts": hosts, "ignorePortInHostMatching": true})).unwrap();
    let found = |table: &RouteTable, authority: &str| table.virtual_host(authority).unwrap().name.to_string();
    for (authority, wanted) in [
        ("a.example.com", "exact"),
        ("A.Example.COM", "exact"),
        ("b.example.com", "suffix"),
        ("x.b.example.com", "longer"),
        (".example.com", "any"),
        ("reviews.default", "prefix"),
        ("a.example.com:80", "any"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(found(&strict, authority), wanted, "{authority}");
    }
    assert_eq!(found(&lenient, "a.example.com:8080"), "exact");
    let twice = json!([host("one", json!(["a"])), host("two", json!(["A"]))]);
    assert!(routes_of(json!({"name": "r", "virtualHosts": twice})).unwrap_err().reason.contains("\"A\""));
}

#[test]
fn paths_match_without_their_query() {
    let table = routes(json!([
        to_cluster("exact", json!({"path": "/a"})),
        to_cluster("segments", json!({"pathSeparatedPrefix": "/api"})),
        to_cluster("regex", json!({"safeRegex": {"regex": "/v[0-9]+/.*"}})),
        to_cluster("nocase", json!({"prefix": "/CASE", "caseSensitive": false})),
        to_cluster("prefix", json!({"prefix": "/p"})),
    ]));
    for (path, wanted) in [
        ("/a?x=1", Some("exact")),
        ("/ab", None),
        ("/api", Some("segments")),
        ("/api/x", Some("segments")),
        ("/apix", None),
        ("/v1/x?y", Some("regex")),
        ("/xv1/x", None),
        ("/case/1", Some("nocase")),
        ("/pq", Some("prefix")),
        ("/q?/p", None),
    ] {
        assert_eq!(named(&table, path, &[]).as_deref(), wanted, "{path}");
    }
}

#[test]
fn headers_and_queries_are_conditions() {
    let header = |rest: Value| {
        let mut matcher = json!({"name": "end-user"});
        matcher.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({"prefix": "/", "headers": [matcher]})
    };
    let table = routes(json!([
        to_cluster("jason", header(json!({"stringMatch": {"exact": "jason"}}))),
        to_cluster("any", header(json!({"stringMatch": {"exact": "b"}}))),
        to_cluster("range", header(json!({"rangeMatch": {"start": "3", "end": "5"}}))),
        to_cluster(
            "query",
            json!({"prefix": "/", "queryParameters": [{"name": "v", "stringMatch": {"exact": "2"}}]})
        ),
        to_cluster("not", header(json!({"stringMatch": {"exact": "x"}, "invertMatch": true}))),
        to_cluster(
            "empty",
            header(
                json!({"stringMatch": {"exact": "x"}, "invertMatch": true, "treatMissingHeaderAsEmpty": true})
            )
        ),
    ]));
    for (path, headers, wanted) in [
        ("/", &[("end-user", "jason")][..], "jason"),
        ("/", &[("end-user", "a"), ("end-user", "b")], "any"),
        ("/", &[("end-user", "4")], "range"),
        ("/?a=1&v=2", &[("end-user", "5")], "query"),
        ("/", &[("end-user", "5")], "not"),
        // An inverted test of a missing header fails all the same, unless missing counts as empty.
        ("/", &[], "empty"),
    ] {
        assert_eq!(named(&table, path, headers).as_deref(), Some(wanted), "{path} {headers:?}");
    }
    assert_eq!(named(&table, "/", &[("end-user", "x")]), None);
}

fn forward<T>(table: &RouteTable, path: &str, see: impl FnOnce(&Forward, &RequestView<'_>) -> T) -> T {
    let asked = Asked { authority: "h:80", path, headers: &[] };
    ask(table, &asked, |action, request| match action {
        Action::Forward(forward) => see(forward, request),
        other => panic!("{other:?}"),
    })
    .unwrap()
    .1
}

#[test]
fn weights_split_requests() {
    let table = routes(json!([{"match": {"prefix": "/"}, "route": {"weightedClusters": {"clusters": [
        {"name": "v1", "weight": 80}, {"name": "v3", "weight": 20}]}}}]));
    let v1 = forward(&table, "/", |forward, request| {
        let picks = (0..10_000).filter_map(|n| forward.destination.pick(request, Entropy(n)));
        picks.filter(|pick| pick.name == "v1").count()
    });
    assert!((7_700..8_300).contains(&v1), "{v1}");
}

#[test]
fn rewrites_keep_the_query() {
    let table = routes(json!([
        {"match": {"prefix": "/old/"}, "route": {"cluster": "c", "prefixRewrite": "/new/"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "c", "regexRewrite": {
            "pattern": {"regex": "^/x/([^/]+)"}, "substitution": "/\\1/y"}}},
    ]));
    for (path, wanted) in [("/old/a?b=/old/", "/new/a?b=/old/"), ("/x/a/b?c", "/a/y/b?c")] {
        let new =
            forward(&table, path, |forward, request| forward.path_rewrite.as_ref().unwrap().apply(request));
        assert_eq!(new, wanted);
    }
}

#[test]
fn redirects_say_where_to() {
    let table = routes(json!([
        {"match": {"prefix": "/tls"}, "redirect": {"httpsRedirect": true}},
        {"match": {"prefix": "/port"}, "redirect": {"portRedirect": 8443, "responseCode": "FOUND"}},
        {"match": {"prefix": "/a"}, "redirect": {"hostRedirect": "b", "prefixRewrite": "/c"}},
        {"match": {"prefix": "/whole"}, "redirect": {"pathRedirect": "/x", "stripQuery": true}},
    ]));
    for (path, wanted) in [
        ("/tls?q", "301 https://h/tls?q"),
        ("/port", "302 http://h:8443/port"),
        ("/ab?q", "301 http://b/cb?q"),
        ("/whole?q", "301 http://h:80/x"),
    ] {
        let asked = Asked { authority: "h:80", path, headers: &[] };
        let (_, got) = ask(&table, &asked, |action, request| match action {
            Action::Redirect(redirect) => format!("{} {}", redirect.status, redirect.location(request)),
            other => panic!("{other:?}"),
        })
        .unwrap();
        assert_eq!(got, wanted);
    }
}

/// A sidecar: captured both ways, one service on port 80 outbound, one on 81 inbound with automatic mTLS.
fn sidecar() -> World {
    let inspectors = json!([
        {"name": "tls", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}},
        {"name": "http", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}]);
    let mut captured = vec![
        json!({"name": "original", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}}),
    ];
    captured.extend(inspectors.as_array().unwrap().clone());
    let inline = json!({"routeConfig": {"name": "inbound|81||", "virtualHosts": [{"name": "inbound|http|81",
        "domains": ["*"], "routes": [to_cluster("inbound|81||", json!({"prefix": "/"}))]}]}});
    let istio = json!(["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"]);
    let listeners = [
        json!({"name": "virtualOutbound", "address": address("0.0.0.0", 15001), "useOriginalDst": true,
            "trafficDirection": "OUTBOUND",
            "filterChains": [chain("virtualOutbound-catchall-tcp", json!({}), tcp("PassthroughCluster"))]}),
        json!({"name": "0.0.0.0_80", "address": address("0.0.0.0", 80), "bindToPort": false,
            "trafficDirection": "OUTBOUND", "listenerFilters": inspectors, "filterChains": [chain("http",
                json!({"transportProtocol": "raw_buffer", "applicationProtocols": ["http/1.1", "h2c"]}),
                manager(json!({"rds": {"routeConfigName": "80", "configSource": {"ads": {}}}})))],
            "defaultFilterChain": chain("PassthroughFilterChain", json!({}), tcp("PassthroughCluster"))}),
        json!({"name": "virtualInbound", "address": address("0.0.0.0", 15006), "trafficDirection": "INBOUND",
        "listenerFilters": captured, "filterChains": [
            mtls(chain("0.0.0.0_81", json!({"destinationPort": 81, "transportProtocol": "tls",
                "applicationProtocols": istio}), manager(inline.clone()))),
            chain("0.0.0.0_81-plain", json!({"destinationPort": 81, "transportProtocol": "raw_buffer"}), manager(inline)),
            chain("virtualInbound", json!({"transportProtocol": "raw_buffer"}), tcp("InboundPassthroughCluster")),
        ]}),
    ];
    let table = json!({"name": "80", "ignorePortInHostMatching": true, "virtualHosts": [
        {"name": "reviews:80", "domains": ["reviews"], "routes": [
            to_cluster("v2", json!({"prefix": "/", "headers": [{"name": "end-user", "stringMatch": {"exact": "jason"}}]})),
            to_cluster("v1", json!({"prefix": "/"}))]},
        {"name": "secure", "domains": ["secure"], "requireTls": "ALL"},
        {"name": "nothing", "domains": ["nothing"]}]});
    let cluster = json!({"name": "v1", "type": "STATIC", "loadAssignment": {"clusterName": "v1", "endpoints": [
        {"lbEndpoints": [{"endpoint": {"address": address("10.0.0.1", 9080)}}]}]}});
    let listeners: Vec<listener_proto::v3::Listener> =
        listeners.iter().map(|l| from_value(l).unwrap()).collect();
    let table: route_proto::v3::RouteConfiguration = from_value(&table).unwrap();
    let cluster: cluster::v3::Cluster = from_value(&cluster).unwrap();
    let world = World::compile(&listeners, &[table], &[cluster], &[]);
    assert_eq!(world.refused, []);
    world
}

fn explain(call: Value) -> Answer {
    let call: Call = serde_json::from_value(call).unwrap();
    sidecar().explain(&call, IpAddr::from([1, 1, 1, 1]), false)
}

#[test]
fn an_outbound_call_meets_its_route() {
    let answer = explain(json!({"port": 80, "hostHeader": "reviews", "protocol": "http"}));
    assert_eq!(answer.listener_matched.as_deref(), Some("0.0.0.0_80"));
    assert_eq!(answer.route_config_matched.as_deref(), Some("80"));
    assert_eq!(answer.virtual_host_matched.as_deref(), Some("reviews:80"));
    assert_eq!(answer.cluster_matched.as_deref(), Some("v1"));
    assert!(answer.why.iter().any(|step| step.contains("10.0.0.1:9080")), "{:#?}", answer.why);
    let jason =
        json!({"port": 80, "hostHeader": "reviews", "protocol": "http", "headers": {"end-user": "jason"}});
    assert_eq!(explain(jason).cluster_matched.as_deref(), Some("v2"));
}

#[test]
fn failures_have_their_names() {
    for (call, failure) in [
        (json!({"port": 80, "hostHeader": "other", "protocol": "http"}), Some(Failure::NoVirtualHost)),
        (json!({"port": 80, "hostHeader": "nothing", "protocol": "http"}), Some(Failure::NoRoute)),
        (json!({"port": 80, "hostHeader": "secure", "protocol": "http"}), Some(Failure::TlsRedirect)),
        (json!({"port": 81, "protocol": "tcp", "callMode": "inbound"}), Some(Failure::ProtocolError)),
        (
            json!({"port": 81, "protocol": "http", "tls": "tls", "callMode": "inbound"}),
            Some(Failure::NoFilterChain),
        ),
        (
            json!({"port": 81, "protocol": "http", "tls": "mtls", "callMode": "inbound", "mtlsSecretConfigName": "x"}),
            Some(Failure::MtlsError),
        ),
        (json!({"port": 81, "protocol": "http", "tls": "mtls", "callMode": "inbound"}), None),
        (json!({"port": 81, "protocol": "http", "callMode": "inbound"}), None),
        (json!({"port": 99, "protocol": "http", "callMode": "gateway"}), Some(Failure::NoListener)),
    ] {
        let answer = explain(call.clone());
        assert_eq!(answer.error, failure, "{call}: {:#?}", answer.why);
    }
    assert_eq!(serde_json::to_value(Failure::MtlsError).unwrap(), json!("mtls-error"));
}

#[test]
fn what_no_listener_is_for_passes_through() {
    let answer = explain(json!({"port": 5432, "protocol": "tcp"}));
    assert_eq!(answer.cluster_matched.as_deref(), Some("PassthroughCluster"));
    let tls = explain(json!({"port": 80, "hostHeader": "reviews", "protocol": "http", "tls": "tls"}));
    assert_eq!(tls.filter_chain_matched.as_deref(), Some("PassthroughFilterChain"));
    assert_eq!(tls.tls.unwrap().downstream, "passthrough");
}

/// Valid resources on the wire, to be spoiled.
fn wire() -> Vec<Vec<u8>> {
    use lateen_proto::Message;
    let listener: listener_proto::v3::Listener = from_value(&json!({"name": "l", "address": address("0.0.0.0", 80),
        "filterChains": [mtls(chain("c", json!({"serverNames": ["*.a"], "prefixRanges": [{"addressPrefix": "::1", "prefixLen": 128}]}),
            manager(json!({"routeConfig": {"name": "r", "virtualHosts": [{"name": "v", "domains": ["*.b", "c*"], "routes": [
                to_cluster("r", json!({"safeRegex": {"regex": "/(a|b)+"}}))]}]}}))))]}))
    .unwrap();
    let cluster: cluster::v3::Cluster =
        from_value(&json!({"name": "c", "lbPolicy": "MAGLEV", "loadAssignment": {
        "clusterName": "c", "endpoints": [{"priority": 1, "lbEndpoints": [
            {"endpoint": {"address": address("10.0.0.1", 1)}, "loadBalancingWeight": 3}]}]}}))
        .unwrap();
    vec![listener.encode_to_vec(), cluster.encode_to_vec()]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 512, ..Default::default() })]

    /// What does not decode is the caller's to refuse; what does is compiled or refused, never a panic.
    #[test]
    fn spoiled_resources_are_no_panic(
        edits in proptest::collection::vec((0usize..2000, proptest::num::u8::ANY), 0..6),
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..64),
    ) {
        use lateen_proto::Message;
        let mut inputs = wire();
        for bytes in &mut inputs {
            for (at, byte) in &edits {
                let at = at % bytes.len();
                bytes[at] = *byte;
            }
        }
        inputs.push(noise);
        for bytes in inputs {
            let bytes = &bytes[..];
            let _ = listener_proto::v3::Listener::decode(bytes).map(|m| compile_listener(&m).is_ok());
            let _ = route_proto::v3::RouteConfiguration::decode(bytes).map(|m| compile_routes(&m).is_ok());
            let _ = cluster::v3::Cluster::decode(bytes).map(|m| compile_cluster(&m).is_ok());
        }
    }
}

#[test]
fn a_denial_names_the_policy_and_the_nearest_one() {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let allows = |method: &str, path: &str| {
        json!({"permissions": [{"andRules": {"rules": [
            {"header": {"name": ":method", "stringMatch": {"exact": method}}},
            {"urlPath": {"path": {"prefix": path}}}]}}], "principals": [{"any": true}]})
    };
    let policies = json!({"ns[a]-policy[far]-rule[0]": allows("PUT", "/far"),
        "ns[a]-policy[near]-rule[0]": allows("GET", "/near")});
    let tried = json!({"action": "DENY", "policies": {"ns[a]-policy[trial]-rule[0]": allows("GET", "/")}});
    let filter = json!({"name": "rbac", "typedConfig": {"@type": RBAC, "rules": {"policies": policies},
        "shadowRules": tried, "shadowRulesStatPrefix": "istio_dry_run_deny_"}});
    let routes = json!({"name": "r", "virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "directResponse": {"status": 204}}]}]});
    let mut manager = manager(json!({"routeConfig": routes}));
    manager["typedConfig"]["httpFilters"] = json!([filter, router()]);
    let listener = json!({"name": "l", "address": address("1.1.1.1", 80), "trafficDirection": "INBOUND",
        "filterChains": [chain("c", json!({}), manager)]});
    let world = World::compile(&[from_value(&listener).unwrap()], &[], &[], &[]);
    assert_eq!(world.refused, []);
    let ask = |path: &str| {
        let call = json!({"port": 80, "path": path, "protocol": "http", "callMode": "inbound"});
        world.explain(&serde_json::from_value(call).unwrap(), IpAddr::from([1, 1, 1, 1]), false)
    };
    let answer = ask("/other");
    assert_eq!(answer.response.unwrap().status, 403);
    for step in [
        "on trial: policy ns[a]-policy[trial]-rule[0] matches",
        "no policy allows it: it is denied",
        "nearest is policy ns[a]-policy[near]-rule[0], which wants path starts with \"/near\"",
        "the log says rbac_access_denied_matched_policy[none]",
    ] {
        assert!(answer.why.iter().any(|why| why == step), "{step}: {:#?}", answer.why);
    }
    assert_eq!(ask("/near/x").response.unwrap().status, 204);
}

/// A proxy whose inbound requests may bring tokens of `issuer.test`, and its issuer's key.
fn with_tokens() -> (World, aws_lc_rs::signature::EcdsaKeyPair) {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::Engine as _;
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let point = key.public_key().as_ref();
    let jwk =
        json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": text(&point[1..33]), "y": text(&point[33..])});
    let jwks = json!({"keys": [jwk]}).to_string();
    let mut manager = manager(
        json!({"routeConfig": {"name": "in", "virtualHosts": [{"name": "in", "domains": ["*"],
        "routes": [to_cluster("v2", json!({"prefix": "/", "headers": [{"name": "x-sub", "stringMatch": {"exact": "jane"}}]})),
                   to_cluster("v1", json!({"prefix": "/"}))]}]}}),
    );
    let filters = manager["typedConfig"]["httpFilters"].as_array_mut().unwrap();
    filters.insert(0, json!({"name": "jwt", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"p": {"issuer": "issuer.test", "payloadInMetadata": "payload", "localJwks": {"inlineString": jwks},
            "claimToHeaders": [{"headerName": "x-sub", "claimName": "sub"}]}},
        "rules": [{"match": {"prefix": "/"},
            "requires": {"requiresAny": {"requirements": [{"providerName": "p"}, {"allowMissing": {}}]}}}]}}));
    let listener = json!({"name": "in", "address": address("0.0.0.0", 81), "trafficDirection": "INBOUND",
        "filterChains": [chain("in", json!({}), manager)]});
    let listener: listener_proto::v3::Listener = from_value(&listener).unwrap();
    let world = World::compile(&[listener], &[], &[], &[]);
    assert_eq!(world.refused, []);
    (world, key)
}

#[test]
fn a_calls_token_is_judged_as_the_proxy_does() {
    use base64::Engine as _;
    let (world, key) = with_tokens();
    let text = |json: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    let token = |claims: Value| {
        let signed = format!("{}.{}", text(json!({"alg": "ES256", "kid": "k"})), text(claims));
        let random = aws_lc_rs::rand::SystemRandom::new();
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        let signature = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(signature);
        format!("Bearer {signed}.{signature}")
    };
    let call = |authorization: &str| {
        let call = json!({"port": 81, "protocol": "http", "callMode": "inbound", "now": 1_800_000_000,
            "headers": {"authorization": authorization}});
        world.explain(&serde_json::from_value(call).unwrap(), IpAddr::from([1, 1, 1, 1]), false)
    };
    let good = call(&token(json!({"iss": "issuer.test", "sub": "jane", "exp": 1_800_000_100})));
    assert_eq!(
        good.cluster_matched.as_deref(),
        Some("v2"),
        "by a header that the token sets: {:#?}",
        good.why
    );
    assert!(good.why.iter().any(|step| step.contains("issuer.test/jane")), "{:#?}", good.why);
    for (claims, words) in [
        (json!({"iss": "issuer.test", "sub": "jane", "exp": 1_700_000_000}), "Jwt is expired"),
        (json!({"iss": "other.test", "sub": "jane"}), "Jwt issuer is not configured"),
    ] {
        let refused = call(&token(claims));
        assert_eq!(refused.response.as_ref().map(|response| response.status), Some(401), "{refused:?}");
        assert!(refused.why.iter().any(|step| step.contains(words)), "{:#?}", refused.why);
    }
    let without = call("Basic x");
    assert_eq!(without.cluster_matched.as_deref(), Some("v1"));
}
