//! Installing as a user does, on a running cluster: off again by manifest, on a server with bad days, killed in the middle.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use e2e::{Cluster, DataPlane, eventually, tools};
use tempfile::TempDir;
use testkit::faulty::{Fault, FaultyServer, Rule};

#[path = "../../testkit/src/kubectl.rs"]
mod kubectls;

/// Everything there is, but for events.
fn objects(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let form = r#"jsonpath={range .items[*]}{.kind} {.metadata.namespace} {.metadata.name}{"\n"}{end}"#;
    let text = cluster.kubectl(&["get", "-A", "-o", form, &kinds.join(",")]);
    text.lines().map(str::to_owned).collect()
}

/// Waits until there is just this.
fn becomes(cluster: &Cluster, wanted: &BTreeSet<String>) {
    eventually("the objects of before", || {
        let now = objects(cluster);
        let differs: Vec<&String> = now.symmetric_difference(wanted).collect();
        if differs.is_empty() { Ok(()) } else { Err(format!("{differs:?}")) }
    });
}

fn without_mesh(cluster: &Cluster) -> BTreeSet<String> {
    cluster.lateen(&["uninstall", "--purge", "-y"]);
    cluster.kubectl(&["delete", "namespace", "istio-system", "--ignore-not-found"]);
    objects(cluster)
}

fn piped(program: &Path, args: &[&str], kubeconfig: &str, input: &str) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    output
}

#[test]
fn deleting_the_manifest_leaves_what_was_there_before() {
    if !tools(&["kubectl"]) {
        return;
    }
    let cluster = Cluster::up(DataPlane::Lateen);
    let root = ["get", "configmap", "istio-ca-root-cert", "-n", "default", "-o", "jsonpath={.data}"];
    let pem = cluster.kubectl(&root);
    for spoil in [
        &["delete", "configmap", "istio-ca-root-cert", "-n", "default"][..],
        &[
            "patch",
            "configmap",
            "istio-ca-root-cert",
            "-n",
            "default",
            "-p",
            r#"{"data":{"root-cert.pem":"x"}}"#,
        ],
    ] {
        cluster.kubectl(spoil);
        eventually("the root certificate is restored", || {
            let now = cluster.try_kubectl(&root, "");
            let text = String::from_utf8_lossy(&now.stdout).into_owned();
            if text == pem { Ok(()) } else { Err(text) }
        });
    }

    let before = without_mesh(&cluster);
    for (kubectl, _) in kubectls::kubectls() {
        cluster.lateen(&["install", "--set", "profile=demo", "-y"]);
        cluster.kubectl(&["create", "namespace", "later"]);
        eventually("a root certificate for a new namespace", || {
            let found = cluster.try_kubectl(&["get", "cm", "istio-ca-root-cert", "-n", "later"], "");
            if found.status.success() { Ok(()) } else { Err(format!("{found:?}")) }
        });
        let manifest = cluster.lateen(&["manifest", "generate", "--set", "profile=demo"]);
        let delete = ["delete", "--ignore-not-found=true", "-f", "-"];
        let deleted = piped(&kubectl, &delete, cluster.kubeconfig(), &manifest);
        assert!(deleted.status.success(), "{deleted:?}");
        eventually("the root certificate goes with the installation", || {
            let left = cluster.kubectl(&["get", "configmap", "-n", "later", "-o", "name"]);
            if left.contains("istio") { Err(left) } else { Ok(()) }
        });
        cluster.kubectl(&["delete", "namespace", "istio-system", "later"]);
        becomes(&cluster, &before);
    }
}

/// The cluster's API server behind one that spoils requests.
struct BadDay {
    server: FaultyServer,
    kubeconfig: PathBuf,
    proxy: Child,
    _folder: TempDir,
}

