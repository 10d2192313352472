//! Regular expressions as Istio and Envoy have them: RE2's syntax and meaning.
//!
//! A mesh may bring ten thousand of them, of which a proxy tries few: so an expression is only checked when it comes, and built
//! when a text gets as far as its literal beginning. Equal expressions are built once per process, over all versions of a
//! configuration.

mod syntax;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use regex::bytes::{Regex as Built, RegexBuilder};

use syntax::Syntax;

/// The largest expression when built, in bytes. Envoy's limit under Istio is 32,768 instructions of RE2, which is as much.
const SIZE_LIMIT: usize = 1 << 20;

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

/// What an expression is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scope {
    /// The whole text.
    Whole,
    /// Any part of it.
    Part,
}

/// A regular expression. A clone is the same one.
#[derive(Clone)]
pub struct Regex(Arc<Expression>);

struct Expression {
    scope: Scope,
    source: Box<str>,
    syntax: Syntax,
    built: OnceLock<Result<Built, Invalid>>,
}

impl Regex {
    /// An expression that takes whole texts, as all matchers of Istio and Envoy do.
    ///
    /// # Errors
    /// Where RE2 has no such syntax or meaning, or the expression is too large when built.
    pub fn whole(source: &str) -> Result<Self, Invalid> {
        known(Scope::Whole, source)
    }

    /// An expression that is searched for, as in substitutions.
    ///
    /// # Errors
    /// As of [`Self::whole`].
    pub fn part(source: &str) -> Result<Self, Invalid> {
        known(Scope::Part, source)
    }

    /// Whether it takes a text.
    pub fn matches(&self, text: &[u8]) -> bool {
        let syntax = &self.0.syntax;
        if self.0.scope == Scope::Whole {
            if !text.starts_with(&syntax.prefix) {
                return false;
            }
            if syntax.literal {
                return text.len() == syntax.prefix.len();
            }
        }
        self.built().is_some_and(|built| built.is_match(text))
    }

    /// Every part of a text that it takes, replaced; `${1}` is its first group.
    pub fn replace_all(&self, text: &[u8], with: &[u8]) -> Vec<u8> {
        match self.built() {
            Some(built) => built.replace_all(text, with).into_owned(),
            None => text.to_vec(),
        }
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// What every text that it takes begins with; of no meaning for one that is searched for.
    pub fn prefix(&self) -> &[u8] {
        &self.0.syntax.prefix
    }

    /// How many groups it has.
    pub fn groups(&self) -> usize {
        self.0.syntax.groups
    }

    /// Builds it now, rather than when a text needs it.
    pub fn build(&self) {
        let _ = self.built();
    }

    /// Whether it is built.
    pub fn is_built(&self) -> bool {
        self.0.built.get().is_some()
    }

    fn built(&self) -> Option<&Built> {
        // What is not built when it is made has a size that is certain to be within the limit.
        self.0.built.get_or_init(|| self.0.build()).as_ref().ok()
    }
}

impl Expression {
    fn build(&self) -> Result<Built, Invalid> {
        let pattern = match self.scope {
            Scope::Whole => format!("^(?:{})$", self.syntax.pattern),
            Scope::Part => self.syntax.pattern.to_string(),
        };
        let built = RegexBuilder::new(&pattern).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build();
        built.map_err(|error| Invalid(error.to_string()))
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Regex").field(&self.0.source).finish()
    }
}

/// The expressions that are in use.
#[derive(Default)]
struct Known {
    expressions: HashMap<(Scope, Box<str>), Weak<Expression>>,
    /// How many there may be until those of no use any more are forgotten.
    room: usize,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);

/// The expression, which is made if nobody has it.
fn known(scope: Scope, source: &str) -> Result<Regex, Invalid> {
    let key = (scope, Box::from(source));
    let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = lock().expressions.get(&key).and_then(Weak::upgrade) {
        return Ok(Regex(found));
    }
    let syntax = Syntax::of(source).map_err(Invalid)?;
    let certain = syntax.size <= SIZE_LIMIT;
    let expression = Expression { scope, source: source.into(), syntax, built: OnceLock::new() };
    if !certain {
        let built = expression.build()?;
        let _ = expression.built.set(Ok(built));
    }
    let expression = Arc::new(expression);
    let mut known = lock();
    if known.expressions.len() >= known.room {
        known.expressions.retain(|_, expression| expression.strong_count() > 0);
        known.room = (known.expressions.len() * 2).max(64);
    }
    known.expressions.insert(key, Arc::downgrade(&expression));
    Ok(Regex(expression))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_match() {
        for (pattern, yes, no) in [
            ("a|bc", "bc", "abc"),
            ("a.*", "a/b", "ba"),
            ("/api/v1", "/api/v1", "/api/v12"),
            ("^/a/b$", "/a/b", "/a/b/"),
            ("/(x)/y+", "/x/yy", "/x/"),
            ("(?i)/Ab", "/aB", "/b"),
            ("a^b", "", "ab"),
            (r"\w+", "a_9", "é"),
            (r"[\w-]+", "a-b", "é"),
            (r"[^\d]", "é", "5"),
            (r"\W", "é", "e"),
            (r"\s", "\t", "\u{a0}"),
            (r"\d{2}", "42", "٤٢"),
            ("(?s).", "\n", ""),
            ("(a+)+", "aaa", "aab"),
        ] {
            let regex = Regex::whole(pattern).unwrap();
            if !yes.is_empty() {
                assert!(regex.matches(yes.as_bytes()), "{pattern} {yes}");
            }
            assert!(!regex.matches(no.as_bytes()), "{pattern} {no}");
        }
    }

    #[test]
    fn what_is_not_re2s_is_refused() {
        for (pattern, reason) in [
            ("(", "unclosed group"),
            ("a)(b", "unopened group"),
            ("(?x)a #", "flag x"),
            ("a{1001}", "1000"),
            ("(x{500}){3}", "1000"),
            ("[a&&b]", "&&"),
            ("[a[b]]", r"\["),
            ("(?:[^/]{100}[^?]{100}){10}", "size limit"),
            (r"(a)\1", "backreferences"),
        ] {
            let error = Regex::whole(pattern).unwrap_err().to_string();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }

    #[test]
    fn an_expression_is_built_for_texts_that_begin_like_it() {
        let regex = Regex::whole("/only/here/[a-z]+").unwrap();
        assert!(!regex.matches(b"/other") && !regex.is_built());
        assert!(regex.matches(b"/only/here/x") && regex.is_built());
        let literal = Regex::whole("/only/(this)").unwrap();
        assert!(literal.matches(b"/only/this") && !literal.matches(b"/only/thiss") && !literal.is_built());
    }

    #[test]
    fn equal_expressions_are_one() {
        let first = Regex::whole("/shared/.*").unwrap();
        let second = Regex::whole("/shared/.*").unwrap();
        assert!(first.matches(b"/shared/1") && second.is_built());
        let searched = Regex::part("/shared/.*").unwrap();
        assert!(!searched.is_built() && searched.matches(b"a/shared/1"));
    }
}
