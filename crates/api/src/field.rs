//! How the kinds are declared, read, written and described: one declaration per message.
//!
//! A type of the API is declared once, by [`message!`], [`oneof!`] or [`enumeration!`]. From the declaration come the
//! plain struct, its reading from JSON with protobuf's leniency (camelCase and snake_case, enums by name or number,
//! numbers as strings, `null` as absence), its writing, and its OpenAPI schema. Errors carry the path of the field.

mod containers;
pub(crate) mod macros;
mod reader;
mod rule;
mod scalars;
mod schema;

use serde_json::Value;

pub use reader::{FieldError, FieldErrors, Reader, nearest};
pub use rule::Rule;
pub use scalars::Base64;
pub use schema::{Declared, Schema, Variants, message_schema, oneof_schema, string_enum};

pub(crate) use macros::{enumeration, message, oneof};

/// A value that a field can have.
pub trait Field: Sized {
    /// Reads the value; what is wrong goes to `reader`, and nothing comes back.
    fn read(value: &Value, reader: &mut Reader) -> Option<Self>;

    /// Reads the value over this one: a message keeps the fields that `value` does not have.
    fn overlay(&mut self, value: &Value, reader: &mut Reader) {
        if let Some(read) = Self::read(value, reader) {
            *self = read;
        }
    }

    /// Writes the value.
    fn write(&self) -> Value;

    /// Whether the value is the one an absent field has, so that writing leaves the field out.
    fn is_unset(&self) -> bool;

    /// Its OpenAPI v3 schema.
    fn schema() -> Schema;
}

/// Reads a whole value.
///
/// # Errors
/// What does not fit the type, each with its path; rules (see [`Rule`]) that do not hold are errors here, too.
pub fn read<T: Field>(value: &Value) -> Result<T, FieldErrors> {
    let mut reader = Reader::default();
    let read = T::read(value, &mut reader);
    let (mut errors, violations) = reader.finish();
    errors.extend(violations);
    match read {
        Some(read) if errors.is_empty() => Ok(read),
        _ => Err(FieldErrors(errors)),
    }
}

/// Reads a value over another one, see [`Field::overlay`].
///
/// # Errors
/// As [`read`]; `base` is then half overlaid.
pub fn overlay<T: Field>(base: &mut T, value: &Value) -> Result<(), FieldErrors> {
    let mut reader = Reader::default();
    base.overlay(value, &mut reader);
    let (mut errors, violations) = reader.finish();
    errors.extend(violations);
    if errors.is_empty() { Ok(()) } else { Err(FieldErrors(errors)) }
}

/// The name that JSON has for a field of the protobuf name `snake`.
pub fn json_name(snake: &str) -> String {
    let mut name = String::with_capacity(snake.len());
    let mut upper = false;
    for c in snake.trim_start_matches("r#").chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                name.push(c.to_ascii_uppercase());
                upper = false;
            }
            c => name.push(c),
        }
    }
    name
}

/// Whether `key` names the field `snake`, in either spelling.
pub fn names(snake: &str, key: &str) -> bool {
    let snake = snake.trim_start_matches("r#");
    if key == snake {
        return true;
    }
    let mut key = key.bytes();
    let mut upper = false;
    for byte in snake.bytes() {
        if byte == b'_' {
            upper = true;
            continue;
        }
        let wanted = if upper { byte.to_ascii_uppercase() } else { byte };
        upper = false;
        if key.next() != Some(wanted) {
            return false;
        }
    }
    key.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_spelling_names_a_field() {
        for (snake, camel) in [
            ("connect_timeout", "connectTimeout"),
            ("r#match", "match"),
            ("consecutive_5xx_errors", "consecutive5xxErrors"),
        ] {
            assert_eq!(json_name(snake), camel);
            assert!(names(snake, camel));
            assert!(names(snake, snake.trim_start_matches("r#")));
        }
        assert!(!names("connect_timeout", "connecttimeout"));
        assert!(!names("connect_timeout", "connectTimeoutS"));
    }
}
