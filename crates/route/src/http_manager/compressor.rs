//! Compression of responses (`compressor`): which of them, by what the client takes and what the response says. The bytes
//! are the proxy's part.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::envoy::extensions::compression::gzip::compressor::v3 as gzip;
use lateen_proto::envoy::extensions::filters::http::compressor::v3 as proto;

use crate::entropy::Fraction;
use crate::error::{Cx, Result};

/// The name of what is done, in headers.
const GZIP: &str = "gzip";

/// Content types that are compressed unless others are listed.
const CONTENT_TYPES: &[&str] = &[
    "application/javascript",
    "application/json",
    "application/xhtml+xml",
    "image/svg+xml",
    "text/css",
    "text/html",
    "text/plain",
    "text/xml",
];

/// A compiled `Compressor` of responses, by gzip.
#[derive(Clone, Debug)]
pub struct Compressor {
    /// The share of requests it is on for.
    pub enabled: Fraction,
    /// zlib's level, 0 to 9.
    pub level: u32,
    /// The logarithm of the window's size, 9 to 15.
    pub window_bits: u8,
    /// Whether the endpoint is not told what the client takes.
    pub remove_accept_encoding: bool,
    min_length: u64,
    content_types: Box<[Box<str>]>,
    skip_etag: bool,
    weaken_etag: bool,
    skip_statuses: Box<[u16]>,
}

impl Compressor {
    /// Whether a client takes gzip rather than the plain text: of what it lists, gzip (or anything) has the highest value,
    /// the first of equals.
    pub fn is_taken(accept_encoding: Option<&HeaderValue>) -> bool {
        let Some(text) = accept_encoding.and_then(|value| value.to_str().ok()) else { return false };
        let mut best = ("identity", 0.0);
        for part in text.split(',') {
            let mut words = part.split(';').map(str::trim);
            let name = words.next().unwrap_or_default();
            let quality =
                words.find_map(|word| word.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
            let Some(quality) = quality.filter(|quality: &f32| quality.is_finite()) else { continue };
            if matches!(name, GZIP | "*" | "identity") && quality > best.1 {
                best = (name, quality);
            }
        }
        best.1 > 0.0 && best.0 != "identity"
    }

    /// Changes the head of a response that has a body; whether the body is to be compressed.
    pub fn decide(&self, taken: bool, status: StatusCode, headers: &mut HeaderMap) -> bool {
        if !self.could(status, headers) {
            return false;
        }
        vary(headers);
        if !taken {
            return false;
        }
        let etag = headers.get(header::ETAG).map(|etag| etag.as_bytes().to_vec());
        match etag {
            Some(etag) if !etag.starts_with(b"W/") && etag.len() > 2 => {
                let weak = [b"W/".as_slice(), &etag].concat();
                match HeaderValue::from_bytes(&weak) {
                    Ok(weak) if self.weaken_etag => drop(headers.insert(header::ETAG, weak)),
                    _ => drop(headers.remove(header::ETAG)),
                }
            }
            _ => {}
        }
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(GZIP));
        true
    }

    /// Whether a response could be compressed, whatever the client takes.
    fn could(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let long_enough = match headers.get(header::CONTENT_LENGTH) {
            Some(length) => {
                let length = length.to_str().ok().and_then(|text| text.parse::<u64>().ok());
                length.is_some_and(|length| length >= self.min_length)
            }
            None => true,
        };
        let left_alone = headers.contains_key(header::CONTENT_ENCODING)
            || self.skip_statuses.contains(&status.as_u16())
            || (self.skip_etag && headers.contains_key(header::ETAG))
            || has_word(headers, &header::CACHE_CONTROL, "no-transform");
        long_enough && !left_alone && self.takes_type(headers)
    }

