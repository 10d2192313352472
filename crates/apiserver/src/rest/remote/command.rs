//! The streams of a command: standard input, output and error, the size of the terminal, and how it ended.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;

use super::super::response::Body;
use super::Wanted;
use super::upgrade::{Protocol, Upgrade};
use super::websocket;
use crate::providers::{RunningCommand, TerminalSize};
use crate::spdy::session::{Session, StreamWriter};
use crate::status::Status;

const V4: &str = "v4.channel.k8s.io";
const V5: &str = "v5.channel.k8s.io";

/// Channel numbers of the WebSocket protocols.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

const PIECE: usize = 32 << 10;
/// How long a client may take to open its streams.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// What a command has left running may hold its output open: that long it is read on.
const OUTPUT_AFTER_EXIT: Duration = Duration::from_secs(1);

/// The client's side of a command.
struct Streams {
    stdin: Option<mpsc::Receiver<Bytes>>,
    resize: Option<mpsc::Receiver<Bytes>>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    error: Output,
    gone: Gone,
}

/// One stream to the client.
enum Output {
    Spdy(StreamWriter),
    WebSocket(u8, mpsc::Sender<Message>),
}

/// Tells when the client has gone.
enum Gone {
    Spdy(Session),
    WebSocket(oneshot::Receiver<()>),
}

/// Grants the upgrade and connects the command with the client.
pub(super) fn serve(
    upgrade: Upgrade,
    wanted: Wanted,
    running: RunningCommand,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<Response<Body>, Status> {
    let inside =
        [(V5, Protocol::WebSocket { version5: true }), (V4, Protocol::WebSocket { version5: false })];
    upgrade.accept(&[V4], &inside, async move |io, protocol| {
        let Some(streams) = open(io, protocol, wanted).await else { return };
        tokio::select! {
            () = streams.run(running) => {}
            () = crate::server::until(&mut stopped) => {}
        }
    })
}

async fn open(io: TokioIo<Upgraded>, protocol: Protocol, wanted: Wanted) -> Option<Streams> {
    if protocol == Protocol::Spdy {
        return tokio::time::timeout(OPEN_WITHIN, open_spdy(Session::serve(io), wanted)).await.ok()?;
    }
    let mut channels = websocket::channels(io, &[STDIN, RESIZE]).await;
    let output = |channel: u8| Output::WebSocket(channel, channels.out.clone());
    Some(Streams {
        stdin: channels.inputs.remove(&STDIN).filter(|_| wanted.stdin),
        resize: channels.inputs.remove(&RESIZE).filter(|_| wanted.tty),
        stdout: wanted.stdout.then(|| output(STDOUT)),
        stderr: wanted.stderr.then(|| output(STDERR)),
        error: output(ERROR),
        gone: Gone::WebSocket(channels.gone),
    })
}

/// The client opens one stream for each end it wants; they come in any order.
async fn open_spdy(mut session: Session, wanted: Wanted) -> Option<Streams> {
    let (mut stdin, mut resize) = (None, None);
    let (mut stdout, mut stderr, mut error) = (None, None, None);
    loop {
        let complete = error.is_some()
            && stdin.is_some() >= wanted.stdin
            && stdout.is_some() >= wanted.stdout
            && stderr.is_some() >= wanted.stderr
            && resize.is_some() >= wanted.tty;
        if complete {
            break;
        }
        let stream = session.accept().await?;
        let kind = stream.header("streamtype").to_owned();
        let (input, output) = (stream.reader.into_pieces(), Output::Spdy(stream.writer));
        match kind.as_str() {
            "stdin" => stdin = Some(input),
            "resize" => resize = Some(input),
            "stdout" => stdout = Some(output),
            "stderr" => stderr = Some(output),
            "error" => error = Some(output),
            other => tracing::debug!(kind = other, "a stream of unknown type is ignored"),
        }
    }
    Some(Streams { stdin, resize, stdout, stderr, error: error?, gone: Gone::Spdy(session) })
}

impl Streams {
    async fn run(self, running: RunningCommand) {
        let Self { stdin, resize, stdout, stderr, error, gone } = self;
        let input = feed(stdin, running.stdin);
        let sizes = follow_size(resize, running.resize);
        let outputs = async { tokio::join!(drain(running.stdout, stdout), drain(running.stderr, stderr)) };
        let ended = async {
            tokio::pin!(outputs);
            let mut exit = running.exit;
            let code = tokio::select! {
                code = &mut exit => {
                    let _ = tokio::time::timeout(OUTPUT_AFTER_EXIT, outputs).await;
                    code
                }
                _ = &mut outputs => exit.await,
            };
            let status = match code {
                Ok(code) => exit_status(code),
                Err(status) => status.to_json(),
            };
            error.send(status.to_string().into()).await;
            error.finish().await;
        };
        tokio::select! {
            // Neither of the first two ends the command.
            () = async { tokio::join!(input, sizes); std::future::pending().await } => {}
            () = ended => {}
            () = gone.wait() => {}
        }
    }
}

impl Output {
    /// False when the client is gone.
    async fn send(&self, bytes: Bytes) -> bool {
        match self {
            Self::Spdy(writer) => writer.send(bytes).await,
            Self::WebSocket(channel, out) => out.send(websocket::message(*channel, &bytes)).await.is_ok(),
        }
    }

    async fn finish(self) {
        if let Self::Spdy(writer) = self {
            writer.finish().await;
        }
    }
}

impl Gone {
    async fn wait(self) {
        match self {
            // Further streams are nobody's.
            Self::Spdy(mut session) => while session.accept().await.is_some() {},
            // It is never sent, only dropped.
            Self::WebSocket(gone) => drop(gone.await),
        }
    }
}

async fn feed(from: Option<mpsc::Receiver<Bytes>>, to: Option<crate::providers::BoxWrite>) {
    let (Some(mut from), Some(mut to)) = (from, to) else { return };
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The command sees the end of its input when the writer is dropped; a shutdown reaches sockets, too.
    let _ = to.shutdown().await;
}

async fn follow_size(from: Option<mpsc::Receiver<Bytes>>, to: Option<mpsc::Sender<TerminalSize>>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    while let Some(bytes) = from.recv().await {
        let Ok(size) = serde_json::from_slice::<Value>(&bytes) else { continue };
        let number = |key: &str| size[key].as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
        let size = TerminalSize { columns: number("Width"), rows: number("Height") };
        if to.send(size).await.is_err() {
            return;
        }
    }
}

async fn drain(from: Option<impl AsyncRead + Unpin>, to: Option<Output>) {
    let Some(mut from) = from else { return };
    let mut piece = vec![0; PIECE];
    // An error is the end of a terminal, or of a container's log.
    while let Ok(count) = from.read(&mut piece).await
        && count > 0
    {
        if let Some(to) = &to
            && !to.send(Bytes::copy_from_slice(&piece[..count])).await
        {
            return;
        }
    }
    if let Some(to) = to {
        to.finish().await;
    }
}

/// The `Status` that the error stream ends with; kubectl takes its own exit status from it.
fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}
