//! What can be wrong with a resource, and the walk that finds it.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::{Any, Message, Name};

use crate::fields::Fields;

/// Why a resource is refused. Its text is what a control plane reads in a NACK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {path}: {reason}")]
pub struct CompileError {
    /// The resource's name.
    pub resource: String,
    /// The field, as `filter_chains[2].filters[0].typed_config.route_config`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// A field that is accepted without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The field, as in [`CompileError::path`].
    pub path: String,
    /// What does not happen, and why that is no error.
    pub reason: String,
}

/// A compiled resource and what was accepted without effect on the way.
#[derive(Clone, Debug)]
pub struct Compiled<T> {
    /// The decision table.
    pub value: T,
    /// Fields without effect.
    pub notes: Vec<Note>,
}

pub(crate) type Result<T, E = CompileError> = std::result::Result<T, E>;

/// The walk over one resource: where it is, and what it noted.
pub(crate) struct Cx<'a> {
    resource: &'a str,
    path: String,
    notes: Vec<Note>,
}

impl<'a> Cx<'a> {
    /// Walks a resource with `compile`.
    pub(crate) fn run<T>(
        resource: &'a str,
        compile: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Compiled<T>> {
        let mut cx = Self { resource, path: String::new(), notes: Vec::new() };
        let value = compile(&mut cx)?;
        Ok(Compiled { value, notes: cx.notes })
    }

    /// Descends into a field.
    pub(crate) fn field<T>(
        &mut self,
        name: impl Display,
        walk: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        // Writing to a String cannot fail.
        let _ = write!(self.path, "{name}");
        let result = walk(self);
        self.path.truncate(len);
        result
    }

    /// Descends into every element of a repeated field.
    pub(crate) fn each<T, U>(
        &mut self,
        name: &str,
        items: &[T],
        mut walk: impl FnMut(&mut Self, &T) -> Result<U>,
    ) -> Result<Vec<U>> {
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            out.push(self.field(format_args!("{name}[{index}]"), |cx| walk(cx, item))?);
        }
        Ok(out)
    }

    /// Applies the table of fields to a message: refused fields are errors, ineffective ones are noted.
    pub(crate) fn check<M: Fields>(&mut self, message: &M) -> Result<()> {
        message.check(self)
    }

    /// An error at the current field.
    pub(crate) fn refuse(&self, reason: impl Into<String>) -> CompileError {
        let path = if self.path.is_empty() { "(resource)".to_owned() } else { self.path.clone() };
        CompileError { resource: self.resource.to_owned(), path, reason: reason.into() }
    }

    /// An error at a field of the current message.
    pub(crate) fn refuse_at(&self, field: &str, reason: impl Into<String>) -> CompileError {
        let path = if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) };
        CompileError { resource: self.resource.to_owned(), path, reason: reason.into() }
    }

    /// Notes that a field of the current message has no effect.
    pub(crate) fn note_at(&mut self, field: &str, reason: &str) {
        let path = if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) };
        self.notes.push(Note { path, reason: reason.to_owned() });
    }

    /// Notes that the current field has no effect.
    pub(crate) fn note(&mut self, reason: &str) {
        self.notes.push(Note { path: self.path.clone(), reason: reason.to_owned() });
    }

    /// A required message.
    pub(crate) fn required<'m, T>(&self, field: &str, value: &'m Option<T>) -> Result<&'m T> {
        value.as_ref().ok_or_else(|| self.refuse_at(field, "is required"))
    }

    /// Unpacks an extension's configuration.
    pub(crate) fn unpack<M: Message + Name + Default>(&self, any: &Any) -> Result<M> {
        any.unpack().map_err(|error| self.refuse(error.to_string()))
    }

    /// A duration; negative and unrepresentable ones are refused.
    pub(crate) fn duration(
        &self,
        field: &str,
        value: &Option<lateen_proto::Duration>,
    ) -> Result<Option<Duration>> {
        value
            .map(|d| {
                Duration::try_from(d).map_err(|_| self.refuse_at(field, "is not a duration of zero or more"))
            })
            .transpose()
    }

    /// An IP address in text.
    pub(crate) fn ip(&self, field: &str, text: &str) -> Result<IpAddr> {
        text.parse().map_err(|_| self.refuse_at(field, format!("{text:?} is no IP address")))
    }

    /// A range of addresses.
    pub(crate) fn cidr(&mut self, range: &core::CidrRange) -> Result<ipnet::IpNet> {
        let ip = self.ip("address_prefix", &range.address_prefix)?;
        let length = range.prefix_len.unwrap_or(0);
        u8::try_from(length)
            .ok()
            .and_then(|length| ipnet::IpNet::new(ip, length).ok())
            .map(|net| net.trunc())
            .ok_or_else(|| self.refuse_at("prefix_len", format!("{length} is too long for {ip}")))
    }

    /// A header's name.
    pub(crate) fn header_name(&self, field: &str, name: &str) -> Result<http::HeaderName> {
        http::HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| self.refuse_at(field, format!("{name:?} is no header name")))
    }

    /// Text that configuration carries inline; files and environment variables are no source of ours.
    pub(crate) fn inline(&self, field: &str, source: &core::DataSource) -> Result<bytes::Bytes> {
        use core::data_source::Specifier;
        match &source.specifier {
            Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
            Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes().into()),
            Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) => {
                Err(self.refuse_at(field, "only inline_string and inline_bytes are supported here"))
            }
            None => Err(self.refuse_at(field, "names no source")),
        }
    }
}
