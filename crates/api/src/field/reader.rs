//! Where in a value the reading is, and what was wrong so far.

use std::fmt;

use serde_json::{Map, Value};

use super::{Declared, Field, Rule, Variants, json_name, names};

/// Something wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct FieldError {
    /// The field, such as `spec.http[0].route[1].weight`; empty for the whole.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Why a value is none of the type asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for FieldErrors {}

/// The state of one reading.
#[derive(Debug, Default)]
pub struct Reader {
    path: String,
    errors: Vec<FieldError>,
    violations: Vec<FieldError>,
}

impl Reader {
    /// A reading that begins at `path`.
    pub fn at(path: &str) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// The errors (no such type) and the violations (a rule of the schema that does not hold).
    pub fn finish(self) -> (Vec<FieldError>, Vec<FieldError>) {
        (self.errors, self.violations)
    }

    /// Records that the value here is none of its type.
    pub fn error(&mut self, message: impl Into<String>) {
        self.errors.push(FieldError { path: self.path.clone(), message: message.into() });
    }

    /// Records that the value here breaks a rule of its schema.
    pub fn violation(&mut self, message: impl Into<String>) {
        self.violations.push(FieldError { path: self.path.clone(), message: message.into() });
    }

    /// Goes into the field `name` for the time of `inside`.
    pub fn field<T>(&mut self, name: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = inside(self);
        self.path.truncate(len);
        result
    }

    /// Goes into the entry `key` of a map.
    pub fn entry<T>(&mut self, key: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.bracketed(&format!("{key:?}"), inside)
    }

    /// Goes into the item `index` of a list.
    pub fn item<T>(&mut self, index: usize, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.bracketed(&index.to_string(), inside)
    }

    fn bracketed<T>(&mut self, key: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.path.len();
        self.path.push('[');
        self.path.push_str(key);
        self.path.push(']');
        let result = inside(self);
        self.path.truncate(len);
        result
    }

    /// Records a value of the wrong JSON type.
    pub fn wrong_type(&mut self, wanted: &str, value: &Value) {
        self.error(format!("expected {wanted}, got {}", describe(value)));
    }

    /// The value as an object.
    pub fn object<'v>(&mut self, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let object = value.as_object();
        if object.is_none() {
            self.wrong_type("an object", value);
        }
        object
    }

    /// Records a field that the message does not have, with the likeliest meant one.
    pub fn unknown_field(&mut self, key: &str, known: &[&str]) {
        let names: Vec<String> = known.iter().map(|name| json_name(name)).collect();
        let hint = match nearest(key, &names) {
            Some(name) => format!("; did you mean \"{name}\"?"),
            None => String::new(),
        };
        self.field(key, |reader| reader.error(format!("unknown field \"{key}\"{hint}")));
    }

    /// Reads the value of the field `key`: `null` is absence, and rules are checked as well.
    pub fn value<T: Field>(&mut self, key: &str, value: &Value, rules: &[Rule]) -> Option<T> {
        if value.is_null() {
            return None;
        }
        self.field(key, |reader| {
            rules.iter().for_each(|rule| rule.check(value, reader));
            T::read(value, reader)
        })
    }

    /// Reads the value of the field `key` over `field`, as [`Reader::value`] does.
    pub fn overlay<T: Field>(&mut self, key: &str, value: &Value, rules: &[Rule], field: &mut T) {
        if value.is_null() {
            return;
        }
        self.field(key, |reader| {
            rules.iter().for_each(|rule| rule.check(value, reader));
            field.overlay(value, reader);
        });
    }

    /// Checks what concerns a message as a whole.
    pub fn whole(&mut self, value: &Value, object: &Map<String, Value>, fields: &[Declared], rules: &[Rule]) {
        for field in fields {
            let required = field.rules.iter().any(|rule| matches!(rule, Rule::Required));
            if required && !Self::has(object, field.name) {
                self.field(&json_name(field.name), |reader| reader.violation("is required"));
            }
        }
        rules.iter().for_each(|rule| rule.check(value, self));
    }

    /// The index of the variant that `value` names or numbers.
    pub fn variant(&mut self, value: &Value, variants: Variants) -> Option<usize> {
        let found = match value {
            Value::String(text) => variants.iter().position(|(name, _)| name == text),
            Value::Number(n) => variants.iter().position(|(_, number)| n.as_i64() == Some(*number)),
            _ => None,
        };
        if found.is_none() {
            let names: Vec<&str> = variants.iter().map(|(name, _)| *name).collect();
            self.wrong_type(&format!("one of {}", names.join(", ")), value);
        }
        found
    }

    /// Whether `object` has the field `name` in either spelling, and not as `null`.
    pub fn has(object: &Map<String, Value>, name: &str) -> bool {
        object.iter().any(|(key, value)| !value.is_null() && names(name, key))
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.chars().count() > 40 => {
            format!("the string \"{}...\"", s.chars().take(40).collect::<String>())
        }
        Value::String(s) => format!("the string {s:?}"),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The name that was probably meant by `key`: the one least unlike it, where one is not too unlike.
pub fn nearest<'a, S: AsRef<str>>(key: &str, known: &'a [S]) -> Option<&'a str> {
    known
        .iter()
        .map(|name| (distance(name.as_ref(), key), name.as_ref()))
        .filter(|(distance, _)| *distance <= 2.max(key.len() / 4))
        .min()
        .map(|(_, name)| name)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    if b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
