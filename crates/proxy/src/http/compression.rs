//! Bodies of responses compressed by gzip as they go: each piece comes out at once, as clients that wait for it expect.

use std::fmt;

use bytes::Bytes;
use flate2::{Compress, Compression as Level, FlushCompress, Status};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use lateen_route::http_manager::Compressor;

use super::body::BodyError;

/// Room for what comes out, at a time.
const ROOM: usize = 4096;

/// The gzip stream of one response.
pub(crate) struct Gzip {
    stream: Compress,
    ended: bool,
    /// What is to come after the last bytes.
    trailers: Option<HeaderMap>,
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gzip").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Gzip {
    /// A stream by these rules.
    pub(crate) fn new(rules: &Compressor) -> Self {
        let stream = Compress::new_gzip(Level::new(rules.level), rules.window_bits);
        Self { stream, ended: false, trailers: None }
    }

    /// Whether the last bytes, and trailers, were given out.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended && self.trailers.is_none()
    }

    /// What comes after the last bytes, once those are given out: trailers, or nothing any more.
    pub(crate) fn rest(&mut self) -> Option<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended.then(|| self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// What becomes of a frame of the body, or of its end (`None`).
    pub(crate) fn frame(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
    ) -> Result<Frame<Bytes>, BodyError> {
        let written = match frame {
            Some(Err(error)) => Err(error),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => self.write(&data, FlushCompress::Sync),
                Err(frame) => {
                    self.trailers = frame.into_trailers().ok();
                    self.end()
                }
            },
            None => self.end(),
        };
        written.map(Frame::data)
    }

    fn end(&mut self) -> Result<Bytes, BodyError> {
        self.ended = true;
        self.write(&[], FlushCompress::Finish)
    }

    fn write(&mut self, mut data: &[u8], flush: FlushCompress) -> Result<Bytes, BodyError> {
        let mut out = Vec::with_capacity(ROOM.max(data.len() / 4));
        loop {
            out.reserve(ROOM);
            let before = self.stream.total_in();
            let status =
                self.stream.compress_vec(data, &mut out, flush).map_err(|_| BodyError::Compression)?;
            // What was taken in now is no more than what there was.
            let taken = usize::try_from(self.stream.total_in() - before).unwrap_or(data.len());
            data = data.get(taken..).unwrap_or_default();
            // Room is left: all there is has come out.
            if status == Status::StreamEnd || (data.is_empty() && out.len() < out.capacity()) {
                return Ok(out.into());
            }
        }
    }
}

/// What a filter found of a request, for its response.
#[derive(Debug)]
pub(crate) struct Compression {
    /// The rules.
    pub rules: std::sync::Arc<Compressor>,
    /// Whether the client takes it.
    pub taken: bool,
}

impl Compression {
    /// The stream for a response, whose head is changed.
    pub(crate) fn begin(&self, status: StatusCode, headers: &mut HeaderMap, has_body: bool) -> Option<Gzip> {
        let goes = self.rules.decide(self.taken && has_body, status, headers);
        goes.then(|| Gzip::new(&self.rules))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use proptest::prelude::*;

    use super::*;

    fn gzip() -> Gzip {
        Gzip { stream: Compress::new_gzip(Level::new(6), 12), ended: false, trailers: None }
    }

    fn unzipped(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
        out
    }

    fn data(frame: Result<Frame<Bytes>, BodyError>) -> Bytes {
        frame.unwrap().into_data().unwrap()
    }

    #[test]
    fn trailers_come_after_the_last_bytes() {
        let mut stream = gzip();
        let mut bytes = data(stream.frame(Some(Ok(Frame::data(Bytes::from_static(b"hello")))))).to_vec();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("1"));
        bytes.extend(data(stream.frame(Some(Ok(Frame::trailers(trailers.clone()))))));
        assert!(!stream.has_ended());
        let last = stream.rest().unwrap().unwrap().unwrap();
        assert_eq!(last.into_trailers().ok(), Some(trailers));
        assert!(stream.has_ended() && stream.rest().unwrap().is_none());
        assert_eq!(unzipped(&bytes), b"hello");
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(body in prop::collection::vec(any::<u8>(), 0..60_000), cut in 1usize..20_000) {
            let mut stream = gzip();
            let mut bytes = Vec::new();
            for piece in body.chunks(cut) {
                bytes.extend(data(stream.frame(Some(Ok(Frame::data(Bytes::copy_from_slice(piece)))))));
            }
            bytes.extend(data(stream.frame(None)));
            prop_assert!(stream.has_ended());
            prop_assert_eq!(unzipped(&bytes), body);
        }
    }
}
