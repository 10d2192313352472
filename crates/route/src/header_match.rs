//! Matchers of headers, cookies and query parameters.

use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use lateen_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;

use crate::error::{Cx, Result};
use crate::request::{HeaderFinding, HeaderRef, RequestView};
use crate::string_match::StringMatcher;

/// A compiled `HeaderMatcher`.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    header: HeaderRef,
    test: HeaderTest,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Clone, Debug)]
enum HeaderTest {
    Text(StringMatcher),
    Range { start: i64, end: i64 },
    Present(bool),
}

impl HeaderTest {
    fn passes(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(matcher) => matcher.matches(value),
            Self::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
            Self::Present(_) => true,
        }
    }
}

impl HeaderMatcher {
    /// Whether the request's header matches: one of its values passes (or, inverted, none does). A header that is not
    /// there matches nothing, inverted or not, unless the test is about presence or the matcher treats it as empty.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.decides(request.header(&self.header, |value| self.test.passes(value)))
    }

    /// As [`Self::matches`], on values of a header wherever they come from.
    pub(crate) fn matches_values<'v>(&self, values: impl Iterator<Item = &'v [u8]>) -> bool {
        let mut finding = HeaderFinding::Missing;
        for value in values {
            if self.test.passes(value) {
                finding = HeaderFinding::Passes;
                break;
            }
            finding = HeaderFinding::Fails;
        }
        self.decides(finding)
    }

    #[inline]
    fn decides(&self, finding: HeaderFinding) -> bool {
        let passes = match (&self.test, finding) {
            (HeaderTest::Present(wanted), finding) => (finding != HeaderFinding::Missing) == *wanted,
            (_, HeaderFinding::Passes) => true,
            (_, HeaderFinding::Fails) => false,
            (test, HeaderFinding::Missing) if self.missing_is_empty => test.passes(b""),
            (_, HeaderFinding::Missing) => return false,
        };
        passes != self.invert
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &route::HeaderMatcher) -> Result<Self> {
        cx.check(message)?;
        let header = HeaderRef::parse(&message.name)
            .ok_or_else(|| cx.refuse_at("name", format!("{:?} is no header name", message.name)))?;
        let test = match &message.header_match_specifier {
            None => HeaderTest::Present(true),
            Some(HeaderMatchSpecifier::PresentMatch(wanted)) => HeaderTest::Present(*wanted),
            Some(HeaderMatchSpecifier::RangeMatch(range)) => {
                HeaderTest::Range { start: range.start, end: range.end }
            }
            Some(HeaderMatchSpecifier::ExactMatch(text)) => {
                HeaderTest::Text(StringMatcher::exact(text.as_str()))
            }
            Some(HeaderMatchSpecifier::PrefixMatch(text)) => HeaderTest::Text(StringMatcher::prefix(text)),
            Some(HeaderMatchSpecifier::SuffixMatch(text)) => HeaderTest::Text(StringMatcher::suffix(text)),
            Some(HeaderMatchSpecifier::ContainsMatch(text)) => {
                HeaderTest::Text(StringMatcher::contains(text))
            }
            Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
                HeaderTest::Text(cx.field("safe_regex_match", |cx| StringMatcher::regex(cx, regex))?)
            }
            Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
                HeaderTest::Text(cx.field("string_match", |cx| StringMatcher::compile(cx, matcher))?)
            }
        };
        let missing_is_empty = message.treat_missing_header_as_empty;
        Ok(Self { header, test, invert: message.invert_match, missing_is_empty })
    }
}

impl std::fmt::Display for HeaderMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let not = if self.invert { "not " } else { "" };
        match &self.test {
            HeaderTest::Text(matcher) => write!(f, "{not}{} {matcher}", self.header),
            HeaderTest::Range { start, end } => write!(f, "{not}{} in [{start}, {end})", self.header),
            HeaderTest::Present(true) => write!(f, "{not}{} present", self.header),
            HeaderTest::Present(false) => write!(f, "{not}{} absent", self.header),
        }
    }
}

/// A compiled `QueryParameterMatcher`.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    name: Box<str>,
    test: Option<StringMatcher>,
    wanted: bool,
}

impl QueryMatcher {
    /// Whether the first parameter of that name matches, as it stands in the query.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        let value = request.query().split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == &*self.name).then_some(value)
        });
        match &self.test {
            None => value.is_some() == self.wanted,
            Some(test) => value.is_some_and(|value| test.matches(value.as_bytes())),
        }
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &route::QueryParameterMatcher) -> Result<Self> {
        cx.check(message)?;
        if message.name.is_empty() {
            return Err(cx.refuse_at("name", "must not be empty"));
        }
        let (test, wanted) = match &message.query_parameter_match_specifier {
            None => (None, true),
            Some(QueryParameterMatchSpecifier::PresentMatch(wanted)) => (None, *wanted),
            Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
                (Some(cx.field("string_match", |cx| StringMatcher::compile(cx, matcher))?), true)
            }
        };
        Ok(Self { name: message.name.as_str().into(), test, wanted })
    }
}

/// A compiled `CookieMatcher`.
#[derive(Clone, Debug)]
pub struct CookieMatcher {
    name: Box<str>,
    test: StringMatcher,
    invert: bool,
}

impl CookieMatcher {
    /// Whether the first cookie of that name matches.
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        cookie(request, &self.name).is_some_and(|value| self.test.matches(value.as_bytes())) != self.invert
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &route::CookieMatcher) -> Result<Self> {
        cx.check(message)?;
        let matcher = cx.required("string_match", &message.string_match)?;
        Ok(Self {
            name: message.name.as_str().into(),
            test: cx.field("string_match", |cx| StringMatcher::compile(cx, matcher))?,
            invert: message.invert_match,
        })
    }
}

/// The value of a request's cookie.
pub fn cookie<'a>(request: &RequestView<'a>, name: &str) -> Option<&'a str> {
    let headers = request.headers.get_all(http::header::COOKIE).iter();
    headers.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value.trim_matches('"'))
    })
}
