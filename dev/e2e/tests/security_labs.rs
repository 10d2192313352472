//! Labs 6 to 8 on our proxy and on stock Envoy: TLS at the gateway, mutual TLS between workloads, tokens; and the task of a
//! service that decides (docs/authorization.md).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{Answer, Cluster, curl, eventually, on_both, repository};

on_both!(&["kubectl", "curl", "openssl"], labs);

fn labs(cluster: &Cluster) {
    lab_6_gateway(cluster);
    lab_7_mutual_tls(cluster);
    lab_8_tokens(cluster);
    external_authorization(cluster);
}

fn manual(cluster: &Cluster, file: &str) {
    let path = repository().join("istiolabmanual").join(file);
    cluster.kubectl(&["apply", "-f", path.to_str().unwrap()]);
}

/// A folder of keys and certificates, made with the lab's own commands.
struct Certificates(tempfile::TempDir);

impl Certificates {
    /// A new root, with the lab's names.
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        made.openssl(&[
            "req",
            "-x509",
            "-sha256",
            "-nodes",
            "-days",
            "365",
            "-newkey",
            "rsa:2048",
            "-subj",
            "/O=example Inc./CN=example.com",
            "-keyout",
            "example.com.key",
            "-out",
            "example.com.crt",
        ]);
        made
    }

    /// A key and a certificate for a host.
    fn issue(&self, host: &str) {
        let (key, request, certificate) =
            (format!("{host}.key"), format!("{host}.csr"), format!("{host}.crt"));
        let subject = format!("/CN={host}/O=an organization");
        self.openssl(&[
            "req", "-out", &request, "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-subj", &subject,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-sha256",
            "-days",
            "365",
            "-CA",
            "example.com.crt",
            "-CAkey",
            "example.com.key",
            "-set_serial",
            "0",
            "-in",
            &request,
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl").args(args).current_dir(self.0.path()).output().unwrap();
        assert!(output.status.success(), "openssl {args:?}: {output:?}");
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }
}

/// The gateway's HTTPS port on the node.
fn https(cluster: &Cluster) -> String {
    let path = "jsonpath={.spec.ports[?(@.name==\"https\")].nodePort}";
    let port = cluster.kubectl(&["-n", "istio-system", "get", "service", "istio-ingressgateway", "-o", path]);
    let host = cluster.gateway().split(':').next().unwrap_or_default().to_owned();
    format!("{host}:{port}")
}

fn ask(cluster: &Cluster, host: &str, path: &str, root: &Path, flags: &[&str]) -> Answer {
    let (address, port) = https(cluster).split_once(':').map(|(a, p)| (a.to_owned(), p.to_owned())).unwrap();
    let resolve = format!("{host}:{port}:{address}");
    let mut all = vec!["--resolve", &resolve, "--cacert", root.to_str().unwrap()];
    all.extend(flags);
    curl(&format!("https://{host}:{port}{path}"), &all)
}

fn until_status(what: &str, status: u16, look: impl Fn() -> Answer) -> Answer {
    eventually(what, || {
        let answer = look();
        if answer.status == status { Ok(answer) } else { Err(format!("{answer:?}")) }
    })
}

fn lab_6_gateway(cluster: &Cluster) {
    const HTTPBIN: &str = "httpbin.example.com";
    let secret = |made: &Certificates, name: &str, host: &str| {
        let (key, certificate) = (
            format!("--key={}", made.text(&format!("{host}.key"))),
            format!("--cert={}", made.text(&format!("{host}.crt"))),
        );
        cluster.kubectl(&["create", "-n", "istio-system", "secret", "tls", name, &key, &certificate]);
    };
    let drop_secret =
        || drop(cluster.kubectl(&["-n", "istio-system", "delete", "secret", "httpbin-credential"]));
    let (old, new) = (Certificates::new(), Certificates::new());
    old.issue(HTTPBIN);
    new.issue(HTTPBIN);
    let teapot = |made: &Certificates, flags: &[&str]| {
        ask(cluster, HTTPBIN, "/status/418", &made.path("example.com.crt"), flags)
    };

    manual(cluster, "sdshttpbin.yaml");
    secret(&old, "httpbin-credential", HTTPBIN);
    manual(cluster, "sdsgateway.yaml");
    manual(cluster, "sdsvirtualserver.yaml");
    let answer = until_status("the teapot", 418, || teapot(&old, &[]));
    assert!(answer.head.starts_with("HTTP/2") && answer.body.contains("teapot"), "{answer:?}");

    drop_secret();
    secret(&new, "httpbin-credential", HTTPBIN);
    until_status("the new certificate", 418, || teapot(&new, &[]));
    assert_eq!(teapot(&old, &[]).status, 0, "the old root no longer vouches for it");

    drop_secret();
    secret(&old, "httpbin-credential", HTTPBIN);
    manual(cluster, "helloworld-v1.yaml");
    old.issue("helloworld-v1.example.com");
    secret(&old, "helloworld-credential", "helloworld-v1.example.com");
    manual(cluster, "mygatewayv1.yaml");
    manual(cluster, "helloworld-v1vs.yaml");
    let root = old.path("example.com.crt");
    let hello = until_status("the second host", 200, || {
        ask(cluster, "helloworld-v1.example.com", "/hello", &root, &[])
    });
    assert!(hello.body.starts_with("Hello version: v1, instance: helloworld-v1-"), "{hello:?}");
    until_status("the first host", 418, || teapot(&old, &[]));

    drop_secret();
    let files =
        ["tls.key=httpbin.example.com.key", "tls.crt=httpbin.example.com.crt", "ca.crt=example.com.crt"];
    let files = files.map(|pair| {
        let (key, file) = pair.split_once('=').unwrap_or_default();
        format!("--from-file={key}={}", old.text(file))
    });
    let create = ["create", "-n", "istio-system", "secret", "generic", "httpbin-credential"];
    cluster.kubectl(&[&create[..], &files.each_ref().map(String::as_str)].concat());
    manual(cluster, "mygatewayv2.yaml");
    old.issue("client.example.com");
    let (certificate, key) = (old.text("client.example.com.crt"), old.text("client.example.com.key"));
    eventually("no answer without a client's certificate", || {
        let answer = teapot(&old, &[]);
        if answer.status == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    until_status("mutual TLS", 418, || teapot(&old, &["--cert", &certificate, "--key", &key]));
    new.issue("client.example.com");
    let (certificate, key) = (new.text("client.example.com.crt"), new.text("client.example.com.key"));
    assert_eq!(teapot(&old, &["--cert", &certificate, "--key", &key]).status, 0, "another root's client");
    cluster.kubectl(&["delete", "gateway,virtualservice", "--all"]);
}

/// httpbin and sleep, with sidecars put in by hand or without.
fn deploy(cluster: &Cluster, namespace: &str, sidecar: bool) {
    for file in ["httpbin/httpbin.yaml", "sleep/sleep.yaml"] {
        let path = repository().join("samples").join(file);
        let path = path.to_str().unwrap();
        let yaml = match sidecar {
            true => cluster.lateen(&["kube-inject", "-f", path]),
            false => std::fs::read_to_string(path).unwrap(),
        };
        let output = cluster.try_kubectl(&["apply", "-n", namespace, "-f", "-"], &yaml);
        assert!(output.status.success(), "{output:?}");
        let name = format!("deploy/{}", file.split('/').next().unwrap_or_default());
        cluster.kubectl(&["rollout", "status", "-n", namespace, &name, "--timeout=60s"]);
    }
}

/// What curl prints inside of a namespace's sleep, and how it ends.
fn inside(cluster: &Cluster, namespace: &str, flags: &[&str], url: &str) -> (String, Option<i32>) {
    let exec =
        ["exec", "deploy/sleep", "-c", "sleep", "-n", namespace, "--", "curl", "-s", "-o", "/dev/null"];
    let args = [&exec[..], &["-w", "%{http_code}"], flags, &[url]].concat();
    let output = cluster.try_kubectl(&args, "");
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

/// The lab's table of who reaches whom.
fn matrix(cluster: &Cluster, legacy: &(&str, i32)) {
    for from in ["foo", "bar", "legacy"] {
        for to in ["foo", "bar"] {
            let wanted = if from == "legacy" { *legacy } else { ("200", 0) };
            eventually(&format!("sleep.{from} to httpbin.{to}: {wanted:?}"), || {
                let (code, exit) = inside(cluster, from, &[], &format!("http://httpbin.{to}:8000/ip"));
                if (code.as_str(), exit) == (wanted.0, Some(wanted.1)) {
                    Ok(())
                } else {
                    Err(format!("{code} {exit:?}"))
                }
            });
        }
    }
}

fn lab_7_mutual_tls(cluster: &Cluster) {
    for (namespace, sidecar) in [("foo", true), ("bar", true), ("legacy", false)] {
        cluster.kubectl(&["create", "ns", namespace]);
        deploy(cluster, namespace, sidecar);
    }
    let mode = |file: &str| {
        let path = repository().join("istiolabmanual").join(file);
        cluster.kubectl(&["apply", "-n", "istio-system", "-f", path.to_str().unwrap()]);
    };
    matrix(cluster, &("200", 0));
    mode("mtlspermissive.yaml");
    matrix(cluster, &("200", 0));
    mode("mtlsstrict.yaml");
    // 56: curl's connection was reset.
    matrix(cluster, &("000", 56));
    deploy(cluster, "legacy", true);
    matrix(cluster, &("200", 0));
    let table = cluster.kubectl(&["get", "peerauthentication", "--all-namespaces"]);
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(
        words[..7],
        ["NAMESPACE", "NAME", "MODE", "AGE", "istio-system", "default", "STRICT"],
        "{table}"
    );
    cluster.kubectl(&["delete", "peerauthentication", "--all-namespaces", "--all"]);
    cluster.kubectl(&["delete", "ns", "bar", "legacy"]);
}

fn lab_8_tokens(cluster: &Cluster) {
    let token = std::fs::read_to_string(repository().join("samples/jwt/demo.jwt")).unwrap();
    let good = format!("Authorization: Bearer {}", token.trim());
    let asks = |what: &str, flags: &[&str], wanted: &str| {
        eventually(what, || {
            let (code, _) = inside(cluster, "foo", flags, "http://httpbin.foo:8000/headers");
            if code == wanted { Ok(()) } else { Err(code) }
        });
    };
    asks("no policy", &[], "200");
    manual(cluster, "jwtra.yaml");
    asks("a token that is none", &["-H", "Authorization: Bearer invalidToken"], "401");
    asks("no token", &[], "200");
    asks("a good token", &["-H", &good], "200");
    manual(cluster, "jwtap.yaml");
    asks("no token where one is demanded", &[], "403");
    asks("a good token where one is demanded", &["-H", &good], "200");
    asks("a token that is none where one is demanded", &["-H", "Authorization: Bearer invalidToken"], "401");
}

/// What is added to the providers of the mesh configuration, as docs/authorization.md does.
const PROVIDERS: &str = "\
extensionProviders:
- name: sample-ext-authz-http
  envoyExtAuthzHttp:
    service: ext-authz.foo.svc.cluster.local
    port: 8000
    includeRequestHeadersInCheck: [x-ext-authz]
- name: sample-ext-authz-grpc
  envoyExtAuthzGrpc:
    service: ext-authz.foo.svc.cluster.local
    port: 9000
";

/// A service is asked about some paths, over HTTP and over gRPC, and decides by a header.
fn external_authorization(cluster: &Cluster) {
    for kind in ["authorizationpolicy", "requestauthentication"] {
        cluster.kubectl(&["delete", kind, "--all-namespaces", "--all"]);
    }
    let sample = repository().join("samples/extauthz/ext-authz.yaml");
    cluster.kubectl(&["apply", "-n", "foo", "-f", sample.to_str().unwrap()]);
    cluster.kubectl(&["rollout", "status", "-n", "foo", "deploy/ext-authz", "--timeout=60s"]);
    let path = ["-n", "istio-system", "configmap", "istio"];
    let mesh = cluster.kubectl(&[&["get"], &path[..], &["-o", "jsonpath={.data.mesh}"]].concat());
    assert!(mesh.contains("extensionProviders:\n"), "{mesh}");
    let mesh = mesh.replace("extensionProviders:\n", PROVIDERS);
    let patch = serde_json::json!({ "data": { "mesh": mesh } }).to_string();
    cluster.kubectl(&[&["patch"], &path[..], &["--type=merge", "-p", &patch]].concat());
    for provider in ["http", "grpc"] {
        cluster.apply(&format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: ext-authz, namespace: foo}}\n\
             spec: {{selector: {{matchLabels: {{app: httpbin}}}}, action: CUSTOM, provider: {{name: sample-ext-authz-{provider}}}, \
             rules: [{{to: [{{operation: {{paths: [/headers]}}}}]}}]}}"
        ));
        let asks = |what: &str, path: &str, flags: &[&str], wanted: &str, words: &str| {
            eventually(&format!("{provider}: {what}"), || {
                let (code, body) = spoken(cluster, flags, &format!("http://httpbin.foo:8000{path}"));
                if code == wanted && body.contains(words) { Ok(()) } else { Err(format!("{code} {body}")) }
            });
        };
        asks("no header", "/headers", &[], "403", "denied by ext_authz");
        asks("denied", "/headers", &["-H", "x-ext-authz: deny"], "403", "denied by ext_authz");
        // Only over gRPC the service adds to the request, of which httpbin's answer is.
        let told = if provider == "grpc" { "grpc-additional-header-override-value" } else { "httpbin.foo" };
        asks("allowed", "/headers", &["-H", "x-ext-authz: allow"], "200", told);
        asks("not asked", "/ip", &["-H", "x-ext-authz: deny"], "200", "origin");
    }
    let listed = cluster.lateen(&["x", "authz", "check", "deploy/httpbin", "-n", "foo"]);
    assert!(listed.contains("CUSTOM") && listed.contains("ext-authz.foo"), "{listed}");
}

/// The status and body of what curl gets inside of foo's sleep.
fn spoken(cluster: &Cluster, flags: &[&str], url: &str) -> (String, String) {
    let exec =
        ["exec", "deploy/sleep", "-c", "sleep", "-n", "foo", "--", "curl", "-s", "-w", "\n%{http_code}"];
    let output = cluster.try_kubectl(&[&exec[..], flags, &[url]].concat(), "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.rsplit_once('\n').map(|(body, code)| (code.to_owned(), body.to_owned())).unwrap_or_default()
}