impl BadDay {
    fn before(cluster: &Cluster) -> Self {
        let mut proxy = Command::new("kubectl")
            .args(["proxy", "--port=0", "--kubeconfig", cluster.kubeconfig()])
            .stdout(Stdio::piped())
            // It complains of every request that is given up.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        let server = FaultyServer::before(address);
        let folder = TempDir::new().unwrap();
        let kubeconfig = folder.path().join("config");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: bad\n\
             contexts: [{{name: bad, context: {{cluster: bad, user: bad}}}}]\nusers: [{{name: bad, user: {{}}}}]\n\
             clusters: [{{name: bad, cluster: {{server: \"http://{}\"}}}}]\n",
            server.address()
        );
        std::fs::write(&kubeconfig, text).unwrap();
        Self { server, kubeconfig, proxy, _folder: folder }
    }

    /// What the command says under these rules: whether it succeeded, standard output, standard error.
    fn run(&self, cluster: &Cluster, rules: Vec<Rule>, command: &str) -> (bool, String, String) {
        self.server.set(rules);
        let args: Vec<&str> = command.split(' ').collect();
        let output = cluster.try_lateen(&self.kubeconfig, &args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for BadDay {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

const DENIED: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"clusterroles is forbidden: User \"bob\" cannot patch","reason":"Forbidden","code":403}"#;

fn code(code: u16, retry_after: Option<u32>, body: &'static str) -> Fault {
    Fault::Answer { code, retry_after, body }
}

#[test]
fn a_servers_bad_days_are_said_and_what_passes_is_waited_for() {
    if !tools(&["kubectl"]) {
        return;
    }
    let cluster = Cluster::up(DataPlane::Lateen);
    let bad = BadDay::before(&cluster);
    let install = "install --set profile=demo -y --kubeclient-timeout 1s";
    let fails: &[(&str, Rule, &[&str])] = &[
        (
            install,
            Rule::all("WRITE", "/clusterroles/istiod-", code(403, None, DENIED)),
            &[
                "applying ClusterRole::istiod-clusterrole-istio-system: the server answered 403 Forbidden",
                "User \"bob\" cannot patch",
                "cluster administrator",
                "the same command goes on from here",
            ],
        ),
        (
            install,
            Rule::all("WRITE", "/serviceaccounts/istiod", code(429, Some(3600), "later")),
            &[
                "applying ServiceAccount:istio-system:istiod: the server answered 429 TooManyRequests: later",
                "overloaded",
            ],
        ),
        (
            install,
            Rule::all("WRITE", "/services/", code(500, None, "etcd is full")),
            &[
                "Waiting: applying Service:",
                "(try 4 of 5)",
                "answered 500",
                "etcd is full",
                "its own log says why",
            ],
        ),
        (
            install,
            Rule::all("WRITE", "/configmaps/istio", Fault::Hang),
            &["applying ConfigMap:istio-system:istio", "no answer within 1 s", "is the server up"],
        ),
        (
            "uninstall --purge -y --kubeclient-timeout 1s",
            Rule::all("DELETE", "/mutatingwebhookconfigurations/", code(403, None, DENIED)),
            &["deleting MutatingWebhookConfiguration::istio-", "answered 403 Forbidden"],
        ),
        (
            "uninstall --purge -y --kubeclient-timeout 1s",
            Rule::all("GET", "/deployments", Fault::Reset),
            &["listing deployments", "is the server up"],
        ),
        (
            "upgrade -y --kubeclient-timeout 1s",
            Rule::all("GET", "/deployments", Fault::Hang),
            &["listing deployments: no answer of the API server within 1 s"],
        ),
        (
            "x precheck --kubeclient-timeout 1s",
            Rule::all("GET", "/version", code(500, None, "etcd is full")),
            &["reading /version: the server answered 500", "etcd is full"],
        ),
        (
            "tag list --kubeclient-timeout 1s",
            Rule::all("GET", "/mutatingwebhookconfigurations", Fault::Hang),
            &["no answer of the API server within 1 s"],
        ),
    ];
    for (command, rule, wanted) in fails {
        let (success, out, err) = bad.run(&cluster, vec![rule.clone()], command);
        assert!(!success, "{command} under {rule:?}: {out}{err}");
        assert!(!out.contains("complete"), "{command} under {rule:?}: {out}{err}");
        for words in *wanted {
            assert!(err.contains(words), "{command} under {rule:?}: no {words:?} in\n{out}{err}");
        }
    }

    // What passes is waited for, and then all is as it should be.
    let passing = |path, fault| Rule { method: "WRITE", path, pass: 0, times: 2, fault };
    for (path, fault, said) in [
        ("/deployments/istiod", code(429, Some(1), "later"), "again in 1 s (try 2 of 5)"),
        ("/serviceaccounts/", code(503, None, "starting"), "starting; again in 0.4 s"),
        ("/services/", Fault::Reset, "Waiting: applying Service:"),
        ("/roles/", Fault::AnswerLost, "no answer within 1 s"),
    ] {
        let (success, out, err) = bad.run(&cluster, vec![passing(path, fault)], install);
        assert!(success && out.contains("✔ Installation complete"), "{path}: {out}{err}");
        assert!(err.contains(said), "{path}: no {said:?} in\n{err}");
        assert_eq!(bad.server.spoilt(), 2);
    }
}

#[test]
fn an_installation_that_is_killed_is_finished_or_taken_off() {
    if !tools(&["kubectl"]) {
        return;
    }
    let cluster = Cluster::up(DataPlane::Lateen);
    let bad = BadDay::before(&cluster);
    let before = without_mesh(&cluster);
    let names = |objects: BTreeSet<String>| -> BTreeSet<String> {
        // What controllers name by chance.
        let chance = ["Pod", "ReplicaSet", "EndpointSlice"];
        objects.into_iter().filter(|object| !chance.iter().any(|kind| object.starts_with(kind))).collect()
    };
    cluster.lateen(&["install", "--set", "profile=demo", "-y"]);
    let whole = names(objects(&cluster));
    cluster.lateen(&["uninstall", "--purge", "-y"]);
    cluster.kubectl(&["delete", "namespace", "istio-system"]);
    for (pass, fault, finish) in [
        (0, Fault::AnswerLost, false),
        (3, Fault::Hang, true),
        (19, Fault::AnswerLost, false),
        (24, Fault::Hang, false),
        (29, Fault::AnswerLost, true),
        (34, Fault::Hang, true),
    ] {
        bad.server.set(vec![Rule { method: "WRITE", path: "", pass, times: usize::MAX, fault }]);
        let mut install = cluster.start_lateen(&bad.kubeconfig, &["install", "--set", "profile=demo", "-y"]);
        eventually("the write at which it is killed", || {
            let ended = install.try_wait().unwrap();
            assert!(ended.is_none(), "it ended before write {pass}: {ended:?}");
            if bad.server.spoilt() > 0 { Ok(()) } else { Err("it is not there".to_owned()) }
        });
        install.kill().unwrap();
        install.wait().unwrap();
        if finish {
            cluster.lateen(&["install", "--set", "profile=demo", "-y"]);
            eventually("the whole installation", || {
                let now = names(objects(&cluster));
                let differs: Vec<&String> = now.symmetric_difference(&whole).collect();
                if differs.is_empty() { Ok(()) } else { Err(format!("{differs:?}")) }
            });
        }
        let purged = cluster.try_lateen(Path::new(cluster.kubeconfig()), &["uninstall", "--purge", "-y"]);
        assert!(purged.status.success(), "after write {pass}: {purged:?}");
        cluster.kubectl(&["delete", "namespace", "istio-system", "--ignore-not-found"]);
        becomes(&cluster, &before);
    }
}

const WORK: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: later}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: istio}
spec: {controller: istio.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: sleep, namespace: default}
spec:
  ingressClassName: istio
  rules:
  - http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: sleep, port: {number: 80}}}}
"#;

/// All that the control plane has written since it started.
fn control_plane_log(cluster: &Cluster) -> String {
    let output = cluster.try_kubectl(&["logs", "-n", "istio-system", "deploy/istiod", "--tail=-1"], "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_control_plane_has_the_rights_it_uses_and_says_which_one_it_misses() {
    if !tools(&["kubectl"]) {
        return;
    }
    let cluster = Cluster::up(DataPlane::Lateen);
    cluster.apply_sample("sleep/sleep.yaml");
    cluster.wait_for_pods("default", 1);
    cluster.apply(WORK);
    eventually("a root certificate for a new namespace", || {
        let found = cluster.try_kubectl(&["get", "cm", "istio-ca-root-cert", "-n", "later"], "");
        if found.status.success() { Ok(()) } else { Err(control_plane_log(&cluster)) }
    });
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let bundles =
            cluster.kubectl(&["get", kind, "-o", "jsonpath={.items[*].webhooks[*].clientConfig.caBundle}"]);
        assert!(!bundles.is_empty(), "{kind}");
    }
    let log = control_plane_log(&cluster);
    assert!(log.contains("injected") && log.contains("ADS: new connection"), "{log}");
    let refused = |line: &&str| line.contains("forbidden") || line.contains("403");
    assert_eq!(log.lines().filter(refused).collect::<Vec<_>>(), Vec::<&str>::new());
    let account = "--as=system:serviceaccount:istio-system:istiod";
    for (wanted, asked) in [
        ("yes", "patch virtualservices.networking.istio.io --subresource=status -A"),
        ("yes", "get secret/istio-ca-secret -n istio-system"),
        ("no", "get secret/istio-ca-secret -n default"),
        ("no", "update secrets -n istio-system"),
        ("no", "patch configmap/other -n default"),
        ("no", "create pods -A"),
        ("no", "delete virtualservices.networking.istio.io -A"),
        ("no", "escalate clusterroles -A"),
    ] {
        let args: Vec<&str> =
            ["auth", "can-i"].into_iter().chain(asked.split(' ')).chain([account]).collect();
        let answer = cluster.try_kubectl(&args, "");
        assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), wanted, "{asked}");
    }

