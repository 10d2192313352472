//! An issuer: where its tokens are, what has to hold of them, and what becomes of them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use lateen_proto::envoy::config::core::v3::data_source::Specifier;
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use lateen_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;
use serde_json::Value as Json;

use super::keys::Keys;
use super::token::Token;
use super::{Accepted, Invalid};
use crate::error::{Cx, Result};
use crate::request::RequestView;

/// A compiled `JwtProvider`.
#[derive(Debug)]
pub(super) struct Provider {
    issuer: Box<str>,
    audiences: Box<[Box<str>]>,
    skew: u64,
    keys: Keys,
    pub(super) places: Box<[Place]>,
    forward: bool,
    payload_header: Option<(HeaderName, bool)>,
    payload_metadata: Option<Box<str>>,
    header_metadata: Option<Box<str>>,
    lists: Box<[Box<str>]>,
    claims: Box<[(HeaderName, Box<str>)]>,
    clear_route_cache: bool,
}

/// Where a token may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a header, after a prefix.
    Header(HeaderName, Box<str>),
    /// A parameter of the query.
    Query(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
}

const CLOCK_SKEW: u64 = 60;

impl Provider {
    pub(super) fn compile(cx: &mut Cx<'_>, message: &proto::JwtProvider) -> Result<Self> {
        cx.check(message)?;
        let payload_header = match message.forward_payload_header.as_str() {
            "" => None,
            name => Some((header(cx, "forward_payload_header", name)?, message.pad_forward_payload_header)),
        };
        let claims = cx.each("claim_to_headers", &message.claim_to_headers, |cx, claim| {
            cx.check(claim)?;
            Ok((header(cx, "header_name", &claim.header_name)?, claim.claim_name.as_str().into()))
        })?;
        let lists = message.normalize_payload_in_metadata.as_ref();
        Ok(Self {
            issuer: message.issuer.as_str().into(),
            audiences: message.audiences.iter().map(|audience| plain(audience).into()).collect(),
            skew: match message.clock_skew_seconds {
                0 => CLOCK_SKEW,
                seconds => seconds.into(),
            },
            keys: keys(cx, message)?,
            places: places(cx, message)?.into(),
            forward: message.forward,
            payload_header,
            payload_metadata: some(&message.payload_in_metadata),
            header_metadata: some(&message.header_in_metadata),
            lists: lists
                .iter()
                .flat_map(|l| &l.space_delimited_claims)
                .map(|name| name.as_str().into())
                .collect(),
            claims: claims.into(),
            clear_route_cache: message.clear_route_cache,
        })
    }

    /// Headers that only this filter may set.
    pub(super) fn own_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let payload = self.payload_header.iter().map(|(name, _)| name);
        payload.chain(self.claims.iter().map(|(name, _)| name))
    }

    pub(super) fn is_issuer(&self, token: &Token<'_>) -> bool {
        self.issuer.is_empty() || *self.issuer == *token.issuer
    }

    /// Whether the token is of this issuer and good.
    pub(super) fn verify(
        &self,
        token: &Token<'_>,
        audiences: Option<&[Box<str>]>,
        now: u64,
    ) -> Result<(), Invalid> {
        if !self.is_issuer(token) {
            return Err(Invalid::UnknownIssuer);
        }
        token.holds(now, self.skew)?;
        let allowed = audiences.unwrap_or(&self.audiences);
        if !allowed.is_empty()
            && !token.audiences.iter().any(|one| allowed.iter().any(|a| **a == *plain(one)))
        {
            return Err(Invalid::Audience);
        }
        self.keys.verify(token)
    }

    /// What comes of a good token.
    pub(super) fn accept(
        &self,
        token: &Token<'_>,
        place: &Place,
        request: &RequestView<'_>,
        to: &mut Accepted,
    ) {
        if let Some(name) = &self.payload_metadata {
            to.metadata.push((name.to_string(), token.metadata(&self.lists)));
        }
        if let Some(name) = &self.header_metadata {
            to.metadata.push((name.to_string(), token.header()));
        }
        if let Some((name, pad)) = &self.payload_header {
            let mut text = Cow::Borrowed(token.payload_text);
            if *pad {
                let missing = (4 - text.len() % 4) % 4;
                text.to_mut().push_str(&"="[..].repeat(missing));
            }
            to.set.extend(HeaderValue::from_str(&text).ok().map(|value| (name.clone(), value)));
        }
        for (name, claim) in &self.claims {
            let value = token.claim(claim).and_then(as_header);
            to.set.extend(value.map(|value| (name.clone(), value)));
        }
        if !self.forward {
            place.take_out(request, to);
        }
        to.clear_route_cache |= self.clear_route_cache;
    }
}

