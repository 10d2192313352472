use super::*;

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// One of everything that is fetched by reference.
fn dump(cluster: &str) -> Value {
    let ads = json!({"ads": {}, "resourceApiVersion": "V3"});
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "commonTlsContext": {
            "tlsCertificateSdsSecretConfigs": [{"name": "default", "sdsConfig": ads}],
            "combinedValidationContext": {"defaultValidationContext": {},
                "validationContextSdsSecretConfig": {"name": "ROOTCA", "sdsConfig": ads}}}});
    let manager = json!({"@type": HCM, "statPrefix": "h", "rds": {"routeConfigName": "80", "configSource": ads},
        "httpFilters": [{"name": "envoy.filters.http.router",
            "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
    json!({
        "listeners": [{"name": "l", "address": {"socketAddress": {"address": "127.0.0.1", "portValue": 0}},
            "filterChains": [
                {"filterChainMatch": {"transportProtocol": "raw_buffer"}, "filters": [{"name": "h", "typedConfig": manager}]},
                {"filterChainMatch": {"transportProtocol": "tls"}, "filters": [{"name": "h", "typedConfig": manager}],
                 "transportSocket": {"name": "tls", "typedConfig": tls}}]}],
        "clusters": [{"name": "c", "type": "EDS", "edsClusterConfig": {"edsConfig": ads, "serviceName": "s"}}],
        "routes": [{"name": "80", "validateClusters": true, "virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
            {"match": {"prefix": "/direct"}, "directResponse": {"status": 418}},
            {"match": {"prefix": "/"}, "route": {"cluster": cluster}}]}]}],
        "endpoints": [{"clusterName": "s", "endpoints": [{"lbEndpoints": [
            {"endpoint": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 1}}}}]}]}],
    })
}

#[test]
fn validation_sees_what_is_behind_references() {
    let Some(envoy) = Envoy::find() else { return };
    envoy.validate(&dump("c")).unwrap();
    let error = envoy.validate(&dump("missing")).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn a_live_envoy_serves_and_ends() {
    let Some(envoy) = Envoy::find() else { return };
    let running = envoy.start(&freeze(&dump("c")), 1).unwrap();
    let admin = running.admin();
    let listeners = admin.json("/listeners?format=json").unwrap();
    let port =
        listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64().unwrap();
    let client = Admin::at(std::net::SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())));
    let error = client.get("/direct").unwrap_err().to_string();
    assert!(error.contains("418"), "{error}");
    assert_eq!(admin.rejected().unwrap(), Vec::<String>::new());
    assert!(admin.stat("server.live").unwrap() == 1);
    let pid = running.pid();
    drop(running);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}
