//! Matchers of dynamic metadata: what filters learned about a request.

use lateen_proto::envoy::config::core::v3::Metadata;
use lateen_proto::envoy::r#type::matcher::v3 as matcher;
use lateen_proto::value::Kind;
use lateen_proto::{Struct, Value};

use crate::error::{Cx, Result};
use crate::string_match::StringMatcher;

/// A compiled `MetadataMatcher`.
#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    filter: Box<str>,
    path: Box<[Box<str>]>,
    value: ValueMatcher,
    invert: bool,
}

impl MetadataMatcher {
    /// Whether the value at the path matches; nothing there is `null`.
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let root = metadata.and_then(|metadata| metadata.filter_metadata.get(&*self.filter));
        self.value.matches(root.and_then(|root| at(root, &self.path))) != self.invert
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &matcher::MetadataMatcher) -> Result<Self> {
        cx.check(message)?;
        let path = cx.each("path", &message.path, |cx, segment| match &segment.segment {
            Some(matcher::metadata_matcher::path_segment::Segment::Key(key)) => Ok(key.as_str().into()),
            None => Err(cx.refuse("needs a key")),
        })?;
        let value = cx.required("value", &message.value)?;
        Ok(Self {
            filter: message.filter.as_str().into(),
            path: path.into(),
            value: cx.field("value", |cx| ValueMatcher::compile(cx, value, 0))?,
            invert: message.invert,
        })
    }
}

impl std::fmt::Display for MetadataMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let not = if self.invert { "not " } else { "" };
        write!(f, "{not}{}", self.filter)?;
        self.path.iter().try_for_each(|key| write!(f, "[{key}]"))?;
        write!(f, " {}", self.value)
    }
}

fn at<'a>(root: &'a Struct, path: &[Box<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let mut value = root.fields.get(&**first)?;
    for key in rest {
        let Some(Kind::StructValue(inner)) = &value.kind else { return None };
        value = inner.fields.get(&**key)?;
    }
    Some(value)
}

/// A compiled `ValueMatcher`.
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// A null, or nothing.
    Null,
    /// A number in `[start, end)`.
    Range {
        /// The first that matches.
        start: f64,
        /// The first that no longer does.
        end: f64,
    },
    /// That number.
    Number(f64),
    /// A string.
    Text(StringMatcher),
    /// That truth.
    Bool(bool),
    /// Anything (or, if false, nothing).
    Present(bool),
    /// A list with such an element.
    AnyOf(Box<ValueMatcher>),
    /// One of these.
    Or(Box<[ValueMatcher]>),
}

impl ValueMatcher {
    /// Whether a value, or its absence, matches.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        let kind = value.and_then(|value| value.kind.as_ref());
        match (self, kind) {
            (Self::Null, kind) => matches!(kind, None | Some(Kind::NullValue(_))),
            (Self::Present(wanted), kind) => kind.is_some() == *wanted,
            (Self::Or(any), _) => any.iter().any(|one| one.matches(value)),
            (Self::Range { start, end }, Some(Kind::NumberValue(n))) => (*start..*end).contains(n),
            (Self::Number(wanted), Some(Kind::NumberValue(n))) => n == wanted,
            (Self::Text(matcher), Some(Kind::StringValue(text))) => matcher.matches(text.as_bytes()),
            (Self::Bool(wanted), Some(Kind::BoolValue(truth))) => truth == wanted,
            (Self::AnyOf(one), Some(Kind::ListValue(list))) => {
                list.values.iter().any(|v| one.matches(Some(v)))
            }
            _ => false,
        }
    }

    pub(crate) fn compile(cx: &mut Cx<'_>, message: &matcher::ValueMatcher, depth: u8) -> Result<Self> {
        use matcher::value_matcher::MatchPattern as P;
        if depth > 16 {
            return Err(cx.refuse("is nested more than 16 levels deep"));
        }
        Ok(match cx.required("match_pattern", &message.match_pattern)? {
            P::NullMatch(_) => Self::Null,
            P::BoolMatch(truth) => Self::Bool(*truth),
            P::PresentMatch(wanted) => Self::Present(*wanted),
            P::DoubleMatch(double) => match &double.match_pattern {
                Some(matcher::double_matcher::MatchPattern::Exact(number)) => Self::Number(*number),
                Some(matcher::double_matcher::MatchPattern::Range(range)) => {
                    Self::Range { start: range.start, end: range.end }
                }
                None => return Err(cx.refuse_at("double_match", "needs range or exact")),
            },
            P::StringMatch(text) => {
                Self::Text(cx.field("string_match", |cx| StringMatcher::compile(cx, text))?)
            }
            P::ListMatch(list) => match &list.match_pattern {
                Some(matcher::list_matcher::MatchPattern::OneOf(one)) => Self::AnyOf(Box::new(
                    cx.field("list_match.one_of", |cx| Self::compile(cx, one, depth + 1))?,
                )),
                None => return Err(cx.refuse_at("list_match", "needs one_of")),
            },
            P::OrMatch(or) => Self::Or(
                cx.each("or_match.value_matchers", &or.value_matchers, |cx, one| {
                    Self::compile(cx, one, depth + 1)
                })?
                .into(),
            ),
        })
    }
}

impl std::fmt::Display for ValueMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("is null"),
            Self::Range { start, end } => write!(f, "in [{start}, {end})"),
            Self::Number(number) => write!(f, "= {number}"),
            Self::Text(matcher) => write!(f, "{matcher}"),
            Self::Bool(truth) => write!(f, "= {truth}"),
            Self::Present(true) => f.write_str("present"),
            Self::Present(false) => f.write_str("absent"),
            Self::AnyOf(one) => write!(f, "has one that {one}"),
            Self::Or(any) => {
                for (at, one) in any.iter().enumerate() {
                    let or = if at == 0 { "" } else { " or " };
                    write!(f, "{or}{one}")?;
                }
                Ok(())
            }
        }
    }
}
