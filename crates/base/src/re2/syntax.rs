//! What an expression says, without building it.

use regex_syntax::ast::{self, Ast, Span, Visitor};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// The most that repetitions of repetitions may come to, in RE2 and in Go.
const MOST_REPEATS: u32 = 1000;

/// An expression, read.
pub(super) struct Syntax {
    /// The same in the syntax of the `regex` crate.
    pub pattern: Box<str>,
    /// What every whole text that it takes begins with.
    pub prefix: Box<[u8]>,
    /// Whether that is all of it.
    pub literal: bool,
    /// How many groups it has.
    pub groups: usize,
    /// More bytes than it can take when built.
    pub size: usize,
}

impl Syntax {
    pub(super) fn of(source: &str) -> Result<Self, String> {
        let tree = ast::parse::Parser::new().parse(source).map_err(|error| error.to_string())?;
        let words = ast::visit(&tree, Words::default())?;
        let pattern = words.applied(source);
        let mut parser = regex_syntax::ParserBuilder::new().utf8(false).build();
        let hir = parser.parse(&pattern).map_err(|error| error.to_string())?;
        if repeats(&hir) > MOST_REPEATS {
            return Err(format!("repeats more than {MOST_REPEATS} times in all, which RE2 does not"));
        }
        let mut prefix = Vec::new();
        let literal = extend(without_end(&hir), &mut prefix);
        Ok(Self {
            pattern: pattern.into(),
            prefix: prefix.into(),
            literal,
            groups: hir.properties().explicit_captures_len(),
            size: size(&hir).saturating_add(WHOLE),
        })
    }
}

