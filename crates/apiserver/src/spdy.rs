//! SPDY/3.1, as far as `kubectl` speaks it: streams over one connection, for commands in pods and forwarded ports.
//!
//! [`codec`] turns bytes into frames and back and does no I/O; [`session`] owns a connection. Framing follows
//! [draft-mbelshe-httpbis-spdy-00](https://datatracker.ietf.org/doc/html/draft-mbelshe-httpbis-spdy-00). Windows are not
//! kept: no Kubernetes client or server does, each relies on the connection's own.

pub(crate) mod codec;
mod dictionary;
mod headers;
pub(crate) mod session;

use bytes::Bytes;

/// The names and values that open a stream; names are lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// The number of a stream, odd when the client has opened it.
pub(crate) type StreamId = u32;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Opens a stream; with `fin` the opener will send nothing on it.
    SynStream { stream: StreamId, headers: Headers, fin: bool },
    /// Accepts a stream.
    SynReply { stream: StreamId, headers: Headers, fin: bool },
    /// Ends a stream at once.
    Reset { stream: StreamId, status: u32 },
    /// To be sent back when its number is the peer's.
    Ping(u32),
    /// No stream after this one will be served.
    GoAway { last: StreamId },
    /// More headers of a stream.
    Headers { stream: StreamId, headers: Headers, fin: bool },
    /// Bytes of a stream; with `fin` the last ones.
    Data { stream: StreamId, bytes: Bytes, fin: bool },
    /// SETTINGS, WINDOW_UPDATE and types that are not known: said, and of no effect here.
    Other { kind: u16 },
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpdyError {
    /// A control frame of another protocol.
    #[error("a frame of SPDY version {0}; this server speaks version 3")]
    Version(u16),
    /// A frame that is too short for its type.
    #[error("a frame of type {kind} with only {length} bytes")]
    Short { kind: u16, length: usize },
    /// Headers that do not decompress or do not add up.
    #[error("headers: {0}")]
    Headers(&'static str),
    /// More headers than anybody needs.
    #[error("headers of more than {0} bytes")]
    LargeHeaders(usize),
}
