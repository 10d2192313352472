//! Commands in pods and forwarded ports, by stock kubectl: over WebSockets as it does since 1.31, and over SPDY as before
//! (`LATEEN_KUBECTLS` lists older ones).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use lateen_apiserver::{
    BoxWrite, CommandRequest, Connection, LogRequest, LogStream, PodLogs, PodStreams, RunningCommand, Status,
    TerminalSize,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::rest::Server;

/// What container b was given to read.
static INPUT: LazyLock<watch::Sender<Option<String>>> = LazyLock::new(|| watch::Sender::new(None));

/// Runs commands on this host.
struct Host;

#[async_trait]
impl PodStreams for Host {
    async fn exec(&self, request: CommandRequest) -> Result<RunningCommand, Status> {
        let mut child = tokio::process::Command::new(&request.command[0])
            .args(&request.command[1..])
            .env("CONTAINER", request.container)
            .stdin(if request.stdin { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Status::internal(error.to_string()))?;
        let (resize, mut sizes) = tokio::sync::mpsc::channel::<TerminalSize>(1);
        tokio::spawn(async move { while sizes.recv().await.is_some() {} });
        Ok(RunningCommand {
            stdin: child.stdin.take().map(|stdin| Box::pin(stdin) as _),
            stdout: child.stdout.take().map(|stdout| Box::pin(stdout) as _),
            stderr: child.stderr.take().filter(|_| !request.tty).map(|stderr| Box::pin(stderr) as _),
            resize: Some(resize),
            exit: Box::pin(async move { Ok(child.wait().await.unwrap().code().unwrap()) }),
        })
    }

    /// What it reads is `Lines`' next line.
    async fn input(&self, _: &str, _: &str, container: &str) -> Result<BoxWrite, Status> {
        let (near, mut far) = tokio::io::duplex(1024);
        let container = container.to_owned();
        tokio::spawn(async move {
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            INPUT.send_replace(Some(format!("{container} read {text}")));
        });
        Ok(Box::pin(near))
    }

    async fn connect(&self, _: &str, pod: &str, port: u16) -> Result<Box<dyn Connection>, Status> {
        let (near, mut far) = tokio::io::duplex(1024);
        if port == 1 {
            return Err(Status::new(503, "ServiceUnavailable", "connection refused"));
        }
        let greeting = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{pod}:{port}");
        tokio::spawn(async move {
            let mut request = [0; 1024];
            // The whole request comes in one piece, and its content does not matter.
            let _ = far.read(&mut request).await;
            far.write_all(greeting.as_bytes()).await.unwrap();
        });
        Ok(Box::new(near))
    }
}

struct Lines;

#[async_trait]
impl PodLogs for Lines {
    async fn open(&self, request: LogRequest) -> Result<LogStream, Status> {
        assert!(request.follow && request.tail_lines == Some(0));
        if request.container == "a" {
            return Ok(Box::pin(futures::stream::iter([Ok(Bytes::from("a line\n"))])));
        }
        let mut read = INPUT.subscribe();
        let _ = INPUT.send_replace(None);
        Ok(Box::pin(futures::stream::once(async move {
            let text = read.wait_for(Option::is_some).await.unwrap().clone();
            Ok(Bytes::from(text.unwrap_or_default()))
        })))
    }
}

struct Kubectl<'a> {
    program: &'a Path,
    kubeconfig: &'a Path,
}

impl Kubectl<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--kubeconfig").arg(self.kubeconfig).args(args).env("HOME", "/nonexistent");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str], input: &str) -> (Option<i32>, String, String) {
        let mut child = self.command(args).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reaches_into_pods() {
    let server = Server::start().await;
    let rest = &server.rest;
    let spec =
        json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x", "stdin": true}]});
    let pods = "/api/v1/namespaces/default/pods";
    rest.post(pods, &json!({"metadata": {"name": "p"}, "spec": spec})).await.expect(201);
    let running = json!({"status": {"phase": "Running"}});
    rest.patch(&format!("{pods}/p/status"), "merge", &running).await.expect(200);
    assert_eq!(
        rest.get(&format!("{pods}/p/exec?command=ls&stdout=1&container=a")).await.code,
        400,
        "no upgrade"
    );
    server.handle.serve_streams(Arc::new(Host));
    server.handle.serve_logs(Arc::new(Lines));
    by_library(server.handle.kubeconfig_path()).await;
    let kubeconfig = server.handle.kubeconfig_path().to_owned();
    let work = tokio::task::spawn_blocking(move || {
        for (program, _) in crate::kubectls::kubectls() {
            let kubectl = Kubectl { program: &program, kubeconfig: &kubeconfig };
            commands(&kubectl);
            forwarding(&kubectl);
        }
    });
    work.await.unwrap();
}

