//! Bodies of HTTP/1.1 (RFC 9112, 6 and 7): where they end, and what is in chunks. Bytes in, pieces out; no sockets.

use bytes::{Buf, Bytes, BytesMut};
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use super::head::Malformed;

/// The longest line of a chunk's size, with its extensions, and the longest trailers.
const MAX_LINES: usize = 16 * 1024;

/// The most trailers.
const MAX_TRAILERS: usize = 64;

/// Where a body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// As long as the connection.
    UntilClose,
}

/// Where a body in chunks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Before the line with a chunk's size.
    Size,
    /// So many bytes of the chunk are still to come.
    Data(u64),
    /// Before the end of the chunk's last line.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
    /// Behind the end.
    End,
}

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes, at least one.
    Data(Bytes),
    /// What follows the last chunk.
    Trailers(HeaderMap),
}

impl Decoder {
    /// A body in chunks, from its beginning.
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunk::Size)
    }

    /// Whether all of it was taken.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::End))
    }

    /// The bytes still to come, where that is known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Length(length) => Some(*length),
            Self::Chunked(Chunk::End) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes the next piece from the front of `input`; none when there has to be more of it, or all was taken. The end is
    /// noticed with the last piece where it is there by then.
    ///
    /// # Errors
    /// When it is no such body.
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        match self {
            Self::Length(left) => Ok(take(left, input)),
            Self::UntilClose if input.is_empty() => Ok(None),
            Self::UntilClose => Ok(Some(Piece::Data(input.split().freeze()))),
            Self::Chunked(chunk) => {
                let piece = chunk.decode(input)?;
                if let Some(Piece::Data(_)) = piece {
                    chunk.skip_end(input);
                }
                Ok(piece)
            }
        }
    }
}

fn take(left: &mut u64, input: &mut BytesMut) -> Option<Piece> {
    // What does not fit usize is more than there is.
    let length = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= length as u64;
    (length > 0).then(|| Piece::Data(input.split_to(length).freeze()))
}

impl Chunk {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Malformed> {
        loop {
            match self {
                Self::Size => match httparse::parse_chunk_size(input).map_err(|_| Malformed)? {
                    httparse::Status::Complete((length, size)) => {
                        input.advance(length);
                        *self = if size == 0 { Self::Trailers } else { Self::Data(size) };
                    }
                    httparse::Status::Partial => return partial(input),
                },
                Self::Data(left) => {
                    let piece = take(left, input);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(piece);
                }
                Self::DataEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        *self = Self::Size;
                    }
                    Some(_) => return Err(Malformed),
                    None => return Ok(None),
                },
                Self::Trailers => {
                    let Some((length, trailers)) = trailers(input)? else { return partial(input) };
                    input.advance(length);
                    *self = Self::End;
                    return Ok((!trailers.is_empty()).then_some(Piece::Trailers(trailers)));
                }
                Self::End => return Ok(None),
            }
        }
    }

    /// Goes on behind data as far as there is nothing to hand out.
    fn skip_end(&mut self, input: &mut BytesMut) {
        if *self == Self::DataEnd && input.starts_with(b"\r\n0\r\n\r\n") {
            input.advance(7);
            *self = Self::End;
        }
    }
}

fn partial(input: &BytesMut) -> Result<Option<Piece>, Malformed> {
    if input.len() > MAX_LINES { Err(Malformed) } else { Ok(None) }
}

/// The trailers at the front, and how long they are.
fn trailers(input: &[u8]) -> Result<Option<(usize, HeaderMap)>, Malformed> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(input, &mut lines).map_err(|_| Malformed)? {
        httparse::Status::Partial => Ok(None),
        httparse::Status::Complete((length, lines)) => {
            let mut trailers = HeaderMap::new();
            for line in lines {
                let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Malformed)?;
                trailers.append(name, HeaderValue::from_bytes(line.value).map_err(|_| Malformed)?);
            }
            Ok(Some((length, trailers)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `pieces` one after the other; all data, trailers, what is left over, and whether the end was seen.
    fn run(mut decoder: Decoder, pieces: &[&[u8]]) -> Result<(Vec<u8>, HeaderMap, Vec<u8>, bool), Malformed> {
        let (mut input, mut data, mut trailers) = (BytesMut::new(), Vec::new(), HeaderMap::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            while let Some(piece) = decoder.decode(&mut input)? {
                match piece {
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::Trailers(found) => trailers = found,
                }
            }
        }
        Ok((data, trailers, input.to_vec(), decoder.is_done()))
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read() {
        let text = b"3;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-sum: 7\r\n\r\nHTTP";
        let (data, trailers, rest, done) = run(Decoder::chunked(), &[text]).expect("chunks");
        assert_eq!((&data[..], &rest[..], done), (&b"abc0123456789"[..], &b"HTTP"[..], true));
        assert_eq!(trailers.get("x-sum").map(HeaderValue::as_bytes), Some(&b"7"[..]));
    }

    #[test]
    fn the_end_is_seen_with_the_last_piece() {
        let mut decoder = Decoder::chunked();
        let mut input = BytesMut::from(&b"1\r\na\r\n0\r\n\r\n"[..]);
        assert_eq!(decoder.decode(&mut input), Ok(Some(Piece::Data(Bytes::from_static(b"a")))));
        assert!(decoder.is_done() && input.is_empty());
    }

    #[test]
    fn what_are_no_chunks_is_refused() {
        for text in ["x\r\n", "1\r\nab\r\n", "-1\r\n", "11111111111111111\r\n", "0\r\n: x\r\n\r\n"] {
            assert_eq!(run(Decoder::chunked(), &[text.as_bytes()]).err(), Some(Malformed), "{text:?}");
        }
        let endless = format!("1;{}", "x".repeat(MAX_LINES));
        assert_eq!(run(Decoder::chunked(), &[endless.as_bytes()]).err(), Some(Malformed));
        let endless = format!("0\r\nx: {}", "x".repeat(MAX_LINES));
        assert_eq!(run(Decoder::chunked(), &[endless.as_bytes()]).err(), Some(Malformed));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            rest in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            text.extend_from_slice(&rest);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let (data, _, left, done) = run(Decoder::chunked(), &pieces).expect("chunks");
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!(left, rest);
            prop_assert!(done);
        }

        #[test]
        fn a_length_takes_that_much(length in 0u64..50, text in prop::collection::vec(any::<u8>(), 0..60)) {
            let (data, _, rest, done) = run(Decoder::Length(length), &[&text]).expect("bytes");
            prop_assert_eq!(done, text.len() as u64 >= length);
            prop_assert_eq!([data, rest].concat(), text);
        }

        #[test]
        fn nothing_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = run(Decoder::chunked(), &[&text]);
            let _ = super::super::head::read(&mut BytesMut::from(&text[..]), Default::default());
        }
    }
}
