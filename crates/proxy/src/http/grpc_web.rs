//! gRPC-Web to gRPC and back: what browsers can say, for servers that know gRPC alone. The forms are those of gRPC's
//! PROTOCOL-WEB: trailers come as a last frame of the body, and the text form is base64 of it all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue};

/// The flag of a frame of trailers.
const TRAILERS: u8 = 0x80;

/// The translation of one exchange.
#[derive(Debug)]
pub(crate) struct GrpcWeb {
    text_request: bool,
    text_response: bool,
    /// Bytes that do not yet make three, which base64 takes at a time.
    rest: Vec<u8>,
    ended: bool,
}

/// The forms that are asked for.
fn form(value: Option<&HeaderValue>) -> Option<bool> {
    match value?.as_bytes() {
        b"application/grpc-web" | b"application/grpc-web+proto" => Some(false),
        b"application/grpc-web-text" | b"application/grpc-web-text+proto" => Some(true),
        _ => None,
    }
}

impl GrpcWeb {
    /// Makes a gRPC request of a gRPC-Web one; `None` when it is none.
    pub(crate) fn request(headers: &mut HeaderMap) -> Option<Self> {
        let text_request = form(headers.get(CONTENT_TYPE))?;
        let text_response = form(headers.get(ACCEPT)).unwrap_or(false);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        headers.remove(CONTENT_LENGTH);
        Some(Self { text_request, text_response, rest: Vec::new(), ended: false })
    }

    /// The decoder of the request's body, if it is text.
    pub(crate) fn decoder(&self) -> Option<Decoder> {
        self.text_request.then(Decoder::default)
    }

    /// Changes the head of the response.
    pub(crate) fn response(&self, headers: &mut HeaderMap) {
        let grpc =
            headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if grpc {
            let text = if self.text_response {
                "application/grpc-web-text+proto"
            } else {
                "application/grpc-web+proto"
            };
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            headers.remove(CONTENT_LENGTH);
        }
    }

    /// A piece of the response's body.
    pub(crate) fn data(&mut self, data: Bytes) -> Bytes {
        if !self.text_response {
            return data;
        }
        self.rest.extend_from_slice(&data);
        let whole = self.rest.len() / 3 * 3;
        let text = STANDARD.encode(&self.rest[..whole]);
        self.rest.drain(..whole);
        text.into()
    }

    /// The end of the body: the trailers as a frame, and what base64 has left.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) -> Bytes {
        self.ended = true;
        let mut out = BytesMut::new();
        if let Some(trailers) = trailers {
            let mut text = Vec::new();
            for (name, value) in trailers {
                text.extend_from_slice(name.as_str().as_bytes());
                text.push(b':');
                text.extend_from_slice(value.as_bytes());
                text.extend_from_slice(b"\r\n");
            }
            out.put_u8(TRAILERS);
            // Trailers are limited to kilobytes by the codec.
            out.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(&text);
        }
        if !self.text_response {
            return out.freeze();
        }
        self.rest.extend_from_slice(&out);
        STANDARD.encode(std::mem::take(&mut self.rest)).into()
    }

    /// Whether the end was given out.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Decodes base64 as it comes. Padding may end a piece anywhere: clients encode frame by frame.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    rest: Vec<u8>,
}

/// The text is no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBase64;

impl Decoder {
    /// The bytes of whole groups of four characters.
    ///
    /// # Errors
    /// When a character is none of base64's, or padding is where none can be.
    pub(crate) fn decode(&mut self, text: &[u8]) -> Result<Bytes, NotBase64> {
        self.rest.extend(text.iter().filter(|byte| !byte.is_ascii_whitespace()));
        let whole = self.rest.len() / 4 * 4;
        let mut out = Vec::with_capacity(whole / 4 * 3);
        for group in self.rest[..whole].chunks_exact(4) {
            STANDARD.decode_vec(group, &mut out).map_err(|_| NotBase64)?;
        }
        self.rest.drain(..whole);
        Ok(out.into())
    }

    /// Whether nothing is left over.
    pub(crate) fn is_whole(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(content_type: &'static str, accept: &'static str) -> GrpcWeb {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("8"));
        let web = GrpcWeb::request(&mut headers).unwrap();
        assert_eq!(
            (&headers[CONTENT_TYPE], &headers[TE]),
            (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
        );
        assert!(!headers.contains_key(CONTENT_LENGTH));
        web
    }

    #[test]
    fn trailers_become_the_last_frame() {
        let mut web = asked("application/grpc-web", "*/*");
        assert!(web.decoder().is_none());
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(web.data(Bytes::from_static(b"abc")), "abc");
        assert_eq!(&web.end(Some(&trailers))[..], b"\x80\x00\x00\x00\x0fgrpc-status:0\r\n");
        assert!(GrpcWeb::request(&mut HeaderMap::new()).is_none());
    }

    proptest! {
        #[test]
        fn text_is_base64_however_it_is_cut(body in prop::collection::vec(any::<u8>(), 0..100), cut in 1usize..10) {
            let mut web = asked("application/grpc-web-text", "application/grpc-web-text");
            let mut text = Vec::new();
            for piece in body.chunks(cut) {
                text.extend(web.data(Bytes::copy_from_slice(piece)));
            }
            text.extend(web.end(None));
            prop_assert_eq!(&STANDARD.encode(&body).into_bytes(), &text);
            let mut decoder = web.decoder().unwrap();
            let mut back = Vec::new();
            for piece in text.chunks(cut) {
                back.extend(decoder.decode(piece).unwrap());
            }
            prop_assert_eq!(back, body);
            prop_assert!(decoder.is_whole());
        }

        #[test]
        fn no_text_makes_it_panic(text in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = Decoder::default().decode(&text);
        }
    }
}
