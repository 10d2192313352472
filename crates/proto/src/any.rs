//! A message with its type: `google.protobuf.Any`, its value shared rather than copied.

use bytes::Bytes;
use prost::{Message, Name};

/// `google.protobuf.Any`. The value is reference counted, so a resource travels from translation to every
/// connection without a copy.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full name of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Why an [`Any`] could not be read as the type asked for.
#[derive(Debug, thiserror::Error)]
pub enum AnyError {
    /// It holds a message of another type.
    #[error("expected {expected}, found {found}")]
    Type {
        /// The type URL asked for.
        expected: String,
        /// The type URL found.
        found: String,
    },
    /// Its bytes are not of the type it names.
    #[error("{type_url}: {source}")]
    Decode {
        /// The type URL.
        type_url: String,
        /// What the decoder says.
        source: prost::DecodeError,
    },
}

impl Any {
    /// Packs a message.
    pub fn pack<M: Message + Name>(message: &M) -> Self {
        Self { type_url: M::type_url(), value: message.encode_to_vec().into() }
    }

    /// Whether it holds an `M`.
    pub fn is<M: Name>(&self) -> bool {
        let name = self.type_url.rsplit('/').next().unwrap_or_default();
        name == M::full_name()
    }

    /// Unpacks the message.
    ///
    /// # Errors
    /// When it holds another type, or its bytes do not decode.
    pub fn unpack<M: Message + Name + Default>(&self) -> Result<M, AnyError> {
        if !self.is::<M>() {
            return Err(AnyError::Type { expected: M::type_url(), found: self.type_url.clone() });
        }
        M::decode(self.value.clone())
            .map_err(|source| AnyError::Decode { type_url: self.type_url.clone(), source })
    }
}

impl Name for Any {
    const NAME: &'static str = "Any";
    const PACKAGE: &'static str = "google.protobuf";
}
