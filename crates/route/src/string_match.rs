//! String matchers.

use lateen_base::re2::Regex;
use lateen_proto::envoy::r#type::matcher::v3 as matcher;
use lateen_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use crate::error::{Cx, Result};

/// A compiled `StringMatcher`.
#[derive(Clone, Debug)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(FullRegex),
}

impl StringMatcher {
    /// Whether `text` matches. Bytes outside UTF-8 match only by what a pattern's bytes say.
    pub fn matches(&self, text: &[u8]) -> bool {
        match (&self.pattern, self.ignore_case) {
            (Pattern::Exact(p), false) => text == p.as_bytes(),
            (Pattern::Exact(p), true) => text.eq_ignore_ascii_case(p.as_bytes()),
            (Pattern::Prefix(p), false) => text.starts_with(p.as_bytes()),
            (Pattern::Prefix(p), true) => {
                text.get(..p.len()).is_some_and(|head| head.eq_ignore_ascii_case(p.as_bytes()))
            }
            (Pattern::Suffix(p), false) => text.ends_with(p.as_bytes()),
            (Pattern::Suffix(p), true) => text
                .len()
                .checked_sub(p.len())
                .is_some_and(|start| text[start..].eq_ignore_ascii_case(p.as_bytes())),
            (Pattern::Contains(p), false) => memchr::memmem::find(text, p.as_bytes()).is_some(),
            (Pattern::Contains(p), true) => {
                text.windows(p.len()).any(|window| window.eq_ignore_ascii_case(p.as_bytes()))
            }
            (Pattern::Regex(regex), _) => regex.matches(text),
        }
    }

    /// A matcher of one text, letter by letter.
    pub fn exact(text: impl Into<Box<str>>) -> Self {
        Self { pattern: Pattern::Exact(text.into()), ignore_case: false }
    }

    /// The text, when the matcher takes exactly one.
    pub fn as_exact(&self) -> Option<&str> {
        match &self.pattern {
            Pattern::Exact(text) if !self.ignore_case => Some(text),
            _ => None,
        }
    }

    pub(crate) fn prefix(text: &str) -> Self {
        Self { pattern: Pattern::Prefix(text.into()), ignore_case: false }
    }

    pub(crate) fn suffix(text: &str) -> Self {
        Self { pattern: Pattern::Suffix(text.into()), ignore_case: false }
    }

    pub(crate) fn contains(text: &str) -> Self {
        Self { pattern: Pattern::Contains(text.into()), ignore_case: false }
    }

    pub(crate) fn regex(cx: &mut Cx<'_>, message: &matcher::RegexMatcher) -> Result<Self> {
        Ok(Self { pattern: Pattern::Regex(built(cx, message)?), ignore_case: false })
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &matcher::StringMatcher) -> Result<Self> {
        cx.check(message)?;
        let pattern = match &message.match_pattern {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(text.as_str().into()),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(non_empty(cx, "prefix", text)?),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(non_empty(cx, "suffix", text)?),
            Some(MatchPattern::Contains(text)) => Pattern::Contains(non_empty(cx, "contains", text)?),
            Some(MatchPattern::SafeRegex(regex)) => {
                Pattern::Regex(cx.field("safe_regex", |cx| built(cx, regex))?)
            }
            Some(MatchPattern::Custom(_)) => return Err(cx.refuse_at("custom", "is not supported")),
            None => return Err(cx.refuse("needs a pattern: exact, prefix, suffix, contains or safe_regex")),
        };
        Ok(Self { pattern, ignore_case: message.ignore_case })
    }
}

impl std::fmt::Display for StringMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.pattern {
            Pattern::Exact(p) => write!(f, "= {p:?}"),
            Pattern::Prefix(p) => write!(f, "starts with {p:?}"),
            Pattern::Suffix(p) => write!(f, "ends with {p:?}"),
            Pattern::Contains(p) => write!(f, "contains {p:?}"),
            Pattern::Regex(r) => write!(f, "matches {:?}", r.source()),
        }
    }
}

/// An expression that is built at once: few are on no request's way.
fn built(cx: &mut Cx<'_>, message: &matcher::RegexMatcher) -> Result<FullRegex> {
    FullRegex::compile(cx, message).inspect(FullRegex::build)
}

fn non_empty(cx: &Cx<'_>, field: &str, text: &str) -> Result<Box<str>> {
    if text.is_empty() { Err(cx.refuse_at(field, "must not be empty")) } else { Ok(text.into()) }
}

/// A regular expression that has to match the whole text, as Envoy's `safe_regex` does.
#[derive(Clone, Debug)]
pub struct FullRegex(Regex);

