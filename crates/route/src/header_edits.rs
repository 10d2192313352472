//! Changes to headers, compiled once.

use http::header::HeaderValue;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;

use crate::error::{Cx, Result};
use crate::format::Format;
use crate::request::HeaderRef;

/// The changes of one level (weighted cluster, route, virtual host or route configuration) to one head.
#[derive(Clone, Debug, Default)]
pub struct HeaderEdits {
    /// Headers to set or add, after the removals.
    pub set: Box<[HeaderEdit]>,
    /// Headers to remove first.
    pub remove: Box<[http::HeaderName]>,
}

/// One header to set or add.
#[derive(Clone, Debug)]
pub struct HeaderEdit {
    /// The header; `:authority` (also `host`), `:path` and `:scheme` can only be overwritten.
    pub header: HeaderRef,
    /// Its value.
    pub value: EditValue,
    /// What to do when it is there already.
    pub action: AppendAction,
    /// Whether an empty value is added too, rather than skipped.
    pub keep_empty: bool,
}

/// The value of a [`HeaderEdit`].
#[derive(Clone, Debug)]
pub enum EditValue {
    /// Always the same.
    Fixed(HeaderValue),
    /// Made per request.
    Format(Format),
}

/// What an edit does about a header that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendAction {
    /// Adds another one.
    Append,
    /// Leaves it.
    AddIfAbsent,
    /// Replaces all of it.
    Overwrite,
    /// Replaces it, and does nothing when it is absent.
    OverwriteIfPresent,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// `add` and `remove` name the fields, for errors.
    pub(crate) fn compile(
        cx: &mut Cx<'_>,
        (add, options): (&str, &[core::HeaderValueOption]),
        (remove, names): (&str, &[String]),
    ) -> Result<Self> {
        let set = cx.each(add, options, HeaderEdit::compile)?;
        let remove = cx.each(remove, names, |cx, name| {
            if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                return Err(cx.refuse(format!("{name} cannot be removed")));
            }
            http::HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| cx.refuse(format!("{name:?} is no header name")))
        })?;
        Ok(Self { set: set.into(), remove: remove.into() })
    }
}

impl HeaderEdit {
    pub(crate) fn compile(cx: &mut Cx<'_>, option: &core::HeaderValueOption) -> Result<Self> {
        cx.check(option)?;
        let header = cx.required("header", &option.header)?;
        let name = HeaderRef::parse(&header.key)
            .ok_or_else(|| cx.refuse_at("header.key", format!("{:?} is no header name", header.key)))?;
        let text = if header.raw_value.is_empty() {
            header.value.as_str()
        } else {
            std::str::from_utf8(&header.raw_value)
                .map_err(|_| cx.refuse_at("header.raw_value", "is not UTF-8"))?
        };
        let format = Format::parse(text).map_err(|reason| cx.refuse_at("header.value", reason))?;
        let value =
            match format.as_text() {
                Some(text) => EditValue::Fixed(HeaderValue::from_str(text).map_err(|_| {
                    cx.refuse_at("header.value", format!("{text:?} cannot be sent in a header"))
                })?),
                None => EditValue::Format(format),
            };
        let action = match (option.append, option.append_action()) {
            (Some(true), _) => AppendAction::Append,
            (Some(false), _) => AppendAction::Overwrite,
            (None, HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Append,
            (None, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
            (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::Overwrite,
            (None, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfPresent,
        };
        Ok(Self { header: name, value, action, keep_empty: option.keep_empty_value })
    }
}
