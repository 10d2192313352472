//! Messages as proto3 JSON, by reflection over the whole descriptor set.
//!
//! The pool costs some megabytes, so it is loaded on first use, and a proxy that nobody asks for JSON never pays.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};

use crate::Any;

pub(crate) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    const SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    // The set was decoded and written by this package's build script, whole.
    DescriptorPool::decode(SET).expect("the built-in descriptor set is complete")
});

/// Why a message could not be turned to or from JSON.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// No type of that name is known.
    #[error("unknown message type {0}")]
    UnknownType(String),
    /// The bytes are not of the type.
    #[error("{0}: {1}")]
    Decode(String, prost::DecodeError),
    /// The JSON does not fit the type; the text names the field.
    #[error("{0}: {1}")]
    Json(String, serde_json::Error),
}

/// Whether JSON of this message type can be read and written.
pub fn knows(full_name: &str) -> bool {
    POOL.get_message_by_name(full_name).is_some()
}

/// A message as JSON, with field names as `style` says.
///
/// # Errors
/// When a nested `Any` is of an unknown type or malformed.
pub fn to_value<M: Message + Name>(message: &M, style: Names) -> Result<serde_json::Value, JsonError> {
    encode(&M::full_name(), &message.encode_to_vec(), style)
}

/// The message inside an [`Any`] as JSON, with its `@type`.
///
/// # Errors
/// As [`to_value`].
pub fn any_to_value(any: &Any, style: Names) -> Result<serde_json::Value, JsonError> {
    to_value(any, style)
}

/// Reads a message from proto3 JSON: camelCase or the proto's own names; unknown fields are errors.
///
/// # Errors
/// When the JSON does not fit; the text names the field.
pub fn from_value<M: Message + Name + Default>(json: &serde_json::Value) -> Result<M, JsonError> {
    read(json, Unknown::Refused)
}

/// The same with what becomes of fields that the type does not have.
///
/// # Errors
/// As [`from_value`].
pub fn read<M: Message + Name + Default>(json: &serde_json::Value, unknown: Unknown) -> Result<M, JsonError> {
    let name = M::full_name();
    let bytes = decode(&name, json, unknown)?.encode_to_vec();
    M::decode(bytes.as_slice()).map_err(|error| JsonError::Decode(name, error))
}

/// Reads an [`Any`] from JSON with an `@type` member.
///
/// # Errors
/// As [`from_value`].
pub fn any_from_value(json: &serde_json::Value) -> Result<Any, JsonError> {
    from_value(json)
}

/// What becomes of fields that a type does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are an error.
    Refused,
    /// They are left out.
    LeftOut,
}

/// How field names are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// `camelCase`, as Go's protojson prints for istioctl.
    Camel,
    /// The proto's own `snake_case`, as Envoy's admin prints.
    Proto,
}

fn encode(name: &str, bytes: &[u8], style: Names) -> Result<serde_json::Value, JsonError> {
    let kind = POOL.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
    let message = DynamicMessage::decode(kind, bytes).map_err(|e| JsonError::Decode(name.to_owned(), e))?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(true)
        .use_proto_field_name(style == Names::Proto)
        .skip_default_fields(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|e| JsonError::Json(name.to_owned(), e))
}

pub(crate) fn decode(
    name: &str,
    json: &serde_json::Value,
    unknown: Unknown,
) -> Result<DynamicMessage, JsonError> {
    let kind = POOL.get_message_by_name(name).ok_or_else(|| JsonError::UnknownType(name.to_owned()))?;
    let options = DeserializeOptions::new().deny_unknown_fields(unknown == Unknown::Refused);
    DynamicMessage::deserialize_with_options(kind, json, &options)
        .map_err(|e| JsonError::Json(name.to_owned(), e))
}
