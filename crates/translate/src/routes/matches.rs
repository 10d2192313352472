//! Matches: which requests a route is for.

use lateen_api::kinds::virtual_service::{HttpMatchRequest, StringMatch};
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use lateen_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use lateen_proto::envoy::config::route::v3::route_match::PathSpecifier;
use lateen_proto::envoy::r#type::matcher::v3 as matcher;
use lateen_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

/// How a VirtualService's prefixes are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Semantics {
    /// As text: `/a` is a prefix of `/ab`.
    #[default]
    Istio,
    /// By path segments, as Gateway API and Ingress have it: `/a` is a prefix of `/a` and `/a/b` only.
    Segments,
}

/// The route match of one VirtualService match; none matches everything.
pub(crate) fn route_match(request: Option<&HttpMatchRequest>, semantics: Semantics) -> route::RouteMatch {
    let Some(request) = request else {
        return route::RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".into())),
            ..Default::default()
        };
    };
    let (mut headers, dynamic_metadata) = headers(request);
    for (name, wanted) in
        [(":method", &request.method), (":authority", &request.authority), (":scheme", &request.scheme)]
    {
        headers.extend(wanted.as_ref().map(|wanted| header(name, wanted)));
    }
    route::RouteMatch {
        path_specifier: Some(path(request.uri.as_ref(), semantics)),
        case_sensitive: Some(!request.ignore_uri_case),
        headers,
        query_parameters: request.query_params.iter().map(|(name, wanted)| query(name, wanted)).collect(),
        dynamic_metadata,
        ..Default::default()
    }
}

/// Whether a route takes every request that reaches it.
pub(crate) fn is_catch_all(route: &route::Route) -> bool {
    let Some(wanted) = &route.r#match else { return true };
    let path = match &wanted.path_specifier {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == "*",
        Some(_) => false,
        None => true,
    };
    path && wanted.headers.is_empty()
        && wanted.query_parameters.is_empty()
        && wanted.dynamic_metadata.is_empty()
}

fn path(uri: Option<&StringMatch>, semantics: Semantics) -> PathSpecifier {
    match uri {
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => match semantics {
            Semantics::Segments if prefix != "/" => {
                PathSpecifier::PathSeparatedPrefix(prefix.trim_end_matches('/').to_owned())
            }
            _ => PathSpecifier::Prefix(prefix.clone()),
        },
        Some(StringMatch::Regex(regex)) => PathSpecifier::SafeRegex(regex_matcher(regex)),
        Some(StringMatch::Unset) | None => PathSpecifier::Prefix("/".into()),
    }
}

/// A regular expression of RE2.
pub(crate) fn regex_matcher(regex: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher { regex: regex.to_owned(), ..Default::default() }
}

/// A string match, or none where presence is all that is asked.
pub(crate) fn string_matcher(wanted: &StringMatch) -> Option<matcher::StringMatcher> {
    let pattern = match wanted {
        StringMatch::Exact(text) if !text.is_empty() => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) if !text.is_empty() => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(text) if text != "*" => MatchPattern::SafeRegex(regex_matcher(text)),
        _ => return None,
    };
    Some(matcher::StringMatcher { ignore_case: false, match_pattern: Some(pattern) })
}

fn header(name: &str, wanted: &StringMatch) -> route::HeaderMatcher {
    route::HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(match string_matcher(wanted) {
            Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
            None => HeaderMatchSpecifier::PresentMatch(true),
        }),
        ..Default::default()
    }
}

