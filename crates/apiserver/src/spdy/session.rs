//! One SPDY connection, as the server of it: streams that the client opens come out, each with two halves.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::codec::{Decoder, Encoder};
use super::{Frame, Headers, StreamId};

/// Frames on their way to the peer, over all streams.
const OUTGOING: usize = 16;
/// Pieces that a stream's reader may be behind; then the whole connection waits for it.
const INCOMING: usize = 64;
const READ: usize = 32 << 10;
/// A longer piece is sent as several frames.
const LONGEST_FRAME: usize = 1 << 20;

/// A connection. When it is dropped no new streams are taken; those there are go on until they are dropped as well.
pub(crate) struct Session {
    streams: mpsc::Receiver<Stream>,
}

/// A stream that the client has opened and that was accepted.
pub(crate) struct Stream {
    pub(crate) headers: Headers,
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

/// What the client sends on a stream.
pub(crate) struct StreamReader(mpsc::Receiver<Bytes>);

/// What is sent to the client on a stream. Dropped without [`StreamWriter::finish`] the stream is left open.
pub(crate) struct StreamWriter {
    id: StreamId,
    frames: mpsc::Sender<Frame>,
}

impl Session {
    /// Takes over a connection whose upgrade has been answered. It ends when the client closes it, or when the session
    /// and all its streams are dropped.
    pub(crate) fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (read, write) = tokio::io::split(io);
        let (frames, outgoing) = mpsc::channel(OUTGOING);
        let (opened, streams) = mpsc::channel(INCOMING);
        let incoming = Incoming {
            decoder: Decoder::new(),
            opened,
            // Weak: the writer ends with the last stream, not with the reader.
            frames: frames.downgrade(),
            keep: Some(frames),
            readers: HashMap::new(),
        };
        let writer = tokio::spawn(write_frames(write, outgoing));
        tokio::spawn(async move {
            let mut writer = writer;
            tokio::select! {
                () = incoming.run(read) => {}
                _ = &mut writer => {}
            }
        });
        Self { streams }
    }

    /// The next stream; none when the client has closed the connection.
    pub(crate) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

impl Stream {
    /// A header's value, or "".
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

impl StreamReader {
    /// The next piece; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }

