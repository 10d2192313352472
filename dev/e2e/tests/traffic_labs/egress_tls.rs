//! A server outside of the mesh that asks for client certificates, reached through the egress gateway: the gateway speaks TLS
//! for the callers, with a certificate from files that it mounts (the last section of the chapter on DestinationRule).

use std::process::Command;

use e2e::{Cluster, eventually, repository};
use tempfile::TempDir;

const NGINX: &str = "my-nginx.mesh-external.svc.cluster.local";

pub(super) fn through_the_egress_gateway(cluster: &Cluster) {
    let made = certificates();
    server(cluster, &made);
    gateway(cluster, &made);
    let mesh = sample("mesh.yaml");
    cluster.kubectl(&["apply", "-n", "istio-system", "-f", &mesh]);
    eventually("nginx's page through the egress gateway", || {
        let page = super::inside(cluster, &[], &format!("http://{NGINX}"));
        if page.contains("Welcome to nginx!") { Ok(()) } else { Err(page) }
    });
    let egress = ["-n", "istio-system", "-l", "istio=egressgateway"];
    let behind = format!("outbound|443||{NGINX}");
    super::log_line(cluster, &egress, &["\"GET / HTTP/", " 200 ", NGINX, &behind]);
    let first = "outbound|443|nginx|istio-egressgateway.istio-system.svc.cluster.local";
    super::log_line(cluster, &["-l", "app=sleep"], &["\"GET / HTTP/1.1\" 200", NGINX, first]);
    refused_without_certificate(cluster);
    cluster.kubectl(&["delete", "-n", "istio-system", "-f", &mesh]);
    cluster.kubectl(&["delete", "namespace", "mesh-external", "--wait=false"]);
}

/// The certificate is what opens: with the gateway's rule saying SIMPLE, nginx answers 400.
fn refused_without_certificate(cluster: &Cluster) {
    let simple = r#"{"spec":{"trafficPolicy":{"portLevelSettings":[{"port":{"number":443},
        "tls":{"mode":"SIMPLE","caCertificates":"/etc/istio/nginx-ca-certs/example.com.crt","sni":"my-nginx.mesh-external.svc.cluster.local"}}]}}}"#;
    let rule = "destinationrule/originate-mtls-for-nginx";
    cluster.kubectl(&["patch", rule, "-n", "istio-system", "--type=merge", "-p", simple]);
    eventually("nginx refuses who brings no certificate", || {
        let page = super::inside(cluster, &["-w", "%{http_code}"], &format!("http://{NGINX}"));
        if page.ends_with("400") && page.contains("certificate") { Ok(()) } else { Err(page) }
    });
}

fn sample(name: &str) -> String {
    repository().join("samples/egress").join(name).to_str().unwrap().to_owned()
}

/// nginx in a namespace without sidecars.
fn server(cluster: &Cluster, made: &TempDir) {
    let file = |name: &str| made.path().join(name).to_str().unwrap().to_owned();
    let outside = ["-n", "mesh-external"];
    let create = |args: &[&str]| cluster.kubectl(&[&["create"], &outside[..], args].concat());
    cluster.kubectl(&["create", "namespace", "mesh-external"]);
    let (key, certificate) = (file(&format!("{NGINX}.key")), file(&format!("{NGINX}.crt")));
    create(&["secret", "tls", "nginx-server-certs", "--key", &key, "--cert", &certificate]);
    create(&["secret", "generic", "nginx-ca-certs", &format!("--from-file={}", file("example.com.crt"))]);
    create(&["configmap", "nginx-configmap", &format!("--from-file=nginx.conf={}", sample("nginx.conf"))]);
    cluster.kubectl(&["apply", "-n", "mesh-external", "-f", &sample("nginx.yaml")]);
    cluster.kubectl(&["rollout", "status", "-n", "mesh-external", "deploy/my-nginx", "--timeout=60s"]);
}

/// The egress gateway mounts the client's certificate, which its pod shows.
fn gateway(cluster: &Cluster, made: &TempDir) {
    let file = |name: &str| made.path().join(name).to_str().unwrap().to_owned();
    let mesh = ["-n", "istio-system"];
    let kubectl = |args: &[&str]| cluster.kubectl(&[args, &mesh[..]].concat());
    let (key, certificate) = (file("client.example.com.key"), file("client.example.com.crt"));
    kubectl(&["create", "secret", "tls", "nginx-client-certs", "--key", &key, "--cert", &certificate]);
    let ca = format!("--from-file={}", file("example.com.crt"));
    kubectl(&["create", "secret", "generic", "nginx-ca-certs", &ca]);
    let patch = std::fs::read_to_string(sample("gateway-patch.json")).unwrap();
    kubectl(&["patch", "--type=json", "deploy", "istio-egressgateway", "-p", &patch]);
    kubectl(&["rollout", "status", "deploy/istio-egressgateway", "--timeout=60s"]);
    eventually("the gateway's pod mounts the certificates", || {
        let folders = ["ls", "/etc/istio/nginx-client-certs", "/etc/istio/nginx-ca-certs"];
        let exec = [&["exec"], &mesh[..], &["deploy/istio-egressgateway", "--"], &folders[..]].concat();
        let output = cluster.try_kubectl(&exec, "");
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        let there = ["tls.crt", "tls.key", "example.com.crt"].iter().all(|name| seen.contains(name));
        if there { Ok(()) } else { Err(format!("{seen}{}", String::from_utf8_lossy(&output.stderr))) }
    });
}

/// A CA, and certificates for the server and for the client, as the chapter's commands make them.
fn certificates() -> TempDir {
    let folder = TempDir::new().unwrap();
    let openssl = |line: &str, subject: &str| {
        let mut command = Command::new("openssl");
        command.args(line.split_whitespace()).current_dir(folder.path());
        if !subject.is_empty() {
            command.args(["-subj", subject]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "openssl {line}: {output:?}");
    };
    openssl(
        "req -x509 -sha256 -nodes -days 365 -newkey rsa:2048 -keyout example.com.key -out example.com.crt",
        "/O=example Inc./CN=example.com",
    );
    for (serial, name, owner) in
        [(0, NGINX, "some organization"), (1, "client.example.com", "client organization")]
    {
        openssl(
            &format!("req -out {name}.csr -newkey rsa:2048 -nodes -keyout {name}.key"),
            &format!("/CN={name}/O={owner}"),
        );
        let signed = format!(
            "x509 -req -days 365 -CA example.com.crt -CAkey example.com.key -set_serial {serial} -in {name}.csr -out {name}.crt"
        );
        openssl(&signed, "");
    }
    folder
}