impl FullRegex {
    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.0.matches(text)
    }

    /// The expression.
    pub(crate) fn source(&self) -> &str {
        self.0.source()
    }

    /// What every text that matches begins with.
    pub(crate) fn prefix(&self) -> &[u8] {
        self.0.prefix()
    }

    /// Builds it now, rather than when a text needs it.
    pub(crate) fn build(&self) {
        self.0.build();
    }

    /// Whether it is built.
    #[cfg(test)]
    pub(crate) fn is_built(&self) -> bool {
        self.0.is_built()
    }

    /// An expression of our own.
    pub(crate) fn of(source: &str) -> Result<Self, String> {
        Regex::whole(source).map(Self).map_err(|error| error.to_string())
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &matcher::RegexMatcher) -> Result<Self> {
        if message.regex.is_empty() {
            return Err(cx.refuse_at("regex", "must not be empty"));
        }
        Self::of(&message.regex).map_err(|error| cx.refuse_at("regex", error))
    }
}

/// Search and replace, as `RegexMatchAndSubstitute`.
#[derive(Clone, Debug)]
pub struct Substitution {
    pattern: Regex,
    replacement: Box<[u8]>,
}

impl Substitution {
    /// Every match in `text` replaced.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        self.pattern.replace_all(text, &self.replacement)
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &matcher::RegexMatchAndSubstitute) -> Result<Self> {
        let pattern = cx.required("pattern", &message.pattern)?;
        let pattern =
            Regex::part(&pattern.regex).map_err(|error| cx.refuse_at("pattern.regex", error.to_string()))?;
        let replacement = replacement(&message.substitution).map_err(|e| cx.refuse_at("substitution", e))?;
        if replacement.groups > pattern.groups() {
            let reason = format!("names group {}, which the pattern does not have", replacement.groups);
            return Err(cx.refuse_at("substitution", reason));
        }
        Ok(Self { pattern, replacement: replacement.text.into() })
    }
}

struct Replacement {
    text: Vec<u8>,
    groups: usize,
}

/// RE2's `\1` as the regex crate's `${1}`.
fn replacement(text: &str) -> Result<Replacement, &'static str> {
    let mut out = Replacement { text: Vec::with_capacity(text.len()), groups: 0 };
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => match bytes.next() {
                Some(b'\\') => out.text.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    out.groups = out.groups.max(usize::from(digit - b'0'));
                    out.text.extend_from_slice(&[b'$', b'{', digit, b'}']);
                }
                _ => return Err("a backslash must be followed by a digit or a backslash"),
            },
            b'$' => out.text.extend_from_slice(b"$$"),
            other => out.text.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(pattern: MatchPattern, ignore_case: bool) -> Result<StringMatcher> {
        let message = matcher::StringMatcher { ignore_case, match_pattern: Some(pattern) };
        Cx::run("test", |cx| StringMatcher::compile(cx, &message)).map(|c| c.value)
    }

    fn regex(text: &str) -> matcher::RegexMatcher {
        matcher::RegexMatcher { regex: text.into(), ..Default::default() }
    }

    #[test]
    fn patterns_match_as_named() {
        for (pattern, ignore_case, yes, no) in [
            (MatchPattern::Exact("ab".into()), false, "ab", "AB"),
            (MatchPattern::Exact("ab".into()), true, "AB", "abc"),
            (MatchPattern::Prefix("ab".into()), false, "abc", "cab"),
            (MatchPattern::Prefix("ab".into()), true, "ABc", "a"),
            (MatchPattern::Suffix("ab".into()), true, "cAB", "b"),
            (MatchPattern::Contains("b".into()), true, "aBc", "ac"),
            (MatchPattern::SafeRegex(regex("a|bc")), false, "bc", "abc"),
            (MatchPattern::SafeRegex(regex("a.*")), false, "a/b", "ba"),
        ] {
            let matcher = compile(pattern.clone(), ignore_case).unwrap();
            assert!(matcher.matches(yes.as_bytes()), "{pattern:?} {yes}");
            assert!(!matcher.matches(no.as_bytes()), "{pattern:?} {no}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_with_their_field() {
        for (pattern, path) in [
            (MatchPattern::SafeRegex(regex("a)(b")), "safe_regex.regex"),
            (MatchPattern::SafeRegex(regex("(")), "safe_regex.regex"),
            (MatchPattern::SafeRegex(regex("(x{1000}){1000}")), "safe_regex.regex"),
            (MatchPattern::Prefix(String::new()), "prefix"),
        ] {
            assert_eq!(compile(pattern, false).unwrap_err().path, path);
        }
    }

    #[test]
    fn substitutions_use_groups() {
        let compile = |pattern: &str, text: &str| {
            let message =
                matcher::RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: text.into() };
            Cx::run("test", |cx| Substitution::compile(cx, &message)).map(|c| c.value)
        };
        let swap = compile("^/service/([^/]+)(/.*)$", r"\2/instance/\1$").unwrap();
        assert_eq!(swap.apply(b"/service/foo/v1/api"), b"/v1/api/instance/foo$");
        assert!(compile("a", r"\1").is_err() && compile("a", r"\x").is_err());
    }
}
