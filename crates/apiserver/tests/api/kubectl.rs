//! Stock kubectl, without flags beyond the kubeconfig: the one on `PATH`, and those that `LATEEN_KUBECTLS` lists (as `PATH`
//! does), which `.ci/run` sets to one of another age.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::kubectls::kubectls;
use crate::rest::Server;

const MANIFEST: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualthings.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: virtualthings, kind: VirtualThing, shortNames: [vt]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Gateways, type: string, jsonPath: .spec.gateways}
    - {name: Hosts, type: string, jsonPath: .spec.hosts}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              gateways: {type: array, items: {type: string}}
              hosts: {type: array, items: {type: string}}
"#;

const WORKLOAD: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: "nginx:1", env: [{name: A, value: "1"}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"#;

const THING: &str = r#"{"apiVersion":"example.com/v1","kind":"VirtualThing","metadata":{"name":"t"},"spec":{"hosts":["a","b"],"gateways":["g"]}}"#;

const EVENT: &str = r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"p.1","namespace":"default"},"type":"Normal",
    "reason":"Started","message":"Started p","involvedObject":{"kind":"Pod","name":"p","namespace":"default"}}"#;

struct Kubectl<'a> {
    program: &'a Path,
    /// Its minor version.
    minor: u64,
    kubeconfig: &'a Path,
    home: &'a Path,
}

impl Kubectl<'_> {
    /// Whether it knows what came with version 1.`minor`.
    fn since(&self, minor: u64) -> bool {
        self.minor >= minor
    }

    fn run(&self, args: &str, input: &str) -> Output {
        let mut child = Command::new(self.program)
            .args(args.split(' '))
            .env("KUBECONFIG", self.kubeconfig)
            .env("HOME", self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a command that has to succeed prints.
    fn ok(&self, args: &str, input: &str) -> String {
        let output = self.run(args, input);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {args}: {out}{err}");
        out + &err
    }

    /// What a command that has to fail prints.
    fn fails(&self, args: &str, input: &str) -> String {
        let output = self.run(args, input);
        assert!(!output.status.success(), "kubectl {args} succeeded: {}", text(&output.stdout));
        text(&output.stderr)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Words of a table's line, so that widths do not matter.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_kubectl_finds_a_cluster() {
    for (program, minor) in kubectls() {
        let server = Server::start().await;
        let home = tempfile::tempdir().unwrap();
        let kubeconfig = server.handle.kubeconfig_path().to_owned();
        let work = tokio::task::spawn_blocking(move || {
            session(&Kubectl { program: &program, minor, kubeconfig: &kubeconfig, home: home.path() })
        });
        work.await.unwrap();
    }
}

fn session(kubectl: &Kubectl<'_>) {
    workloads(kubectl);
    plain_objects(kubectl);
    custom_objects(kubectl);
    schemas(kubectl);
    access(kubectl);
    endings(kubectl);
}

fn workloads(k: &Kubectl<'_>) {
    assert!(k.ok("version", "").contains("Server Version: "));
    assert!(k.ok("api-resources", "").contains("deployments"));
    assert!(k.ok("api-versions", "").contains("apps/v1"));
    assert_eq!(k.ok("apply -f -", WORKLOAD), "deployment.apps/web created\nservice/web created\n");
    assert_eq!(k.ok("apply -f -", WORKLOAD), "deployment.apps/web unchanged\nservice/web unchanged\n");
    let changed = WORKLOAD.replace("nginx:1", "nginx:2").replace(", env: [{name: A, value: \"1\"}]", "");
    assert!(k.ok("apply -f -", &changed).starts_with("deployment.apps/web configured"));
    let containers =
        k.ok("get deploy web -o jsonpath={.spec.template.spec.containers[*]['name','image','env']}", "");
    assert_eq!(containers, "c nginx:2", "apply removes what left the manifest");
    // Older ones look into the server's OpenAPI for whether it takes dry runs.
    if k.since(26) {
        let diff = k.run("diff -f -", &changed);
        assert_eq!((diff.status.code(), text(&diff.stdout).as_str()), (Some(0), ""));
    }
    let table = k.ok("get deploy,svc -o wide", "");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        words(lines[0]),
        ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    );
    assert_eq!(words(lines[1])[..4], ["deployment.apps/web", "0/2", "0", "0"]);
    assert_eq!(words(lines[3]), ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]);
    assert_eq!(k.ok("scale deploy web --replicas=3", ""), "deployment.apps/web scaled\n");
    assert_eq!(k.ok("get deploy web -o jsonpath={.spec.replicas}", ""), "3");
    assert_eq!(k.ok("set image deploy/web c=nginx:3", ""), "deployment.apps/web image updated\n");
    assert_eq!(k.ok("rollout restart deploy/web", ""), "deployment.apps/web restarted\n");
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"d","image":"x"}]}}}}"#;
    assert_eq!(k.ok(&format!("patch deploy web -p {patch}"), ""), "deployment.apps/web patched\n");
    assert_eq!(k.ok("get deploy web -o jsonpath={.spec.template.spec.containers[*].name}", ""), "d c");
    assert_eq!(k.ok("expose deploy web --name=web2 --port=81 --type=NodePort", ""), "service/web2 exposed\n");
    assert_eq!(k.ok("replace -f -", WORKLOAD).lines().count(), 2);
    assert!(k.ok("get all", "").contains("service/web2"));
    assert!(
        k.ok("describe deploy web", "")
            .contains("RollingUpdateStrategy:  25% max unavailable, 25% max surge")
    );
}

