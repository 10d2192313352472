//! Mutual TLS between two proxies.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

use crate::support::*;

pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A root of its leaves' name is no issuer to BoringSSL.
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    fn identity(&self, account: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::default();
        let uri = format!("spiffe://cluster.local/ns/default/sa/{account}");
        leaf.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let certificate = leaf.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn secrets(&self, account: &str) -> Value {
        let (chain, key) = self.identity(account);
        json!([
            {"name": "default", "tls_certificate": {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}},
            {"name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_string": self.pem}}},
        ])
    }
}

pub(crate) fn common(names: &[&str], alpn: &[&str]) -> Value {
    let names: Vec<Value> =
        names.iter().map(|name| json!({"san_type": "URI", "matcher": {"exact": name}})).collect();
    json!({
        "alpn_protocols": alpn,
        "tls_certificate_sds_secret_configs": [{"name": "default"}],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": {"name": "ROOTCA"},
        },
    })
}

pub(crate) fn server(origin: std::net::SocketAddr, secrets: Value) -> Value {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "echo"}}]);
    let settings = json!({
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"cert": true, "subject": true, "uri": true, "dns": true},
    });
    let mut listener = listener("in", json!([manager_with(routes, settings)]));
    listener["listener_filters"] = json!([{"name": "envoy.filters.listener.tls_inspector", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}]);
    listener["filter_chains"][0]["filter_chain_match"] =
        json!({"transport_protocol": "tls", "application_protocols": ["istio"]});
    listener["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": common(&[], &["h2", "http/1.1"]),
    }});
    json!({"listeners": [listener], "clusters": [cluster("echo", &[origin])], "secrets": secrets})
}

pub(crate) fn client(to: std::net::SocketAddr, names: &[&str], secrets: Value) -> Value {
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "mesh"}}]);
    let mut mesh = cluster("mesh", &[to]);
    mesh["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["metadata"] =
        json!({"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}});
    mesh["transport_socket_matches"] = json!([
        {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "outbound_.80_._.echo",
            "common_tls_context": common(names, &["istio"]),
        }}},
        {"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "raw", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}},
    ]);
    json!({"listeners": [listener("out", json!([manager(routes)]))], "clusters": [mesh], "secrets": secrets})
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    let origin = Origin::echo().await;
    let authority = Authority::new();
    let server = proxy(server(origin.address, authority.secrets("server")));
    let inbound = server.listener_address("in").unwrap();
    let name = "spiffe://cluster.local/ns/default/sa/server";
    let client_proxy = proxy(client(inbound, &[name], authority.secrets("client")));
    let answer = get(client_proxy.listener_address("out").unwrap(), "/hello").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let header = answer.body.lines().find(|line| line.starts_with("x-forwarded-client-cert:")).unwrap();
    assert!(header.contains("By=spiffe://cluster.local/ns/default/sa/server;Hash="), "{header}");
    assert!(header.contains("URI=spiffe://cluster.local/ns/default/sa/client"), "{header}");
    assert!(header.contains(";Cert=\"-----BEGIN%20CERTIFICATE-----%0A"), "{header}");
    assert!(header.contains("-----END%20CERTIFICATE-----%0A\";Subject="), "{header}");

    // A new identity is shown on new connections, without a restart.
    client_proxy.update(resources(json!({"secrets": authority.secrets("renewed")}))).unwrap();
    let answer = get(client_proxy.listener_address("out").unwrap(), "/again").await;
    assert!(answer.body.contains("URI=spiffe://cluster.local/ns/default/sa/renewed"), "{}", answer.body);
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let origin = Origin::echo().await;
    let authority = Authority::new();
    let server = proxy(server(origin.address, authority.secrets("server")));
    let inbound = server.listener_address("in").unwrap();
    let good = "spiffe://cluster.local/ns/default/sa/server";
    for (names, secrets) in [
        // The server is not who it should be.
        (&["spiffe://cluster.local/ns/default/sa/other"][..], authority.secrets("client")),
        // The client is of another authority, and does not know the server's.
        (&[good][..], Authority::new().secrets("client")),
    ] {
        let client_proxy = proxy(client(inbound, names, secrets));
        let answer = get(client_proxy.listener_address("out").unwrap(), "/").await;
        assert_eq!(answer.status, 503);
        assert!(answer.body.ends_with("reset reason: remote connection failure"), "{}", answer.body);
    }
    assert_eq!(origin.count(), 0);
    // Plain text meets no filter chain, and is closed.
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut plain = tokio::net::TcpStream::connect(inbound).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let end = within("an end", plain.read(&mut [0; 8])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
}
