//! A token in compact form (RFC 7515, 7519), read as far as its signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lateen_proto::value::Kind;
use lateen_proto::{ListValue, Struct, Value};
use serde_json::{Map, Value as Json};

use super::Invalid;
use super::keys::Algorithm;

/// A token whose signature is still to be verified.
#[derive(Debug)]
pub(super) struct Token<'t> {
    /// What was signed.
    pub signed: &'t str,
    /// The payload as it was sent.
    pub payload_text: &'t str,
    /// The signature.
    pub signature: Vec<u8>,
    /// How it is signed.
    pub algorithm: Algorithm,
    /// By which key.
    pub key_id: Option<String>,
    /// The header.
    header: Map<String, Json>,
    /// The payload.
    payload: Map<String, Json>,
    /// `iss`
    pub issuer: String,
    /// `aud`
    pub audiences: Vec<String>,
    /// `exp`, in seconds since 1970; 0 when there is none.
    pub expires: u64,
    /// `nbf`
    pub not_before: u64,
}

pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

impl<'t> Token<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, Invalid> {
        let mut sections = text.split('.');
        let (Some(header), Some(payload_text), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(Invalid::Form);
        };
        let signed = &text[..header.len() + 1 + payload_text.len()];
        let header = decoded(header).ok_or(Invalid::HeaderBase64)?;
        let header: Map<String, Json> = serde_json::from_slice(&header).map_err(|_| Invalid::HeaderJson)?;
        let name = header.get("alg").and_then(Json::as_str).ok_or(Invalid::NoAlgorithm)?;
        let algorithm = Algorithm::parse(name).ok_or(Invalid::UnknownAlgorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Json::String(id)) => Some(id.clone()).filter(|id| !id.is_empty()),
            Some(_) => return Err(Invalid::KeyId),
        };
        // RFC 7515, 4.1.11: what has to be understood and is not makes the token invalid.
        if header.contains_key("crit") {
            return Err(Invalid::Critical);
        }
        let payload = decoded(payload_text).ok_or(Invalid::PayloadBase64)?;
        let payload: Map<String, Json> =
            serde_json::from_slice(&payload).map_err(|_| Invalid::PayloadJson)?;
        let text = |name: &'static str| match payload.get(name) {
            None => Ok(String::new()),
            Some(Json::String(text)) => Ok(text.clone()),
            Some(_) => Err(Invalid::NotText(name)),
        };
        let (issuer, _subject, _id) = (text("iss")?, text("sub")?, text("jti")?);
        let _issued = seconds(&payload, "iat")?;
        Ok(Self {
            signed,
            payload_text,
            signature: decoded(signature).ok_or(Invalid::SignatureBase64)?,
            algorithm,
            key_id,
            issuer,
            audiences: audiences(&payload)?,
            expires: seconds(&payload, "exp")?,
            not_before: seconds(&payload, "nbf")?,
            header,
            payload,
        })
    }

    /// Whether it holds now, give or take some seconds.
    pub(super) fn holds(&self, now: u64, skew: u64) -> Result<(), Invalid> {
        if now.saturating_add(skew) < self.not_before {
            return Err(Invalid::NotYet);
        }
        if self.expires != 0 && now > self.expires.saturating_add(skew) {
            return Err(Invalid::Expired);
        }
        Ok(())
    }

    /// The payload as metadata; lists that are written with spaces become lists.
    pub(super) fn metadata(&self, lists: &[Box<str>]) -> Struct {
        let mut payload = structure(&self.payload);
        for name in lists {
            let Some(value) = payload.fields.get_mut(&**name) else { continue };
            if let Some(Kind::StringValue(text)) = &value.kind {
                let words = text.split(' ').filter(|word| !word.is_empty());
                let values = words.map(|word| Value { kind: Some(Kind::StringValue(word.to_owned())) });
                value.kind = Some(Kind::ListValue(ListValue { values: values.collect() }));
            }
        }
        payload
    }

    /// The header as metadata.
    pub(super) fn header(&self) -> Struct {
        structure(&self.header)
    }

    /// A claim, by a path with dots.
    pub(super) fn claim(&self, path: &str) -> Option<&Json> {
        let mut names = path.split('.');
        let first = self.payload.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }
}

fn seconds(payload: &Map<String, Json>, name: &'static str) -> Result<u64, Invalid> {
    match payload.get(name) {
        None => Ok(0),
        Some(Json::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(seconds), _) => Ok(seconds),
            // RFC 7519, 2: a NumericDate may have a fraction.
            (None, Some(seconds)) if seconds >= 0.0 && seconds < u64::MAX as f64 => Ok(seconds as u64),
            _ => Err(Invalid::NotInteger(name)),
        },
        Some(_) => Err(Invalid::NotInteger(name)),
    }
}

fn audiences(payload: &Map<String, Json>) -> Result<Vec<String>, Invalid> {
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Json::String(one)) => Ok(vec![one.clone()]),
        Some(Json::Array(all)) => {
            let texts = all.iter().map(|one| one.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or(Invalid::Audiences)
        }
        Some(_) => Err(Invalid::Audiences),
    }
}

fn structure(map: &Map<String, Json>) -> Struct {
    Struct { fields: map.iter().map(|(name, value)| (name.clone(), to_value(value))).collect() }
}

fn to_value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(truth) => Kind::BoolValue(*truth),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_value).collect() }),
        Json::Object(map) => Kind::StructValue(structure(map)),
    };
    Value { kind: Some(kind) }
}
