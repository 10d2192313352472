//! Strings, booleans, numbers, durations, bytes, and JSON as it is.

use std::time::Duration;

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use lateen_base::{format_duration, parse_duration};
use serde_json::{Map, Value, json};

use super::{Field, Reader, Schema};

impl Field for String {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        match value {
            Value::String(text) => Some(text.clone()),
            other => {
                reader.wrong_type("a string", other);
                None
            }
        }
    }

    fn write(&self) -> Value {
        Value::String(self.clone())
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }

    fn schema() -> Schema {
        Schema::of("string")
    }
}

impl Field for bool {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        match value {
            Value::Bool(b) => Some(*b),
            other => {
                reader.wrong_type("true or false", other);
                None
            }
        }
    }

    fn write(&self) -> Value {
        Value::Bool(*self)
    }

    fn is_unset(&self) -> bool {
        !self
    }

    fn schema() -> Schema {
        Schema::of("boolean")
    }
}

macro_rules! integer {
    ($type:ty, $schema:expr) => {
        impl Field for $type {
            fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
                match whole(value).map(<$type>::try_from) {
                    Some(Ok(number)) => Some(number),
                    Some(Err(_)) => {
                        let (min, max) = (<$type>::MIN, <$type>::MAX);
                        reader.error(format!("{value} is out of range: {min} to {max}"));
                        None
                    }
                    None => {
                        reader.wrong_type("a whole number", value);
                        None
                    }
                }
            }

            fn write(&self) -> Value {
                json!(self)
            }

            fn is_unset(&self) -> bool {
                *self == 0
            }

            fn schema() -> Schema {
                $schema
            }
        }
    };
}

integer!(i32, Schema::of("integer").with("format", "int32"));
integer!(i64, Schema::of("integer").with("format", "int64"));
integer!(u32, Schema::of("integer").with("minimum", 0).with("maximum", u32::MAX));
integer!(u64, Schema::of("integer").with("minimum", 0));

/// The whole number that protobuf's JSON means: a number without fraction, or the text of one.
fn whole(value: &Value) -> Option<i128> {
    let from_float = |f: f64| (f.fract() == 0.0 && f.abs() < 1e20).then_some(f as i128);
    match value {
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Some(n.into()),
            (_, Some(n)) => Some(n.into()),
            _ => n.as_f64().and_then(from_float),
        },
        Value::String(text) => text.parse().ok().or_else(|| text.parse().ok().and_then(from_float)),
        _ => None,
    }
}

impl Field for f64 {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let number = match value {
            Value::Number(n) => n.as_f64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            reader.wrong_type("a number", value);
        }
        number
    }

    fn write(&self) -> Value {
        if self.fract() == 0.0 && self.abs() < 1e15 { json!(*self as i64) } else { json!(self) }
    }

    fn is_unset(&self) -> bool {
        *self == 0.0
    }

    fn schema() -> Schema {
        Schema::of("number").with("format", "double")
    }
}

impl Field for Duration {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let Value::String(text) = value else {
            reader.wrong_type("a duration, such as \"5s\"", value);
            return None;
        };
        parse_duration(text).map_err(|error| reader.error(error.to_string())).ok()
    }

    fn write(&self) -> Value {
        Value::String(format_duration(*self))
    }

    fn is_unset(&self) -> bool {
        false
    }

    fn schema() -> Schema {
        Schema::of("string")
    }
}

/// Bytes, written in base64; the URL-safe alphabet and missing padding are read, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Field for Base64 {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        let Value::String(text) = value else {
            reader.wrong_type("base64 text", value);
            return None;
        };
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
        match engine.decode(text.replace('-', "+").replace('_', "/")) {
            Ok(bytes) => Some(Self(bytes)),
            Err(error) => {
                reader.error(format!("invalid base64: {error}"));
                None
            }
        }
    }

    fn write(&self) -> Value {
        Value::String(base64::engine::general_purpose::STANDARD.encode(&self.0))
    }

    fn is_unset(&self) -> bool {
        self.0.is_empty()
    }

    fn schema() -> Schema {
        Schema::of("string").with("format", "byte")
    }
}

/// A `google.protobuf.Struct`.
impl Field for Map<String, Value> {
    fn read(value: &Value, reader: &mut Reader) -> Option<Self> {
        reader.object(value).cloned()
    }

    fn write(&self) -> Value {
        Value::Object(self.clone())
    }

    fn is_unset(&self) -> bool {
        self.is_empty()
    }

    fn schema() -> Schema {
        Schema::of("object").with("x-kubernetes-preserve-unknown-fields", true)
    }
}

/// Any JSON.
impl Field for Value {
    fn read(value: &Value, _: &mut Reader) -> Option<Self> {
        Some(value.clone())
    }

    fn write(&self) -> Value {
        self.clone()
    }

    fn is_unset(&self) -> bool {
        self.is_null()
    }

    fn schema() -> Schema {
        Schema::default().with("x-kubernetes-preserve-unknown-fields", true)
    }
}