/// The words that mean another thing in RE2: its classes and word boundaries know ASCII alone.
#[derive(Default)]
struct Words(Vec<(Span, &'static str)>);

impl Words {
    fn applied(&self, source: &str) -> String {
        let mut out = String::with_capacity(source.len());
        let mut done = 0;
        for (span, with) in &self.0 {
            out.push_str(&source[done..span.start.offset]);
            out.push_str(with);
            done = span.end.offset;
        }
        out.push_str(&source[done..]);
        out
    }

    fn class(&mut self, class: &ast::ClassPerl) {
        use ast::ClassPerlKind::{Digit, Space, Word};
        let with = match (&class.kind, class.negated) {
            (Digit, false) => "[0-9]",
            (Digit, true) => "[^0-9]",
            (Space, false) => r"[\t\n\f\r ]",
            (Space, true) => r"[^\t\n\f\r ]",
            (Word, false) => "[0-9A-Za-z_]",
            (Word, true) => "[^0-9A-Za-z_]",
        };
        self.0.push((class.span, with));
    }
}

impl Visitor for Words {
    type Output = Self;
    type Err = String;

    fn finish(self) -> Result<Self, String> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        match ast {
            Ast::ClassPerl(class) => self.class(class),
            Ast::Assertion(assertion) => match assertion.kind {
                ast::AssertionKind::WordBoundary => self.0.push((assertion.span, r"(?-u:\b)")),
                ast::AssertionKind::NotWordBoundary => self.0.push((assertion.span, r"(?-u:\B)")),
                _ => {}
            },
            Ast::Flags(set) => flags(&set.flags)?,
            Ast::Group(group) => {
                if let ast::GroupKind::NonCapturing(set) = &group.kind {
                    flags(set)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), String> {
        match item {
            ast::ClassSetItem::Perl(class) => self.class(class),
            ast::ClassSetItem::Bracketed(_) => {
                return Err(r"RE2 has no brackets in brackets: write \[ for the character".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ast::ClassSetBinaryOp) -> Result<(), String> {
        Err("RE2 has no && or -- or ~~ between sets: put a backslash before the characters".to_owned())
    }
}

fn flags(set: &ast::Flags) -> Result<(), String> {
    use ast::{Flag, FlagsItemKind};
    let other = set.items.iter().find_map(|item| match item.kind {
        FlagsItemKind::Flag(Flag::IgnoreWhitespace) => Some('x'),
        FlagsItemKind::Flag(Flag::Unicode) => Some('u'),
        FlagsItemKind::Flag(Flag::CRLF) => Some('R'),
        _ => None,
    });
    match other {
        Some(flag) => Err(format!("RE2 has no flag {flag}: it has i, m, s and U")),
        None => Ok(()),
    }
}

/// How often the most repeated part is repeated.
fn repeats(hir: &Hir) -> u32 {
    match hir.kind() {
        HirKind::Repetition(repetition) => {
            let own = repetition.max.unwrap_or(repetition.min).max(1);
            own.saturating_mul(repeats(&repetition.sub))
        }
        HirKind::Capture(capture) => repeats(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(repeats).max().unwrap_or(1),
        _ => 1,
    }
}

/// The parts of an expression, but for a `$` at its end, where it always holds.
fn without_end(hir: &Hir) -> &[Hir] {
    match hir.kind() {
        HirKind::Concat(parts) => match parts.split_last() {
            Some((last, others)) if matches!(last.kind(), HirKind::Look(Look::End)) => others,
            _ => parts,
        },
        _ => std::slice::from_ref(hir),
    }
}

/// Adds what texts go on with; false where more than that decides.
fn extend(parts: &[Hir], prefix: &mut Vec<u8>) -> bool {
    parts.iter().all(|part| match part.kind() {
        HirKind::Empty => true,
        HirKind::Literal(literal) => {
            prefix.extend_from_slice(&literal.0);
            true
        }
        // At the beginning it holds; elsewhere it decides.
        HirKind::Look(Look::Start) => prefix.is_empty(),
        HirKind::Capture(capture) => extend(std::slice::from_ref(&capture.sub), prefix),
        HirKind::Concat(inner) => extend(inner, prefix),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            extend(std::slice::from_ref(&repetition.sub), prefix);
            false
        }
        _ => false,
    })
}

/// The most of a state, and of what hangs on it.
const STATE: usize = 128;
/// The most of what every expression has.
const WHOLE: usize = 32 * STATE;
/// The most of a range of characters beyond ASCII: it falls into sequences of up to four bytes each.
const WIDE_RANGE: usize = 32 * 4 * STATE;

/// More bytes than an expression takes when built.
fn size(hir: &Hir) -> usize {
    let sum = |parts: &[Hir]| parts.iter().map(size).fold(STATE, usize::saturating_add);
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => STATE,
        HirKind::Literal(literal) => STATE * literal.0.len().saturating_add(1),
        HirKind::Class(Class::Bytes(class)) => STATE * (class.ranges().len() + 1),
        HirKind::Class(Class::Unicode(class)) => {
            let range = |range: &regex_syntax::hir::ClassUnicodeRange| {
                if range.end().is_ascii() { STATE } else { WIDE_RANGE }
            };
            class.ranges().iter().map(range).fold(STATE, usize::saturating_add)
        }
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(0).max(repetition.min).saturating_add(1);
            size(&repetition.sub).saturating_add(STATE).saturating_mul(copies as usize)
        }
        HirKind::Capture(capture) => size(&capture.sub).saturating_add(2 * STATE),
        HirKind::Concat(parts) => sum(parts),
        HirKind::Alternation(parts) => sum(parts).saturating_add(STATE * parts.len()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_literal_beginning_is_found() {
        for (pattern, prefix, literal) in [
            ("/a/b", "/a/b", true),
            ("^/a(/b)$", "/a/b", true),
            ("/a/[0-9]+/b", "/a/", false),
            ("/a+b", "/a", false),
            ("/a?b", "/", false),
            ("/a|/b", "", false),
            ("(?i)/a", "/", false),
            ("a$b", "a", false),
            ("(a$)b", "a", false),
            (".*", "", false),
        ] {
            let syntax = Syntax::of(pattern).unwrap();
            assert_eq!((&*syntax.prefix, syntax.literal), (prefix.as_bytes(), literal), "{pattern}");
        }
    }

    fn patterns() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            "[a-z/]{1,8}",
            Just(".".to_owned()),
            Just("[^/]".to_owned()),
            Just(r"\w".to_owned()),
            Just("[à-ÿ一-龥]".to_owned()),
            Just(r"\pL".to_owned()),
            Just("(?i)k".to_owned()),
            Just(r"\b".to_owned()),
            Just("$".to_owned()),
        ];
        leaf.prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(?:{a}){b}")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}|{b})")),
                inner.clone().prop_map(|a| format!("(?:{a})*")),
                (inner, 0u32..4, 0u32..4)
                    .prop_map(|(a, min, more)| format!("(?:{a}){{{min},{}}}", min + more)),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_expression_is_no_larger_than_was_said(pattern in patterns()) {
            let syntax = Syntax::of(&pattern).unwrap();
            let whole = format!("^(?:{})$", syntax.pattern);
            let built = regex::bytes::RegexBuilder::new(&whole).size_limit(syntax.size).build();
            prop_assert!(built.is_ok(), "{pattern} is larger than {}", syntax.size);
        }

        #[test]
        fn the_beginning_decides_nothing_else(pattern in patterns(), text in "[a-z/]{0,6}") {
            let regex = crate::re2::Regex::whole(&pattern).unwrap();
            let syntax = Syntax::of(&pattern).unwrap();
            let built = regex::bytes::Regex::new(&format!("^(?:{})$", syntax.pattern)).unwrap();
            prop_assert_eq!(regex.matches(text.as_bytes()), built.is_match(text.as_bytes()));
        }
    }
}
