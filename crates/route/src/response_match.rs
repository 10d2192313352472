//! Which responses are meant: by status and headers, put together by and, or, not.

use http::{HeaderMap, HeaderName, StatusCode};
use lateen_proto::envoy::config::common::matcher::v3 as proto;
use lateen_proto::envoy::config::common::matcher::v3::match_predicate::Rule;
use lateen_proto::envoy::config::route::v3 as route;

use crate::error::{Cx, Result};
use crate::header_match::HeaderMatcher;

/// How deep predicates may be nested.
const DEPTH: u8 = 16;

/// A compiled `MatchPredicate` of responses.
#[derive(Clone, Debug)]
pub enum ResponseMatcher {
    /// All or none.
    Constant(bool),
    /// One of these.
    Or(Box<[Self]>),
    /// Each of these.
    And(Box<[Self]>),
    /// Those that do not match.
    Not(Box<Self>),
    /// Those with each of these headers.
    Headers(Box<[ResponseHeader]>),
}

/// A header of a response, or its status.
#[derive(Clone, Debug)]
pub struct ResponseHeader {
    /// `None` is `:status`.
    name: Option<HeaderName>,
    matcher: HeaderMatcher,
}

impl ResponseHeader {
    fn matches(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match &self.name {
            None => self.matcher.matches_values(std::iter::once(status.as_str().as_bytes())),
            Some(name) => {
                self.matcher.matches_values(headers.get_all(name).iter().map(http::HeaderValue::as_bytes))
            }
        }
    }

    fn compile(cx: &mut Cx<'_>, message: &route::HeaderMatcher) -> Result<Self> {
        if message.name != ":status" {
            let name = Some(cx.header_name("name", &message.name)?);
            return Ok(Self { name, matcher: HeaderMatcher::compile(cx, message)? });
        }
        let named = route::HeaderMatcher { name: "status".to_owned(), ..message.clone() };
        Ok(Self { name: None, matcher: HeaderMatcher::compile(cx, &named)? })
    }
}

impl ResponseMatcher {
    /// Whether a response is meant.
    pub fn matches(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        match self {
            Self::Constant(all) => *all,
            Self::Or(any) => any.iter().any(|one| one.matches(status, headers)),
            Self::And(all) => all.iter().all(|one| one.matches(status, headers)),
            Self::Not(one) => !one.matches(status, headers),
            Self::Headers(all) => all.iter().all(|one| one.matches(status, headers)),
        }
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &proto::MatchPredicate) -> Result<Self> {
        Self::at_depth(cx, message, 0)
    }

    fn at_depth(cx: &mut Cx<'_>, message: &proto::MatchPredicate, depth: u8) -> Result<Self> {
        if depth > DEPTH {
            return Err(cx.refuse(format!("is nested more than {DEPTH} levels deep")));
        }
        let set = |cx: &mut Cx<'_>, name: &str, set: &proto::match_predicate::MatchSet| {
            cx.each(name, &set.rules, |cx, one| Self::at_depth(cx, one, depth + 1))
        };
        Ok(match cx.required("rule", &message.rule)? {
            Rule::AnyMatch(all) => Self::Constant(*all),
            Rule::OrMatch(rules) => Self::Or(set(cx, "or_match.rules", rules)?.into()),
            Rule::AndMatch(rules) => Self::And(set(cx, "and_match.rules", rules)?.into()),
            Rule::NotMatch(one) => {
                Self::Not(Box::new(cx.field("not_match", |cx| Self::at_depth(cx, one, depth + 1))?))
            }
            Rule::HttpResponseHeadersMatch(headers) => Self::Headers(
                cx.each("http_response_headers_match.headers", &headers.headers, ResponseHeader::compile)?
                    .into(),
            ),
            Rule::HttpRequestHeadersMatch(_)
            | Rule::HttpRequestTrailersMatch(_)
            | Rule::HttpResponseTrailersMatch(_)
            | Rule::HttpRequestGenericBodyMatch(_)
            | Rule::HttpResponseGenericBodyMatch(_) => {
                return Err(cx.refuse("only http_response_headers_match is supported"));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use lateen_proto::json::from_value;
    use serde_json::json;

    use super::*;

    fn compile(value: serde_json::Value) -> Result<ResponseMatcher> {
        let message = from_value(&value).unwrap();
        Cx::run("c", |cx| ResponseMatcher::compile(cx, &message)).map(|compiled| compiled.value)
    }

    #[test]
    fn statuses_and_headers_are_put_together() {
        let status = |code: &str| json!({"httpResponseHeadersMatch": {"headers": [{"name": ":status", "stringMatch": {"exact": code}}]}});
        let header =
            json!({"httpResponseHeadersMatch": {"headers": [{"name": "x-sick", "presentMatch": true}]}});
        let matcher = compile(json!({"orMatch": {"rules": [
            status("429"),
            {"andMatch": {"rules": [status("200"), header, {"notMatch": {"anyMatch": false}}]}},
        ]}}))
        .unwrap();
        let (none, mut sick) = (HeaderMap::new(), HeaderMap::new());
        sick.insert("x-sick", http::HeaderValue::from_static("yes"));
        assert!(matcher.matches(StatusCode::TOO_MANY_REQUESTS, &none));
        assert!(matcher.matches(StatusCode::OK, &sick));
        assert!(!matcher.matches(StatusCode::OK, &none) && !matcher.matches(StatusCode::BAD_GATEWAY, &sick));
        assert!(compile(json!({"httpRequestHeadersMatch": {}})).is_err());
    }
}