    // Without one of its rights it does not become ready, and says which one it is.
    let role = ["clusterrole", "istiod-clusterrole-istio-system"];
    let rules: Vec<serde_json::Value> = {
        let text = cluster.kubectl(&["get", role[0], role[1], "-o", "jsonpath={.rules}"]);
        serde_json::from_str(&text).unwrap()
    };
    let index = rules.iter().position(|rule| rule["resources"][0] == "endpointslices").unwrap();
    let patch = format!(r#"[{{"op":"remove","path":"/rules/{index}"}}]"#);
    cluster.kubectl(&["patch", role[0], role[1], "--type=json", "-p", &patch]);
    cluster.kubectl(&["delete", "pod", "-n", "istio-system", "-l", "app=istiod"]);
    eventually("the right that is missing", || {
        let log = control_plane_log(&cluster);
        let said = log.lines().any(|line| {
            line.contains("watch of endpointslices")
                && line.contains("cannot list resource \"endpointslices\"")
        });
        if said { Ok(()) } else { Err(log) }
    });
    let ready = ["get", "deploy", "istiod", "-n", "istio-system", "-o", "jsonpath={.status.readyReplicas}"];
    assert!(!cluster.kubectl(&ready).contains('1'));
    // Installing again gives it back.
    cluster.lateen(&["install", "--set", "profile=demo", "-y"]);
    assert_eq!(cluster.kubectl(&ready), "1");
}
