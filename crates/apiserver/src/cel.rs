//! The Common Expression Language as Kubernetes uses it: rules of custom resources, match conditions of webhooks
//! (<https://kubernetes.io/docs/reference/using-api/cel/>).
//!
//! The parser is the crate `cel`'s. The evaluation is our own, because it has to be bounded: everything it does is paid for
//! from a [`Budget`], so that no expression can hold the server up, whatever it is given.

mod check;
mod eval;
mod formats;
mod functions;
mod lists;
mod network;
mod operators;
mod quantity;
mod strings;
mod times;
mod value;

use std::cell::Cell;
use std::collections::HashMap;

use cel::IdedExpr;
use cel::parser::PrattParser;
use regex::{Regex, RegexBuilder};

pub(crate) use self::check::{Kind, Tag};
pub(crate) use self::value::Val;

/// Characters of an expression at most.
const LONGEST: usize = 16 << 10;
/// Parts of an expression at most.
const NODES: usize = 8 << 10;
/// Levels of an expression at most: it is walked by recursion.
const DEEPEST: usize = 160;
/// Bytes of a compiled pattern.
const PATTERN_BYTES: usize = 1 << 20;
/// What one evaluation may cost, about 50 ns each in a release build.
pub(crate) const PER_CALL: u64 = 1_000_000;

/// A compiled expression.
#[derive(Debug)]
pub(crate) struct Program {
    source: String,
    expression: IdedExpr,
    /// Of the patterns that are written in it.
    patterns: HashMap<String, Regex>,
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The budget is used up.
    Cost,
    /// What it says cannot be done with these values.
    Error(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cost => f.write_str("actual cost limit exceeded"),
            Self::Error(why) => f.write_str(why),
        }
    }
}

fn error<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Error(why.into()))
}

/// What evaluations may still cost.
#[derive(Debug)]
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    pub(crate) fn new(cost: u64) -> Self {
        Self(Cell::new(cost))
    }

    pub(crate) fn left(&self) -> u64 {
        self.0.get()
    }

    /// Takes what was used of a part of it.
    pub(crate) fn take(&self, cost: u64) {
        self.0.set(self.0.get().saturating_sub(cost));
    }

    fn pay(&self, cost: u64) -> Result<(), Fault> {
        let left = self.0.get().checked_sub(cost);
        self.0.set(left.unwrap_or(0));
        left.map(drop).ok_or(Fault::Cost)
    }

    /// Pays for work on so many bytes or items.
    fn pay_for(&self, size: usize) -> Result<(), Fault> {
        self.pay(1 + size as u64 / 16)
    }
}

impl Program {
    /// Compiles and checks: the names and functions have to exist, the fields have to be in the schemas, and the value has to
    /// be of the kind `wanted`. The error says what is wrong, in words for the author.
    pub(crate) fn compile(
        source: &str,
        variables: &[(&'static str, Kind<'_>)],
        wanted: &Kind<'_>,
    ) -> Result<Self, String> {
        if source.trim().is_empty() {
            return Err("it is empty".into());
        }
        if source.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let parser = PrattParser::new().max_expression_node_count(NODES);
        let parser = parser.enable_optional_syntax(true).enable_ident_escape_syntax(true);
        let expression = parser.parse(source).map_err(|errors| {
            let first = errors.errors.first();
            first.map_or_else(String::new, |one| {
                format!("ERROR: <input>:{}:{}: {}", one.pos.0, one.pos.1, one.msg)
            })
        })?;
        if check::depth(&expression) > DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} levels deep"));
        }
        let mut patterns = HashMap::new();
        let kind = check::kind(&expression, variables, &mut patterns)?;
        if !kind.may_be(wanted) {
            return Err(format!("its value is of type {kind}, want {wanted}"));
        }
        Ok(Self { source: source.to_owned(), expression, patterns })
    }

    /// What it was compiled from.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the expression speaks of this variable.
    pub(crate) fn uses(&self, variable: &str) -> bool {
        check::uses(&self.expression, variable)
    }

    /// The value.
    pub(crate) fn run<'a>(
        &'a self,
        variables: &[(&'a str, Val<'a>)],
        budget: &Budget,
    ) -> Result<Val<'a>, Fault> {
        let part = Budget::new(PER_CALL.min(budget.left()));
        let start = part.left();
        let value = eval::Env::new(self, variables, &part).value(&self.expression);
        budget.take(start - part.left());
        value
    }
}

/// A pattern, unless it is too large.
fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build();
    built.map_err(|error| format!("the pattern {text:?} cannot be used: {error}"))
}

#[cfg(test)]
mod tests;
