//! Header edits of routes, applied.

use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue};
use lateen_route::format::Format;
use lateen_route::header_edits::{AppendAction, EditValue, HeaderEdit, HeaderEdits};
use lateen_route::request::HeaderRef;

use super::exchange::Exchange;

/// Edits the request's head.
pub(crate) fn request<'e>(exchange: &mut Exchange, levels: impl Iterator<Item = &'e HeaderEdits>) {
    for level in levels {
        for edit in &level.set {
            let Some(value) = value(exchange, edit) else { continue };
            match &edit.header {
                HeaderRef::Named(name) => apply(&mut exchange.head.headers, name, value, edit.action),
                HeaderRef::Authority => {
                    exchange.head.set_authority(std::str::from_utf8(value.as_bytes()).unwrap_or_default());
                }
                HeaderRef::Path => {
                    // What is no path leaves the old one.
                    let _ = exchange.head.set_path(std::str::from_utf8(value.as_bytes()).unwrap_or_default());
                }
                HeaderRef::Method | HeaderRef::Scheme => {}
            }
        }
        for name in level.remove.iter().filter(|name| **name != HOST) {
            exchange.head.headers.remove(name);
        }
    }
}

/// Edits a response's head.
pub(crate) fn response<'e>(
    exchange: &Exchange,
    headers: &mut HeaderMap,
    levels: impl Iterator<Item = &'e HeaderEdits>,
) {
    for level in levels {
        for edit in &level.set {
            if let (HeaderRef::Named(name), Some(value)) = (&edit.header, value(exchange, edit)) {
                apply(headers, name, value, edit.action);
            }
        }
        for name in &level.remove {
            headers.remove(name);
        }
    }
}

/// A format filled from an exchange.
pub(crate) fn render(exchange: &Exchange, format: &Format) -> Vec<u8> {
    let mut out = Vec::new();
    let record = exchange.record();
    format.write(&mut out, true, |variable, out| record.write(variable, out));
    out
}

fn value(exchange: &Exchange, edit: &HeaderEdit) -> Option<HeaderValue> {
    let value = match &edit.value {
        EditValue::Fixed(value) => value.clone(),
        EditValue::Format(format) => HeaderValue::from_bytes(&render(exchange, format)).ok()?,
    };
    (edit.keep_empty || !value.is_empty()).then_some(value)
}

/// Writes a header as an action says.
pub(crate) fn apply(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue, action: AppendAction) {
    match action {
        AppendAction::Append => {
            headers.append(name, value);
        }
        AppendAction::AddIfAbsent => {
            headers.entry(name).or_insert(value);
        }
        AppendAction::Overwrite => {
            headers.insert(name, value);
        }
        AppendAction::OverwriteIfPresent => {
            if headers.contains_key(name) {
                headers.insert(name, value);
            }
        }
    }
}
