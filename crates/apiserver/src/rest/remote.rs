//! `pods/exec`, `pods/attach` and `pods/portforward`: the request is answered by an upgrade, to SPDY/3.1 or to a WebSocket,
//! and what follows on the connection is the streams of the command or of the forwarded ports.

mod command;
mod forward;
mod ports;
mod upgrade;
mod websocket;

use futures::StreamExt;
use http::Response;
use serde_json::{Value, json};

use self::upgrade::Upgrade;
use super::handler::Job;
use super::log;
use super::response::Body;
use crate::providers::{CommandRequest, LogRequest, RunningCommand};
use crate::status::Status;

/// Answers one of the three.
pub(super) async fn answer(job: Job<'_>) -> Result<Response<Body>, Status> {
    let pod = job.api.get(&job.resource, &job.place.namespace, &job.place.name)?.value(&job.resource);
    let options = options(&job);
    crate::admission::connect(job.api, &job.call()?, &job.place.name, &options).await?;
    match job.place.subresource.as_str() {
        "exec" => exec(job, &pod).await,
        "attach" => attach(job, &pod).await,
        _ => forward::answer(job),
    }
}

/// The request as an object, for webhooks.
fn options(job: &Job<'_>) -> Value {
    let text = |name: &str| job.query.text(name);
    let flag = |name: &str| job.query.flag(name);
    let kind = match job.place.subresource.as_str() {
        "exec" => "PodExecOptions",
        "attach" => "PodAttachOptions",
        _ => return json!({"kind": "PodPortForwardOptions", "apiVersion": "v1"}),
    };
    let mut options = json!({
        "kind": kind, "apiVersion": "v1", "container": text("container"), "stdin": flag("stdin"),
        "stdout": flag("stdout"), "stderr": flag("stderr"), "tty": flag("tty"),
    });
    if kind == "PodExecOptions" {
        options["command"] = job.query.all("command").collect();
    }
    options
}

/// The streams that the client wants of a command.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Wanted {
    fn of(job: &Job<'_>) -> Result<Self, Status> {
        let flag = |name: &str| job.query.flag(name);
        let wanted =
            Self { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty") };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        if wanted.tty && wanted.stderr {
            return Err(Status::bad_request("tty and stderr cannot both be true: a terminal has one output"));
        }
        Ok(wanted)
    }
}

async fn exec(mut job: Job<'_>, pod: &Value) -> Result<Response<Body>, Status> {
    let wanted = Wanted::of(&job)?;
    let command: Vec<String> = job.query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    let upgrade = Upgrade::of(&mut job)?;
    let request = CommandRequest {
        namespace: job.place.namespace.clone(),
        pod: job.place.name.clone(),
        container: log::container(pod, job.query.text("container"))?,
        command,
        stdin: wanted.stdin,
        tty: wanted.tty,
    };
    let running = job.api.providers.streams()?.exec(request).await?;
    command::serve(upgrade, wanted, running, job.stopped)
}

/// What the container prints from now on, and its input when it has one. What it prints comes from its log, so there is no
/// terminal.
async fn attach(mut job: Job<'_>, pod: &Value) -> Result<Response<Body>, Status> {
    let wanted = Wanted::of(&job)?;
    let container = log::container(pod, job.query.text("container"))?;
    if wanted.stdin {
        let spec = pod["spec"]["containers"].as_array().into_iter().flatten();
        if !spec.clone().any(|one| one["name"] == container.as_str() && one["stdin"] == true) {
            let why =
                format!("container {container} has no standard input: attach without -i, or use exec -i");
            return Err(Status::bad_request(why));
        }
        if wanted.tty {
            let why =
                format!("container {container} gets no terminal here: attach -i without -t, or use exec -it");
            return Err(Status::bad_request(why));
        }
    }
    let upgrade = Upgrade::of(&mut job)?;
    let request = LogRequest {
        namespace: job.place.namespace.clone(),
        pod: job.place.name.clone(),
        container,
        follow: true,
        tail_lines: Some(0),
        ..LogRequest::default()
    };
    let log = job.api.providers.logs()?.open(request.clone()).await?;
    let stdin = if wanted.stdin {
        let LogRequest { namespace, pod, container, .. } = &request;
        Some(job.api.providers.streams()?.input(namespace, pod, container).await?)
    } else {
        None
    };
    // Dropped with the log, which ends with the container.
    let (open, over) = tokio::sync::oneshot::channel::<()>();
    let log = log.inspect(move |_| {
        let _ = &open;
    });
    let running = RunningCommand {
        stdin,
        stdout: Some(Box::pin(tokio_util::io::StreamReader::new(log))),
        stderr: None,
        resize: None,
        exit: Box::pin(async {
            // It is never sent.
            let _ = over.await;
            Ok(0)
        }),
    };
    let wanted = Wanted { tty: false, ..wanted };
    command::serve(upgrade, wanted, running, job.stopped)
}
