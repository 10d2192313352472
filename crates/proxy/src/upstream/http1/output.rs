//! A request on its way out: its head and body as bytes, in as few writes as they fit.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::head::{Encoding, RequestHead, write_line};
use crate::stream::Stream;

/// Bodies' pieces up to this size are copied behind the head; larger ones are written from where they are.
const COPIED: usize = 8 * 1024;

/// What is to be written: `text`, then `piece`, then `tail`.
#[derive(Debug)]
pub(super) struct Output {
    text: Vec<u8>,
    written: usize,
    piece: Bytes,
    tail: &'static [u8],
    encoding: Encoding,
    title_case: bool,
    untouched: bool,
}

impl Output {
    /// Nothing to write.
    pub(super) fn new(title_case: bool) -> Self {
        let (text, piece, tail) = (Vec::new(), Bytes::new(), &b""[..]);
        Self { text, written: 0, piece, tail, encoding: Encoding::Length(0), title_case, untouched: true }
    }

    /// Begins with a request's head; `size` is the body's, where it is known.
    pub(super) fn begin(&mut self, head: &RequestHead<'_>, size: Option<u64>) {
        self.clear();
        self.untouched = true;
        self.encoding = head.write(size, self.title_case, &mut self.text);
    }

    /// Whether all was written.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.text.len() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Whether nothing of the request was written yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.untouched
    }

    /// Whether another frame may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.text.len() - self.written < COPIED
    }

    /// Adds a frame of the body; there has to be room.
    pub(super) fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(mut data) => {
                match &mut self.encoding {
                    Encoding::Length(left) => {
                        // More than was announced would be taken for another request.
                        data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                        *left -= data.len() as u64;
                    }
                    Encoding::Chunked(_) => {
                        self.text.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                        self.tail = b"\r\n";
                    }
                }
                if data.len() <= COPIED {
                    self.text.extend_from_slice(&data);
                    self.text.extend_from_slice(std::mem::take(&mut self.tail));
                } else {
                    self.piece = data;
                }
            }
            Err(frame) => {
                if let (Encoding::Chunked(announced), Some(trailers)) =
                    (&mut self.encoding, frame.trailers_ref())
                {
                    let announced = std::mem::take(announced);
                    let sent = trailers.iter().filter(|(name, _)| announced.contains(name));
                    self.text.extend_from_slice(b"0\r\n");
                    for (name, value) in sent {
                        write_line(name, value.as_bytes(), self.title_case, &mut self.text);
                    }
                    self.text.extend_from_slice(b"\r\n");
                    // Trailers are the end.
                    self.encoding = Encoding::Length(0);
                }
            }
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// When less came than was announced.
    pub(super) fn end(&mut self) -> Result<(), ()> {
        match self.encoding {
            Encoding::Length(0) => Ok(()),
            Encoding::Length(_) => Err(()),
            Encoding::Chunked(_) => {
                self.text.extend_from_slice(b"0\r\n\r\n");
                Ok(())
            }
        }
    }

    /// Drops what was not written.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.written = 0;
        self.piece = Bytes::new();
        self.tail = b"";
    }

    /// Gives memory back that only a request needs.
    pub(super) fn rest(&mut self) {
        self.clear();
        self.text = Vec::new();
    }

    /// Writes some of it.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let text = &self.text[self.written..];
        let count = if self.piece.is_empty() && self.tail.is_empty() {
            ready!(stream.poll_write(cx, text))?
        } else if stream.is_write_vectored() {
            let slices = [IoSlice::new(text), IoSlice::new(&self.piece), IoSlice::new(self.tail)];
            ready!(stream.poll_write_vectored(cx, &slices))?
        } else {
            let first = [text, &self.piece, self.tail].into_iter().find(|slice| !slice.is_empty());
            ready!(stream.poll_write(cx, first.unwrap_or_default()))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.untouched = false;
        self.advance(count);
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        let of_text = count.min(self.text.len() - self.written);
        self.written += of_text;
        count -= of_text;
        let of_piece = count.min(self.piece.len());
        self.piece.advance(of_piece);
        self.tail = &self.tail[(count - of_piece).min(self.tail.len())..];
        if self.is_empty() {
            self.clear();
        }
    }
}
