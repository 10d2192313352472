//! Controllers and node agent together, over a fake API server and a stand-in for the binary.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use lateen_apiserver::{CommandRequest, TerminalSize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::addresses::ClusterNumber;
use crate::api::{Api, Backend, Change, Collection, Part, deletion};
use crate::controllers::run::Controllers;
use crate::fake::{self, Fake};
use crate::lease::Lease;
use crate::net::directory::Directory;
use crate::node::events::Events;
use crate::node::launch::{DataPlane, Surroundings};
use crate::node::logs::LogQuery;
use crate::node::{NodeConfig, PodLogs, RunningNode};
use crate::outside::Names;
use crate::process::ProcessBook;

/// A cluster on a number of its own. `program` plays the binary.
struct World {
    fake: Arc<Fake>,
    api: Api,
    dir: tempfile::TempDir,
    cluster: ClusterNumber,
    node: RunningNode,
    _controllers: tokio::task::JoinSet<()>,
    _lease: Lease,
}

impl World {
    async fn start(program: &str) -> Self {
        let lease = Lease::acquire(None, &[]).unwrap();
        let cluster = lease.number();
        let (fake, api) = fake::api();
        let namespaces = Collection { group: "", version: "v1", resource: "namespaces" };
        let default = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        fake.create(namespaces, default).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let events = Events::start(api.clone());
        let (sender, directory) = watch::channel(Arc::new(Directory::default()));
        let controllers = Controllers {
            api: api.clone(),
            events: events.clone(),
            cluster,
            root: "PEM".into(),
            directory: sender,
            outside: Names::default(),
        };
        let node = NodeConfig {
            name: "node".into(),
            api: api.clone(),
            events,
            book: ProcessBook::open(dir.path().join("processes")).unwrap(),
            around: Surroundings {
                cluster,
                executable: program.into(),
                api_server: (Ipv4Addr::LOCALHOST, 6443).into(),
                data_plane: DataPlane::Lateen,
                inherited: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
                outside: None,
            },
            directory,
            pods: dir.path().join("pods"),
            programs: dir.path().join("bin"),
        };
        let (node, controllers) = (node.start().unwrap(), controllers.start());
        Self { fake, api, dir, cluster, node, _controllers: controllers, _lease: lease }
    }

    async fn create(&self, object: Value) {
        let collection = match object["kind"].as_str().unwrap() {
            "Deployment" => Collection { group: "apps", version: "v1", resource: "deployments" },
            "Service" => Collection { group: "", version: "v1", resource: "services" },
            _ => Collection { group: "", version: "v1", resource: "pods" },
        };
        self.fake.create(collection, object).await.unwrap();
    }

    /// Waits until some pod is as wanted.
    async fn pod(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut changes = self.api.changes();
        loop {
            changes.borrow_and_update();
            let pods = self.fake.list(Collection::of::<Pod>(), None).await;
            if let Some(pod) = pods.iter().find(|pod| wanted(pod)) {
                return pod.clone();
            }
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            assert!(changed.is_ok(), "no such pod; there are {pods:#?}");
        }
    }

    async fn gone(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut changes = self.api.changes();
        while !self.fake.list(Collection::of::<Pod>(), None).await.is_empty() {
            let changed = tokio::time::timeout_at(deadline, changes.changed()).await;
            assert!(changed.is_ok(), "pods stay");
        }
    }
}

fn deployment(image: &str) -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": image}]}}}})
}

fn state<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    &pod["status"]["containerStatuses"][0]["state"][kind]
}

