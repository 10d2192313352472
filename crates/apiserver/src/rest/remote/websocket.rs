//! WebSockets, as Kubernetes uses them: binary messages whose first byte is a channel, or the bytes of a connection.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{
    Role, WebSocketConfig, frame::CloseFrame, frame::coding::CloseCode,
};

const QUEUE: usize = 16;
const LARGEST_MESSAGE: usize = 16 << 20;
const PIECE: usize = 32 << 10;
/// In version 5 a message on this channel closes the channel that it names.
const CLOSE: u8 = 255;

/// A client's channels.
pub(super) struct Channels {
    pub(super) inputs: HashMap<u8, mpsc::Receiver<Bytes>>,
    pub(super) out: mpsc::Sender<Message>,
    /// Resolves when the client is gone.
    pub(super) gone: oneshot::Receiver<()>,
}

async fn open(io: TokioIo<Upgraded>) -> WebSocketStream<TokioIo<Upgraded>> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// Takes over a connection. It is closed when [`Channels::out`] and its clones are dropped.
pub(super) async fn channels(io: TokioIo<Upgraded>, inputs: &[u8]) -> Channels {
    let (mut sink, mut stream) = open(io).await.split();
    let (out, mut outgoing) = mpsc::channel::<Message>(QUEUE);
    tokio::spawn(async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let over = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        // The client may have closed first.
        let _ = sink.send(Message::Close(Some(over))).await;
    });
    let (mut senders, mut receivers) = (HashMap::new(), HashMap::new());
    for channel in inputs {
        let (sender, receiver) = mpsc::channel(QUEUE);
        senders.insert(*channel, sender);
        receivers.insert(*channel, receiver);
    }
    let (end, gone) = oneshot::channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            let mut bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
                Message::Close(_) => break,
                _ => continue,
            };
            if bytes.is_empty() {
                continue;
            }
            let channel = bytes.split_to(1)[0];
            if channel == CLOSE {
                bytes.first().map(|closed| senders.remove(closed));
            } else if let Some(sender) = senders.get(&channel)
                && !bytes.is_empty()
                && sender.send(bytes).await.is_err()
            {
                senders.remove(&channel);
            }
        }
        drop(end);
    });
    Channels { inputs: receivers, out, gone }
}

/// A message on a channel.
pub(super) fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(1 + bytes.len());
    out.put_u8(channel);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

/// The connection that the messages carry, piece by piece.
pub(super) async fn tunnel(io: TokioIo<Upgraded>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIECE);
    let (mut sink, mut stream) = open(io).await.split();
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut piece = vec![0; PIECE];
        while let Ok(count) = from.read(&mut piece).await
            && count > 0
        {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&piece[..count]))).await.is_err() {
                return;
            }
        }
        let over = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(over))).await;
    });
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            match message {
                Message::Binary(bytes) if to.write_all(&bytes).await.is_err() => break,
                Message::Close(_) => break,
                _ => {}
            }
        }
        // The other end sees the end of the connection.
        let _ = to.shutdown().await;
    });
    near
}