fn commands(k: &Kubectl<'_>) {
    let (code, out, err) =
        k.run(&["exec", "p", "-c", "b", "--", "sh", "-c", "echo $CONTAINER; echo e >&2; exit 56"], "");
    assert_eq!((code, out.as_str()), (Some(56), "b\n"), "{err}");
    assert_eq!(err, "e\ncommand terminated with exit code 56\n");
    let megabyte = "0123456789abcdef".repeat(1 << 16);
    let (code, out, err) = k.run(&["exec", "-i", "p", "-c", "a", "--", "cat"], &megabyte);
    assert_eq!((code, out.len(), err.as_str()), (Some(0), megabyte.len(), ""));
    assert!(out == megabyte, "the bytes come back as they went");
    let (code, _, err) = k.run(&["exec", "p", "-c", "c", "--", "ls"], "");
    assert_eq!(code, Some(1));
    assert!(
        err.contains("container c is not valid for pod p") || err.contains("container not found"),
        "{err}"
    );
    let (code, _, err) = k.run(&["exec", "p", "-c", "a", "--", "/no/such/program"], "");
    assert_eq!(code, Some(1));
    assert!(err.contains("No such file or directory"), "{err}");
    let (code, out, err) = k.run(&["attach", "p", "-c", "a"], "");
    assert_eq!((code, out.as_str()), (Some(0), "a line\n"), "{err}");
    let (code, out, err) = k.run(&["attach", "-i", "p", "-c", "b"], "hello\n");
    assert_eq!((code, out.as_str()), (Some(0), "b read hello\n"), "{err}");
    let (code, _, err) = k.run(&["attach", "-i", "p", "-c", "a"], "hello\n");
    assert_eq!(code, Some(1));
    assert!(err.contains("container a has no standard input"), "{err}");
}

/// kube-rs forwards ports by channels.
async fn by_library(kubeconfig: &Path) {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(client, "default");
    let mut forwarded = pods.portforward("p", &[8080, 1, 9090]).await.unwrap();
    for port in [9090, 8080] {
        let mut stream = forwarded.take_stream(port).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = [0; 64];
        let mut count = 0;
        while !String::from_utf8_lossy(&answer[..count]).ends_with(&format!("p:{port}")) {
            let read = tokio::time::timeout(crate::rest::DEADLINE, stream.read(&mut answer[count..]));
            let read = read.await.expect("an answer in time").unwrap();
            assert!(read > 0, "{:?}", String::from_utf8_lossy(&answer[..count]));
            count += read;
        }
    }
    let refused = forwarded.take_error(1).unwrap();
    let refused = tokio::time::timeout(crate::rest::DEADLINE, refused).await.expect("an answer in time");
    let refused = refused.expect("a refusal");
    assert!(refused.contains("error forwarding port 1 to pod p: connection refused"), "{refused}");
}

fn forwarding(k: &Kubectl<'_>) {
    use std::io::{BufRead, BufReader, Read};
    let mut child = k.command(&["port-forward", "pod/p", ":8080", ":1"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut port_for = |target: &str| loop {
        let line = lines.next().expect("kubectl says which port it took").unwrap();
        let place = line.strip_prefix("Forwarding from 127.0.0.1:");
        if let Some((port, _)) = place.and_then(|rest| rest.split_once(&format!(" -> {target}"))) {
            return port.parse::<u16>().unwrap();
        }
    };
    let (good, bad) = (port_for("8080"), port_for("1"));
    let ask = |port: u16| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        // A refused connection may also end in a reset.
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for _ in 0..3 {
        assert!(ask(good).ends_with("p:8080"));
    }
    assert_eq!(ask(bad), "");
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("error forwarding port 1 to pod p: connection refused"), "{said}");
}