fn alive(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("processes")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_is_found_by_its_service_and_goes_without_a_trace() {
    // `yes app sleep` prints its arguments for ever: a program that runs.
    let world = World::start("/usr/bin/yes").await;
    world.create(deployment("curlimages/curl")).await;
    world
        .create(
            json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}}),
        )
        .await;
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
    };
    let pod = world.pod(ready).await;
    assert!(pod["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["hostIP"], world.cluster.node().to_string());
    let ip: Ipv4Addr = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
    assert!(world.cluster.pod_index(ip).is_some());
    assert_eq!(alive(world.dir.path()), 1);

    let parsed: Pod = serde_json::from_value(pod.clone()).unwrap();
    let logs = PodLogs { pods: world.dir.path().join("pods") };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut log = logs.open(&parsed, "app", false, LogQuery::default()).unwrap();
        let text = String::from_utf8(log.begin().unwrap()).unwrap();
        if text.starts_with("app sleep\n") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let service = world.api.get::<Service>(Some("default"), "web").await.unwrap();
    assert!(service.spec.as_ref().unwrap().cluster_ip.as_deref().unwrap().starts_with("127.2"));
    let owner =
        world.api.get::<k8s_openapi::api::apps::v1::Deployment>(Some("default"), "web").await.unwrap();
    world.api.carry_out(Change::Delete(deletion(&*owner))).await.unwrap();
    world.gone().await;
    assert_eq!(alive(world.dir.path()), 0);
    assert_eq!(std::fs::read_dir(world.dir.path().join("pods")).unwrap().count(), 0);
    world.node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_in_a_containers_environment() {
    // `yes app sleep` prints its arguments for ever: a program that runs.
    let world = World::start("/usr/bin/yes").await;
    world.create(deployment("curlimages/curl")).await;
    let pod = world.pod(|pod| state(pod, "running").is_object()).await;
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let streams = world.node.streams();
    let request = |command: &[&str], tty: bool| CommandRequest {
        namespace: "default".into(),
        pod: name.clone(),
        container: "app".into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin: true,
        tty,
    };
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let script =
        "read line; echo $line $HOSTNAME $http_proxy; command -v fortio; cat \"$CURL_HOME/.curlrc\"; exit 56";
    let mut running = streams.exec(request(&["/no/such/sh", "-c", script], false)).await.unwrap();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"hello\n").await.unwrap();
    let mut out = String::new();
    running.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(running.exit.await, Ok(56));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], format!("hello {name} http://{ip}:15007"));
    assert_eq!(lines[1], world.dir.path().join("bin/fortio").to_str().unwrap());
    assert_eq!(lines[3], format!("connect-to = \"localhost::{ip}:\""));

    let mut on_terminal =
        streams.exec(request(&["sh", "-c", "tty >/dev/null && kill -9 $$"], true)).await.unwrap();
    let resize = on_terminal.resize.take().unwrap();
    // The command may be gone already; what counts is how it has ended.
    let _ = resize.send(TerminalSize { columns: 80, rows: 24 }).await;
    assert_eq!(on_terminal.exit.await, Ok(137));

    let dropped = streams.exec(request(&["sleep", "600"], false)).await.unwrap();
    assert_eq!(alive(world.dir.path()), 2);
    drop(dropped);
    assert_eq!(alive(world.dir.path()), 1);

    let refused = streams.exec(request(&["no-such-program"], false)).await.err().unwrap();
    assert!(
        refused.message.ends_with("exec: \"no-such-program\": executable file not found in $PATH"),
        "{refused}"
    );
    let other = CommandRequest { container: "other".into(), ..request(&["sh"], false) };
    let refused = streams.exec(other).await.err().unwrap();
    assert_eq!(refused.message, "unable to upgrade connection: container not found (\"other\")");
    let nobody = streams.connect("default", &name, 9).await.err().unwrap();
    assert!(nobody.message.contains("connection refused"), "{nobody}");
    world.node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_asked_whether_a_container_started_and_is_ready() {
    let world = World::start("/usr/bin/yes").await;
    let touched = world.dir.path().join("touched");
    let mut web = deployment("curlimages/curl");
    let container = &mut web["spec"]["template"]["spec"]["containers"][0];
    container["startupProbe"] = json!({"exec": {"command": ["sh", "-c", "test -n \"$HOSTNAME\""]}});
    container["readinessProbe"] = json!({"exec": {"command": ["test", "-e", touched]}, "periodSeconds": 1});
    world.create(web).await;
    let is = |pod: &Value, what: &str, wanted: bool| pod["status"]["containerStatuses"][0][what] == wanted;
    world.pod(|pod| is(pod, "started", true) && is(pod, "ready", false)).await;
    std::fs::write(&touched, "").unwrap();
    world.pod(|pod| is(pod, "ready", true)).await;
    world.node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_command_restarts_its_container() {
    let world = World::start("/usr/bin/yes").await;
    let mut web = deployment("curlimages/curl");
    // The command outlasts its time.
    web["spec"]["template"]["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["sleep", "600"]}, "timeoutSeconds": 1, "periodSeconds": 1, "failureThreshold": 1});
    world.create(web).await;
    world.pod(|pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    world.node.end().await;
    assert_eq!(alive(world.dir.path()), 0, "the commands are gone, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_crash_loops() {
    let world = World::start("/bin/false").await;
    world.create(deployment("curlimages/curl")).await;
    let pod = world.pod(|pod| state(pod, "waiting")["reason"] == "CrashLoopBackOff").await;
    let status = &pod["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(pod["status"]["phase"], "Running");
    world.node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_image_is_a_status() {
    let world = World::start("/bin/false").await;
    world.create(deployment("redis:7")).await;
    let pod = world.pod(|pod| state(pod, "waiting")["reason"] == "ErrImagePull").await;
    assert!(state(&pod, "waiting")["message"].as_str().unwrap().contains("redis:7"));
    assert_eq!(pod["status"]["phase"], "Pending");
    world.node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_done_succeeds_and_missing_objects_are_waited_for() {
    let world = World::start("/bin/true").await;
    world
        .create(json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "job", "namespace": "default"},
            "spec": {"restartPolicy": "Never",
                "initContainers": [{"name": "istio-init", "image": "istio/proxyv2", "args": ["istio-iptables"]}],
                "containers": [{"name": "app", "image": "curlimages/curl", "env": [
                    {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}]}]}}))
        .await;
    let pod = world.pod(|pod| state(pod, "waiting")["reason"] == "CreateContainerConfigError").await;
    assert_eq!(state(&pod, "waiting")["message"], "configmap \"late\" not found");
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late", "namespace": "default"},
        "data": {"x": "1"}});
    let maps = Collection { group: "", version: "v1", resource: "configmaps" };
    world.fake.create(maps, map).await.unwrap();
    let pod = world.pod(|pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(state(&pod, "terminated")["reason"], "Completed");
    // Nothing that ended is started again, also not by the next status.
    let mut touched = pod.clone();
    touched["metadata"]["labels"] = json!({"a": "b"});
    world.fake.replace(Collection::of::<Pod>(), touched, Part::Whole).await.unwrap();
    world.node.end().await;
    assert_eq!(alive(world.dir.path()), 0);
}
