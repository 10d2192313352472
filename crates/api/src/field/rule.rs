//! Rules of a schema beyond types: written into the CRDs for the API server, and checked here by the same declaration.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use super::{Reader, json_name};

/// A rule for a field, or for a message as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// The field has to be there.
    Required,
    /// The least number.
    Min(i64),
    /// The greatest number.
    Max(i64),
    /// The least number of characters.
    MinLength(usize),
    /// The greatest number of characters.
    MaxLength(usize),
    /// The least number of items.
    MinItems(usize),
    /// The greatest number of items.
    MaxItems(usize),
    /// The least number of entries.
    MinEntries(usize),
    /// The greatest number of entries.
    MaxEntries(usize),
    /// A regular expression that the text has to contain.
    Pattern(&'static str),
    /// `null` is accepted by the API server.
    Nullable,
    /// The list is a map by this field of its items.
    ListKey(&'static str),
    /// Rules for every item of a list or value of a map.
    Each(&'static [Rule]),
    /// For a message: at most one of these fields, by their JSON names.
    OneOf(&'static [&'static str]),
    /// The API server knows the field's snake_case name as well.
    SnakeCaseToo,
    /// A rule in the Common Expression Language, and the same in Rust.
    Cel {
        /// The expression.
        rule: &'static str,
        /// What the user reads when it does not hold.
        message: &'static str,
        /// Whether it holds.
        holds: fn(&Value) -> bool,
    },
}

impl Rule {
    /// Checks `value`, which the reader stands at.
    pub fn check(&self, value: &Value, reader: &mut Reader) {
        let failure = match (self, value) {
            (Rule::Min(min), v) if number(v).is_some_and(|n| n < *min as f64) => {
                format!("must be at least {min}, got {v}")
            }
            (Rule::Max(max), v) if number(v).is_some_and(|n| n > *max as f64) => {
                format!("must be at most {max}, got {v}")
            }
            (Rule::MinLength(min), Value::String(s)) if s.chars().count() < *min => match min {
                1 => "must not be empty".to_owned(),
                min => format!("must have at least {min} characters"),
            },
            (Rule::MaxLength(max), Value::String(s)) if s.chars().count() > *max => {
                format!("must have at most {max} characters")
            }
            (Rule::MinItems(min), Value::Array(a)) if a.len() < *min => {
                format!("must have at least {min} items")
            }
            (Rule::MaxItems(max), Value::Array(a)) if a.len() > *max => {
                format!("must have at most {max} items, got {}", a.len())
            }
            (Rule::MinEntries(min), Value::Object(o)) if o.len() < *min => {
                format!("must have at least {min} entries")
            }
            (Rule::MaxEntries(max), Value::Object(o)) if o.len() > *max => {
                format!("must have at most {max} entries, got {}", o.len())
            }
            (Rule::Pattern(pattern), Value::String(s)) if !contains(pattern, s) => {
                format!("{s:?} does not match {pattern}")
            }
            (Rule::Cel { message, holds, .. }, v) if !holds(v) => (*message).to_owned(),
            (Rule::ListKey(key), Value::Array(items)) => return unique(key, items, reader),
            (Rule::Each(rules), value) => return each(rules, value, reader),
            (Rule::OneOf(fields), Value::Object(object)) => return one_of(fields, object, reader),
            _ => return,
        };
        reader.violation(failure);
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    }
}

fn contains(pattern: &'static str, text: &str) -> bool {
    static BUILT: LazyLock<Mutex<HashMap<&'static str, Option<Regex>>>> = LazyLock::new(Mutex::default);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let regex = built.entry(pattern).or_insert_with(|| Regex::new(pattern).ok());
    regex.as_ref().is_some_and(|regex| regex.is_match(text))
}

fn each(rules: &[Rule], value: &Value, reader: &mut Reader) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                reader.item(index, |reader| rules.iter().for_each(|rule| rule.check(item, reader)));
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                reader.entry(key, |reader| rules.iter().for_each(|rule| rule.check(item, reader)));
            }
        }
        _ => {}
    }
}

fn unique(key: &str, items: &[Value], reader: &mut Reader) {
    let keys: Vec<Option<&Value>> = items.iter().map(|item| item.get(key)).collect();
    for (index, value) in keys.iter().enumerate() {
        if let Some(value) = value
            && keys[..index].contains(&Some(value))
        {
            reader.item(index, |r| r.violation(format!("duplicate {key} {value}")));
        }
    }
}

fn one_of(fields: &[&str], object: &Map<String, Value>, reader: &mut Reader) {
    let set: Vec<String> =
        fields.iter().filter(|name| Reader::has(object, name)).map(|name| json_name(name)).collect();
    if set.len() > 1 {
        reader.error(format!("only one of {} can be set", set.join(", ")));
    }
}
