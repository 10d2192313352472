//! Istio's patterns (`*`, `prefix*`, `*suffix`, exact) as Envoy's matchers.

use lateen_proto::envoy::config::core::v3::CidrRange;
use lateen_proto::envoy::config::route::v3::HeaderMatcher;
use lateen_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use lateen_proto::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment::Segment};
use lateen_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use lateen_proto::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher,
    value_matcher,
};

/// A text by pattern.
pub(crate) fn string(pattern: &str) -> StringMatcher {
    with_prefix("", pattern)
}

/// A text that begins with `prefix`, the rest by pattern.
pub(crate) fn with_prefix(prefix: &str, pattern: &str) -> StringMatcher {
    let matched = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => return regex(".+"),
        (Some(suffix), _) if prefix.is_empty() => MatchPattern::Suffix(suffix.to_owned()),
        (Some(suffix), _) => return regex(&format!("{prefix}.*{}", escaped(suffix))),
        (None, Some(head)) => MatchPattern::Prefix(format!("{prefix}{head}")),
        (None, None) => MatchPattern::Exact(format!("{prefix}{pattern}")),
    };
    StringMatcher { ignore_case: false, match_pattern: Some(matched) }
}

/// A text by regular expression.
pub(crate) fn regex(expression: &str) -> StringMatcher {
    let regex = RegexMatcher { regex: expression.to_owned(), ..Default::default() };
    StringMatcher { ignore_case: false, match_pattern: Some(MatchPattern::SafeRegex(regex)) }
}

/// A pattern as part of a regular expression: stars stand for `star`, all else for itself.
pub(crate) fn expression(pattern: &str, star: &str) -> String {
    pattern.split('*').map(escaped).collect::<Vec<_>>().join(star)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A header by pattern.
pub(crate) fn header(name: &str, pattern: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = match pattern {
        "*" => HeaderMatchSpecifier::PresentMatch(true),
        pattern => HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..string(pattern) }),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// A block of addresses; a single address is a block of one.
pub(crate) fn block(text: &str) -> Option<CidrRange> {
    let (address_prefix, length) = crate::listeners::chain::block(text)?;
    Some(CidrRange { address_prefix, prefix_len: Some(length.into()) })
}

/// Metadata of a filter, by path.
pub(crate) fn metadata(filter: &str, path: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &&str| PathSegment { segment: Some(Segment::Key((*key).to_owned())) };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        invert: false,
    }
}

/// A claim of the request's token.
pub(crate) fn claim(keys: &[&str], value: ValueMatcher) -> MetadataMatcher {
    let path: Vec<&str> = ["payload"].into_iter().chain(keys.iter().copied()).collect();
    metadata("envoy.filters.http.jwt_authn", &path, value)
}

/// A value that is this text.
pub(crate) fn text_value(text: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(text)) }
}

/// A value that is a list with this text in it.
pub(crate) fn list_value(text: StringMatcher) -> ValueMatcher {
    let one = list_matcher::MatchPattern::OneOf(Box::new(text_value(text)));
    let list = ListMatcher { match_pattern: Some(one) };
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) }
}

/// A value that is this text, or a list with it.
pub(crate) fn text_or_list(text: StringMatcher) -> ValueMatcher {
    let either = OrMatcher { value_matchers: vec![list_value(text.clone()), text_value(text)] };
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(either)) }
}
