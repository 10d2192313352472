//! Header blocks: compressed by one zlib stream per direction, which begins with the dictionary of the protocol.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::dictionary::dictionary;
use super::{Headers, SpdyError};

/// kubectl's blocks have some hundred bytes.
const LARGEST: usize = 64 << 10;
const PIECE: usize = 4 << 10;

/// Writes header blocks.
pub(super) struct Deflater(Compress);

/// Reads header blocks.
pub(super) struct Inflater(Decompress);

impl Deflater {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut compress = Compress::new(Compression::default(), true);
        compress.set_dictionary(&dictionary()).map_err(|_| SpdyError::Headers("no dictionary"))?;
        Ok(Self(compress))
    }

    /// One block, flushed to a byte's border.
    pub(super) fn block(&mut self, headers: &Headers) -> Result<Vec<u8>, SpdyError> {
        let plain = plain(headers);
        let mut out = Vec::new();
        let mut piece = [0; PIECE];
        let mut rest = plain.as_slice();
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            self.0
                .compress(rest, &mut piece, FlushCompress::Sync)
                .map_err(|_| SpdyError::Headers("they do not compress"))?;
            let taken = count(self.0.total_in() - read);
            let made = count(self.0.total_out() - written);
            rest = &rest[taken..];
            out.extend_from_slice(&piece[..made]);
            // A piece that is not full was the last one of the flush.
            if rest.is_empty() && made < PIECE {
                return Ok(out);
            }
        }
    }
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The headers of one block.
    pub(super) fn block(&mut self, mut block: &[u8]) -> Result<Headers, SpdyError> {
        let mut out = Vec::new();
        let mut piece = [0; PIECE];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let done = self.0.decompress(block, &mut piece, FlushDecompress::Sync);
            let taken = count(self.0.total_in() - read);
            let made = count(self.0.total_out() - written);
            block = &block[taken..];
            out.extend_from_slice(&piece[..made]);
            match done {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&dictionary());
                    set.map_err(|_| SpdyError::Headers("another dictionary than SPDY/3's"))?;
                    continue;
                }
                Err(_) => return Err(SpdyError::Headers("they do not decompress")),
                Ok(_) => {}
            }
            if out.len() > LARGEST {
                return Err(SpdyError::LargeHeaders(LARGEST));
            }
            if made == 0 && taken == 0 || block.is_empty() && made < PIECE {
                return read_plain(&out);
            }
        }
    }
}

/// Counts of one call, which are at most the length of a slice.
fn count(difference: u64) -> usize {
    usize::try_from(difference).unwrap_or(usize::MAX)
}

fn plain(headers: &Headers) -> Vec<u8> {
    let mut out = Vec::new();
    let number = |length: usize, out: &mut Vec<u8>| {
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    };
    number(headers.len(), &mut out);
    for (name, value) in headers {
        for text in [name, value] {
            number(text.len(), &mut out);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn read_plain(block: &[u8]) -> Result<Headers, SpdyError> {
    let mut rest = block;
    let pairs = number(&mut rest)?;
    let mut headers = Headers::new();
    for _ in 0..pairs {
        let name = text(&mut rest)?.to_ascii_lowercase();
        headers.push((name, text(&mut rest)?));
    }
    Ok(headers)
}

fn number(rest: &mut &[u8]) -> Result<u32, SpdyError> {
    let (bytes, after) = rest.split_first_chunk::<4>().ok_or(SpdyError::Headers("they end too early"))?;
    *rest = after;
    Ok(u32::from_be_bytes(*bytes))
}

fn text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = number(rest)? as usize;
    let (bytes, after) = rest.split_at_checked(length).ok_or(SpdyError::Headers("they end too early"))?;
    *rest = after;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}