fn keys(cx: &mut Cx<'_>, message: &proto::JwtProvider) -> Result<Keys> {
    let source = match cx.required("jwks_source_specifier", &message.jwks_source_specifier)? {
        JwksSourceSpecifier::LocalJwks(source) => source,
        JwksSourceSpecifier::RemoteJwks(_) => {
            return Err(cx.refuse_at("remote_jwks", "keys are not fetched by the proxy: give local_jwks"));
        }
    };
    let text = match &source.specifier {
        Some(Specifier::InlineString(text)) => Cow::Borrowed(text.as_str()),
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8_lossy(bytes),
        _ => return Err(cx.refuse_at("local_jwks", "give the keys inline")),
    };
    // Keys that are no good refuse tokens, not the listener: others' requests go on.
    match Keys::parse(&text) {
        Ok((keys, left_out)) => {
            left_out.iter().for_each(|why| cx.note_at("local_jwks", why));
            Ok(keys)
        }
        Err(why) => {
            cx.note_at("local_jwks", &format!("{why}: every token of this issuer is refused"));
            Ok(Keys::default())
        }
    }
}

fn places(cx: &mut Cx<'_>, message: &proto::JwtProvider) -> Result<Vec<Place>> {
    let mut places = cx.each("from_headers", &message.from_headers, |cx, from| {
        Ok(Place::Header(header(cx, "name", &from.name)?, from.value_prefix.as_str().into()))
    })?;
    places.extend(message.from_params.iter().map(|name| Place::Query(name.as_str().into())));
    places.extend(message.from_cookies.iter().map(|name| Place::Cookie(name.as_str().into())));
    if places.is_empty() {
        places.push(Place::Header(http::header::AUTHORIZATION, "Bearer ".into()));
        places.push(Place::Query("access_token".into()));
    }
    Ok(places)
}

fn header(cx: &Cx<'_>, field: &str, name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| cx.refuse_at(field, format!("{name:?} is no header name")))
}

fn some(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// An audience without scheme and last slash, which are often left out.
pub(super) fn plain(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// A claim as a header: plain values as they are, others as base64 of their JSON.
fn as_header(claim: &Json) -> Option<HeaderValue> {
    let text = match claim {
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) => claim.to_string(),
        Json::Null => return None,
        Json::Array(_) | Json::Object(_) => STANDARD.encode(claim.to_string()),
    };
    HeaderValue::from_str(&text).ok()
}

impl Place {
    /// The tokens there.
    pub(super) fn find<'r>(&self, request: &RequestView<'r>) -> Vec<&'r str> {
        match self {
            Self::Header(name, prefix) => {
                let values = request.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
                values.filter_map(|value| after(value, prefix)).collect()
            }
            Self::Query(name) => {
                let pairs = request.query().split('&').filter_map(|pair| pair.split_once('='));
                pairs.filter(|(key, _)| *key == &**name).map(|(_, value)| value).take(1).collect()
            }
            Self::Cookie(name) => {
                let lines = request.headers.get_all(http::header::COOKIE).iter();
                let pairs = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
                let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
                let found = pairs.find(|(key, _)| *key == &**name);
                found.map(|(_, value)| value.trim_matches('"')).into_iter().collect()
            }
        }
    }

    /// Keeps the token from the application; cookies stay whole.
    fn take_out(&self, request: &RequestView<'_>, to: &mut Accepted) {
        match self {
            Self::Header(name, _) => to.remove.push(name.clone()),
            Self::Query(name) => {
                let path = to.path.as_deref().unwrap_or(request.path);
                let Some((path, query)) = path.split_once('?') else { return };
                let other = |pair: &&str| pair.split_once('=').map_or(*pair, |(key, _)| key) != &**name;
                let rest: Vec<&str> = query.split('&').filter(other).collect();
                to.path = Some(match rest.is_empty() {
                    true => path.to_owned(),
                    false => format!("{path}?{}", rest.join("&")),
                });
            }
            Self::Cookie(_) => {}
        }
    }
}

/// What follows a prefix. Whatever else stands there makes a token that is none.
fn after<'v>(value: &'v str, prefix: &str) -> Option<&'v str> {
    let at = value.find(prefix)?;
    Some(value[at + prefix.len()..].trim())
}