    /// The pieces as a channel, which ends at the end.
    pub(crate) fn into_pieces(self) -> mpsc::Receiver<Bytes> {
        self.0
    }
}

impl StreamWriter {
    /// Sends bytes; false when the connection is gone.
    pub(crate) async fn send(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(LONGEST_FRAME));
            let frame = Frame::Data { stream: self.id, bytes: piece, fin: false };
            if self.frames.send(frame).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Tells that nothing more will come.
    pub(crate) async fn finish(self) {
        let frame = Frame::Data { stream: self.id, bytes: Bytes::new(), fin: true };
        // Without a connection there is nobody to tell.
        let _ = self.frames.send(frame).await;
    }
}

struct Incoming {
    decoder: Decoder,
    opened: mpsc::Sender<Stream>,
    frames: mpsc::WeakSender<Frame>,
    /// Held as long as new streams may come.
    keep: Option<mpsc::Sender<Frame>>,
    readers: HashMap<StreamId, mpsc::Sender<Bytes>>,
}

impl Incoming {
    async fn run(mut self, mut from: impl AsyncRead + Unpin) {
        let opened = self.opened.clone();
        loop {
            loop {
                match self.decoder.next() {
                    Ok(Some(frame)) => {
                        if !self.take(frame).await {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return tracing::debug!(%error, "a SPDY connection is given up"),
                }
            }
            self.decoder.buffer().reserve(READ);
            tokio::select! {
                read = from.read_buf(self.decoder.buffer()) => {
                    if !matches!(read, Ok(count) if count > 0) {
                        return;
                    }
                }
                () = opened.closed(), if self.keep.is_some() => self.keep = None,
            }
        }
    }

    /// False when the connection is over.
    async fn take(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::SynStream { stream, headers, fin } => return self.open(stream, headers, fin).await,
            Frame::Data { stream, bytes, fin } => {
                if let Some(reader) = self.readers.get(&stream)
                    && !bytes.is_empty()
                    && reader.send(bytes).await.is_err()
                {
                    // Nobody reads it any more.
                    self.readers.remove(&stream);
                }
                if fin {
                    self.readers.remove(&stream);
                }
            }
            Frame::Reset { stream, .. } | Frame::Headers { stream, fin: true, .. } => {
                self.readers.remove(&stream);
            }
            // Even numbers would be answers to ours; there are none.
            Frame::Ping(number) if number % 2 == 1 => return self.send(Frame::Ping(number)).await,
            Frame::GoAway { .. } => self.keep = None,
            Frame::Ping(_) | Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Other { .. } => {}
        }
        true
    }

    async fn open(&mut self, id: StreamId, headers: Headers, fin: bool) -> bool {
        const REFUSED_STREAM: u32 = 3;
        const PROTOCOL_ERROR: u32 = 1;
        let Some(frames) = self.frames.upgrade() else { return false };
        let refused = match (id.is_multiple_of(2) || self.readers.contains_key(&id), &self.keep) {
            (true, _) => Some(PROTOCOL_ERROR),
            (false, None) => Some(REFUSED_STREAM),
            (false, Some(_)) => None,
        };
        if let Some(status) = refused {
            return frames.send(Frame::Reset { stream: id, status }).await.is_ok();
        }
        // kubectl's library drops what comes on a stream before its reply.
        if frames.send(Frame::SynReply { stream: id, headers: Headers::new(), fin: false }).await.is_err() {
            return false;
        }
        let (sender, receiver) = mpsc::channel(INCOMING);
        if !fin {
            self.readers.insert(id, sender);
        }
        let stream = Stream { headers, reader: StreamReader(receiver), writer: StreamWriter { id, frames } };
        if self.opened.send(stream).await.is_err() {
            self.keep = None;
        }
        true
    }

    async fn send(&self, frame: Frame) -> bool {
        match self.frames.upgrade() {
            Some(frames) => frames.send(frame).await.is_ok(),
            None => false,
        }
    }
}

/// Writes until the last stream is gone, then says so and closes.
async fn write_frames(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    let Ok(mut encoder) = Encoder::new() else { return };
    let mut buffer = BytesMut::new();
    let mut over = false;
    while !over {
        match frames.recv().await {
            Some(frame) => encode(&mut encoder, &frame, &mut buffer),
            None => {
                over = true;
                encode(&mut encoder, &Frame::GoAway { last: 0 }, &mut buffer);
            }
        }
        while let Ok(frame) = frames.try_recv() {
            encode(&mut encoder, &frame, &mut buffer);
        }
        if to.write_all(&buffer).await.is_err() || to.flush().await.is_err() {
            return;
        }
        buffer.clear();
    }
    // The peer may have closed first.
    let _ = to.shutdown().await;
}

fn encode(encoder: &mut Encoder, frame: &Frame, buffer: &mut BytesMut) {
    if let Err(error) = encoder.encode(frame, buffer) {
        tracing::debug!(%error, "a SPDY frame is not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Client {
        io: tokio::io::DuplexStream,
        encoder: Encoder,
        decoder: Decoder,
    }

    impl Client {
        async fn send(&mut self, frame: Frame) {
            let mut out = BytesMut::new();
            self.encoder.encode(&frame, &mut out).unwrap();
            self.io.write_all(&out).await.unwrap();
        }

        async fn receive(&mut self) -> Option<Frame> {
            loop {
                if let Some(frame) = self.decoder.next().unwrap() {
                    return Some(frame);
                }
                if self.io.read_buf(self.decoder.buffer()).await.unwrap() == 0 {
                    return None;
                }
            }
        }
    }

    fn pair() -> (Client, Session) {
        let (io, server) = tokio::io::duplex(4096);
        let client = Client { io, encoder: Encoder::new().unwrap(), decoder: Decoder::new() };
        (client, Session::serve(server))
    }

    fn open(stream: StreamId, kind: &str) -> Frame {
        Frame::SynStream { stream, headers: vec![("streamtype".into(), kind.into())], fin: false }
    }

    fn data(stream: StreamId, text: &'static str, fin: bool) -> Frame {
        Frame::Data { stream, bytes: text.into(), fin }
    }

    fn reply(stream: StreamId) -> Frame {
        Frame::SynReply { stream, headers: Headers::new(), fin: false }
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_end_apart() {
        let (mut client, mut session) = pair();
        client.send(open(1, "stdin")).await;
        client.send(data(1, "hello", true)).await;
        let mut stream = session.accept().await.unwrap();
        assert_eq!(stream.header("streamtype"), "stdin");
        assert_eq!(stream.reader.next().await.unwrap(), "hello");
        assert_eq!(stream.reader.next().await, None);
        assert!(stream.writer.send("back".into()).await);
        stream.writer.finish().await;
        assert_eq!(client.receive().await, Some(reply(1)));
        assert_eq!(client.receive().await, Some(data(1, "back", false)));
        assert_eq!(client.receive().await, Some(data(1, "", true)));
        client.send(Frame::Ping(7)).await;
        assert_eq!(client.receive().await, Some(Frame::Ping(7)));
        drop(session);
        assert_eq!(client.receive().await, Some(Frame::GoAway { last: 0 }));
        assert_eq!(client.receive().await, None);
    }

    #[tokio::test]
    async fn a_stream_outlives_its_session_and_new_ones_are_refused() {
        let (mut client, mut session) = pair();
        client.send(open(1, "data")).await;
        let mut stream = session.accept().await.unwrap();
        assert_eq!(client.receive().await, Some(reply(1)));
        drop(session);
        client.send(data(1, "late", false)).await;
        assert_eq!(stream.reader.next().await.unwrap(), "late");
        client.send(open(2, "even")).await;
        assert_eq!(client.receive().await, Some(Frame::Reset { stream: 2, status: 1 }));
        drop(stream);
        assert_eq!(client.receive().await, Some(Frame::GoAway { last: 0 }));
    }

    #[tokio::test]
    async fn the_end_of_the_connection_ends_its_streams() {
        let (mut client, mut session) = pair();
        client.send(open(1, "data")).await;
        let mut stream = session.accept().await.unwrap();
        drop(client);
        assert_eq!(stream.reader.next().await, None);
        assert!(session.accept().await.is_none());
    }
}
