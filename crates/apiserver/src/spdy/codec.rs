//! Frames as bytes. Sans-IO: bytes go in, frames come out, and the other way round.

use bytes::{Buf, BufMut, BytesMut};

use super::headers::{Deflater, Inflater};
use super::{Frame, Headers, SpdyError, StreamId};

const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const HEAD: usize = 8;
const FIN: u8 = 1;
const STREAM_MASK: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Reads frames.
pub(crate) struct Decoder {
    buffer: BytesMut,
    headers: Inflater,
}

/// Writes frames.
pub(crate) struct Encoder {
    headers: Deflater,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::new(), headers: Inflater::new() }
    }

    /// Where bytes from the peer go.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole frame; none when more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(mut head) = self.buffer.get(..HEAD) else { return Ok(None) };
        let (first, second) = (head.get_u32(), head.get_u32());
        let flags = second.to_be_bytes()[0];
        let length = (second & 0x00ff_ffff) as usize;
        if self.buffer.len() < HEAD + length {
            self.buffer.reserve(HEAD + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let mut payload = self.buffer.split_to(length);
        let fin = flags & FIN != 0;
        let [v0, v1, k0, k1] = first.to_be_bytes();
        let (version, kind) = (u16::from_be_bytes([v0, v1]), u16::from_be_bytes([k0, k1]));
        if version & CONTROL == 0 {
            return Ok(Some(Frame::Data { stream: first, bytes: payload.freeze(), fin }));
        }
        if version & !CONTROL != VERSION {
            return Err(SpdyError::Version(version & !CONTROL));
        }
        self.control(kind, fin, &mut payload).map(Some)
    }

    fn control(&mut self, kind: u16, fin: bool, payload: &mut BytesMut) -> Result<Frame, SpdyError> {
        let fixed = match kind {
            SYN_STREAM => 10,
            RST_STREAM | GOAWAY => 8,
            SYN_REPLY | HEADERS | PING => 4,
            _ => return Ok(Frame::Other { kind }),
        };
        if payload.len() < fixed {
            return Err(SpdyError::Short { kind, length: payload.len() });
        }
        let number = payload.get_u32();
        let stream = number & STREAM_MASK;
        Ok(match kind {
            SYN_STREAM => {
                // The stream it belongs to, its priority and its slot: nobody uses them.
                payload.advance(6);
                Frame::SynStream { stream, headers: self.headers.block(payload)?, fin }
            }
            SYN_REPLY => Frame::SynReply { stream, headers: self.headers.block(payload)?, fin },
            HEADERS => Frame::Headers { stream, headers: self.headers.block(payload)?, fin },
            RST_STREAM => Frame::Reset { stream, status: payload.get_u32() },
            GOAWAY => Frame::GoAway { last: stream },
            _ => Frame::Ping(number),
        })
    }
}

impl Encoder {
    pub(crate) fn new() -> Result<Self, SpdyError> {
        Ok(Self { headers: Deflater::new()? })
    }

    /// Appends the frame's bytes. [`Frame::Other`] has none.
    pub(crate) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, headers, fin } => {
                self.with_headers(SYN_STREAM, *stream, &[0; 6], headers, *fin, out)?;
            }
            Frame::SynReply { stream, headers, fin } => {
                self.with_headers(SYN_REPLY, *stream, &[], headers, *fin, out)?
            }
            Frame::Headers { stream, headers, fin } => {
                self.with_headers(HEADERS, *stream, &[], headers, *fin, out)?;
            }
            Frame::Reset { stream, status } => numbers(RST_STREAM, &[*stream, *status], out),
            Frame::GoAway { last } => numbers(GOAWAY, &[*last, 0], out),
            Frame::Ping(number) => numbers(PING, &[*number], out),
            Frame::Data { stream, bytes, fin } => {
                out.put_u32(*stream & STREAM_MASK);
                put_length(bytes.len(), *fin, out);
                out.extend_from_slice(bytes);
            }
            Frame::Other { .. } => {}
        }
        Ok(())
    }

    fn with_headers(
        &mut self,
        kind: u16,
        stream: StreamId,
        fixed: &[u8],
        headers: &Headers,
        fin: bool,
        out: &mut BytesMut,
    ) -> Result<(), SpdyError> {
        let block = self.headers.block(headers)?;
        put_control(kind, 4 + fixed.len() + block.len(), fin, out);
        out.put_u32(stream);
        out.extend_from_slice(fixed);
        out.extend_from_slice(&block);
        Ok(())
    }
}

fn numbers(kind: u16, numbers: &[u32], out: &mut BytesMut) {
    put_control(kind, 4 * numbers.len(), false, out);
    numbers.iter().for_each(|number| out.put_u32(*number));
}

fn put_control(kind: u16, length: usize, fin: bool, out: &mut BytesMut) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    put_length(length, fin, out);
}

/// Flags and 24 bits of length: callers keep their frames below 16 MB.
fn put_length(length: usize, fin: bool, out: &mut BytesMut) {
    debug_assert!(length < 1 << 24, "a frame of {length} bytes");
    out.put_u8(if fin { FIN } else { 0 });
    out.put_uint(length as u64, 3);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let headers = || prop::collection::vec(("[a-z:-]{1,12}", "[ -~]{0,40}"), 0..6);
        let stream = || 1..=STREAM_MASK;
        prop_oneof![
            (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, fin)| Frame::SynStream {
                stream,
                headers,
                fin
            }),
            (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, fin)| Frame::SynReply {
                stream,
                headers,
                fin
            }),
            (stream(), headers(), any::<bool>()).prop_map(|(stream, headers, fin)| Frame::Headers {
                stream,
                headers,
                fin
            }),
            (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            any::<u32>().prop_map(Frame::Ping),
            stream().prop_map(|last| Frame::GoAway { last }),
            (stream(), prop::collection::vec(any::<u8>(), 0..200), any::<bool>())
                .prop_map(|(stream, bytes, fin)| Frame::Data { stream, bytes: bytes.into(), fin }),
        ]
    }

    proptest! {
        /// Whatever the frames and wherever the network cuts them, they arrive.
        #[test]
        fn frames_survive_the_way(frames in prop::collection::vec(frame(), 0..12), cut in 1usize..40) {
            let (mut encoder, mut out) = (Encoder::new().unwrap(), BytesMut::new());
            for frame in &frames {
                encoder.encode(frame, &mut out).unwrap();
            }
            let (mut decoder, mut arrived) = (Decoder::new(), Vec::new());
            for piece in out.chunks(cut) {
                decoder.buffer().extend_from_slice(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    arrived.push(frame);
                }
            }
            prop_assert_eq!(arrived, frames);
        }

        #[test]
        fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::new();
            decoder.buffer().extend_from_slice(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }

        /// A well-formed head before garbage reaches the header reader, too.
        #[test]
        fn arbitrary_header_blocks_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut decoder = Decoder::new();
            let mut out = BytesMut::new();
            put_control(SYN_REPLY, 4 + bytes.len(), false, &mut out);
            out.put_u32(1);
            out.extend_from_slice(&bytes);
            decoder.buffer().extend_from_slice(&out);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn a_bomb_of_headers_is_refused() {
        let headers = vec![("a".to_owned(), "x".repeat(1 << 20))];
        let mut out = BytesMut::new();
        let frame = Frame::SynStream { stream: 1, headers, fin: false };
        Encoder::new().unwrap().encode(&frame, &mut out).unwrap();
        let mut decoder = Decoder::new();
        decoder.buffer().extend_from_slice(&out);
        assert_eq!(decoder.next(), Err(SpdyError::LargeHeaders(64 << 10)));
    }
}
