//! Why a policy does not match: the conditions that a request or connection does not meet, in words.

use std::fmt;
use std::sync::Arc;

use super::{Policy, Rule, Rules, Subject};

/// A policy that nearly matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss<'r> {
    /// The policy.
    pub policy: &'r Arc<str>,
    /// What it asks for and did not find.
    pub unmet: Vec<String>,
}

impl Rules {
    /// The policy that comes nearest to matching: the one with the fewest conditions that are not met. `None` when one
    /// matches, or there is none.
    pub fn nearest_miss(&self, subject: Subject<'_>) -> Option<Miss<'_>> {
        let misses = self.policies.iter().map(|policy| policy.miss(subject));
        misses.min_by_key(|miss| miss.unmet.len()).filter(|miss| !miss.unmet.is_empty())
    }
}

impl Policy {
    /// What does not match, by the alternatives that come nearest; empty when it matches.
    pub fn miss(&self, subject: Subject<'_>) -> Miss<'_> {
        let mut unmet = nearest(&self.permissions, subject);
        unmet.extend(nearest(&self.principals, subject));
        Miss { policy: &self.name, unmet }
    }
}

/// The unmet conditions of the alternative that has the fewest.
fn nearest(alternatives: &[Rule], subject: Subject<'_>) -> Vec<String> {
    let unmet = alternatives.iter().map(|rule| {
        let mut unmet = Vec::new();
        rule.collect_unmet(subject, &mut unmet);
        unmet
    });
    unmet.min_by_key(Vec::len).unwrap_or_else(|| vec!["it has no alternative that could match".to_owned()])
}

impl Rule {
    fn collect_unmet(&self, subject: Subject<'_>, out: &mut Vec<String>) {
        match self {
            Self::All(rules) => rules.iter().for_each(|rule| rule.collect_unmet(subject, out)),
            rule if rule.matches(subject) => {}
            Self::Some(rules) if rules.len() == 1 => rules[0].collect_unmet(subject, out),
            rule => out.push(rule.to_string()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(true) => f.write_str("anything"),
            Self::Any(false) => f.write_str("nothing"),
            Self::All(rules) => joined(f, rules, " and "),
            Self::Some(rules) => joined(f, rules, " or "),
            Self::Not(rule) => write!(f, "not ({rule})"),
            Self::Header(matcher) => write!(f, "{matcher}"),
            Self::Path(matcher) => write!(f, "path {matcher}"),
            Self::Template(template) => write!(f, "path matches {:?}", template.source()),
            Self::DestinationIp(range) => write!(f, "destination in {range}"),
            Self::DestinationPorts { start, end } if *end == start.saturating_add(1) => {
                write!(f, "destination port = {start}")
            }
            Self::DestinationPorts { start, end } => write!(f, "destination port in [{start}, {end})"),
            Self::DirectSourceIp(range) => write!(f, "peer address in {range}"),
            Self::SourceIp(range) => write!(f, "source address in {range}"),
            Self::RemoteIp(range) => write!(f, "client address in {range}"),
            Self::ServerName(matcher) => write!(f, "server name {matcher}"),
            Self::Metadata(matcher) => write!(f, "{matcher}"),
            Self::Authenticated(None) => f.write_str("an authenticated peer"),
            Self::Authenticated(Some(matcher)) => write!(f, "peer name {matcher}"),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, rules: &[Rule], word: &str) -> fmt::Result {
    for (at, rule) in rules.iter().enumerate() {
        if at > 0 {
            f.write_str(word)?;
        }
        match rule {
            Rule::All(inner) | Rule::Some(inner) if inner.len() > 1 => write!(f, "({rule})")?,
            rule => write!(f, "{rule}")?,
        }
    }
    Ok(())
}