    fn takes_type(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return true };
        let text = value.to_str().unwrap_or_default();
        let kind = text.split(';').next().unwrap_or_default().trim();
        self.content_types.iter().any(|known| **known == *kind)
    }

    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::Compressor) -> Result<Self> {
        cx.check(message)?;
        let library = cx.required("compressor_library", &message.compressor_library)?;
        let (level, window_bits) = cx.field("compressor_library", |cx| library_of(cx, library))?;
        let direction = message.response_direction_config.clone().unwrap_or_default();
        cx.field("response_direction_config", |cx| cx.check(&direction))?;
        let common = direction.common_config.clone().unwrap_or_default();
        cx.field("response_direction_config.common_config", |cx| cx.check(&common))?;
        if let Some(request) =
            message.request_direction_config.as_ref().and_then(|r| r.common_config.as_ref())
            && request.enabled.as_ref().is_some_and(|enabled| enabled.default_value.unwrap_or(true))
        {
            return Err(
                cx.refuse_at("request_direction_config", "is not supported: requests go on as they are")
            );
        }
        let new_form = message.response_direction_config.is_some();
        let types = if new_form { &common.content_type } else { &message.content_type };
        let length = if new_form { common.min_content_length } else { message.content_length };
        let enabled = if new_form { &common.enabled } else { &message.runtime_enabled };
        let enabled = enabled.as_ref().and_then(|flag| flag.default_value).unwrap_or(true);
        let known = types.iter().map(|kind| kind.as_str().into());
        Ok(Self {
            enabled: if enabled { Fraction::ALL } else { Fraction::NONE },
            level,
            window_bits,
            remove_accept_encoding: message.remove_accept_encoding_header
                || direction.remove_accept_encoding_header,
            min_length: length.unwrap_or(30).into(),
            content_types: match types.is_empty() {
                true => CONTENT_TYPES.iter().map(|kind| (*kind).into()).collect(),
                false => known.collect(),
            },
            skip_etag: message.disable_on_etag_header || direction.disable_on_etag_header,
            weaken_etag: direction.weaken_etag_on_compress,
            skip_statuses: direction
                .uncompressible_response_codes
                .iter()
                .filter_map(|code| u16::try_from(*code).ok())
                .collect(),
        })
    }
}

/// Level and window of a library; only gzip is known.
fn library_of(cx: &mut Cx<'_>, library: &TypedExtensionConfig) -> Result<(u32, u8)> {
    use gzip::gzip::CompressionLevel;
    let any = cx.required("typed_config", &library.typed_config)?;
    if !any.is::<gzip::Gzip>() {
        return Err(cx.refuse_at("typed_config", format!("{} is not supported: use gzip", any.type_url)));
    }
    cx.field("typed_config", |cx| {
        let message: gzip::Gzip = cx.unpack(any)?;
        cx.check(&message)?;
        let level = match message.compression_level() {
            CompressionLevel::DefaultCompression => 6,
            CompressionLevel::BestSpeed => 1,
            CompressionLevel::CompressionLevel2 => 2,
            CompressionLevel::CompressionLevel3 => 3,
            CompressionLevel::CompressionLevel4 => 4,
            CompressionLevel::CompressionLevel5 => 5,
            CompressionLevel::CompressionLevel6 => 6,
            CompressionLevel::CompressionLevel7 => 7,
            CompressionLevel::CompressionLevel8 => 8,
            CompressionLevel::CompressionLevel9 => 9,
        };
        let window = message.window_bits.unwrap_or(12);
        let bits = u8::try_from(window).ok().filter(|bits| (9..=15).contains(bits));
        Ok((level, bits.ok_or_else(|| cx.refuse_at("window_bits", "has to be 9 to 15"))?))
    })
}

/// Tells caches that what the client takes made a difference.
fn vary(headers: &mut HeaderMap) {
    if has_word(headers, &header::VARY, "accept-encoding") {
        return;
    }
    let old = headers.get(header::VARY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = if old.is_empty() { "Accept-Encoding".to_owned() } else { format!("{old}, Accept-Encoding") };
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(header::VARY, value);
    }
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|other| other.trim().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_takes_is_the_best_of_its_list() {
        let taken = |text: &str| Compressor::is_taken(Some(&HeaderValue::from_str(text).unwrap()));
        for text in ["gzip", "deflate, gzip;q=0.5", "*", "identity;q=0.1, gzip", "br, gzip"] {
            assert!(taken(text), "{text}");
        }
        for text in ["", "br", "gzip;q=0", "identity", "identity, gzip;q=0.5", "gzip;q=x", "*;q=0"] {
            assert!(!taken(text), "{text}");
        }
        assert!(!Compressor::is_taken(None));
    }
}