/// Header matchers ordered by name, and what asks for a claim of the request's token instead.
fn headers(request: &HttpMatchRequest) -> (Vec<route::HeaderMatcher>, Vec<matcher::MetadataMatcher>) {
    let (mut headers, mut claims) = (Vec::new(), Vec::new());
    for (name, wanted) in &request.headers {
        match claim(name) {
            Some(path) => claims.push(claim_matcher(path, wanted, false)),
            None => headers.push(header(name, wanted)),
        }
    }
    for (name, wanted) in &request.without_headers {
        match claim(name) {
            Some(path) => claims.push(claim_matcher(path, wanted, true)),
            None => headers.push(absent(name, wanted)),
        }
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    (headers, claims)
}

fn absent(name: &str, wanted: &StringMatch) -> route::HeaderMatcher {
    let mut unwanted = header(name, wanted);
    unwanted.invert_match = true;
    unwanted.treat_missing_header_as_empty =
        matches!(unwanted.header_match_specifier, Some(HeaderMatchSpecifier::StringMatch(_)));
    unwanted
}

fn query(name: &str, wanted: &StringMatch) -> route::QueryParameterMatcher {
    route::QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(match string_matcher(wanted) {
            Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
            None => QueryParameterMatchSpecifier::PresentMatch(true),
        }),
    }
}

/// The keys of a claim that a header name stands for: `@request.auth.claims.a.b`, or `[a][b]` after the word.
fn claim(header: &str) -> Option<Vec<&str>> {
    const WORD: &str = "@request.auth.claims";
    let head = header.get(..WORD.len())?;
    if !head.eq_ignore_ascii_case(WORD) {
        return None;
    }
    let rest = &header[WORD.len()..];
    let keys: Vec<&str> = match rest.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => rest.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    keys.iter().all(|key| !key.is_empty()).then_some(keys)
}

/// A claim is a text or a list of texts; either matches.
fn claim_matcher(keys: Vec<&str>, wanted: &StringMatch, invert: bool) -> matcher::MetadataMatcher {
    use matcher::metadata_matcher::{PathSegment, path_segment::Segment};
    let path = ["payload"].into_iter().chain(keys);
    let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    matcher::MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".into(),
        path: path.map(segment).collect(),
        value: Some(claim_value(wanted)),
        invert,
    }
}

fn claim_value(wanted: &StringMatch) -> matcher::ValueMatcher {
    use matcher::value_matcher::MatchPattern as Value;
    let value = |pattern| matcher::ValueMatcher { match_pattern: Some(pattern) };
    let Some(text) = string_matcher(wanted) else { return value(Value::PresentMatch(true)) };
    let one_of = matcher::ListMatcher {
        match_pattern: Some(matcher::list_matcher::MatchPattern::OneOf(Box::new(value(Value::StringMatch(
            text.clone(),
        ))))),
    };
    value(Value::OrMatch(matcher::OrMatcher {
        value_matchers: vec![value(Value::ListMatch(Box::new(one_of))), value(Value::StringMatch(text))],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_have_two_spellings() {
        assert_eq!(claim("@request.auth.claims.key1-key2"), Some(vec!["key1-key2"]));
        assert_eq!(claim("@request.auth.claims.a.b"), Some(vec!["a", "b"]));
        assert_eq!(claim("@request.auth.claims[a@b.io][c]"), Some(vec!["a@b.io", "c"]));
        for other in [
            "@request.auth.claims",
            "@request.auth.claims.",
            "@request.auth.claims-a",
            "request.auth.claims.a",
            "x-a",
        ] {
            assert_eq!(claim(other), None, "{other}");
        }
    }

    #[test]
    fn prefixes_by_text_and_by_segment() {
        let request = HttpMatchRequest { uri: Some(StringMatch::Prefix("/a/".into())), ..Default::default() };
        let path = |semantics| route_match(Some(&request), semantics).path_specifier;
        assert_eq!(path(Semantics::Istio), Some(PathSpecifier::Prefix("/a/".into())));
        assert_eq!(path(Semantics::Segments), Some(PathSpecifier::PathSeparatedPrefix("/a".into())));
    }

    #[test]
    fn only_an_unconditional_route_takes_all() {
        let of = |request: HttpMatchRequest| route::Route {
            r#match: Some(route_match(Some(&request), Semantics::Istio)),
            ..Default::default()
        };
        assert!(is_catch_all(&of(HttpMatchRequest::default())));
        let header = HttpMatchRequest {
            headers: [("a".to_owned(), StringMatch::Exact("b".into()))].into(),
            ..Default::default()
        };
        assert!(!is_catch_all(&of(header)));
    }
}
