//! Forwarded ports by channels of a WebSocket, one connection per port, as client libraries ask for them (kubectl opens
//! streams instead): `?ports=P`, of which the `n`th has channel `2n` for its bytes and `2n + 1` for an error's text. The
//! first message of each channel is the port, little-endian.

use std::sync::Arc;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::super::handler::Job;
use super::forward::Pod;
use super::websocket;
use crate::status::Status;

const PIECE: usize = 32 << 10;
/// Two channels each, numbered by a byte, of which the last one is taken.
const MOST: usize = 127;

/// The ports that a request names.
pub(super) fn asked(job: &Job<'_>) -> Result<Vec<u16>, Status> {
    let texts = job.query.all("ports").flat_map(|list| list.split(','));
    let ports: Result<Vec<u16>, Status> = texts
        .map(|text| text.parse().map_err(|_| Status::bad_request(format!("ports: {text:?} is no port"))))
        .collect();
    match ports? {
        ports if ports.len() > MOST => Err(Status::bad_request(format!("ports: at most {MOST}"))),
        ports => Ok(ports),
    }
}

/// Connects each port, until the client goes.
pub(super) async fn serve(pod: Arc<Pod>, io: TokioIo<Upgraded>, ports: Vec<u16>) {
    let numbers: Vec<u8> = (0..ports.len()).filter_map(|index| u8::try_from(2 * index).ok()).collect();
    let mut channels = websocket::channels(io, &numbers).await;
    let mut connections = JoinSet::new();
    for (channel, port) in numbers.into_iter().zip(ports) {
        let Some(input) = channels.inputs.remove(&channel) else { continue };
        let (pod, out) = (pod.clone(), channels.out.clone());
        connections.spawn(connection(pod, port, channel, input, out));
    }
    drop(channels.out);
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        // Connections end with this.
        _ = channels.gone => {}
    }
}

/// One port. A client that is gone shows in what cannot be sent any more.
async fn connection(
    pod: Arc<Pod>,
    port: u16,
    channel: u8,
    input: mpsc::Receiver<Bytes>,
    out: mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        let _ = out.send(websocket::message(channel, &port.to_le_bytes())).await;
    }
    if let Err(why) = exchange(&pod, port, channel, input, &out).await {
        let text = format!("error forwarding port {port} to pod {}: {why}", pod.name);
        let _ = out.send(websocket::message(channel + 1, text.as_bytes())).await;
    }
}

async fn exchange(
    pod: &Pod,
    port: u16,
    channel: u8,
    mut input: mpsc::Receiver<Bytes>,
    out: &mpsc::Sender<Message>,
) -> Result<(), String> {
    let connected = pod.streams.connect(&pod.namespace, &pod.name, port).await;
    let (mut from, mut to) = tokio::io::split(connected.map_err(|status| status.message)?);
    let into = async {
        while let Some(bytes) = input.recv().await {
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The pod may have closed first.
        let _ = to.shutdown().await;
    };
    let out = async {
        let mut piece = vec![0; PIECE];
        loop {
            let count = from.read(&mut piece).await.map_err(|error| error.to_string())?;
            if count == 0 || out.send(websocket::message(channel, &piece[..count])).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::pin!(out);
    // It is over when the pod has said all.
    tokio::select! {
        done = &mut out => return done,
        () = into => {}
    }
    out.await
}
