//! Forwarded ports: per connection the client opens a stream for its bytes and one for an error's text.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::super::handler::Job;
use super::super::response::Body;
use super::upgrade::{Protocol, Upgrade};
use super::{ports, websocket};
use crate::providers::PodStreams;
use crate::spdy::session::{Session, Stream, StreamReader, StreamWriter};
use crate::status::Status;

const PROTOCOL: &str = "portforward.k8s.io";
/// The SPDY connection inside of a WebSocket, as kubectl does it since 1.31.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// One connection per port, by channels.
const CHANNELS: &str = "v4.channel.k8s.io";
const PIECE: usize = 32 << 10;
/// Streams that wait for their partner: more is no honest client.
const MOST_HALVES: usize = 1024;

/// Grants the upgrade and serves connections until the client goes.
pub(super) fn answer(mut job: Job<'_>) -> Result<Response<Body>, Status> {
    let upgrade = Upgrade::of(&mut job)?;
    let streams = job.api.providers.streams()?;
    let asked = ports::asked(&job)?;
    let pod = Arc::new(Pod { streams, namespace: job.place.namespace, name: job.place.name });
    let mut stopped = job.stopped;
    let inside = [(TUNNEL, Protocol::Tunnel), (CHANNELS, Protocol::WebSocket { version5: false })];
    upgrade.accept(&[PROTOCOL], &inside, async move |io, protocol| {
        let serving = async {
            match protocol {
                Protocol::Tunnel => pod.serve(Session::serve(websocket::tunnel(io).await)).await,
                Protocol::Spdy => pod.serve(Session::serve(io)).await,
                Protocol::WebSocket { .. } => ports::serve(pod, io, asked).await,
            }
        };
        tokio::select! {
            () = serving => {}
            () = crate::server::until(&mut stopped) => {}
        }
    })
}

/// Whose ports they are.
pub(super) struct Pod {
    pub(super) streams: Arc<dyn PodStreams>,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One connection's two streams.
#[derive(Default)]
struct Halves {
    data: Option<Stream>,
    error: Option<Stream>,
}

impl Pod {
    /// Connections end with this, the session's end included.
    async fn serve(self: Arc<Self>, mut session: Session) {
        let pod = self;
        let mut waiting: HashMap<(String, String), Halves> = HashMap::new();
        let mut connections = JoinSet::new();
        while let Some(stream) = session.accept().await {
            while connections.try_join_next().is_some() {}
            let key = (stream.header("port").to_owned(), stream.header("requestid").to_owned());
            let halves = waiting.entry(key.clone()).or_default();
            match stream.header("streamtype") {
                "data" => halves.data = Some(stream),
                "error" => halves.error = Some(stream),
                other => tracing::debug!(kind = other, "a stream of unknown type is ignored"),
            }
            if halves.data.is_some() && halves.error.is_some() {
                if let Some(Halves { data: Some(data), error: Some(error) }) = waiting.remove(&key) {
                    connections.spawn(pod.clone().connection(key.0, data, error));
                }
            } else if waiting.len() > MOST_HALVES {
                return;
            }
        }
    }

    async fn connection(self: Arc<Self>, port: String, data: Stream, error: Stream) {
        let Stream { mut reader, writer, .. } = data;
        let done = self.exchange(&port, &mut reader, &writer).await;
        writer.finish().await;
        if let Err(why) = done {
            error
                .writer
                .send(Bytes::from(format!("error forwarding port {port} to pod {}: {why}", self.name)))
                .await;
        }
        error.writer.finish().await;
    }

    async fn exchange(
        &self,
        port: &str,
        reader: &mut StreamReader,
        writer: &StreamWriter,
    ) -> Result<(), String> {
        let number = port.parse().map_err(|_| format!("{port:?} is no port"))?;
        let connected = self.streams.connect(&self.namespace, &self.name, number).await;
        let (mut from, mut to) = tokio::io::split(connected.map_err(|status| status.message)?);
        let out = async {
            let mut piece = vec![0; PIECE];
            loop {
                let count = from.read(&mut piece).await.map_err(|error| error.to_string())?;
                if count == 0 || !writer.send(Bytes::copy_from_slice(&piece[..count])).await {
                    break;
                }
            }
            Ok(())
        };
        let into = async {
            while let Some(bytes) = reader.next().await {
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            // The pod may have closed first.
            let _ = to.shutdown().await;
        };
        tokio::pin!(out);
        // Whoever has asked waits for the answer: it is over when the pod has said all.
        tokio::select! {
            done = &mut out => return done,
            () = into => {}
        }
        out.await
    }
}