fn plain_objects(k: &Kubectl<'_>) {
    assert_eq!(k.ok("run p --image=busybox", ""), "pod/p created\n");
    let pods = k.ok("get pod -o wide", "");
    assert_eq!(
        words(pods.lines().next().unwrap())[..7],
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    );
    assert_eq!(words(pods.lines().nth(1).unwrap())[..4], ["p", "0/1", "Pending", "0"]);
    assert_eq!(k.ok("label pod p tier=front", ""), "pod/p labeled\n");
    assert_eq!(k.ok("get pod -l tier=front -o name", ""), "pod/p\n");
    assert!(k.ok("get pod --show-labels", "").contains("run=p,tier=front"));
    assert!(k.ok("annotate pod p note=x", "").starts_with("pod/p annotate"));
    let described = k.ok("describe pod p", "");
    let annotations = described.lines().find(|line| line.starts_with("Annotations:"));
    assert_eq!(annotations.map(words), Some(vec!["Annotations:", "note:", "x"]), "{described}");
    assert!(k.fails("exec p -- ls", "").contains("not supported by Lateen's embedded API server"));
    assert_eq!(k.ok("create ns extra", ""), "namespace/extra created\n");
    assert_eq!(k.ok("label namespace extra istio-injection=enabled", ""), "namespace/extra labeled\n");
    assert!(k.ok("get ns -L istio-injection", "").contains("enabled"));
    assert_eq!(k.ok("-n extra create secret generic s --from-literal=k=v", ""), "secret/s created\n");
    assert_eq!(k.ok("-n extra get secret s -o jsonpath={.type}{.data.k}", ""), "Opaquedg==");
    assert_eq!(k.ok("-n extra create configmap c --from-literal=k=v", ""), "configmap/c created\n");
    if k.since(23) {
        assert_eq!(
            k.ok("-n extra wait --for=jsonpath={.data.k}=v configmap/c --timeout=20s", ""),
            "configmap/c condition met\n"
        );
    }
    assert!(k.ok("get configmap,secret -A", "").contains("extra"));
    assert_eq!(k.ok("create deployment two --image=x --replicas=2", ""), "deployment.apps/two created\n");
    assert_eq!(
        k.ok("get deploy two -o jsonpath={.spec.replicas}{.spec.template.metadata.labels.app}", ""),
        "2two"
    );
    assert!(k.ok("get events", "").contains("No resources found"));
    k.ok("create -f -", EVENT);
    let head = |table: String| table.lines().next().unwrap_or_default().to_owned();
    assert_eq!(words(&head(k.ok("get events", ""))), ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    assert!(head(k.ok("get events -o wide", "")).ends_with("NAME"));
    assert!(k.ok("get pods --field-selector=status.phase=Running", "").contains("No resources found"));
}

fn custom_objects(k: &Kubectl<'_>) {
    assert!(k.ok("apply -f -", MANIFEST).contains("created"));
    assert!(
        k.ok("wait --for=condition=established crd/virtualthings.example.com --timeout=20s", "")
            .contains("condition met")
    );
    assert_eq!(k.ok("apply -f -", THING), "virtualthing.example.com/t created\n");
    assert_eq!(
        k.ok("apply -f -", &THING.replace("\"b\"", "\"c\"")),
        "virtualthing.example.com/t configured\n"
    );
    let table = k.ok("get vt", "");
    assert_eq!(words(table.lines().next().unwrap()), ["NAME", "GATEWAYS", "HOSTS", "AGE"]);
    assert_eq!(words(table.lines().nth(1).unwrap())[..3], ["t", r#"["g"]"#, r#"["a","c"]"#]);
    if k.since(25) {
        let strict = k.fails("apply -f -", &THING.replace("hosts", "hots"));
        assert!(strict.contains("strict decoding error: unknown field \"spec.hots\""), "{strict}");
    }
    assert!(k.fails("apply -f -", &THING.replace("[\"g\"]", "3")).contains("spec.gateways"));
    assert_eq!(
        k.ok(r#"patch vt t --type=merge -p {"spec":{"hosts":["z"]}}"#, ""),
        "virtualthing.example.com/t patched\n"
    );
    assert!(k.ok("get virtualthing t -o yaml", "").contains("generation: 3"));
    let custom = k.ok("get vt -o custom-columns=N:.metadata.name,H:.spec.hosts[0]", "");
    assert_eq!(words(&custom), ["N", "H", "t", "z"]);
}

/// What kubectl reads from the schemas.
fn schemas(k: &Kubectl<'_>) {
    // Before 1.27 kubectl explained by version 2, in other words.
    let plain = if k.since(27) { " --output=plaintext-openapiv2" } else { "" };
    let old = k.ok(&format!("explain deploy.spec.template.spec.containers{plain}"), "");
    assert!(old.contains("VERSION:  apps/v1") && old.contains("imagePullPolicy"), "{old}");
    assert!(k.ok(&format!("explain vt{plain}"), "").contains("KIND:     VirtualThing"));
    assert!(k.fails("explain pod.spec.nothing", "").contains("field \"nothing\" does not exist"));
    let wrong = k.fails("create --validate=true -f -", &WORKLOAD.replace("replicas: 2", "replicaz: 2"));
    assert!(wrong.contains("unknown field \"") && wrong.contains("replicaz"), "{wrong}");
    let listed = k.ok("get --raw /openapi/v3", "");
    assert!(listed.contains("apis/example.com/v1"), "{listed}");
    if !k.since(27) {
        return;
    }
    let pods = k.ok("explain pod.spec.containers.image", "");
    assert!(pods.contains("KIND:       Pod") && pods.contains("FIELD: image <string>"), "{pods}");
    assert!(k.ok("explain deploy", "").contains("GROUP:      apps"));
    let recursive = k.ok("explain svc.spec --recursive", "");
    assert!(
        recursive.contains("clusterIP\t<string>") && recursive.contains("targetPort\t<IntOrString>"),
        "{recursive}"
    );
    let custom = k.ok("explain vt.spec", "");
    assert!(custom.contains("hosts\t<[]string>"), "{custom}");
}

fn access(k: &Kubectl<'_>) {
    assert_eq!(k.ok("create serviceaccount bob", ""), "serviceaccount/bob created\n");
    if k.since(24) {
        assert_eq!(k.ok("create token bob", "").split('.').count(), 3);
    }
    assert_eq!(k.ok("auth can-i delete pods", ""), "yes\n");
    assert!(
        k.run("auth can-i list pods --as=system:serviceaccount:default:bob", "").stdout.starts_with(b"no")
    );
    assert!(
        k.ok("create rolebinding bob --clusterrole=view --serviceaccount=default:bob", "")
            .contains("created")
    );
    assert_eq!(k.ok("auth can-i list pods --as=system:serviceaccount:default:bob", ""), "yes\n");
    if k.since(28) {
        assert!(k.ok("auth whoami", "").contains("kubernetes-admin"));
    }
}

fn endings(k: &Kubectl<'_>) {
    assert_eq!(k.ok("delete pod p", ""), "pod \"p\" deleted\n");
    assert_eq!(k.fails("get pod p", ""), "Error from server (NotFound): pods \"p\" not found\n");
    assert_eq!(k.ok("delete --ignore-not-found=true pod p", ""), "");
    assert!(k.ok("delete -f -", WORKLOAD).contains("service \"web\" deleted"));
    assert!(k.ok("delete deploy --all", "").contains("\"two\" deleted"));
    assert!(k.ok("delete ns extra --timeout=30s", "").contains("namespace \"extra\" deleted"));
    assert!(k.fails("get ns extra", "").contains("NotFound"));
    assert!(k.ok("delete crd virtualthings.example.com", "").contains("deleted"));
    assert!(k.fails("get vt", "").contains("the server could not find the requested resource"));
    assert!(k.fails("get nothing", "").contains("the server doesn't have a resource type \"nothing\""));
    assert_eq!(
        k.ok("apply --server-side -f -", WORKLOAD),
        "deployment.apps/web serverside-applied\nservice/web serverside-applied\n"
    );
}
